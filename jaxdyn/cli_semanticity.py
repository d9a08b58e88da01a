"""`jaxdyn semanticity`: argument parsing and printing; `jaxdyn.semanticity` does the work, imported when needed."""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from . import application
from .errors import InputError


def semanticity(
    model: Annotated[
        str | None, typer.Argument(help="Hub id or local folder with config.json and safetensors; default embedded.")
    ] = None,
    stimuli: Annotated[str, typer.Option(help="numbers, years or words.")] = "numbers",
    distance: Annotated[str | None, typer.Option(help="Of words: edit (default) or list.")] = None,
    samples: Annotated[int, typer.Option(help="Stimuli; half of them fit the kernel, half are tested.")] = 100,
    layers: Annotated[
        str | None,
        typer.Option(help="Such as 0,3-5: the state at a block's entry; the number of blocks: after the last."),
    ] = None,
    controls: Annotated[str, typer.Option(help="Any of random,rotated, or none.")] = "random,rotated",
    items: Annotated[str, typer.Option(help="Numbers of items of the curves, 2 among them.")] = "2,3,5,10,20",
    trials: Annotated[int, typer.Option(help="Tuples sampled for each number of items above 2.")] = 20_000,
    toy: Annotated[bool, typer.Option("--toy", help="Train the toy network instead, and draw its way.")] = False,
    space: Annotated[str, typer.Option(help="Of the toy network's stimuli: circle or segment.")] = "circle",
    slots: Annotated[
        str | None, typer.Option(help="Composite stimuli of the toy network: features of each slot, such as 8,8.")
    ] = None,
    epochs: Annotated[int, typer.Option(help="Of the toy network's training.")] = 500,
    networks: Annotated[int, typer.Option(help="Toy networks trained side by side.")] = 10,
    seed: Annotated[int, typer.Option(help="Of every random number.")] = 0,
    unit: Annotated[int, typer.Option(help="Stimuli a unit of work, the most a killed run loses.")] = 32,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub id.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the store, the figures and report.html.")] = Path("jaxdyn-out"),
    formats: Annotated[str, typer.Option(help="Of the figures: png, svg or both.")] = "png,svg",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the probe in --out.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, no table.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the table.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Test every layer for generalisation and identification, against the laws of finite resolution.

    With --toy: a small ReLU network that learns a resolution, along its training.
    """
    application.show_tracebacks(debug)
    _refuse_mixed(toy, {"MODEL": model, "distance": distance, "layers": layers, "revision": revision},
                  {"slots": slots}, resume=resume)  # fmt: skip
    application.keep_compiled()
    from .report.source import parse_formats

    endings = parse_formats(formats)
    origin = {"command": shlex.join(["jaxdyn", *sys.argv[1:]])}
    if toy:
        found = _train(space, slots, epochs, networks, seed, out, origin)
        table = _toy_table(found)
        facts: dict[str, Any] = {name: found[name].values.tolist() for name in ("p_s", "p_i")}
        facts["epochs"] = found["evaluated_epoch"].values.tolist()
    else:
        from .pipeline.settings import parse_layers
        from .semanticity.run import ProbeSettings

        settings = ProbeSettings(
            layers=parse_layers(layers) if layers else (),
            controls=() if controls == "none" else tuple(piece.strip() for piece in controls.split(",")),
            items=_numbers(items),
            trials=trials,
            seed=seed,
            unit=unit,
        )
        found = _probe(model, revision, stimuli, samples, distance, settings, out, origin, resume=resume, quiet=quiet)
        table = _probe_table(found)
        names = ("p_s", "p_i", "p_s_law", "p_i_law", "eps", "noise", "mean_b", "var_b")
        facts = {name: found[name].values.tolist() for name in names}
        facts |= {name: found[name].values.tolist() for name in ("control", "layer", "items", "law", "kernel")}
    page = _report(out, endings)
    if as_json:
        typer.echo(json.dumps({"report": str(page), **facts}))
    elif not quiet:
        console = Console(highlight=False)
        if not console.is_terminal:
            console = Console(highlight=False, width=110)
        console.print(table)
        console.print(str(page), soft_wrap=True)


def _probe(model, revision, stimuli, samples, distance, settings, out, origin, *, resume, quiet):
    from .models import load
    from .pipeline.progress import Progress
    from .semanticity.run import probe
    from .semanticity.stimuli import make

    made = make(stimuli, samples, distance=distance)
    loaded = load(model, revision=revision)
    with Progress(enabled=not quiet) as bars:
        return probe(loaded, made, settings, out=out, resume=resume, origin=origin, progress=bars.reach)


def _train(space, slots, epochs, networks, seed, out, origin):
    from .semanticity.slots import SlotSettings
    from .semanticity.toy import ToySettings
    from .semanticity.toy_store import train_into

    common: dict[str, Any] = {"space": space, "epochs": epochs, "seeds": networks, "seed": seed}
    settings = SlotSettings(vocabularies=_numbers(slots, "slots"), **common) if slots else ToySettings(**common)
    return train_into(out, settings, origin=origin)


def _report(out: Path, endings: tuple[str, ...]) -> Path:
    """Write the whole report where a run of `analyze` lies in the folder, else a page of these figures alone."""
    from .report.page import write_report
    from .report.semanticity import write_semanticity
    from .report.source import STORE, open_sources

    if (out / STORE).exists():
        return write_report(open_sources([out]), out, formats=endings)[0]
    return write_semanticity(out, formats=endings)[0]


def _probe_table(found) -> Table:
    table = Table(title="two items: measured, 95 % interval over probes; predicted from the similarity's shape")
    for heading in ("control", "layer", "p_S", "interval", "pred.", "p_I", "interval", "pred.", "eps", "floor", "b"):
        table.add_column(heading, justify="left" if heading == "control" else "right")
    for control in found["control"].values.tolist():
        for layer in found["layer"].values.tolist():
            at = found.sel(control=control, layer=layer)
            cells = [control, str(layer)]
            for name in ("p_s", "p_i"):
                low, high = float(at[f"{name}_low"]), float(at[f"{name}_high"])
                law = float(at[f"{name}_law"].sel(law="table", items=2))
                cells += [f"{float(at[name]):.3f}", f"{low:.3f}-{high:.3f}", f"{law:.3f}"]
            kernel = at.sel(kernel="linear")
            table.add_row(*cells, *(f"{float(kernel[name]):.3f}" for name in ("eps", "noise", "mean_b")))
    return table


def _toy_table(found) -> Table:
    table = Table(title="toy network, mean over networks, exact; the linear front at the same p_I")
    for heading in ("epoch", "p_S", "p_I", "linear front"):
        table.add_column(heading, justify="right")
    import numpy as np

    from .semanticity.theory import similarity_at

    for epoch in found["evaluated_epoch"].values.tolist():
        at = found.sel(evaluated_epoch=epoch)
        law = np.asarray(similarity_at(at["p_i"].values, 2, "linear"))
        front = f"{law.mean():.3f}" if np.isfinite(law).all() else "-"
        table.add_row(str(epoch), f"{float(at['p_s'].mean()):.3f}", f"{float(at['p_i'].mean()):.3f}", front)
    return table


def _refuse_mixed(toy: bool, of_probe: dict[str, Any], of_toy: dict[str, Any], *, resume: bool) -> None:
    """Refuse options that would have no effect."""
    given = {name: value for name, value in (of_probe if toy else of_toy).items() if value is not None}
    if toy and resume:
        given["resume"] = True
    if given:
        name, value = next(iter(given.items()))
        other = "it is for a model; leave --toy out" if toy else "it is for the toy network; add --toy"
        msg = f"{name}: got {value!r} {'with' if toy else 'without'} --toy; {other}, or leave it out"
        raise InputError(msg)


def _numbers(text: str, argument: str = "items") -> tuple[int, ...]:
    pieces = [piece.strip() for piece in text.split(",")]
    if not all(piece.isdecimal() for piece in pieces):
        msg = f"{argument}: got {text!r}; allowed numbers with commas between, such as 2,5,10"
        raise InputError(msg)
    return tuple(int(piece) for piece in pieces)
