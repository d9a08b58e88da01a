"""What `jaxdyn models` says: families with what each was checked against; one checkpoint, before it is loaded."""

import dataclasses
import json
import math
from importlib.resources import files
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from .models.checkpoint import DTYPES
from .models.config import read_json
from .models.locate import locate
from .models.orbax_copy import read_manifest
from .models.tensor_file import NUMPY
from .models.weights import architecture_of, matched_keys
from .pipeline.estimate import Rates, Work, estimate

PARITY = files("jaxdyn.models") / "parity.json"
"""Written by `python -m tests.models.parity_table` from the table of the parity tests."""


def families() -> dict[str, Any]:
    """Return what the parity tests compare, by family: transformers' class, cases, and the tolerances of all."""
    return json.loads(PARITY.read_text(encoding="utf-8"))


def describe(name_or_path: str | Path, work: Work, rates: Rates, *, revision: str | None = None) -> dict[str, Any]:
    """Describe one model from its config and the headers of its weights.

    Parameters
    ----------
    name_or_path, revision : as for `load`.
    work : the analysis to estimate; its length may exceed the model's context, which then is taken.
    rates : what this machine does, see `jaxdyn.pipeline.estimate`.

    Returns
    -------
    dict of plain values: source, revision, family, "architecture" (its fields), "parameters" (how many numbers the
    checkpoint gives the model), "checkpoint" (bytes, and numbers by dtype) and "analysis" (see `estimate`). A config
    that contradicts the weights, quantised weights and all else that `load` refuses by names and shapes is refused
    here too; of the hub only the config, the tokenizer, the index and the headers are fetched.
    """
    located = locate(name_or_path, revision)
    manifest = read_manifest(located.folder)
    arch = architecture_of(read_json(located.folder / "config.json", what="model"))
    if manifest is None:
        entries = located.entries()
        keys = matched_keys(arch, {key: entry.shape for key, entry in entries.items()})
        found = [(entries[key].dtype, math.prod(entries[key].shape)) for key in keys.values()]
        sizes = {kind: NUMPY[kind].itemsize for kind in DTYPES}
    else:
        found = [(manifest.dtype, math.prod(shape)) for shape in manifest.shapes.values()]
        sizes = {"float64": 8, "float32": 4, "bfloat16": 2}
    numbers = {kind: sum(count for own, count in found if own == kind) for kind, _ in found}
    work = dataclasses.replace(work, length=min(work.length, arch.context))
    return {
        "source": str(name_or_path) if manifest is None else manifest.source,
        "revision": located.revision if manifest is None else manifest.revision,
        "family": arch.family,
        "architecture": dataclasses.asdict(arch),
        "parameters": sum(numbers.values()),
        "checkpoint": {"bytes": sum(sizes[kind] * count for kind, count in numbers.items()), "numbers": numbers},
        "analysis": {
            **estimate(arch, work, rates),
            "prompts": work.prompts,
            "length": work.length,
            "dtype": work.dtype,
            "weights_dtype": work.weights_dtype,
            "settings": work.settings.as_dict(),
            "rates": dataclasses.asdict(rates),
        },
    }


def show_families(found: dict[str, Any], console: Console) -> None:
    """Print the families as a table."""
    table = Table("family", "checked against", "cases", title="families", title_justify="left")
    for name, row in found["families"].items():
        cases = ", ".join(case.removeprefix(name).strip("-_") or "plain" for case in row["cases"])
        table.add_row(name, ", ".join(row["classes"]), cases)
    console.print(table)
    within = " and ".join(f"{error:.0e} in {dtype}" for dtype, error in found["tolerance"].items())
    console.print(
        f"Each case: {', '.join(found['compared'])} of a random model agree with transformers within {within}, largest "
        "difference over largest value. `jaxdyn models MODEL` describes one checkpoint.",
        soft_wrap=True,
    )


def show_model(found: dict[str, Any], console: Console) -> None:
    """Print one model's description and what an analysis of it will take."""
    analysis, checkpoint = found["analysis"], found["checkpoint"]
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in checkpoint["numbers"].items())
    at = f" at {found['revision']}" if found["revision"] else ""
    rows = {
        "model": f"{found['source']}{at}",
        "parameters": f"{found['parameters']:,}",
        "checkpoint": f"{size(checkpoint['bytes'])} ({kinds})",
    }
    console.print(_table(found["family"], rows | {name: _plain(v) for name, v in found["architecture"].items()}))
    seconds, taken = analysis["seconds"], analysis["bytes"]
    first = {
        "work": f"{analysis['prompts']} prompts of {analysis['length']} tokens, {analysis['samples']} samples, "
        f"{analysis['matrices']} matrices, {analysis['settings']['draws']} draws each",
        "time": f"{duration(seconds['total'])}, and {duration(seconds['first_run_compilation'])} to compile the first "
        "time",
        "of it": ", ".join(f"{name} {duration(value)}" for name, value in seconds.items() if name in _STEPS),
        "memory": f"{size(taken['total'])}: "
        + ", ".join(f"{name} {size(value)}" for name, value in taken.items() if name != "total"),
    }
    console.print(_table("an analysis here, estimated (within a factor of 3)", first))


_STEPS = ("forward", "jacobians", "decompositions", "averages", "start")


def _table(title: str, rows: dict[str, str]) -> Table:
    table = Table(title=title, title_justify="left", show_header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(one)}" for name, one in value.items())
    return "no" if value is False else "yes" if value is True else "none" if value in (None, ()) else str(value)


def size(count: float) -> str:
    """Bytes in the unit that suits them."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them."""
    if seconds < 100:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.2g} min" if seconds < 6000 else f"{seconds / 3600:.3g} h"
