"""Make the figures and numbers of the page on the study: `python -m docs.studies` from the root of the repository.

Four studies and one trajectory in docs/runs/ (kept, so that the next call draws only). It must hold a model folder
`stories260k`, the texts `tinystories_1000.json` and `wikitext_1000.json`, and three training runs `s0`, `s1`, `s2` of
the embedded model's recipe (jaxdyn/embedded/README.md) with seeds 0, 1 and 2, or links to them.
"""

import dataclasses
import json
import shlex
import subprocess
import sys
from typing import Any

import xarray as xr

from jaxdyn.cli_study import as_dicts
from jaxdyn.report import figures
from jaxdyn.report.measures_table import measures_chart
from jaxdyn.report.study import charts_of, open_study, survival_chart

from .gallery import DATA, FIGURES, RUNS, write

TEXTS = "--texts tinystories_1000.json --max-tokens 64 --corpus wikitext_1000.json"
COMMANDS = {
    "study-stories260k": f"jaxdyn study stories260k {TEXTS} --samples 64 --out stories260k-study",
    "study-untrained": f"jaxdyn study stories260k {TEXTS} --samples 64 --untrained 100 --out stories260k-untrained",
    "study-embedded": f"jaxdyn study {TEXTS} --samples 32 --out embedded-study",
    "study-embedded-untrained": f"jaxdyn study {TEXTS} --samples 32 --untrained 100 --out embedded-untrained",
    "trajectory": "jaxdyn trajectory s0 s1 s2 --texts tinystories_1000.json --samples 16 --max-tokens 96 --out traj",
}
"""What is run, in docs/runs/; the last word is the folder."""

SHOWN = {
    "study-stories260k": ("specification", "study_profiles"),
    "study-embedded": ("specification", "study_profiles"),
    "trajectory": ("trajectory", "trajectory_excess"),
}
"""Figures of the page, by run."""


def main() -> None:
    """Run, draw, write the numbers, fill the pages."""
    from docs import fill

    for folder in (RUNS, FIGURES, DATA):
        folder.mkdir(exist_ok=True)
    for name, command in COMMANDS.items():
        stages = run(command)
        charts = charts_of(stages)
        told = {"command": command, "captions": {chart.name: chart.caption for chart in charts}, **numbers(stages)}
        (DATA / f"{name}.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        bare = [dataclasses.replace(chart, caption="") for chart in charts if chart.name in SHOWN.get(name, ())]
        for figure, drawn in figures.draw_all(bare).items():
            write(drawn, FIGURES / f"{name}_{figure}.svg")
    fill.main()


def run(command: str) -> dict[str, xr.Dataset]:
    """Run one command in docs/runs/, unless its folder holds its report, and read what it wrote."""
    *_, out = shlex.split(command)
    if not (RUNS / out / "report.html").is_file():
        line = [sys.executable, "-c", "from jaxdyn.cli import main; main()", *shlex.split(command)[1:], "--resume"]
        subprocess.run(line, cwd=RUNS, check=True)
    return open_study(RUNS / out)


def numbers(stages: dict[str, xr.Dataset]) -> dict[str, Any]:
    """Return what the page quotes: the claims and what survives, or the claims at every checkpoint."""
    if "claims" in stages:
        survives = [list(row) for row in survival_chart(stages["conventions"]).table]
        measures = [list(row) for row in measures_chart(stages["measures"], "").table]
        return {"claims": as_dicts(stages["claims"]), "survival": survives, "measures": measures}
    found = stages["trajectory"]
    mean = found[["number", "excess", "loss"]].mean("run")
    rows = []
    for step in found["step"].values.tolist():
        at = mean.sel(step=step)
        verdicts = found["verdict"].sel(step=step)
        rows.append(
            {
                "step": step,
                "loss": round(float(at["loss"]), 4),
                "claims": {
                    str(claim): {
                        "number": round(float(at["number"].sel(claim=claim)), 5),
                        "excess": round(float(at["excess"].sel(claim=claim)), 5),
                        "verdicts": [str(one) for one in verdicts.sel(claim=claim).values],
                    }
                    for claim in found["claim"].values
                    if bool(at["number"].sel(claim=claim).notnull())
                },
            }
        )
    return {"runs": [str(one) for one in found["run"].values], "steps": rows}


if __name__ == "__main__":
    main()
