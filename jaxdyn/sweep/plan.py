"""What a sweep computes: PLAN.yaml as frozen dataclasses, checked wholly before anything is loaded.

Relative paths in a plan are taken from the folder of the plan's file.
"""

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxdyn.errors import InputError
from jaxdyn.jacobians.request import DERIVATIVES
from jaxdyn.pipeline.settings import ANALYZE_OPERATORS, OUTPUTS, PARTS, Settings, parse_layers

from .plan_entries import EMBEDDED as EMBEDDED
from .plan_entries import ModelEntry, Texts, read_models, read_texts
from .strict_yaml import Table, read

MESHES = ("one", "data", "fsdp", "tensor")
TOGETHER = ("fsdp", "tensor")
"""Presets in which all devices hold one model and compute units together, in lockstep."""

KEYS = (
    "models", "texts", "operators", "derivative", "parts", "layers", "tokens", "dtype", "weights-dtype", "draws",
    "kreiss", "truncate", "outputs", "unit", "threads", "mesh",
    "model-devices", "memory", "seed", "out",
)  # fmt: skip
SIZES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


@dataclass(frozen=True)
class Plan:
    """A whole sweep; `load_plan` makes one of PLAN.yaml.

    Attributes
    ----------
    models, texts : what runs over what.
    operators : one store each for every model.
    derivative, parts, layers, tokens, draws, kreiss, truncate, outputs, unit, seed : as in `pipeline.Settings`.
    dtype, weights_dtype : as the options of `jaxdyn analyze`.
    threads : cores that a process works with, which the bits depend on; None takes this machine's at creation.
    mesh : "one", a single process on one device; "data", units dealt over processes and devices, weights on each;
        "fsdp", weights split over all devices and gathered a layer at a time; "tensor", heads and hidden units split.
    model_devices : with "tensor", devices that share one model; None is all.
    memory : bytes of a device that the plan must fit; None asks the device.
    out : folder of the sweep.
    """

    models: tuple[ModelEntry, ...]
    texts: Texts
    out: Path
    operators: tuple[str, ...] = ("in-context",)
    derivative: str = "exact"
    parts: tuple[str, ...] = PARTS
    layers: tuple[int, ...] = ()
    tokens: str = "last"
    dtype: str = "float32"
    weights_dtype: str | None = None
    draws: int = 8
    kreiss: bool = False
    truncate: int | None = None
    outputs: tuple[str, ...] = ("eigenvalues", "averages")
    unit: int = 8
    threads: int | None = None
    mesh: str = "data"
    model_devices: int | None = None
    memory: int | None = None
    seed: int = 0

    def settings(self, operator: str) -> Settings:
        """Return the settings of one operator's runs."""
        return Settings(
            operator=operator,  # pyright: ignore[reportArgumentType]
            derivative=self.derivative,  # pyright: ignore[reportArgumentType]
            tokens=self.tokens,
            layers=self.layers,
            parts=self.parts,
            max_tokens=self.texts.max_tokens,
            draws=self.draws,
            kreiss=self.kreiss,
            seed=self.seed,
            unit=self.unit,
            truncate=self.truncate,
            outputs=self.outputs,
        )

    def decisive(self) -> dict[str, Any]:
        """Return what a resumed sweep must share, as plain values: all but where it runs and how much memory it has.

        Of the presets in `TOGETHER` the shape of the mesh is shared too; `presets.mesh_told` says it.
        """
        told = dataclasses.asdict(self)
        return {key: value for key, value in told.items() if key not in _OWN}


_OWN = ("out", "memory", "threads", "mesh", "model_devices")


def load_plan(file: str | Path, *, out: str | Path | None = None) -> Plan:
    """Read and check PLAN.yaml.

    Parameters
    ----------
    file : the plan.
    out : in place of the plan's own `out`.

    Raises
    ------
    InputError : what is wrong, with the key's path, its line, what is allowed, and for an unknown key the nearest one.
    """
    file = Path(file)
    table = Table(read(file), KEYS)
    models = read_models(table["models"], file.parent)
    fields: dict[str, Any] = {
        "operators": table.words("operators", ANALYZE_OPERATORS, ("in-context",)),
        "derivative": table.one_of("derivative", DERIVATIVES, "exact"),
        "parts": table.words("parts", PARTS, PARTS),
        "layers": _layers(table),
        "tokens": _tokens(table),
        "dtype": table.one_of("dtype", ("float32", "float64"), "float32"),
        "weights_dtype": table.one_of("weights-dtype", ("bfloat16", "float32"), None),
        "draws": table.number("draws", 0, 8),
        "kreiss": table.get("kreiss", bool, default=False),
        "truncate": table.number("truncate", 1, None),
        "outputs": _outputs(table),
        "unit": table.number("unit", 1, 8),
        "threads": table.number("threads", 1, None),
        "mesh": table.one_of("mesh", MESHES, "data"),
        "model_devices": table.number("model-devices", 1, None),
        "memory": _bytes(table),
        "seed": table.number("seed", 0, 0),
    }
    if 0 < fields["draws"] < 8:
        table["draws"].refuse("0 (no N1), or 8 and more, or its spread says nothing")
    if fields["model_devices"] and fields["mesh"] != "tensor":
        table["model-devices"].refuse(f"this key with mesh: tensor alone; the mesh is {fields['mesh']}")
    place = Path(out) if out else file.parent / Path(table["out"].of(str)).expanduser()
    return Plan(models, read_texts(table["texts"], file.parent), place, **fields)


def _layers(table: Table) -> tuple[int, ...]:
    """Read "all", a text such as 0,3-5, one number, or a list of numbers."""
    if "layers" not in table or table["layers"].raw == "all":
        return ()
    value = table["layers"]
    if isinstance(value.raw, str):
        try:
            return parse_layers(value.raw)
        except InputError:
            value.refuse("all, block numbers and ranges such as 0,3-5, or a list of numbers")
    items = value.raw if isinstance(value.raw, list) else [value]
    for item in items:
        if item.of(int) < 0:
            item.refuse("block numbers, counted from 0")
    if not items:
        value.refuse("all, or at least one block")
    return tuple(sorted({item.raw for item in items}))


def _tokens(table: Table) -> str:
    rule = table.get("tokens", str, default="last")
    if not re.fullmatch(r"last|all|last:[1-9]\d*", rule):
        table["tokens"].refuse("last, all, or last:N with a positive N")
    return rule


def _outputs(table: Table) -> tuple[str, ...]:
    """Read what is stored beside the scalars; "scalars", which always is, may be named."""
    found = table.words("outputs", ("scalars", *OUTPUTS), ("eigenvalues", "averages"))
    return tuple(name for name in OUTPUTS if name in found)


def _bytes(table: Table) -> int | None:
    """Read a size such as 16 GB; a plain number is bytes."""
    if "memory" not in table:
        return None
    value = table["memory"]
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(\w*)", str(value.raw)) if type(value.raw) in (int, float, str) else None
    if match is None or (match[2] or "B") not in SIZES or float(match[1]) <= 0:
        value.refuse(f"bytes of one device, a number with one of {', '.join(SIZES)}, such as 16 GB")
    return int(float(match[1]) * SIZES[match[2] or "B"])
