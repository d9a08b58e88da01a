"""`jaxdyn dynamics`: argument parsing and printing; `jaxdyn.dynamics` does the work, imported when needed."""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, cast

import typer
from rich.console import Console

from . import application, embedded
from .errors import InputError


def dynamics(
    model: Annotated[
        str | None, typer.Argument(help="Hub id or local folder with config.json and safetensors; default embedded.")
    ] = None,
    texts: Annotated[Path | None, typer.Option(help="Prompts: .txt, one a line, or .json, a list of strings.")] = None,
    samples: Annotated[int | None, typer.Option(help="Use the first N prompts; default all.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Keep the first N tokens of each prompt.")] = None,
    stages: Annotated[
        str | None, typer.Option(help="Such as density,rotation; default all. --resume adds stages to a run.")
    ] = None,
    controls: Annotated[
        str, typer.Option(help="Any of random,rotated,skip,shuffled, or none.")
    ] = "random,rotated,skip,shuffled",
    draws: Annotated[int, typer.Option(help="Draws of each rotation null of the mean trajectory.")] = 1999,
    sample_draws: Annotated[int, typer.Option(help="Draws of the rotation null of single samples.")] = 199,
    bins: Annotated[int, typer.Option(help="Equal-count bins of the binned mutual information.")] = 32,
    neighbours: Annotated[int, typer.Option(help="k of the KSG estimator.")] = 3,
    information_units: Annotated[
        int, typer.Option(help="Units whose mutual information is measured, drawn by the seed; 0 takes all.")
    ] = 256,
    epochs: Annotated[int, typer.Option(help="Most epochs of the autoencoder's training.")] = 100,
    networks: Annotated[int, typer.Option(help="Autoencoders trained side by side.")] = 3,
    grid: Annotated[int, typer.Option(help="Teleport: points along each side of the grid.")] = 10,
    contexts: Annotated[int, typer.Option(help="Teleport: prompts in whose context each point is run.")] = 4,
    teleport_layers: Annotated[
        str | None, typer.Option(help="Such as 0,3-5; default 0, 7, 15, 23, 31 of 32, scaled to the depth.")
    ] = None,
    radii: Annotated[
        str, typer.Option(help="Teleport: factors of the displacement, for the reach of the linear prediction.")
    ] = "0.01,0.03,0.1,0.3,1,3",
    off_plane: Annotated[
        str, typer.Option(help="Teleport: off the plane, points have the samples' mean, or the natural state's part.")
    ] = "mean",
    scaling: Annotated[
        str, typer.Option(help="Teleport: coordinates scaled first: massive ones, all, or none.")
    ] = "massive",
    seed: Annotated[int, typer.Option(help="Of every random number.")] = 0,
    unit: Annotated[int, typer.Option(help="Texts a unit of work, the most a killed run loses.")] = 32,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub id.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the store, the figures and report.html.")] = Path("jaxdyn-out"),
    formats: Annotated[str, typer.Option(help="Of the figures: png, svg or both.")] = "png,svg",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, no table.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the table.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Measure the dynamics of the residual stream along depth, each quantity beside its null and controls.

    Without MODEL: the model that comes with jaxdyn; and without texts, the prompts written for it.
    """
    application.show_tracebacks(debug)
    from .dynamics.run import analyse
    from .dynamics.settings import DynamicsSettings
    from .dynamics.stages import chosen
    from .dynamics.teleport_settings import OffPlane, Scaling, TeleportSettings
    from .pipeline.progress import Progress
    from .pipeline.settings import parse_layers
    from .pipeline.texts import read_texts
    from .report.source import parse_formats

    if texts is None and model is not None:
        msg = "texts: give prompts with --texts FILE (.txt, one a line, or .json, a list of strings)"
        raise InputError(msg)
    prompts = read_texts(embedded.PROMPTS if texts is None else texts, samples=samples)
    endings = parse_formats(formats)
    settings = DynamicsSettings(
        controls=() if controls == "none" else tuple(piece.strip() for piece in controls.split(",")),
        stages=tuple(piece.strip() for piece in stages.split(",")) if stages else (),
        max_tokens=max_tokens,
        draws=draws,
        sample_draws=sample_draws,
        bins=bins,
        neighbours=neighbours,
        information_units=information_units,
        epochs=epochs,
        networks=networks,
        teleport=TeleportSettings(
            grid=grid,
            layers=parse_layers(teleport_layers) if teleport_layers else (),
            contexts=contexts,
            scaling=cast(Scaling, scaling),
            off_plane=cast(OffPlane, off_plane),
            radii=_numbers(radii),
        ),
        seed=seed,
        unit=unit,
    )
    chosen(settings.stages)
    loaded = application.load(model, "float32", None, revision)
    origin = {"command": shlex.join(["jaxdyn", *sys.argv[1:]]), "corpus": (texts or embedded.PROMPTS).name}
    with Progress(enabled=not quiet) as bars:
        analyse(loaded, prompts, settings, out=out, resume=resume, origin=origin, progress=bars.reach)
        with bars.stage("report and figures", 1) as advance_report:
            page = _report(out, endings)
            advance_report()

    from .report import dynamics_table
    from .report.dynamics import open_dynamics

    found = open_dynamics(out)
    assert found is not None
    if as_json:
        stored = {"store": str(out / "dynamics.zarr"), "report": str(page), "stages": list(found.groups)}
        typer.echo(json.dumps({**stored, "table": dynamics_table.as_dict(found)}))
    elif not quiet:
        console = Console(highlight=False)
        if not console.is_terminal:
            console = Console(highlight=False, width=130)
        console.print(dynamics_table.table(found))
        console.print(str(page), soft_wrap=True)


def _report(out: Path, endings: tuple[str, ...]) -> Path:
    """Write the whole report where a run of `analyze` lies in the folder, else a page of these figures alone."""
    from .report.dynamics import write_dynamics
    from .report.page import write_report
    from .report.source import STORE, open_sources

    if (out / STORE).exists():
        return write_report(open_sources([out]), out, formats=endings)[0]
    return write_dynamics(out, formats=endings)[0]


def _numbers(text: str) -> tuple[float, ...]:
    """Read the radii."""
    try:
        return tuple(float(piece) for piece in text.split(","))
    except ValueError:
        msg = f"radii: got {text!r}; allowed ascending numbers above 0 with commas between, such as 0.1,1"
        raise InputError(msg) from None
