"""Peak memory of eight Jacobians at d = 2048, d_ff = 5632 in float32, beyond a fresh process's start."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.harness import Row
from benchmarks.memory import STATUS, gigabytes

WIDTH, FF, HEADS, KV_HEADS = 2048, 5632, 32, 4
SAMPLES, TOKENS = 8, 128
ROOT = Path(__file__).resolve().parents[1]


def run(options: Any) -> Iterator[Row]:
    """Measure each operator in a process of its own; its start is everything imported and no array made."""
    if not STATUS.exists():
        print(f"memory: not measured: needs {STATUS} (Linux)", file=sys.stderr)
        return
    for operator in ("isolated", "in-context"):
        command = [sys.executable, "-m", "benchmarks.bench_memory", operator]
        child = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        found = json.loads(child.stdout.splitlines()[-1])
        note = (
            f"beyond {found['start']:.2f} GB; of it weights {found['weights']:.2f}, result {found['result']:.2f}; "
            f"{found['seconds']:.1f} s with compilation"
        )
        yield Row("memory", f"peak, {operator}, {SAMPLES} samples", found["peak"], "GB", target="<= 1.5", note=note)


def child(operator: str) -> None:
    """Take the Jacobians once and print what it took."""
    import time

    import jax
    import numpy as np

    import jaxdyn
    from benchmarks.llama import llama
    from jaxdyn.activations import capture, pad
    from jaxdyn.models import Model, parameters

    start = gigabytes("VmRSS")
    arch = llama(width=WIDTH, layers=1, heads=HEADS, kv_heads=KV_HEADS, ff_dim=FF, vocab=64, context=TOKENS)
    params = parameters.initialise(arch, 0)
    model = Model(arch, params, None, "benchmark", None, "")
    rows = list(np.random.default_rng(0).integers(0, arch.vocab, (SAMPLES, TOKENS)))
    clock = time.perf_counter()
    acts = capture(model, pad(rows, bos=False))
    found = jax.block_until_ready(jaxdyn.jacobian(model, acts, layer=0, operator=operator))  # pyright: ignore[reportArgumentType]
    seconds = time.perf_counter() - clock
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(params)) / 1e9
    result = found.nbytes / 1e9
    peak = gigabytes("VmHWM") - start
    print(json.dumps({"start": start, "peak": peak, "weights": weights, "result": result, "seconds": seconds}))


if __name__ == "__main__":
    child(sys.argv[1])
