"""Make every figure and number of the documentation again: `python -m docs.gallery` from the root of the repository.

Two runs of `jaxdyn analyze` in docs/runs/ (kept, so that the next call draws only): the embedded model with its own
prompts, and a small trained Llama with stories, for which docs/runs/ must hold a model folder `stories260k` and a file
`tinystories_1000.json`, or links to them. The figures are those of the report, without the caption inside, which the
page prints as text.
"""

import dataclasses
import io
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from jaxdyn.report import figures, profiles, tables
from jaxdyn.report.chart import Chart
from jaxdyn.report.depth import depth_chart
from jaxdyn.report.drawing import draw
from jaxdyn.report.source import Source, open_sources

HERE = Path(__file__).resolve().parent
RUNS, FIGURES, DATA = HERE / "runs", HERE / "figures", HERE / "data"
COMMANDS = {
    "embedded": "jaxdyn analyze --pseudospectra 0,7 --out embedded",
    "stories260k": "jaxdyn analyze stories260k --texts tinystories_1000.json --samples 32 --no-kreiss --out stories",
}
"""What is run, in docs/runs/; the last word is the folder."""

HERO = ("henrici_normalized", "complex_fraction", "mean_rotation_angle", "self_alignment")
SHOWN = {
    "embedded": ("depth_profiles", "budget", "bottleneck", "eigenvalues", "energy", "pseudospectra"),
    "stories260k": ("depth_profiles", "depth_excess", "budget", "bottleneck"),
}
"""Figures of the gallery, by run."""

PNG = ("eigenvalues",)
"""Figures of thousands of points, which are smaller as pixels."""

DIGITS = 6
"""Significant digits of the committed numbers."""


def main() -> None:
    """Run, draw, write the numbers, fill the pages."""
    from docs import fill

    for folder in (RUNS, FIGURES, DATA):
        folder.mkdir(exist_ok=True)
    for name, command in COMMANDS.items():
        source = run(command)
        (DATA / f"{name}.json").write_text(json.dumps(numbers(source, command), indent=1) + "\n", encoding="utf-8")
        save(name, source)
    fill.main()


def run(command: str) -> Source:
    """Run one command in docs/runs/, unless its folder holds a finished run, and open what it wrote."""
    *_, out = shlex.split(command)
    if not (RUNS / out / "report.html").is_file():
        analyze = [sys.executable, "-c", "from jaxdyn.cli import main; main()", *shlex.split(command)[1:]]
        subprocess.run(analyze, cwd=RUNS, check=True)
    (source,) = open_sources([RUNS / out])
    return source


def save(name: str, source: Source) -> None:
    """Write the figures of one run, and of the embedded model's the hero."""
    charts = [dataclasses.replace(chart, caption="") for chart in figures.charts([source])]
    for figure, drawn in figures.draw_all(charts).items():
        if figure in SHOWN[name]:
            write(drawn, FIGURES / f"{name}_{figure}.{'png' if figure in PNG else 'svg'}")
    if name == "embedded":
        write(draw(hero([source]), groups=("block",)), FIGURES / "hero.svg")


def hero(sources: Sequence[Source]) -> Chart:
    """Four measures of the block by depth on their N1 band."""
    chart = depth_chart(sources, measures=HERO)
    return dataclasses.replace(chart, caption="", title="Blocks of the embedded model by depth")


def write(figure: Figure, file: Path) -> None:
    """Save a figure; but for some ids in an SVG, the same bytes each time."""
    with matplotlib.rc_context({"svg.hashsalt": "jaxdyn"}):  # else the ids in it are random
        figure.savefig(file, dpi=110, metadata={"Date": None} if file.suffix == ".svg" else None)


def numbers(source: Source, command: str) -> dict[str, Any]:
    """Return what the pages quote of one run: the table, the profiles beside their nulls, the running product."""
    console = Console(highlight=False, width=100, record=True, file=io.StringIO())
    console.print(tables.by_layer(source.tree))
    parts = {
        part: {measure: one(source, measure, part) for measure in figures.PROFILES} for part in ("block", "update")
    }
    group = source.group("cumulative")
    assert group is not None
    names = [f"{measure}{suffix}" for measure in ("effective_rank", "participation_ratio") for suffix in ("", "_null")]
    names += ["mean_effective_rank", "free_product_participation_ratio", "ginibre_participation_ratio"]
    product = {str(name): plain(over_samples(group[name])) for name in names}
    captions = {chart.name: chart.caption for chart in figures.charts([source])}
    return {
        "command": command,
        "width": source.width,
        "layers": source.root["layer"].values.tolist(),
        "samples": source.root.sizes["sample"],
        "terminal": "\n".join(line.rstrip() for line in console.export_text().splitlines()),
        "parts": parts,
        "product": product,
        "captions": captions,
    }


def one(source: Source, measure: str, part: str) -> dict[str, Any]:
    """One profile: measured, N1 and its sd, N0, and the layers that stand out of N1."""
    shown = profiles.profile(source.root, measure, part)
    null, closed = shown.nulls["N1"], shown.nulls["N0"]
    return {
        "measured": plain(shown.mean),
        "N1": plain(null.mean),
        "N1_sd": plain(null.sd),
        "N0": plain(closed.mean),
        "stands_out": int(null.stands_out.sum()),
    }


def over_samples(array) -> np.ndarray:
    """Mean over the samples, where the array has them."""
    return array.mean("prompt_sample").values if "prompt_sample" in array.dims else array.values


def plain(values: np.ndarray) -> list[float]:
    """Numbers as JSON holds them."""
    return [float(f"{value:.{DIGITS}g}") for value in values]


if __name__ == "__main__":
    main()
