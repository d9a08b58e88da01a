"""`analyze` on a small trained model, from token ids to the finished store, against the torch and scipy script."""

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxdyn_kernels import cores

import jaxdyn
from benchmarks import peer_analyze
from benchmarks.harness import Candidate, Row, Timings
from jaxdyn.activations import Prompts, tokenise
from jaxdyn.models import Model
from jaxdyn.pipeline.progress import Progress
from jaxdyn.pipeline.run import run as run_analysis
from jaxdyn.pipeline.settings import Settings

SAMPLES = 32
OURS, PEER = "analyze, into a store", "torch and scipy script, into a file"


def run(options: Any) -> Iterator[Row]:
    """Time both; the settings leave out what the script leaves out: nulls and the Kreiss constant."""
    torch.set_num_threads(cores())
    texts_file = options.model.parents[1] / "data" / "tinystories_1000.json"
    if not texts_file.is_file():
        print(f"analyze: not measured: needs the texts {texts_file}, beside the model", file=sys.stderr)
        return
    model, peer = jaxdyn.load(options.model), peer_analyze.load(options.model)
    texts = json.loads(texts_file.read_text())[:SAMPLES]
    found = prompts(model, texts_file, SAMPLES)
    settings = Settings(parts=("block",), draws=0, kreiss=False, max_tokens=model.architecture.context, unit=SAMPLES)

    with tempfile.TemporaryDirectory() as scratch:
        counter = iter(range(10**6))

        def ours() -> Any:
            out = Path(scratch) / str(next(counter))
            done = run_analysis(model, texts, settings, out=out, resume=False, progress=Progress(enabled=False))
            return {"store": done.store, "seconds": done.seconds}

        def theirs() -> dict[str, np.ndarray]:
            return peer_analyze.analyze(peer, found.token_ids, found.lengths, Path(scratch) / "peer.npz")

        timings = Timings([Candidate(OURS, lambda: ours()), Candidate(PEER, theirs)], repeats=options.repeats)
        stored = jaxdyn.open_results(timings.results[OURS]["store"]).load()
    first = timings.warm_up_seconds[OURS] - timings.median(OURS)
    stages = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in timings.results[OURS]["seconds"].items())
    yield timings.row("analyze", OURS, note=f"compilation apart {first:.1f} s; last run: {stages}")
    worst, name = disagreement(stored, timings.results[PEER])
    yield timings.row("analyze", PEER, error=worst, note=f"error: largest difference from ours, in {name}")
    yield Row("analyze", "torch and scipy script / analyze", timings.ratio(PEER, OURS), "x", target=">= 3")


def prompts(model: Model, texts_file: Path, samples: int) -> Prompts:
    """Tokenise the first texts of a .json list, cut to the model's context."""
    texts = json.loads(texts_file.read_text())[:samples]
    return tokenise(model, texts, max_tokens=model.architecture.context)


def disagreement(stored: Any, peer: dict[str, np.ndarray]) -> tuple[float, str]:
    """Largest difference between the two, by measure relative to its largest value, and the measure.

    Condition numbers and shares of undecided eigenvalues follow rounding itself and are left out.
    """
    worst, where = 0.0, ""
    for name in [*stored.data_vars, *(f"product_{rank}" for rank in peer_analyze.RANKS)]:
        if name in peer and name in stored and not name.startswith(("eigen", "complex_undecided", "residual", "orth")):
            ours, theirs = stored[name].values[0], peer[name]
            error = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
            if not error <= worst:
                worst, where = error, str(name)
    return worst, where
