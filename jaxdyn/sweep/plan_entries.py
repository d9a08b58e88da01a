"""What a plan is made over: the models and texts of PLAN.yaml, revisions and checkpoints spelt out."""

import fnmatch
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxdyn.errors import InputError

from .strict_yaml import PAGE, Table, Value

EMBEDDED = "embedded"
"""In place of a model or a text file: what comes with jaxdyn."""

MODEL_KEYS = ("model", "revision", "training", "steps", "name")
TEXT_KEYS = ("file", "samples", "max-tokens")


@dataclass(frozen=True)
class ModelEntry:
    """One set of weights.

    Attributes
    ----------
    name : of its folder in `out`.
    source : hub id, folder, or `EMBEDDED`; for a checkpoint the folder that `jaxdyn train` made.
    revision : of a hub id.
    step : of a training checkpoint, else None.
    """

    name: str
    source: str
    revision: str | None = None
    step: int | None = None


@dataclass(frozen=True)
class Texts:
    """Where the prompts are from: a file as `jaxdyn analyze --texts` takes it, or `EMBEDDED`."""

    file: str
    samples: int | None = None
    max_tokens: int | None = None


def read_models(value: Value, folder: Path) -> tuple[ModelEntry, ...]:
    """Read the list of models, revisions and steps spelt out, each with a folder name of its own."""
    items = value.raw if isinstance(value.raw, list) else [value]
    if not items:
        value.refuse("at least one model")
    found: list[ModelEntry] = []
    for item in items:
        for entry in _model(item, folder):
            if entry.name in {other.name for other in found}:
                item.refuse(f"a model once; two would be stored as {entry.name}: give one of them a `name`")
            found.append(entry)
    return tuple(found)


def _model(item: Value, folder: Path) -> list[ModelEntry]:
    if isinstance(item.raw, str):
        return [ModelEntry(_name_of(item.raw), _source(item.raw, folder))]
    table = Table(item, MODEL_KEYS)
    if ("model" in table) == ("training" in table):
        item.refuse("one of the keys model (a folder or hub id) and training (a folder of jaxdyn train)")
    given = table.get("name", str)
    if given is not None and not re.fullmatch(r"[\w.@+-]+", given):
        table["name"].refuse("letters, digits and . _ @ + - : it names a folder")
    if "model" in table:
        if "steps" in table:
            table["steps"].refuse("steps beside training, whose checkpoints they are")
        text = table["model"].of(str)
        revisions = _list(table, "revision", str)
        base = given or _name_of(text)
        source = _source(text, folder)
        if not revisions:
            return [ModelEntry(base, source)]
        return [ModelEntry(f"{base}@{_safe(one)}", source, revision=one) for one in revisions]
    if "revision" in table:
        table["revision"].refuse("revision beside model, of a hub id")
    place = folder / Path(table["training"].of(str)).expanduser()
    base = given or _name_of(place.name)
    return [ModelEntry(f"{base}-step-{step}", str(place), step=step) for step in _steps(table, place)]


def _steps(table: Table, place: Path) -> list[int]:
    """Return the checkpoints of a training run that are asked for: numbers, or a pattern such as "*" or "1*"."""
    from jaxdyn.training.checkpoints import FOLDER as CHECKPOINTS  # orbax takes a second, and few plans need it

    have = sorted(int(one.name) for one in (place / CHECKPOINTS).glob("*") if one.name.isdigit())
    if not have:
        table["training"].refuse(f"a folder that jaxdyn train made; {place / CHECKPOINTS} holds no checkpoint")
    wanted = table["steps"] if "steps" in table else Value("*", "steps", 0)
    if isinstance(wanted.raw, str):
        found = [step for step in have if fnmatch.fnmatch(str(step), wanted.raw)]
        if not found:
            wanted.refuse(f"a pattern that one of {', '.join(map(str, have))} matches")
        return found
    items = wanted.raw if isinstance(wanted.raw, list) else [wanted]
    for item in items:
        if item.of(int) not in have:
            item.refuse(f"the checkpoints {', '.join(map(str, have))}")
    return sorted({item.raw for item in items})


def read_texts(value: Value, folder: Path) -> Texts:
    """Read the key texts: a file, or a table with it."""
    if isinstance(value.raw, str):
        return Texts(_file(value.raw, folder))
    table = Table(value, TEXT_KEYS)
    return Texts(
        _file(table["file"].of(str), folder), table.number("samples", 1, None), table.number("max-tokens", 1, None)
    )


def _list(table: Table, key: str, kind: type) -> list[Any]:
    if key not in table:
        return []
    value = table[key]
    items = value.raw if isinstance(value.raw, list) else [value]
    if not items:
        value.refuse("at least one, or leave the key out")
    return [item.of(kind) for item in items]


def _source(text: str, folder: Path) -> str:
    """Return a folder's path where there is one beside the plan, else the text: a hub id, or `EMBEDDED`."""
    if not text:
        msg = "models: got ''; allowed: a folder, a hub id, or embedded"
        raise InputError(msg, page=PAGE)
    place = folder / Path(text).expanduser()
    return str(place) if text != EMBEDDED and (place.is_dir() or text.startswith((".", "/", "~"))) else text


def _file(text: str, folder: Path) -> str:
    return EMBEDDED if text == EMBEDDED else str(folder / Path(text).expanduser())


def _name_of(text: str) -> str:
    return _safe(Path(text).name)


def _safe(text: str) -> str:
    return re.sub(r"[^\w.@+-]", "-", text) or "model"
