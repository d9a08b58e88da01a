"""Memory of a device while it runs the units of a sweep, by compiling the programs for their shapes."""

import math
import os
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdyn.models import decoder, parameters
from jaxdyn.models.model import Model
from jaxdyn.pipeline import unit as stages
from jaxdyn.pipeline.estimate import PROCESS
from jaxdyn.pipeline.samples import make_samples
from jaxdyn.sharding import LAYOUTS, mesh_for, shardings

from .flops import count_flops
from .plan import TOGETHER, Plan
from .split_model import split_model
from .units import Work


def memory_limit(plan: Plan, processes: int) -> int:
    """Return the bytes of a device: the plan's, else what the device says, else a share of the host's memory."""
    if plan.memory is not None:
        return plan.memory
    device = jax.local_devices()[0]
    told = device.memory_stats() if device.platform != "cpu" else None
    if told and "bytes_limit" in told:
        return int(told["bytes_limit"])
    return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) // processes


def device_programs(work: Work) -> Callable[[int], dict[str, float]]:
    """Return the memory and operations of the device's programs as a function of the unit's samples."""

    @lru_cache
    def at(unit: int) -> dict[str, float]:
        return _compile(work, unit)

    return at


def _compile(work: Work, unit: int) -> dict[str, float]:
    """Compile a unit's programs for their shapes, and read memory and operations off them."""
    arch, params = work.model.architecture, work.model.params
    samples = make_samples(work.prompts, tokens=work.settings.tokens, unit=unit)
    rows, length, size = samples.prompts_per_unit, work.prompts.token_ids.shape[1], samples.unit
    ids, lengths, row = _integers(rows, length), _integers(rows), _integers(size)
    contexts = jax.eval_shape(partial(stages._embed, arch), params, ids)
    weights = jax.eval_shape(lambda given: decoder.layer_weights(given, 0), params)
    kinds, request = work.settings.matrices, work.settings.request
    matrices = jax.eval_shape(partial(stages._jacobians, arch, request, kinds), weights, contexts, row, row)[0]
    half = jax.ShapeDtypeStruct((2, size), jnp.bool)
    calls: dict[str, tuple[Any, tuple]] = {
        "forward": (partial(stages._advance, arch), (weights, contexts, lengths)),
        "jacobians": (partial(stages._jacobians, arch, request, kinds), (weights, contexts, row, row)),
        "sums": (stages._half_sums, (matrices, half)),
    }
    found: dict[str, float] = {"contexts": 2 * _bytes_of(contexts), "layer": 2 * _bytes_of(weights)}
    for name, (function, arguments) in calls.items():
        told: Any = jax.jit(function).lower(*arguments).compile().memory_analysis()
        found[name] = told.temp_size_in_bytes + told.output_size_in_bytes
        found[f"{name}_flops"] = count_flops(function, *arguments)
    return found


def device_memory(work: Work, costs: dict[str, float], measured: dict[str, float], threads: int) -> dict[str, float]:
    """Bytes of a device while it runs a unit; on a CPU the host's are the same memory, elsewhere beside it."""
    settings, unit = work.settings, work.samples.unit
    rounds = unit * (settings.draws + 1)
    host = measured["at_work"] * min(threads, rounds) + measured["kept"] * rounds
    group = measured.get("group", 1.0)
    device = {
        "weights": measured.get("weights", float(_bytes_of(work.model.params))) + costs["layer"] / group,
        "contexts": costs["contexts"] * group,
        "programs": max(costs["forward"] + costs["jacobians"] + costs["sums"], measured.get("gathered", 0.0)),
    }
    if jax.local_devices()[0].platform == "cpu":
        device |= {"measuring": host, "process": PROCESS}
    return {**device, "total": sum(device.values())}


def split_bytes(model: Model, plan: Plan, processes: int) -> dict[str, float]:
    """Bytes of weights on a device, and devices that share prompts, where a plan's preset splits a model.

    Every process is taken to have as many devices as this one. What programs take is that of a device alone: each
    makes whole matrices of one unit, and in "fsdp" has one whole layer at a time, and before the first the whole table
    of embeddings, "gathered"; in "tensor" its share of each.
    """
    if plan.mesh not in TOGETHER:
        return {}
    devices = jax.local_devices()[:1] * (processes * jax.local_device_count())  # only sizes are asked for
    group = (plan.model_devices or len(devices)) if plan.mesh == "tensor" else 1
    mesh = mesh_for(plan.mesh, devices, model=group)
    split_model(model.architecture, mesh, plan.mesh)  # refuses sizes that do not divide
    flat = parameters.flatten(model.params)
    placed = shardings(model.architecture, {path: leaf.shape for path, leaf in flat.items()}, mesh, LAYOUTS[plan.mesh])
    sizes = (math.prod(placed[path].shard_shape(leaf.shape)) * leaf.dtype.itemsize for path, leaf in flat.items())
    tables = sum(_bytes_of(leaf) for path, leaf in flat.items() if path.startswith("embed/"))
    return {
        "weights": float(sum(sizes)), "group": float(group), "gathered": float(tables if plan.mesh == "fsdp" else 0)
    }  # fmt: skip


def largest_unit(
    work: Work, programs: Callable[[int], dict[str, float]], measured: dict[str, float], threads: int, limit: int
) -> int:
    """Find the largest unit that fits, by bisection over the real programs; 0 where one sample does not fit."""

    def fits(unit: int) -> bool:
        smaller = work_in_units(work, unit)
        return device_memory(smaller, programs(unit), measured, threads)["total"] <= limit

    low, high = 0, work.samples.unit
    while high - low > 1:
        middle = (low + high) // 2 if low else 1
        low, high = (middle, high) if fits(middle) else (low, middle)
        if low == 0 and high == 1:
            return 0
    return low


def work_in_units(work: Work, unit: int) -> Work:
    """Return the same work in units of another size."""
    samples = make_samples(work.prompts, tokens=work.settings.tokens, unit=unit)
    return Work(work.model, work.settings, work.texts, work.prompts, samples, work.layers)


def _integers(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.int32)


def _bytes_of(tree: Any) -> int:
    return sum(int(np.prod(leaf.shape)) * jnp.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree))
