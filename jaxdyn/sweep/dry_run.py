"""What a plan will take, before any weights are read: units, operations, bytes, memory a device, time.

The programs of a run are compiled for its shapes, and the compiler says what memory they need. What they cannot say is
stated: LAPACK's operations (`DECOMPOSITION` n^3 a matrix and draw), and time, which is a rate measured now times work.
"""

import math
import os
import shutil
import time
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxdyn_kernels import cores, single_threaded_blas
from rich.console import Console
from rich.table import Table

from jaxdyn.activations import tokenise
from jaxdyn.catalogue import duration as _time
from jaxdyn.catalogue import size as _size
from jaxdyn.models import decoder, parameters
from jaxdyn.models.model import Model
from jaxdyn.pipeline import products
from jaxdyn.pipeline import unit as stages
from jaxdyn.pipeline.estimate import PROCESS, Rates, measure_rates, round_seconds
from jaxdyn.pipeline.host import compile_task
from jaxdyn.pipeline.layout import has_product
from jaxdyn.pipeline.samples import make_samples
from jaxdyn.pipeline.spectral import Inputs, make_plan, measure_round
from jaxdyn.sharding import LAYOUTS, mesh_for, shardings

from .flops import count_flops
from .footprint import footprint
from .models import outline, texts_of
from .plan import TOGETHER, ModelEntry, Plan
from .split_model import split_model
from .units import Work, make_work
from .worker import schema_of

DECOMPOSITION = 60
"""Operations over n^3 of all that is taken of one matrix: Schur form, both sides' eigenvectors, singular values and
vectors, a step of the product."""

TIMED = 512
"""Widest matrix on which the measuring program is timed; wider ones take minutes, and the cost model serves."""


def dry_run(plan: Plan, *, processes: int = 1, threads: int | None = None) -> dict[str, Any]:
    """Estimate a sweep.

    Parameters
    ----------
    plan : from `load_plan`.
    processes, threads : how it will be run; threads by default the plan's, else this machine's shared out.

    Returns
    -------
    dict of plain values: "units", "samples", "matrices"; "flops" by stage; "bytes" stored, by output, with
    "on_disk" (whole blocks) and "files"; "memory" of the dearest run (bytes of weights, programs, states, host, total,
    limit, and "largest_unit" where it does not fit); "seconds" by stage; "runs", the same for each model and operator;
    "free", bytes of the disk. Nothing is refused here: see `refusal`.
    """
    threads = threads or plan.threads or max(1, cores() // processes)
    rates, texts = measure_rates(plan.dtype), texts_of(plan)
    limit = memory_limit(plan, processes)
    runs, shared = [], {}
    for entry in plan.models:
        model = outline(entry, plan)
        prompts = tokenise(model, texts, max_tokens=plan.texts.max_tokens)
        for operator in plan.operators:
            work = make_work(plan, operator, model, texts, prompts)
            key = (model.architecture, operator, prompts.token_ids.shape, work.samples.prompts_per_unit)
            if key not in shared:  # checkpoints of one training have the same programs
                shared[key] = _programs(work), _round(work, rates) | _split(work.model, plan, processes)
            programs, measured = shared[key]
            runs.append(_one(work, entry, programs, measured, rates, threads, processes, limit))
    return _joined(plan, runs, processes, threads, limit, rates)


def refusal(found: dict[str, Any]) -> str | None:
    """Say why a plan does not fit, with the number that does; None where it fits."""
    memory, size = found["memory"], found["bytes"]
    if memory["total"] > memory["limit"]:
        need, have = _size(memory["total"]), _size(memory["limit"])
        if memory["largest_unit"]:
            advice = f"the largest unit that fits is unit: {memory['largest_unit']}"
        else:
            advice = f"not even unit: 1 fits, since the weights alone take {_size(memory['weights'])}"
        return f"unit: got {found['unit']}, which takes {need} of a device's {have} ({memory['run']}); {advice}"
    if size["on_disk"] > found["free"]:
        fit = int(found["samples"] * found["free"] / size["on_disk"])
        largest, most = max(size["by_output"].items(), key=lambda item: item[1])
        return (
            f"out: the results take {_size(size['on_disk'])}, {found['out']} has {_size(found['free'])} free; about "
            f"{fit} of the {found['samples']} samples fit; the largest output is {largest}, {_size(most)}"
        )
    return None


def memory_limit(plan: Plan, processes: int) -> int:
    """Return the bytes of a device: the plan's, else what the device says, else a share of the host's memory."""
    if plan.memory is not None:
        return plan.memory
    device = jax.local_devices()[0]
    told = device.memory_stats() if device.platform != "cpu" else None
    if told and "bytes_limit" in told:
        return int(told["bytes_limit"])
    return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) // processes


def _programs(work: Work) -> Callable[[int], dict[str, float]]:
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


def _round(work: Work, rates: Rates) -> dict[str, float]:
    """Memory and seconds of measuring one sample, from the real program of the host."""
    arch, settings = work.model.architecture, work.settings
    n, kinds, dtype = arch.width, len(settings.matrices), np.dtype(work.model.dtype)
    product = has_product(settings, work.layers)
    plan = make_plan(settings, product=product)
    state: Any = products.begin(n, dtype, truncate=settings.truncate) if product else None
    random = np.random.default_rng(0).standard_normal((kinds, n, n)).astype(dtype) / np.sqrt(n).astype(dtype)
    given: Any = (
        random + np.eye(n, dtype=dtype), np.ones((kinds, 2), dtype), np.zeros(kinds, np.int32),
        np.asarray(0, np.uint32), np.int32(0), np.zeros((kinds, n), dtype),
    )  # fmt: skip
    task = Inputs(*given, product=state)
    program, _ = compile_task(measure_round, task, plan=plan)
    told = program.memory_analysis()
    seconds = kinds * round_seconds(rates, n, kreiss=settings.kreiss)
    if n <= TIMED:
        with single_threaded_blas():
            seconds = min(_timed(lambda: program(task)) for _ in range(4))
    return {
        "at_work": told.temp_size_in_bytes + told.output_size_in_bytes + told.argument_size_in_bytes,
        "kept": told.output_size_in_bytes,
        "seconds": seconds,
    }


def _one(
    work: Work,
    entry: ModelEntry,
    programs: Callable[[int], dict[str, float]],
    measured: dict[str, float],
    rates: Rates,
    threads: int,
    processes: int,
    limit: int,
) -> dict[str, Any]:
    """Put one run's numbers together."""
    settings, samples, layers = work.settings, work.samples, len(work.layers)
    arch, rounds = work.model.architecture, work.settings.draws + 1
    costs = programs(samples.unit)
    matrices = samples.count * layers * len(settings.matrices)
    flops = {
        "forward": samples.units * (work.layers[-1]) * costs["forward_flops"],
        "jacobians": samples.units * layers * (costs["jacobians_flops"] + costs["sums_flops"]),
        "decompositions": float(DECOMPOSITION) * arch.width**3 * matrices * rounds,
    }
    share = min(1.0, threads / rates.cores)
    workers = processes * threads
    seconds = {
        "forward": flops["forward"] / (rates.flops * share * processes),
        "jacobians": flops["jacobians"] / (rates.flops * share * processes),
        "decompositions": samples.count * layers * rounds * measured["seconds"] / workers,
        "averages": layers * rounds * measured["seconds"] if "averages" in settings.outputs else 0.0,
    }
    stored = footprint(schema_of(work, ["0" * 64] * samples.units), averages="averages" in settings.outputs)
    memory = _memory(work, costs, measured, threads)
    largest = None if memory["total"] <= limit else _largest(work, programs, measured, threads, limit)
    return {
        "model": entry.name, "operator": settings.operator, "samples": samples.count, "units": samples.units,
        "matrices": matrices, "flops": flops, "bytes": stored, "memory": memory, "largest_unit": largest,
        "seconds": seconds, "parameters": _count(work.model),
    }  # fmt: skip


def _memory(work: Work, costs: dict[str, float], measured: dict[str, float], threads: int) -> dict[str, float]:
    """Bytes of a device while it runs a unit; on a CPU the host's are the same memory, elsewhere beside it."""
    settings, unit = work.settings, work.samples.unit
    rounds = unit * (settings.draws + 1)
    host = measured["at_work"] * min(threads, rounds) + measured["kept"] * rounds
    device = {
        "weights": measured.get("weights", float(_bytes_of(work.model.params))) + costs["layer"],
        "contexts": costs["contexts"] * measured.get("group", 1),
        "programs": costs["forward"] + costs["jacobians"] + costs["sums"],
    }
    if jax.local_devices()[0].platform == "cpu":
        device |= {"measuring": host, "process": PROCESS}
    return {**device, "total": sum(device.values())}


def _split(model: Model, plan: Plan, processes: int) -> dict[str, float]:
    """Bytes of weights on a device, and devices that share prompts, where a plan's preset splits a model.

    Every process is taken to have as many devices as this one. What programs take is that of a device alone: each
    makes whole matrices of one unit, and in "fsdp" has one whole layer at a time.
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
    return {"weights": float(sum(sizes)), "group": float(group)}


def _largest(
    work: Work, programs: Callable[[int], dict[str, float]], measured: dict[str, float], threads: int, limit: int
) -> int:
    """Find the largest unit that fits, by bisection over the real programs; 0 where one sample does not fit."""

    def fits(unit: int) -> bool:
        smaller = work_in_units(work, unit)
        return _memory(smaller, programs(unit), measured, threads)["total"] <= limit

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


def _joined(
    plan: Plan, runs: list[dict[str, Any]], processes: int, threads: int, limit: int, rates: Rates
) -> dict[str, Any]:
    """Sum the runs."""
    dearest = max(runs, key=lambda run: run["memory"]["total"])
    outputs = sorted({name for run in runs for name in run["bytes"]["by_output"]})
    place = next(one for one in (plan.out.absolute(), *plan.out.absolute().parents) if one.exists())
    seconds = {name: sum(run["seconds"][name] for run in runs) for name in runs[0]["seconds"]}
    largest = [run["largest_unit"] for run in runs if run["largest_unit"] is not None]
    return {
        "runs": runs, "units": _sum(runs, "units"), "samples": _sum(runs, "samples"),
        "matrices": _sum(runs, "matrices"), "unit": plan.unit,
        "flops": {name: sum(run["flops"][name] for run in runs) for name in runs[0]["flops"]},
        "bytes": {
            "by_output": {name: sum(run["bytes"]["by_output"].get(name, 0) for run in runs) for name in outputs},
            **{name: sum(run["bytes"][name] for run in runs) for name in ("total", "on_disk", "files")},
        },
        "memory": {
            **dearest["memory"], "limit": limit, "largest_unit": min(largest) if largest else None,
            "run": f"{dearest['model']} {dearest['operator']}",
        },
        "seconds": {**seconds, "total": sum(seconds.values())},
        "processes": processes, "threads": threads, "device": rates.device, "out": str(plan.out),
        "free": shutil.disk_usage(place).free,
    }  # fmt: skip


def show(found: dict[str, Any], console: Console) -> None:
    """Print the estimate."""
    flops, memory, seconds, size = found["flops"], found["memory"], found["seconds"], found["bytes"]
    table = Table("model", "operator", "samples", "units", "matrices", "stored", title="runs", title_justify="left")
    for run in found["runs"]:
        numbers = (run["samples"], run["units"], run["matrices"], _size(run["bytes"]["total"]))
        table.add_row(run["model"], run["operator"], *map(str, numbers))
    console.print(table)
    parts = ", ".join(f"{name} {_size(value)}" for name, value in memory.items() if name in _PARTS)
    rows = {
        "work": f"{found['units']} units, {found['samples']} samples, {found['matrices']} matrices",
        "operations": f"{sum(flops.values()):.2e}: " + ", ".join(f"{name} {n:.2e}" for name, n in flops.items()),
        "stored": f"{_size(size['total'])} in {size['files']} files ({_size(size['on_disk'])} on the disk, "
        f"{_size(found['free'])} free): "
        + ", ".join(f"{name} {_size(value)}" for name, value in size["by_output"].items()),
        "memory a device": f"{_size(memory['total'])} of {_size(memory['limit'])} ({memory['run']}): {parts}",
        "time": f"{_time(seconds['total'])} on {found['processes']} x {found['threads']} threads and "
        f"{found['device']}, and about half a minute to start and compile the first time: "
        + ", ".join(f"{name} {_time(value)}" for name, value in seconds.items() if name != "total"),
    }
    table = Table(title="the sweep", title_justify="left", show_header=False)
    for name, text in rows.items():
        table.add_row(name, text)
    console.print(table)


_PARTS = ("weights", "contexts", "programs", "measuring", "process")


def _sum(runs: list[dict[str, Any]], name: str) -> int:
    return sum(run[name] for run in runs)


def _timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def _integers(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.int32)


def _bytes_of(tree: Any) -> int:
    return sum(int(np.prod(leaf.shape)) * jnp.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree))


def _count(model: Model) -> int:
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(model.params))
