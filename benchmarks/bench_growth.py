"""How time and memory grow: with the width for Jacobian and Schur form, with layers, samples and processes for a run.

Times are processor time of a fresh process on one core, in which other work of the machine has little part; where every
process of a run has a core of its own the notes have the clock's time too. Each fitted exponent is the slope of
log(time) on log(size) by least squares, beside the one that the count of operations says. Small widths spend their time
elsewhere (a call of LAPACK, rows too short for its blocks), so those fits begin where the table says; all points are in
the notes. Takes six minutes of one core.
"""

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.memory import STATUS, gigabytes

ROOT = Path(__file__).resolve().parents[1]
WIDTHS = (64, 128, 256, 512, 1024)
FF = 4
"""Hidden units over width, the same at every width, so that every term of the Jacobian's count grows as d^3."""
HEAD, SAMPLES = 64, 4
FROM = 256
"""The smallest width in a fit."""
LAYERS, MANY, PROCESSES = (2, 4, 8, 16), (16, 32, 64, 128), (1, 2, 4)
UNIT, TOKENS, PASSES = 8, 32, 3
"""Of a run: samples a unit, tokens a prompt, and how often it is timed; the shortest time counts."""

COUNTS = {
    "jacobian": (lambda d: 2 * d**2 * FF * d + 2 * d**3, f"2 d^2 d_ff + 2 d^3, d_ff = {FF} d"),
    "schur": (lambda d: 25 * d**3, "about 25 d^3"),
}
"""Operations of one matrix, as a function and in words."""


def run(options: Any) -> Iterator[Any]:
    """Yield times and sizes, each with the exponent beside the one expected."""
    if not STATUS.exists():
        print(f"growth: not measured: needs {STATUS} (Linux)", file=sys.stderr)
        return
    cores = sorted(os.sched_getaffinity(0))
    (told,) = _children([{"kind": "width", "repeats": options.repeats, "core": cores[0]}])
    yield from _width_rows(told)
    yield from _by_work(cores)


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Slope of log(value) on log(size) by least squares."""
    x, y = [math.log(one) for one in sizes], [math.log(one) for one in values]
    middle = sum(x) / len(x)
    return sum((a - middle) * b for a, b in zip(x, y, strict=True)) / sum((a - middle) ** 2 for a in x)


def _width_rows(told: dict[str, dict[str, list[float]]]) -> Iterator[Any]:
    """Slopes of what a child found at each width, from `FROM` on."""
    from benchmarks.harness import Row

    at = [number for number, width in enumerate(WIDTHS) if width >= FROM]

    def slope(values: Sequence[float]) -> float:
        return exponent([WIDTHS[k] for k in at], [values[k] for k in at])

    for name, (count, words) in COUNTS.items():
        found = told["seconds"][name]
        points = ", ".join(f"{d}: {1e3 * t:.3g} ms" for d, t in zip(WIDTHS, found, strict=True))
        rates = ", ".join(f"{count(d) / t / 1e9:.3g}" for d, t in zip(WIDTHS, found, strict=True))
        note = f"expected 3 ({words}), from {FROM}; {points}; {rates} G operations a second"
        yield Row("growth", f"{name}, time against d: exponent", slope(found), "", note=note)
        sizes = told["bytes"][name]
        points = ", ".join(f"{d}: {size / 1e6:.3g} MB" for d, size in zip(WIDTHS, sizes, strict=True))
        note = f"expected 2, from {FROM}; of {SAMPLES} matrices, by the compiler; {points}"
        yield Row("growth", f"{name}, memory against d: exponent", slope(sizes), "", note=note)


def _by_work(cores: Sequence[int]) -> Iterator[Any]:
    """Layers, samples and processes of a run."""
    by_layers = [_group(1, layers=layers, samples=16, cores=cores) for layers in LAYERS]
    yield from _rows("layers", LAYERS, by_layers, 1.0)
    by_samples = [_group(1, layers=4, samples=samples, cores=cores) for samples in MANY]
    yield from _rows("samples", MANY, by_samples, 1.0)
    several = [_group(count, layers=4, samples=MANY[-1], cores=cores) for count in PROCESSES]
    yield from _rows("processes", PROCESSES, several, -1.0)
    wall = {count: one["wall"] for count, one in zip(PROCESSES, several, strict=True) if count <= len(cores)}
    if len(wall) > 1:
        from benchmarks.harness import Row

        slope = exponent(list(wall), list(wall.values()))
        points = ", ".join(f"{count}: {seconds:.2f} s" for count, seconds in wall.items())
        note = f"expected -1; a core each; {points}"
        yield Row("growth", "run, clock's time against processes: exponent", slope, "", note=note)


def _rows(what: str, sizes: Sequence[int], found: list[dict[str, float]], expected: float) -> Iterator[Any]:
    from benchmarks.harness import Row

    points = ", ".join(f"{size}: {one['seconds']:.2f} s" for size, one in zip(sizes, found, strict=True))
    slope = exponent(sizes, [one["seconds"] for one in found])
    busiest = "of the busiest process, " if what == "processes" else ""
    note = f"expected {expected:g}; {busiest}{points}"
    yield Row("growth", f"run, time against {what}: exponent", slope, "", note=note)
    points = ", ".join(f"{size}: {1e3 * one['grown']:.0f} MB" for size, one in zip(sizes, found, strict=True))
    most = max(one["grown"] for one in found)
    note = f"expected none; of a process, beyond what it had after two units; {points}"
    yield Row("growth", f"run, growth of memory against {what}: most", 1e3 * most, "MB", note=note)


def _group(count: int, *, layers: int, samples: int, cores: Sequence[int]) -> dict[str, float]:
    """Run `count` processes side by side, each its share of the units; the largest figure of them."""
    common = {"kind": "work", "layers": layers, "samples": samples, "processes": count}
    told = _children([common | {"process": k, "core": cores[k % len(cores)]} for k in range(count)])
    return {name: max(one[name] for one in told) for name in told[0]}


def _children(asked: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Start a process for each question; what they answer."""
    command = [sys.executable, "-m", "benchmarks.bench_growth"]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [*command, json.dumps(one)], stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment
        )
        for one in asked
    ]  # fmt: skip
    told = [one.communicate()[0] for one in running]
    failed = [one.returncode for one in running if one.returncode]
    if failed:
        message = f"growth: a process ended with {failed[0]}; what it said is above"
        raise RuntimeError(message)
    return [json.loads(one.splitlines()[-1]) for one in told]


def by_width(repeats: int) -> dict[str, dict[str, list[float]]]:
    """Seconds a matrix of the closed-form Jacobian and of LAPACK's Schur form at each width, and bytes of a batch."""
    import jax
    import jaxdyn_kernels as jk
    import numpy as np

    seconds: dict[str, list[float]] = {name: [] for name in COUNTS}
    sizes: dict[str, list[float]] = {name: [] for name in COUNTS}
    for width in WIDTHS:
        A = np.random.default_rng(0).standard_normal((SAMPLES, width, width)).astype(np.float32)
        A = np.eye(width, dtype=np.float32) + A / np.float32(width**0.5)
        jacobian, *given = _jacobian(width)
        programs = {"jacobian": (jacobian, given), "schur": (jk.schur, [A])}
        for name, (function, arrays) in programs.items():
            program = jax.jit(function).lower(*arrays).compile()
            memory = program.memory_analysis()
            assert memory is not None
            sizes[name].append(memory.temp_size_in_bytes + memory.output_size_in_bytes)
            jax.block_until_ready(program(*arrays))
            seconds[name].append(_median_seconds(program, arrays, repeats) / SAMPLES)
    return {"seconds": seconds, "bytes": sizes}


def _median_seconds(program: Any, arrays: Sequence[Any], repeats: int) -> float:
    """Processor time of a call; one that is over in a blink is called many times in a row."""
    import jax

    found, calls = [], 1
    while len(found) < repeats:
        start = time.process_time()
        for _ in range(calls):
            jax.block_until_ready(program(*arrays))
        spent = time.process_time() - start
        if spent < 0.05:
            calls *= 4
            continue
        found.append(spent / calls)
    return sorted(found)[len(found) // 2]


def _jacobian(width: int) -> tuple[Any, Any, Any]:
    """A function of weights and states that makes the isolated block Jacobians of `SAMPLES` tokens."""
    import jax.numpy as jnp
    import numpy as np

    from jaxdyn.jacobians import Request, sample_jacobians
    from jaxdyn.models import decoder, parameters

    arch = _architecture(width, 1)
    weights = decoder.layer_weights(parameters.initialise(arch, 0), 0)
    x = jnp.asarray(np.random.default_rng(1).standard_normal((SAMPLES, 1, width)), jnp.float32)
    prompts, first = jnp.arange(SAMPLES), jnp.zeros(SAMPLES, int)

    def program(weights: Any, x: Any) -> Any:
        return sample_jacobians(arch, Request("isolated"), weights, x, prompts, first, keep=("block",)).block

    return program, weights, x


def by_work(layers: int, samples: int, processes: int, process: int) -> dict[str, float]:
    """Run this process's units once the programs are compiled; seconds, and memory beyond the first two units'."""
    import numpy as np

    from jaxdyn.activations import pad
    from jaxdyn.models import Model, parameters
    from jaxdyn.pipeline.samples import make_samples
    from jaxdyn.pipeline.settings import Settings
    from jaxdyn.pipeline.unit import run_unit

    arch = replace(_architecture(64, layers), heads=4, kv_heads=4, head_dim=16)
    model = Model(arch, parameters.initialise(arch, 0), None, "growth", None, "")
    ids = np.random.default_rng(0).integers(0, arch.vocab, (samples, TOKENS))
    settings = Settings(parts=("block",), draws=0, kreiss=False, unit=UNIT)
    work = make_samples(pad(list(ids)), tokens="last", unit=UNIT)

    def one(unit: int) -> None:
        for _ in run_unit(model, settings, work, tuple(range(layers)), unit, lambda: None):
            pass

    one(0)
    one(0)
    before, found = gigabytes("VmRSS"), []
    for _ in range(PASSES):
        spent, start = time.process_time(), time.perf_counter()
        for unit in range(process, work.units, processes):
            one(unit)
        found.append((time.process_time() - spent, time.perf_counter() - start))
    seconds, wall = map(min, zip(*found, strict=True))
    return {"seconds": seconds, "wall": wall, "grown": max(gigabytes("VmHWM") - before, 0.0)}


def _architecture(width: int, layers: int) -> Any:
    from benchmarks.llama import llama

    heads = width // HEAD
    return llama(width=width, layers=layers, heads=heads, kv_heads=heads, ff_dim=FF * width, vocab=256, context=TOKENS)


def child(kind: str, core: int, **asked: Any) -> None:
    """Answer one question on one core."""
    os.sched_setaffinity(0, {core})
    print(json.dumps({"width": by_width, "work": by_work}[kind](**asked)))


if __name__ == "__main__":
    child(**json.loads(sys.argv[1]))
