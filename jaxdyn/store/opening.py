"""Stage 6 of 7: create a store, open one to resume it, say what it holds, read it."""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import xarray as xr
import zarr

from . import arrays, files
from .files import FORMAT, StoreError, reported, root_attributes
from .schema import Schema, Variable
from .writer import Store, with_coordinates

DONE = Variable(
    "done",
    ("sample",),
    "bool",
    {"long_name": "sample is written", "description": "false: the run stopped before it; values may be fill values"},
)


@dataclass(frozen=True)
class Progress:
    """How far a store is; `str()` gives one line for the user."""

    samples: int
    samples_done: int
    units: int
    units_done: int
    complete: bool

    def __str__(self) -> str:
        state = "complete" if self.complete else "not finished"
        return f"{self.samples_done} of {self.samples} samples done, {self.units_done} of {self.units} units, {state}"


def start(
    path: str | Path, schema: Schema, settings: Mapping, *, provenance: Mapping | None = None, resume: bool = False
) -> "Store":
    """Create the store, or with `resume` open the one that is there: the rule of the command line.

    Arguments
    ---------
    path : folder of the store, usually DIR/results.zarr.
    schema : what to create; an existing store keeps its own.
    settings : JSON values that must be equal for two runs to give the same bits (model hash, texts hash, operator,
        layers, tokens, dtype, seed, unit size, threads, padding, `provenance.bits()`).
    provenance : JSON values that only inform (`provenance.provenance()`).
    resume : go on with an existing store of equal settings; with nothing there, create one.

    Raises
    ------
    StoreError : a store is there and `resume` is not set, settings differ, the folder is something else, or the disk
        refuses.
    """
    with reported(Path(path), "open"):
        if resume and Path(path).exists():
            return open_for_resume(path, settings)
    return create(path, schema, settings, provenance=provenance)


def create(path: str | Path, schema: Schema, settings: Mapping, *, provenance: Mapping | None = None) -> "Store":
    """Create a store in which no unit is done. Arguments and errors as in `start`; nothing that exists is touched."""
    path = Path(path)
    build = path.with_name(f".{path.name}.creating")
    attributes = {
        **schema.attrs,
        "jaxdyn_store": FORMAT,
        "complete": False,
        "settings": json.dumps(settings, sort_keys=True),
        "provenance": json.dumps(provenance or {}, sort_keys=True),
        "layout": json.dumps(_layout(schema), sort_keys=True),
    }
    with reported(path, "create"):
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            msg = f"{path} already holds results ({describe(path)}); resume them (--resume) or choose another --out"
            raise StoreError(msg)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(build, ignore_errors=True)
        try:
            _build(build, schema, attributes)
            os.rename(build, path)
            files.sync_groups(path, [])
        finally:
            shutil.rmtree(build, ignore_errors=True)
    return Store(path)


def open_for_resume(path: str | Path, settings: Mapping, *, alone: bool = True) -> "Store":
    """Open an existing store to go on with it.

    What a killed process has left half written is removed, unless other processes may be writing: not `alone`. It does
    no harm, and goes when the store is finished.

    Raises
    ------
    StoreError : no store at `path`, or a setting differs; one message lists every difference.
    """
    path = Path(path)
    stored = _flat(json.loads(root_attributes(path)["settings"]))
    given = _flat(settings)
    if different := [key for key in sorted(stored | given) if stored.get(key) != given.get(key)]:
        list_ = "; ".join(f"{key} (got {_short(given, key)}, stored {_short(stored, key)})" for key in different)
        msg = (
            f"cannot resume {path} ({describe(path)}), its settings differ: {list_}. "
            "Repeat the run with the stored settings, or choose another --out"
        )
        raise StoreError(msg, page="docs/store.md")
    with reported(path, "open"):
        for leftover in () if not alone else (*path.rglob("*.partial"), *path.rglob(f"*{arrays.UNFINISHED}")):
            leftover.unlink()
    return Store(path)


def describe(path: str | Path) -> Progress:
    """Say how much of a store is done; works at any moment, also on what a killed run left."""
    path = Path(path)
    attributes = root_attributes(path)
    with reported(path, "read"):
        (marker,) = arrays.results([arrays.open_array(path / "done")])
        (done,) = arrays.results([marker.read()])
    firsts = done[:: json.loads(attributes["layout"])["units"]["sample"]]
    return Progress(done.size, int(done.sum()), firsts.size, int(firsts.sum()), bool(attributes["complete"]))


def done_units(path: str | Path) -> list[int]:
    """Return the units of a store that are done, in order, without opening the rest of it."""
    layout = json.loads(root_attributes(Path(path))["layout"])
    with reported(Path(path), "read"):
        (marker,) = arrays.results([arrays.open_array(Path(path) / "done")])
        (done,) = arrays.results([marker.read()])
    return done[:: layout["units"]["sample"]].nonzero()[0].tolist()


def is_complete(path: str | Path) -> bool:
    """Whether a run into this store has come to its end; False where nothing is there yet."""
    return Path(path).exists() and bool(root_attributes(Path(path))["complete"])


def open_results(path: str | Path) -> xr.Dataset:
    """Open the root of a store, lazily. `done` says which samples are written; the others may hold fill values."""
    root_attributes(Path(path))
    return xr.open_dataset(path, engine="zarr")


def open_tree(path: str | Path) -> xr.DataTree:
    """Open a store with all its groups, lazily."""
    root_attributes(Path(path))
    return xr.open_datatree(path, engine="zarr")


def _build(folder, schema, attributes):
    """Write the empty store: every per-unit array, `done`, and the coordinates in full."""
    root = zarr.create_group(folder, zarr_format=3)
    names = {item.group for item in (*schema.variables, *schema.coordinates)} | set(schema.group_attrs)
    labels = {
        name: [c.name for c in schema.coordinates if c.group == name and c.dims != (c.name,)] for name in {*names, ""}
    }
    groups = {name: root.require_group(name) if name else root for name in sorted(labels)}
    created, below = [], {}
    for variable in (*schema.variables, DONE):
        shape = [schema.sizes[dim] for dim in variable.dims]
        below[variable.key] = arrays.metadata(
            variable.dims,
            shape,
            variable.dtype,
            units={**schema.units, **dict.fromkeys(variable.split, 1)},
            attrs=variable.attrs,
            fill=variable.fill,
        )
        created.append(arrays.create(folder / variable.key, below[variable.key]))
    for name, group in groups.items():
        own = [c for c in schema.coordinates if c.group == name]
        described = files.put_arrays(group, folder / name, [(c.name, c.dims, c.values, c.attrs) for c in own])
        below |= {f"{name}/{key}" if name else key: value for key, value in described.items()}
        if name:
            own_attributes = with_coordinates(schema.group_attrs.get(name, {}), labels[name])
            group.update_attributes(own_attributes)
            below[name] = files.group_metadata(own_attributes)
    arrays.results(created)
    files.sync_groups(folder, [name for name in groups if name])
    files.consolidate(folder, with_coordinates(attributes, labels[""]), below)


def _layout(schema):
    return {
        "sizes": dict(schema.sizes),
        "units": dict(schema.units),
        "per_unit": [variable.key for variable in schema.variables],
        "coordinates": [coordinate.key for coordinate in schema.coordinates],
    }


def _flat(settings, prefix=""):
    """Map the dotted name of every setting to its value as JSON text, in which tuples are lists."""
    flat = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: json.dumps(value)}
    return flat


def _short(settings, key):
    text = settings.get(key, "nothing")
    return text if len(text) <= 48 else f"{text[:45]}..."
