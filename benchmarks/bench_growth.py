"""How time and memory grow: with the width for Jacobian and Schur form, with layers, samples and processes for a run.

Each fitted exponent is the slope of log(time) on log(size) by least squares, beside the one that the count of
operations says. Small sizes spend their time elsewhere (starting a program, a call of LAPACK), so fits begin where the
table says; all points are in the notes.
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

from benchmarks.harness import Candidate, Row, Timings, compiled
from benchmarks.memory import STATUS, gigabytes

ROOT = Path(__file__).resolve().parents[1]
WIDTHS = (64, 128, 256, 512, 1024)
FF = 4
"""Hidden units over width, the same at every width, so that every term of the Jacobian's count grows as d^3."""
HEAD, SAMPLES = 64, 4
FROM = 256
"""The smallest width in a fit."""
LAYERS, MANY, PROCESSES = (2, 4, 8, 16), (16, 32, 64, 128), (1, 2)
UNIT, TOKENS = 8, 32


def run(options: Any) -> Iterator[Row]:
    """Yield times and sizes, each with the exponent beside the one expected."""
    yield from _by_width(options.repeats)
    yield from _by_work()


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Slope of log(value) on log(size) by least squares."""
    x, y = [math.log(one) for one in sizes], [math.log(one) for one in values]
    middle = sum(x) / len(x)
    return sum((a - middle) * b for a, b in zip(x, y, strict=True)) / sum((a - middle) ** 2 for a in x)


def _by_width(repeats: int) -> Iterator[Row]:
    """Jacobian by the closed form and Schur form by LAPACK, a matrix at a time on all cores."""
    import jax
    import jaxdyn_kernels as jk
    import numpy as np

    seconds: dict[str, list[float]] = {"jacobian": [], "schur": []}
    sizes = []
    for width in WIDTHS:
        program, weights, x = _jacobian(width)
        lowered = jax.jit(program).lower(weights, x).compile()
        memory = lowered.memory_analysis()
        assert memory is not None
        sizes.append(memory.temp_size_in_bytes)
        A = np.random.default_rng(0).standard_normal((SAMPLES, width, width)).astype(np.float32)
        A = np.eye(width, dtype=np.float32) + A / np.float32(width**0.5)
        candidates = [compiled("jacobian", program, weights, x), Candidate("schur", lambda A=A: jk.schur(A))]
        timings = Timings(candidates, repeats=repeats)
        for name, found in seconds.items():
            found.append(timings.median(name) / SAMPLES)
    at = [WIDTHS.index(width) for width in WIDTHS if width >= FROM]
    counts = {
        "jacobian": lambda d: 2 * d**2 * FF * d + 2 * d**3,
        "schur": lambda d: 25 * d**3,
    }
    said = {"jacobian": f"2 d^2 d_ff + 2 d^3, d_ff = {FF} d", "schur": "about 25 d^3"}
    for name, found in seconds.items():
        slope = exponent([WIDTHS[k] for k in at], [found[k] for k in at])
        points = ", ".join(f"{d}: {1e3 * t:.3g} ms" for d, t in zip(WIDTHS, found, strict=True))
        rates = ", ".join(f"{counts[name](WIDTHS[k]) / found[k] / 1e9:.3g}" for k in at)
        note = f"expected 3 ({said[name]}); {points}; {rates} G operations a second from {FROM}"
        yield Row("growth", f"{name}, time against d: exponent", slope, "", note=note)
    slope = exponent([WIDTHS[k] for k in at], [sizes[k] for k in at])
    points = ", ".join(f"{d}: {size / 1e6:.3g} MB" for d, size in zip(WIDTHS, sizes, strict=True))
    yield Row(
        "growth", "jacobian, temporaries against d: exponent", slope, "", note=f"expected 2 (d d_ff + 4 d^2); {points}"
    )


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


def _by_work() -> Iterator[Row]:
    """Layers, samples and processes of a run, each in fresh processes of one core each."""
    if not STATUS.exists():
        print(f"growth: runs not measured: needs {STATUS} (Linux)", file=sys.stderr)
        return
    cores = sorted(os.sched_getaffinity(0))
    by_layers = [_children(1, layers=layers, samples=16, cores=cores) for layers in LAYERS]
    yield from _rows("layers", LAYERS, by_layers, 1.0)
    by_samples = [_children(1, layers=4, samples=samples, cores=cores) for samples in MANY]
    yield from _rows("samples", MANY, by_samples, 1.0)
    several = [count for count in PROCESSES if count <= len(cores)]
    if len(several) < 2:
        print(f"growth: processes not measured: needs {PROCESSES[1]} cores, got {len(cores)}", file=sys.stderr)
        return
    yield from _rows("processes", several, [_children(n, layers=4, samples=128, cores=cores) for n in several], -1.0)


def _rows(what: str, sizes: Sequence[int], found: list[dict[str, float]], expected: float) -> Iterator[Row]:
    points = ", ".join(f"{size}: {one['seconds']:.2f} s" for size, one in zip(sizes, found, strict=True))
    slope = exponent(sizes, [one["seconds"] for one in found])
    yield Row("growth", f"run, time against {what}: exponent", slope, "", note=f"expected {expected:g}; {points}")
    points = ", ".join(f"{size}: {1e3 * one['grown']:.0f} MB" for size, one in zip(sizes, found, strict=True))
    most = max(one["grown"] for one in found)
    note = f"of a process, after its first unit; {points}"
    yield Row("growth", f"run, memory against {what}: most", 1e3 * most, "MB", note=note)


def _children(count: int, *, layers: int, samples: int, cores: Sequence[int]) -> dict[str, float]:
    """Run `count` processes side by side, each its share of the units on a core of its own."""
    asked = [
        {"layers": layers, "samples": samples, "processes": count, "process": k, "core": cores[k % len(cores)]}
        for k in range(count)
    ]
    command = [sys.executable, "-m", "benchmarks.bench_growth"]
    running = [
        subprocess.Popen([*command, json.dumps(one)], stdout=subprocess.PIPE, text=True, cwd=ROOT) for one in asked
    ]
    told = [json.loads(one.communicate()[0].splitlines()[-1]) for one in running]
    assert all(one.returncode == 0 for one in running)
    return {name: max(one[name] for one in told) for name in told[0]}


def child(layers: int, samples: int, processes: int, process: int, core: int) -> None:
    """Run this process's units once the programs are compiled; print seconds, and memory beyond the first unit's."""
    os.sched_setaffinity(0, {core})
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
    before, start = gigabytes("VmRSS"), time.perf_counter()
    for unit in range(process, work.units, processes):
        one(unit)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "grown": gigabytes("VmHWM") - before}))


def _architecture(width: int, layers: int) -> Any:
    from benchmarks.llama import llama

    heads = width // HEAD
    return llama(width=width, layers=layers, heads=heads, kv_heads=heads, ff_dim=FF * width, vocab=256, context=TOKENS)


if __name__ == "__main__":
    child(**json.loads(sys.argv[1]))
