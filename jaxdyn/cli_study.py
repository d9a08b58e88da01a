"""`jaxdyn study`: argument parsing and printing; `jaxdyn.study` does the work, imported when needed."""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from . import application, embedded
from .errors import InputError


def study(
    model: Annotated[
        str | None, typer.Argument(help="Hub id or local folder with config.json and safetensors; default embedded.")
    ] = None,
    texts: Annotated[Path | None, typer.Option(help="A .txt (one text a line) or .json (list of strings).")] = None,
    samples: Annotated[int | None, typer.Option(help="Take the first N texts.")] = None,
    operator: Annotated[
        str, typer.Option(help="Of the primary statistics: in-context, isolated or ov.")
    ] = "in-context",
    operators: Annotated[str, typer.Option(help="That the conventions go through.")] = "in-context,isolated,ov",
    stages: Annotated[
        str, typer.Option(help="Any of these; what is left out has no verdict.")
    ] = "ladder,conventions,surrogates,functional,topology",
    rungs: Annotated[str, typer.Option(help="Of the ladder; N6 and N7 are always there.")] = "N0,N1,N2,N4,N5",
    draws: Annotated[int, typer.Option(help="Of N0 to N2.")] = 8,
    init_seeds: Annotated[int, typer.Option(help="Random initialisations of N5, 5 or more.")] = 5,
    max_tokens: Annotated[int | None, typer.Option(help="Keep at most so many tokens of each text.")] = None,
    seed: Annotated[int, typer.Option(help="Of every random number.")] = 0,
    dtype: Annotated[str, typer.Option(help="float32 or float64.")] = "float32",
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub id.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the stores of the stages.")] = Path("jaxdyn-out"),
    resume: Annotated[bool, typer.Option("--resume", help="Keep the finished stages in --out.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, no table.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the table.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Say of each claim of the source paper which null first explains it."""
    application.show_tracebacks(debug)
    if model is not None and texts is None:
        msg = "texts: got none; give prompts with --texts FILE (the embedded model alone brings its own)"
        raise InputError(msg)
    from .pipeline.texts import read_texts
    from .study.settings import StudySettings

    prompts = read_texts(texts or embedded.PROMPTS, samples=samples)
    settings = StudySettings(
        operator=operator,  # pyright: ignore[reportArgumentType]
        operators=_names(operators),  # pyright: ignore[reportArgumentType]
        stages=_names(stages),
        rungs=_names(rungs),
        draws=draws,
        init_seeds=init_seeds,
        max_tokens=max_tokens,
        seed=seed,
    )
    loaded = application.load(model, dtype, None, revision)
    found = _run(loaded, prompts, settings, out, resume=resume, quiet=quiet)
    if as_json:
        typer.echo(json.dumps({"out": str(out), "claims": as_dicts(found)}))
    elif not quiet:
        console = Console(highlight=False)
        if not console.is_terminal:
            console = Console(highlight=False, width=130)
        console.print(claims_table(found))
        console.print(str(out), soft_wrap=True)


def as_dicts(found: Any) -> list[dict[str, Any]]:
    """Return the claims as plain values, None where a number is missing."""
    numbers = ("number", "null", "excess", "excess_low", "excess_high", "floor", "trend_p", "margin")
    rows = []
    for claim in found["claim"].values:
        one = found.sel(claim=claim)
        values = {name: float(one[name]) for name in numbers}
        row: dict[str, Any] = {name: value if np.isfinite(value) else None for name, value in values.items()}
        rows.append(
            {"claim": str(claim), **row, **{name: str(one[name].values) for name in ("rung", "verdict", "because")}}
        )
    return rows


def claims_table(found: Any) -> Table:
    """Lay the claims out for the terminal."""
    table = Table(title="Claims, each beside the null that decides", title_justify="left", box=None, pad_edge=False)
    for name in ("claim", "number", "null", "excess [95 %]", "verdict"):
        table.add_column(name, justify="left" if name in ("claim", "verdict") else "right", overflow="fold")
    for row in as_dicts(found):
        shown = {name: "" if row[name] is None else f"{row[name]:.3f}" for name in ("number", "null")}
        interval = "" if row["excess"] is None else f"{row['excess']:+.3f}"
        if row["excess_low"] is not None:
            interval += f" [{row['excess_low']:+.3f}, {row['excess_high']:+.3f}]"
        null = f"{shown['null']} ({row['rung']})" if row["rung"] else ""
        verdict = row["verdict"] + (f" ({row['because']})" if row["because"] else "")
        table.add_row(row["claim"], shown["number"], null, interval, verdict)
    return table


def _run(loaded, prompts, settings, out, *, resume, quiet):
    from .pipeline.progress import Progress
    from .study.run import study as run_study

    with Progress(enabled=not quiet) as bars:
        origin = {"command": shlex.join(["jaxdyn", *sys.argv[1:]])}
        return run_study(loaded, prompts, settings, out=out, resume=resume, origin=origin, progress=bars.reach)


def _names(text: str) -> tuple[str, ...]:
    return tuple(piece.strip() for piece in text.split(",") if piece.strip())
