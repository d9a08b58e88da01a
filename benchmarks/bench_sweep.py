"""A sweep of a small trained model to its end: its rate beside what the kernels alone take, and whether memory grows.

Every position of twenty stories, every layer, part block, no nulls: about 33,000 matrices of 64 columns, on one process
a core. The rate is that of the units after each process's first, which compiles. The prediction adds, for a batch of
the same size on the same cores, what LAPACK is asked for: a portrait (`python -m benchmarks kernels`), the singular
values, the singular vectors of M - tI, and a step of the running product.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import yaml
from jaxdyn_kernels import cores

from benchmarks.bench_kernels import portrait
from benchmarks.harness import Candidate, Row, Timings
from jaxdyn import spectra
from jaxdyn.pipeline import products
from jaxdyn.pipeline.host import map_tasks
from jaxdyn.sweep.log import read_metrics

TEXTS, UNIT, BATCH, WIDTH = 20, 64, 128, 64


def run(options: Any) -> Iterator[Row]:
    """Run the sweep once, then time the kernels."""
    texts = options.model.parents[1] / "data" / "tinystories_1000.json"
    if not texts.is_file():
        print(f"sweep: not measured: needs the texts {texts}, beside the model", file=sys.stderr)
        return
    processes = cores()
    with tempfile.TemporaryDirectory() as scratch:
        given = {"file": str(texts.resolve()), "samples": TEXTS, "max-tokens": 512}
        plan = {"models": str(options.model.resolve()), "texts": given, "out": "sweep", "unit": UNIT, "threads": 1}
        plan |= {"parts": "block", "tokens": "all", "draws": 0}
        file = Path(scratch) / "PLAN.yaml"
        file.write_text(yaml.safe_dump(plan))
        command = [sys.executable, "-c", "from jaxdyn.cli import main; main()", "sweep", str(file), "--json", "--quiet"]
        done = subprocess.run(
            [*command, "--processes", str(processes)], capture_output=True, text=True, check=True
        ).stdout
        told, lines = json.loads(done.splitlines()[-1]), read_metrics(Path(scratch) / "sweep")
    by_process = [[line for line in lines if line["process"] == number] for number in range(processes)]
    steady = [line for own in by_process for line in own[1:]]
    begin = max(own[0]["time"] for own in by_process)
    counted = [line for line in steady if line["time"] > begin]
    rate = sum(line["matrices"] for line in counted) / (counted[-1]["time"] - begin)
    note = f"{told['matrices']} matrices ({told['failed'] or 'none failed'}), {processes} processes of 1 core"
    yield Row("sweep", "matrices a second", rate, "1/s", note=note)
    compute = sum(line["compute_seconds"] for line in steady) / sum(line["seconds"] for line in steady)
    yield Row("sweep", "share of the time that is not writing", compute, "share")
    growth = max(_growth(own) for own in by_process)
    yield Row("sweep", "growth of memory after the first tenth", growth / 1e6, "MB", target="<= 50")
    found = _kernels(options.repeats)
    names = list(found.candidates)
    for name in names:
        yield found.row("sweep", name, per=BATCH)
    predicted = BATCH / sum(found.median(name) for name in names)
    yield Row("sweep", "matrices a second, predicted by the kernels", predicted, "1/s")
    yield Row("sweep", "rate / predicted", rate / predicted, "x", target=">= 0.8")


def _growth(lines: list[dict[str, Any]]) -> float:
    """Most bytes held after the first tenth of a process's units, beyond those held there."""
    first = lines[len(lines) // 10 :]
    return max(line["resident_bytes"] for line in first) - first[0]["resident_bytes"]


def _kernels(repeats: int) -> Timings:
    """Time what one matrix asks of LAPACK, each over a batch on all cores."""
    random = np.random.default_rng(0)
    A = (np.eye(WIDTH) + 0.1 * random.standard_normal((BATCH, WIDTH, WIDTH))).astype(np.float32)
    begun = products.begin(WIDTH, A.dtype, truncate=None)
    product, _ = products.advance(begun, jnp.asarray(A[0]), truncate=None)
    state = type(product)(*(np.asarray(leaf) for leaf in product))  # pyright: ignore[reportArgumentType]
    tasks = [(state, matrix) for matrix in A]
    return Timings(
        [
            Candidate(f"portrait: {BATCH} x {WIDTH}", lambda: portrait(A)),
            Candidate("singular values", lambda: spectra.singular_values(A)),
            Candidate("singular vectors", lambda: spectra.svd(A)),
            Candidate("a step of the product", lambda: map_tasks(_step, tasks)),
        ],
        repeats=repeats,
    )


def _step(task: Any) -> Any:
    return products.advance(*task, truncate=None)
