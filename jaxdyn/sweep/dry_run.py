"""What a plan will take, before any weights are read: units, operations, bytes, memory a device, time.

The programs of a run are compiled for its shapes, and the compiler says what memory they need (`device_memory.py`).
What they cannot say is stated: LAPACK's operations (`DECOMPOSITION` n^3 a matrix and draw), and time, which is a rate
measured now times work. `estimate_page.py` shows it and says why a plan does not fit.
"""

import shutil
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxdyn_kernels import cores, single_threaded_blas

from jaxdyn.activations import tokenise
from jaxdyn.models.model import Model
from jaxdyn.pipeline import products
from jaxdyn.pipeline.estimate import Rates, measure_rates, round_seconds
from jaxdyn.pipeline.host import compile_task
from jaxdyn.pipeline.layout import has_product
from jaxdyn.pipeline.spectral import Inputs, make_plan, measure_round

from .device_memory import device_memory, device_programs, largest_unit, memory_limit, split_bytes
from .footprint import footprint
from .models import outline, texts_of
from .plan import ModelEntry, Plan
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
                shared[key] = device_programs(work), _round(work, rates) | split_bytes(work.model, plan, processes)
            programs, measured = shared[key]
            runs.append(_one(work, entry, programs, measured, rates, threads, processes, limit))
    return _joined(plan, runs, processes, threads, limit, rates)


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
    memory = device_memory(work, costs, measured, threads)
    largest = None if memory["total"] <= limit else largest_unit(work, programs, measured, threads, limit)
    return {
        "model": entry.name, "operator": settings.operator, "samples": samples.count, "units": samples.units,
        "matrices": matrices, "flops": flops, "bytes": stored, "memory": memory, "largest_unit": largest,
        "seconds": seconds, "parameters": _count(work.model),
    }  # fmt: skip


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


def _sum(runs: list[dict[str, Any]], name: str) -> int:
    return sum(run[name] for run in runs)


def _timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def _count(model: Model) -> int:
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(model.params))
