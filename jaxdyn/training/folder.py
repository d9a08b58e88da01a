"""The folder of a run: what it is a run of, and who may go on with it."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import jax
from tokenizers import Tokenizer

from jaxdyn.errors import InputError
from jaxdyn.training import bpe, corpus
from jaxdyn.training.settings import TrainSettings

RECORD, MODEL = "training.json", "model"


def describe(settings: TrainSettings, training: list[corpus.Text], held: list[corpus.Text]) -> dict:
    """Return everything that decides the bits of a run: settings, hashes of the texts, versions, platform."""
    return {
        "settings": asdict(settings),
        "texts": {text.name: text.sha256 for text in training},
        "held_out": {text.name: text.sha256 for text in held},
        "versions": {name: version(name) for name in ("jax", "jaxlib", "optax", "numpy", "tokenizers")},
        "platform": jax.default_backend(),
    }


def open_run(
    out: Path, record: dict, training: list[corpus.Text], settings: TrainSettings, *, resume: bool
) -> Tokenizer:
    """Make the folder of a new run with its tokenizer, or check that the run there is this one; the tokenizer."""
    if (out / RECORD).is_file():
        there = read_record(out)
        if not resume:
            msg = f"out: {out} already holds a run; go on with it (--resume) or choose another --out"
            raise InputError(msg)
        differing = list(_differences(there, record))
        if differing:
            list_ = "; ".join(differing)
            msg = f"out: cannot resume {out}, its settings differ: {list_}. Repeat them, or choose another --out"
            raise InputError(msg)
        return bpe.load_tokenizer(out / MODEL)
    try:
        if out.exists() and {path.name for path in out.iterdir()} - {MODEL}:
            msg = f"out: {out} holds other files; choose a new or empty folder"
            raise InputError(msg)
        (out / MODEL).mkdir(parents=True, exist_ok=True)
        documents = [document for text in training for document in text.documents]
        tokenizer = bpe.train_tokenizer(documents, vocab=settings.vocab)
        bpe.save_tokenizer(tokenizer, out / MODEL, context=settings.context)
        temporary = out / MODEL / f"{RECORD}.tmp"
        temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        temporary.replace(out / RECORD)  # last, so that a run with a record has its tokenizer
    except OSError as error:
        msg = f"out: cannot write to {out} ({error}); choose a folder that can be written"
        raise InputError(msg) from error
    return tokenizer


def read_record(out: Path) -> dict:
    """Return what `open_run` stored; an ``InputError`` where there is no run."""
    try:
        return json.loads((out / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"out: cannot read {out / RECORD} ({error}); give the folder of a training run"
        raise InputError(msg) from error


def _differences(there: dict, here: dict, prefix: str = "") -> Iterator[str]:
    for key in sorted({*there, *here}):
        a, b = there.get(key), here.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from _differences(a, b, f"{prefix}{key}.")
        elif a != b:
            yield f"{prefix}{key} was {a!r}, now {b!r}"
