"""`jaxdyn trajectory`: argument parsing and printing; `jaxdyn.study.trajectory` does the work, imported when needed."""

import json
import re
import shlex
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from . import application
from .cli_study import _names
from .errors import InputError


def trajectory(
    models: Annotated[
        list[str], typer.Argument(help="Folders of `jaxdyn train`, one a seed; or one hub id with --revisions.")
    ],
    texts: Annotated[Path, typer.Option(help="A .txt (one text a line) or .json (list of strings).")],
    steps: Annotated[
        str, typer.Option(help="Of training runs: 'all' the checkpoints kept, or numbers, 0,1,64.")
    ] = "all",
    revisions: Annotated[
        str | None,
        typer.Option(help="Of a hub id: branches, tags or commits whose names hold their step, step0,step64."),
    ] = None,
    samples: Annotated[int | None, typer.Option(help="Take the first N texts.")] = None,
    operator: Annotated[str, typer.Option(help="in-context, isolated or ov.")] = "in-context",
    stages: Annotated[str, typer.Option(help="What is left out has no numbers.")] = "ladder,surrogates,topology",
    rungs: Annotated[str, typer.Option(help="Of the ladder; the first checkpoint stands for N5.")] = "N0,N1,N2",
    draws: Annotated[int, typer.Option(help="Of N0 to N2.")] = 4,
    max_tokens: Annotated[int | None, typer.Option(help="Keep at most so many tokens of each text.")] = None,
    seed: Annotated[int, typer.Option(help="Of every random number.")] = 0,
    dtype: Annotated[str, typer.Option(help="float32 or float64.")] = "float32",
    formats: Annotated[str, typer.Option(help="Of the figures beside the page: png, svg or both.")] = "png,svg",
    out: Annotated[Path, typer.Option(help="Folder of the stores and the report.")] = Path("jaxdyn-out"),
    resume: Annotated[bool, typer.Option("--resume", help="Keep what is finished in --out.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, no table.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the table.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Follow the claims of the source paper over training, each with its excess over its null."""
    application.show_tracebacks(debug)
    application.configure(dtype, None)
    from .pipeline.progress import Progress
    from .pipeline.texts import read_texts
    from .report.source import parse_formats
    from .report.study import write_study
    from .study import trajectory as follow
    from .study.trajectory import SETTINGS

    endings = parse_formats(formats)
    prompts = read_texts(texts, samples=samples)
    settings = replace(
        SETTINGS,
        operator=operator,  # pyright: ignore[reportArgumentType]
        operators=(operator,),  # pyright: ignore[reportArgumentType]
        stages=_names(stages),
        rungs=_names(rungs),
        draws=draws,
        max_tokens=max_tokens,
        seed=seed,
    )
    checkpoints = _of_revisions(models, revisions, dtype) if revisions else _of_runs(models, steps, dtype)
    with Progress(enabled=not quiet) as bars:
        origin = {"command": shlex.join(["jaxdyn", *sys.argv[1:]])}
        found = follow(checkpoints, prompts, settings, out=out, resume=resume, origin=origin, progress=bars.reach)
        page, *_ = write_study(out, endings)
    if as_json:
        typer.echo(json.dumps({"out": str(out), "report": str(page), **_plain(found)}))
    elif not quiet:
        console = Console(highlight=False)
        console.print(trajectory_table(found))
        console.print(str(page), soft_wrap=True)


def trajectory_table(found: Any) -> Table:
    """Lay the numbers out for the terminal: a row a step, means over the runs, each number with its excess."""
    table = Table(title=f"Over training, mean of {found.sizes['run']} run(s): number (excess)", title_justify="left",
                  box=None, pad_edge=False)  # fmt: skip
    names = [str(name) for name in found["claim"].values if np.isfinite(found["number"].sel(claim=name)).any()]
    for name in ("step", "loss", *names):
        table.add_column(name, justify="right", overflow="fold")
    mean = found[["number", "excess", "loss"]].mean("run")
    for step in found["step"].values:
        at = mean.sel(step=step)
        cells = [
            f"{float(at['number'].sel(claim=name)):.3f} ({float(at['excess'].sel(claim=name)):+.3f})" for name in names
        ]
        table.add_row(str(step), f"{float(at['loss']):.3f}", *cells)
    return table


def _of_runs(folders: list[str], steps: str, dtype: str) -> list[Any]:
    """Checkpoints of folders of `jaxdyn train`."""
    from .study.trajectory import Checkpoint
    from .training import kept_steps, model_at

    found = []
    for folder in folders:
        chosen = kept_steps(folder) if steps == "all" else [_number(one) for one in _names(steps)]
        found += [
            Checkpoint(Path(folder).resolve().name, step, partial(_astype, partial(model_at, folder, step), dtype))
            for step in chosen
        ]
    return found


def _of_revisions(models: list[str], revisions: str, dtype: str) -> list[Any]:
    """Revisions of one hub id, ordered by the last number in their names."""
    from .models import load
    from .study.trajectory import Checkpoint

    if len(models) != 1:
        msg = f"models: got {len(models)} with --revisions; allowed one hub id"
        raise InputError(msg)
    found = []
    for name in _names(revisions):
        numbers = re.findall(r"\d+", name)
        if not numbers:
            msg = f"revisions: got {name!r}; allowed names that hold their step, such as step1000"
            raise InputError(msg)
        found.append(Checkpoint("hub", int(numbers[-1]), partial(load, models[0], dtype=dtype, revision=name)))
    return found


def _astype(make: Any, dtype: str) -> Any:
    return make().astype(dtype)


def _number(text: str) -> int:
    if not text.isdecimal():
        msg = f"steps: got {text!r}; allowed 'all', or whole numbers with commas between"
        raise InputError(msg)
    return int(text)


def _plain(found: Any) -> dict[str, Any]:
    """Return number, excess and verdict by claim, (run, step); None where a number is missing."""

    def listed(values):
        return [[float(one) if np.isfinite(one) else None for one in row] for row in values]

    claims = {
        str(name): {
            **{key: listed(found[key].sel(claim=name).values) for key in ("number", "null", "excess")},
            "verdict": found["verdict"].sel(claim=name).values.tolist(),
        }
        for name in found["claim"].values
    }
    labels = {name: found[name].values.tolist() for name in ("run", "step")}
    return {**labels, "loss": listed(found["loss"].values), "claims": claims}
