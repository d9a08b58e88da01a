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
    ] = "ladder,measures,conventions,surrogates,functional,topology",
    rungs: Annotated[str, typer.Option(help="Of the ladder; N6 and N7 are always there.")] = "N0,N1,N2,N4,N5",
    draws: Annotated[int, typer.Option(help="Of N0 to N2.")] = 8,
    init_seeds: Annotated[int, typer.Option(help="Random initialisations of N5, 5 or more.")] = 5,
    untrained: Annotated[
        int | None, typer.Option(help="Study the same architecture at random initialisation, with this seed.")
    ] = None,
    sites: Annotated[
        str, typer.Option(help='In which layers surrogates stand: "all" and any of early, late, each.')
    ] = "all,early,late",
    order_sweep: Annotated[bool, typer.Option(help="Sweep the order of the eigenvalues.")] = True,
    max_tokens: Annotated[int | None, typer.Option(help="Keep at most so many tokens of each text.")] = None,
    seed: Annotated[int, typer.Option(help="Of every random number.")] = 0,
    dtype: Annotated[str, typer.Option(help="float32 or float64.")] = "float32",
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub id.")] = None,
    corpus: Annotated[
        list[Path] | None, typer.Option(help="Further texts that the conventions go through; may be repeated.")
    ] = None,
    formats: Annotated[str, typer.Option(help="Of the figures beside the page: png, svg or both.")] = "png,svg",
    out: Annotated[Path, typer.Option(help="Folder for the stores of the stages and the report.")] = Path("jaxdyn-out"),
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
    from .report.source import parse_formats
    from .study.settings import StudySettings

    endings = parse_formats(formats)
    prompts = read_texts(texts or embedded.PROMPTS, samples=samples)
    corpora = {path.stem: read_texts(path, samples=samples) for path in corpus or ()}
    if len(corpora) < len(corpus or ()):
        msg = "corpus: got two files of one name; allowed files with different names, which the figures show"
        raise InputError(msg)
    settings = StudySettings(
        operator=operator,  # pyright: ignore[reportArgumentType]
        operators=_names(operators),  # pyright: ignore[reportArgumentType]
        stages=_names(stages),
        rungs=_names(rungs),
        draws=draws,
        init_seeds=init_seeds,
        sites=_names(sites),
        order_sweep=order_sweep,
        max_tokens=max_tokens,
        seed=seed,
    )
    loaded = application.load(model, dtype, None, revision)
    loaded = loaded if untrained is None else loaded.initialised(untrained)
    found, page = _run(loaded, prompts, settings, out, endings, corpora=corpora, resume=resume, quiet=quiet)
    if as_json:
        typer.echo(json.dumps({"out": str(out), "report": str(page), "claims": as_dicts(found)}))
    elif not quiet:
        console = Console(highlight=False)
        if not console.is_terminal:
            console = Console(highlight=False, width=130)
        console.print(claims_table(found))
        console.print(str(page), soft_wrap=True)


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
        table.add_row(*claim_cells(row))
    return table


def claim_cells(row: dict[str, Any]) -> tuple[str, str, str, str, str]:
    """Write one claim of `as_dicts` as text: claim, number, null, excess with its interval, verdict."""
    shown = {name: "" if row[name] is None else f"{row[name]:.3f}" for name in ("number", "null")}
    interval = "" if row["excess"] is None else f"{row['excess']:+.3f}"
    if row["excess_low"] is not None:
        interval += f" [{row['excess_low']:+.3f}, {row['excess_high']:+.3f}]"
    null = f"{shown['null']} ({row['rung']})" if row["rung"] else ""
    verdict = row["verdict"] + (f" ({row['because']})" if row["because"] else "")
    return row["claim"], shown["number"], null, interval, verdict


def _run(loaded, prompts, settings, out, endings, *, corpora, resume, quiet):
    """Run the study and write its report; the claims, and the page."""
    from .pipeline.progress import Progress
    from .report.page import write_report
    from .report.source import STORE, open_sources
    from .report.study import write_study
    from .study.run import study as run_study

    with Progress(enabled=not quiet) as bars:
        given = {"origin": {"command": shlex.join(["jaxdyn", *sys.argv[1:]])}, "progress": bars.reach}
        found = run_study(loaded, prompts, settings, out=out, corpora=corpora, resume=resume, **given)
        with bars.stage("report and figures", 1) as advance:
            if (out / STORE).exists():  # of a run of analyze: one report of both
                page = write_report(open_sources([out]), out, formats=endings)[0]
            else:
                page = write_study(out, endings)[0]
            advance()
    return found, page


def _names(text: str) -> tuple[str, ...]:
    return tuple(piece.strip() for piece in text.split(",") if piece.strip())
