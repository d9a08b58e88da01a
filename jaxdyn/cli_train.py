"""`jaxdyn train`: argument parsing only; `jaxdyn.training` does the work and is imported when it is needed."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from . import application


def train(
    texts: Annotated[
        list[str], typer.Argument(help="Files to train on: .txt, one document, .json, a list, or FILE.json[a:b].")
    ],
    held_out: Annotated[
        list[str] | None,
        typer.Option(help="A file held out; may be repeated. Without any: the last 5 % of the tokens."),
    ] = None,
    width: Annotated[int, typer.Option(help="Of the residual stream.")] = 128,
    layers: Annotated[int, typer.Option(help="Blocks.")] = 8,
    heads: Annotated[int, typer.Option(help="Query heads.")] = 4,
    kv_heads: Annotated[int, typer.Option(help="Key and value heads.")] = 2,
    ff_dim: Annotated[int, typer.Option(help="Width inside the MLP.")] = 344,
    vocab: Annotated[int, typer.Option(help="Of the byte-level BPE tokenizer, 257 or more.")] = 4096,
    context: Annotated[int, typer.Option(help="Tokens of a window.")] = 256,
    steps: Annotated[int, typer.Option(help="Optimizer steps.")] = 2000,
    batch: Annotated[int, typer.Option(help="Windows a step.")] = 16,
    learning_rate: Annotated[float, typer.Option(help="Its peak.")] = 2e-3,
    warmup: Annotated[int, typer.Option(help="Steps to the peak.")] = 100,
    weight_decay: Annotated[float, typer.Option(help="Of matrices and the embedding.")] = 0.1,
    clip: Annotated[float, typer.Option(help="Largest norm of the gradient.")] = 1.0,
    dtype: Annotated[str, typer.Option(help="Of the linear maps' products: float32 or bfloat16.")] = "float32",
    save_dtype: Annotated[str, typer.Option(help="Of the exported weights: float32, bfloat16, float16.")] = "float32",
    seed: Annotated[int, typer.Option(help="Of the initial weights and the order of the data.")] = 0,
    validate_every: Annotated[int, typer.Option(help="Steps between validations.")] = 100,
    save_every: Annotated[int, typer.Option(help="Steps between checkpoints, the most a killed run loses.")] = 50,
    out: Annotated[Path, typer.Option(help="Folder for the model, the curve and the checkpoints.")] = Path(
        "jaxdyn-model"
    ),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar, no summary.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the summary.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Train a small Llama-style model and its tokenizer on texts, into a Hugging Face folder."""
    from .training import TrainSettings
    from .training import train as run
    from .training.progress import TrainingBar

    application.show_tracebacks(debug)
    application.keep_compiled()
    settings = TrainSettings(
        width=width,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        ff_dim=ff_dim,
        vocab=vocab,
        context=context,
        steps=steps,
        batch=batch,
        learning_rate=learning_rate,
        warmup=warmup,
        weight_decay=weight_decay,
        clip=clip,
        dtype=dtype,
        save_dtype=save_dtype,
        seed=seed,
        validate_every=validate_every,
        save_every=save_every,
    )
    bar = TrainingBar(enabled=not quiet)
    outcome = run(texts, settings, out=out, held_out=held_out or (), resume=resume, progress=bar)
    if as_json:
        facts = {
            "model": str(outcome.folder),
            "steps": outcome.steps,
            "parameters": outcome.parameters,
            "held_out": outcome.held_out,
            "tokens_per_second": outcome.tokens_per_second,
        }
        typer.echo(json.dumps(facts))
    elif not quiet:
        console = Console(highlight=False, soft_wrap=True, markup=False)
        speed = outcome.tokens_per_second
        console.print(
            f"{outcome.parameters:,} parameters, {outcome.steps} steps" + (f", {speed:,.0f} tokens/s" if speed else "")
        )
        for name, loss in outcome.held_out.items():
            console.print(
                f"held out {name}: {loss['nats_per_token']:.4f} nats a token, {loss['nats_per_byte']:.4f} nats a byte, "
                f"{loss['tokens']:.0f} tokens"
            )
        console.print(str(outcome.folder))
