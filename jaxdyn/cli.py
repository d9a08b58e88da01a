"""The command line: argument parsing, progress on the terminal, exit codes. What it calls is the library.

Exit codes: 0 done; 1 an unexpected error; 2 bad input or a store that cannot be used; 3 done, but some matrices did not
decompose (their status says why); 130 interrupted, the store can be resumed.
"""

import gc
import importlib
import json
import os
import shlex
import sys
import threading
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from . import application, embedded
from .cli_dynamics import dynamics
from .cli_semanticity import semanticity
from .cli_study import study
from .cli_sweep import sweep
from .cli_train import train
from .cli_trajectory import trajectory
from .errors import InputError, address

EXIT_BAD_INPUT, EXIT_SOME_FAILED, EXIT_INTERRUPTED = 2, 3, 130

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Spectra of transformer blocks, each measure beside its null.",
)
_can_resume = False


def main() -> None:
    """Entry point of the `jaxdyn` command."""
    gc.set_threshold(50_000)  # traces and figures are many small objects that live: looking for garbage took an eighth
    error_console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    try:
        code = app(standalone_mode=False)
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except Exception as error:
        if application.tracebacks:
            traceback.print_exc()
        message, code = _explain(error)
        error_console.print(message)
    if code == EXIT_INTERRUPTED:  # the parser turns Ctrl-C into this code
        hint = "; repeat the command with --resume to go on" if _can_resume else ""
        error_console.print(f"interrupted{hint}")
        sys.stdout.flush()
        os._exit(code)  # at once: threads in the middle of their work have nothing to tell
    if code and application.in_lockstep:
        sys.stdout.flush()
        os._exit(code)  # at once: jax would wait for the others, who wait for this process
    sys.exit(code or 0)


def _explain(error: Exception) -> tuple[str, int]:
    """One line, one more where a page of the documentation explains it, and an exit code for an exception."""
    if isinstance(error, InputError):
        return f"error: {error}" + (f"\nsee {address(error.page)}" if error.page else ""), EXIT_BAD_INPUT
    if hasattr(error, "format_message"):  # a usage error of the argument parser
        return f"error: {error.format_message()}", EXIT_BAD_INPUT  # pyright: ignore[reportAttributeAccessIssue]
    return f"unexpected {type(error).__name__}: {error} (run again with --debug for the traceback, and report it)", 1


def _version(show: bool) -> None:
    if show:
        from importlib.metadata import version

        typer.echo(f"jaxdyn {version('jaxdyn')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Spectra of transformer blocks, each measure beside its null."""


@app.command()
def analyze(
    model: Annotated[
        str | None, typer.Argument(help="Hub id or local folder with config.json and safetensors; default embedded.")
    ] = None,
    text: Annotated[list[str] | None, typer.Option(help="A prompt; may be repeated.")] = None,
    texts: Annotated[Path | None, typer.Option(help="Prompts: .txt, one a line, or .json, a list of strings.")] = None,
    samples: Annotated[int | None, typer.Option(help="Use the first N prompts; default all.")] = None,
    operator: Annotated[str, typer.Option(help="in-context, isolated or ov.")] = "in-context",
    derivative: Annotated[str, typer.Option(help="exact, or frozen (norm scale, pattern and gate held).")] = "exact",
    tokens: Annotated[str, typer.Option(help="Positions: last, all or last:N.")] = "last",
    layers: Annotated[str | None, typer.Option(help="Blocks, such as 0,3-5; default all.")] = None,
    parts: Annotated[str, typer.Option(help="Any of block, update, attention, mlp.")] = "block,update,attention,mlp",
    max_tokens: Annotated[int | None, typer.Option(help="Keep the first N tokens of each prompt.")] = None,
    weights_dtype: Annotated[str | None, typer.Option(help="bfloat16 or float32; default as --dtype.")] = None,
    dtype: Annotated[str, typer.Option(help="Of Jacobians and spectra: float32 or float64.")] = "float32",
    draws: Annotated[int, typer.Option(help="Draws of null N1 a matrix: 0 (none) or 8 and more.")] = 8,
    kreiss: Annotated[
        bool | None,
        typer.Option("--kreiss/--no-kreiss", help="The Kreiss constant, dear; default on if MODEL is given."),
    ] = None,
    pseudospectra: Annotated[str | None, typer.Option(help="Blocks whose mean gets a resolvent grid.")] = None,
    truncate: Annotated[int | None, typer.Option(help="Rank kept at each step of the cumulative product.")] = None,
    seed: Annotated[int, typer.Option(help="Of every random number.")] = 0,
    unit: Annotated[int, typer.Option(help="Samples a unit of work, the most a killed run loses.")] = 8,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub id.")] = None,
    out: Annotated[
        Path, typer.Option(help="Folder for results.zarr, report.html, the figures and config.yaml.")
    ] = Path("jaxdyn-out"),
    compare_init: Annotated[
        bool, typer.Option("--compare-init", help="Also run random initialisations (N5): once more a seed.")
    ] = False,
    init_seeds: Annotated[int | None, typer.Option(help="Their number with --compare-init; default 5.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars, no table.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the table.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Measure every block of a model and print the table by layer, each measure beside its null.

    Without MODEL: the model that comes with jaxdyn; and without texts, the prompts written for it.
    """
    global _can_resume
    application.show_tracebacks(debug)
    _can_resume = True
    from .pipeline.settings import Settings, parse_layers
    from .pipeline.texts import first_texts, read_texts

    if text is None and texts is None and model is None:
        texts = embedded.PROMPTS
    if (text is None) == (texts is None):
        msg = "text: give prompts with --text (may be repeated) or with --texts FILE, one of the two"
        raise InputError(msg)
    prompts = read_texts(texts, samples=samples) if texts else first_texts(text or [], samples, "--text")
    settings = Settings(
        operator=operator,  # pyright: ignore[reportArgumentType]
        derivative=derivative,  # pyright: ignore[reportArgumentType]
        tokens=tokens,
        layers=parse_layers(layers) if layers else (),
        parts=tuple(part.strip() for part in parts.split(",")),
        max_tokens=max_tokens,
        draws=draws,
        kreiss=model is not None if kreiss is None else kreiss,  # half the time of a run that should be quick
        seed=seed,
        unit=unit,
        pseudospectra=parse_layers(pseudospectra, "pseudospectra") if pseudospectra else (),
        truncate=truncate,
    )
    from .pipeline.initial import FEWEST, check_init, run_init

    if init_seeds is not None and not compare_init:
        msg = f"init-seeds: got {init_seeds} without --compare-init, which they are for; add it, or leave this out"
        raise InputError(msg)
    seeds = (FEWEST if init_seeds is None else init_seeds) if compare_init else 0
    if seeds:
        check_init(out, settings, seeds, resume=resume)
    from .pipeline.progress import Progress
    from .report.painter import Painter

    origin = {"command": shlex.join(["jaxdyn", *sys.argv[1:]]), "corpus": texts.name if texts else "--text"}
    with Painter() as painter, Progress(enabled=not quiet) as progress:
        loaded = application.load(model, dtype, weights_dtype, revision)
        from .pipeline.run import run

        # What draws the report is imported while LAPACK measures.
        threading.Thread(target=importlib.import_module, args=("jaxdyn.report.page",), daemon=True).start()
        where: dict[str, Any] = {"out": out, "resume": resume, "progress": progress, "origin": origin}
        outcome, initial = run(loaded, prompts, settings, **where), None
        if seeds:
            loaded = loaded.outline()  # lets go of the weights
            initial = run_init(loaded, prompts, settings, seeds, **where)
        from .report import page, tables
        from .report.source import open_sources

        sources = open_sources([out])
        tree = sources[0].tree
        with progress.stage("report and figures", 1) as advance:
            html, *written = page.write_report(sources, out, painter=painter)
            advance()
    if as_json:
        files = {"store": str(outcome.store), "report": str(html), "figures": [str(path) for path in written]}
        beside = {"initial": initial.as_dict()} if initial else {}
        table = tables.as_dict(tree, sources[0].init)
        typer.echo(json.dumps({**files, **outcome.as_dict(), **beside, "table": table}))
    elif not quiet:
        console = Console(highlight=False)
        if not console.is_terminal:  # a pipe has no width; rich would take 80 and cut the table
            console = Console(highlight=False, width=100)
        console.print(tables.by_layer(tree))
        lines = [outcome.summary(), *([initial.summary()] if initial else []), outcome.store, html]
        console.print("\n".join(map(str, lines)), soft_wrap=True)
    if outcome.failed or (initial and initial.failed):
        raise typer.Exit(EXIT_SOME_FAILED)


app.command()(train)
app.command()(semanticity)
app.command()(study)
app.command()(trajectory)
app.command()(dynamics)
app.command()(sweep)


@app.command()
def convert(
    model: Annotated[str, typer.Argument(help="Hub id or local folder with config.json and safetensors.")],
    directory: Annotated[Path, typer.Argument(help="Folder of the copy; must not exist, or be empty.")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub id.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Keep an orbax copy of a model, which loads as the model does and restores split over any mesh of devices."""
    application.show_tracebacks(debug)
    import jax

    jax.config.update("jax_enable_x64", True)  # a float64 checkpoint is kept as it is
    from .models import convert
    from .models.orbax_copy import read_manifest

    kept = read_manifest(convert(model, directory, revision=revision))
    assert kept is not None
    if as_json:
        facts = {name: getattr(kept, name) for name in ("source", "revision", "weights_hash", "dtype")}
        typer.echo(json.dumps({"directory": str(directory), **facts}))
    else:
        typer.echo(f"{directory}: {kept.source} in {kept.dtype}, weights {kept.weights_hash[:12]}")


@app.command()
def models(
    model: Annotated[str | None, typer.Argument(help="Hub id or local folder; none lists the families.")] = None,
    samples: Annotated[int | None, typer.Option(help="Prompts of the analysis to estimate; default 32.")] = None,
    length: Annotated[int | None, typer.Option(help="Tokens of each; default 128, at most the context.")] = None,
    tokens: Annotated[str | None, typer.Option(help="As for analyze, as all that follow.")] = None,
    layers: Annotated[str | None, typer.Option()] = None,
    parts: Annotated[str | None, typer.Option()] = None,
    weights_dtype: Annotated[str | None, typer.Option()] = None,
    dtype: Annotated[str | None, typer.Option()] = None,
    draws: Annotated[int | None, typer.Option()] = None,
    kreiss: Annotated[bool | None, typer.Option("--kreiss/--no-kreiss")] = None,
    unit: Annotated[int | None, typer.Option()] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub id.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """List the families and what each was checked against; or describe one MODEL, and what its analysis will take."""
    application.show_tracebacks(debug)
    from . import catalogue

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 100)
    chosen = {
        "layers": layers, "parts": parts, "tokens": tokens, "draws": draws, "kreiss": kreiss, "unit": unit,
        "samples": samples, "length": length, "dtype": dtype, "weights-dtype": weights_dtype, "revision": revision,
    }  # fmt: skip
    given = {name: value for name, value in chosen.items() if value is not None}
    if model is None:
        if given:
            name = next(iter(given))
            msg = f"{name}: got {given[name]!r} without a MODEL, which it is about; name the model, or leave it out"
            raise InputError(msg)
        found = catalogue.families()
        typer.echo(json.dumps(found)) if as_json else catalogue.show_families(found, console)
        return
    given.pop("revision", None)
    work = _work(given)
    application.configure(work.dtype, weights_dtype)
    from .pipeline.estimate import measure_rates

    found = catalogue.describe(model, work, measure_rates(work.dtype), revision=revision)
    typer.echo(json.dumps(found)) if as_json else catalogue.show_model(found, console)


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(help="Folder of a run; two are overlaid.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the report; default the run's own, or jaxdyn-report for two runs.")
    ] = None,
    formats: Annotated[str, typer.Option(help="Of the figures beside the page: png, svg or both.")] = "png,svg",
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Write report.html and its figures from one finished or unfinished run, or from two runs overlaid."""
    application.show_tracebacks(debug)
    from .report.page import write_report
    from .report.source import STORE, open_sources, parse_formats
    from .report.study import open_study, write_study

    if len(folders) == 1 and not (folders[0] / STORE).exists() and (study := open_study(folders[0])):
        html, *written = write_study(folders[0] if out is None else out, parse_formats(formats), stages=study)
        typer.echo(f"{len(written)} figures\n{html}")
        return
    sources = open_sources(folders)
    place = out or (sources[0].folder if len(sources) == 1 else None) or Path("jaxdyn-report")
    html, *written = write_report(sources, place, formats=parse_formats(formats))
    console = Console(highlight=False, soft_wrap=True, markup=False)
    for source in sources:
        console.print(source.progress())
    console.print(f"{len(written)} figures\n{html}")


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what this machine has: devices, versions, and which implementation each decomposition will use."""
    from .doctor import examine, show

    facts = examine()
    if as_json:
        typer.echo(json.dumps(facts))
    else:
        show(facts, Console(highlight=False))


def _work(given: dict[str, Any]):
    """The analysis that `jaxdyn models MODEL` estimates: the options given, else the defaults of analyze."""
    from .pipeline.estimate import Work
    from .pipeline.settings import Settings, parse_layers

    for name in ("samples", "length"):
        if given.get(name, 1) < 1:
            msg = f"{name}: got {given[name]}; allowed 1 or more"
            raise InputError(msg)
    options = {name: given[name] for name in ("tokens", "draws", "kreiss", "unit") if name in given}
    if "layers" in given:
        options["layers"] = parse_layers(given["layers"])
    if "parts" in given:
        options["parts"] = tuple(part.strip() for part in given["parts"].split(","))
    dtype = given.get("dtype", "float32")
    weights_dtype = dtype if dtype == "float64" else given.get("weights-dtype", dtype)  # as analyze holds them
    return Work(Settings(**options), given.get("samples", 32), given.get("length", 128), dtype, weights_dtype)
