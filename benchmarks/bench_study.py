"""The study: of a small trained model with everything in it, and of wider random blocks, each in a process of its own.

The first is the command `jaxdyn study` on 64 texts with a second corpus. The second is a random Llama of 24 blocks of
width 512: 8 prompts, in context, the rungs N0 to N3 and the surrogates in all layers at once.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.harness import Row
from benchmarks.memory import STATUS, gigabytes

ROOT = Path(__file__).resolve().parents[1]
LAYERS, WIDTH, HEADS, FF, PROMPTS, TOKENS = 24, 512, 8, 1376, 8, 64
TEXTS, CUT = 64, 64
MINUTE = 60


def run(options: Any) -> Iterator[Row]:
    """Run both once; each takes minutes."""
    if not STATUS.exists():
        print(f"study: not measured: needs {STATUS} (Linux)", file=sys.stderr)
        return
    texts = options.model.parents[1] / "data"
    if (texts / "tinystories_1000.json").is_file():
        found = _child("small", str(options.model.resolve()), str(texts.resolve()))
        note = f"{TEXTS} texts cut to {CUT} tokens, {found['conventions']} conventions; peak {found['peak']:.2f} GB"
        yield Row("study", f"{options.model.name}, every stage", found["seconds"] / MINUTE, "min", target="<= 8",
                  note=note)  # fmt: skip
    else:
        print(f"study: the small model is not measured: needs the texts in {texts}", file=sys.stderr)
    found = _child("wide")
    note = f"{LAYERS} blocks of width {WIDTH}, {PROMPTS} prompts, random weights; " + ", ".join(
        f"{name} {seconds / MINUTE:.1f} min" for name, seconds in found["stages"].items()
    )
    yield Row("study", "N0 to N3 and surrogates", found["seconds"] / MINUTE, "min", target="<= 20", note=note)
    yield Row("study", "of it the most memory held", found["peak"], "GB", target="<= 4")


def _child(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.bench_study", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    return json.loads(done.stdout.splitlines()[-1])


def small(model: str, texts: str) -> dict[str, Any]:
    """Run the command on a trained model, its report included."""
    from jaxdyn.cli import app
    from jaxdyn.study import read_study

    with tempfile.TemporaryDirectory() as out:
        given = ["study", model, "--texts", f"{texts}/tinystories_1000.json", "--corpus", f"{texts}/wikitext_1000.json"]
        given += ["--samples", str(TEXTS), "--max-tokens", str(CUT), "--out", out, "--quiet"]
        start = time.perf_counter()
        app(given, standalone_mode=False)
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "conventions": read_study(out)["conventions"].sizes["convention"]}


def wide() -> dict[str, Any]:
    """Run the ladder, every measure and the surrogates on random blocks; the seconds of each stage."""
    import dataclasses

    import jaxdyn
    from benchmarks.llama import llama
    from jaxdyn.models import parameters
    from jaxdyn.study import StudySettings, study

    embedded = jaxdyn.load()
    sizes = {"vocab": embedded.architecture.vocab, "context": embedded.architecture.context}
    arch = llama(width=WIDTH, layers=LAYERS, heads=HEADS, kv_heads=HEADS, ff_dim=FF, **sizes)
    model = dataclasses.replace(
        embedded, architecture=arch, params=parameters.initialise(arch, 0), source="random", weights_hash="random"
    )
    texts = json.loads((ROOT / "jaxdyn" / "embedded" / "prompts.json").read_text(encoding="utf-8"))[:PROMPTS]
    settings = StudySettings(
        stages=("ladder", "measures", "surrogates"), rungs=("N0", "N1", "N2"), sites=("all",), order_sweep=False,
        operators=("in-context",), max_tokens=TOKENS,
    )  # fmt: skip
    begun: dict[str, float] = {}

    def tick(stage: str, done: int, total: int) -> None:
        begun.setdefault(stage, time.perf_counter())

    with tempfile.TemporaryDirectory() as out:
        start = time.perf_counter()
        study(model, texts, settings, out=out, progress=tick)
        end = time.perf_counter()
    ends = [*list(begun.values())[1:], end]
    begins = [start, *list(begun.values())[1:]]
    stages = {name: stop - first for name, first, stop in zip(begun, begins, ends, strict=True)}
    return {"seconds": end - start, "stages": stages}


if __name__ == "__main__":
    measured = {"small": small, "wide": wide}[sys.argv[1]](*sys.argv[2:])
    print(json.dumps(measured | {"peak": gigabytes("VmHWM")}))
