"""Stage 6 of 7: results.zarr, written a unit at a time so that a killed run loses at most the unit it was in.

The store is a Zarr 3 group that xarray opens. Three rules make it safe to kill:

1. It is built in a folder beside its final name and renamed into place: it exists whole or not at all.
2. Units own their chunk files. `Store.commit` first makes a unit's chunks durable (fsync of files and folders), then
   writes the unit's chunk of the variable `done(sample)`, by an atomic rename: that chunk is the unit's marker.
3. The root's metadata are consolidated and replaced in one rename, so readers never list folders and never see the
   traces of an interrupted write.

Resuming repeats the unfinished units with the stored settings: the bytes are those of a run that was never killed.
"""

import contextlib
import errno
import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from .errors import InputError
from .schema import Schema, chunk_shape, fill_of

FORMAT = 1
"""Layout of the store; a store of another format is refused, not guessed at."""


class StoreError(InputError):
    """The store cannot be created, opened, resumed or written; what was written before stays readable."""


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
        done = f"{self.samples_done} of {self.samples} samples done, {self.units_done} of {self.units} units"
        return f"{done}, {state}"


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
    if resume and Path(path).exists():
        return open_for_resume(path, settings)
    return create(path, schema, settings, provenance=provenance)


def create(path: str | Path, schema: Schema, settings: Mapping, *, provenance: Mapping | None = None) -> "Store":
    """Create a store in which no unit is done. Arguments as in `start`; nothing that exists is touched."""
    path = Path(path)
    if path.exists() and not _is_empty_folder(path):
        _root_attributes(path)
        msg = f"{path} already holds results ({describe(path)}); resume that run (--resume) or choose another --out"
        raise StoreError(msg)
    build = path.with_name(f".{path.name}.creating")
    attributes = {
        **schema.attrs,
        "jaxdyn_store": FORMAT,
        "complete": False,
        "settings": json.dumps(_plain(settings), sort_keys=True),
        "provenance": json.dumps(_plain(provenance or {}), sort_keys=True),
        "unit_sizes": json.dumps(dict(schema.units), sort_keys=True),
        "per_unit": json.dumps(sorted(variable.key for variable in schema.variables)),
    }
    with _reported(path, "create"):
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(build, ignore_errors=True)
        try:
            _build(build, schema, attributes)
            _sync_tree(build)
            os.rename(build, path)
            _sync(path.parent)
        finally:
            shutil.rmtree(build, ignore_errors=True)
    return Store(path)


def open_for_resume(path: str | Path, settings: Mapping) -> "Store":
    """Open an existing store to go on with it.

    Raises
    ------
    StoreError : no store at `path`, or a setting differs; one message lists every difference.
    """
    path = Path(path)
    stored = json.loads(_root_attributes(path)["settings"])
    got = _plain(settings)
    if stored != got:
        before, now = _flat(stored), _flat(got)
        lines = [
            f"{key} (got {_short(now.get(key, 'nothing'))}, stored {_short(before.get(key, 'nothing'))})"
            for key in sorted(before.keys() | now.keys())
            if before.get(key, _ABSENT) != now.get(key, _ABSENT)
        ]
        msg = (
            f"cannot resume {path} ({describe(path)}): settings differ: {'; '.join(lines)}. "
            "Repeat the run with the stored settings, or choose another --out"
        )
        raise StoreError(msg)
    with _reported(path, "open"):
        for leftover in path.rglob("*.partial"):
            leftover.unlink()
    return Store(path)


def describe(path: str | Path) -> Progress:
    """Say how much of a store is done; works at any moment, also on the store of a killed run."""
    attributes = _root_attributes(Path(path))
    done = np.asarray(zarr.open_array(Path(path) / "done", mode="r")[...])
    firsts = done[:: json.loads(attributes["unit_sizes"])["sample"]]
    return Progress(done.size, int(done.sum()), firsts.size, int(firsts.sum()), bool(attributes["complete"]))


def open_results(path: str | Path) -> xr.Dataset:
    """Open the root of a store, lazily; `done` says which samples are written, the others hold the fill value."""
    _root_attributes(Path(path))
    return xr.open_dataset(path, engine="zarr")


def open_tree(path: str | Path) -> xr.DataTree:
    """Open a store with all its groups, lazily."""
    _root_attributes(Path(path))
    return xr.open_datatree(path, engine="zarr")


class Store:
    """A store open for writing; made by `start`, `create` or `open_for_resume`.

    A unit is written in one call (`write_unit`), or piece by piece (`write`, then `commit`), so that a unit of large
    matrices never has to be in memory whole.
    """

    def __init__(self, path: Path):
        attributes = _root_attributes(path)
        self.path = path
        self.unit_sizes: dict[str, int] = json.loads(attributes["unit_sizes"])
        self._group = zarr.open_group(path, mode="r+")
        self._arrays = {key: self._open(key) for key in [*json.loads(attributes["per_unit"]), "done"]}
        self._written: dict[str, dict[frozenset, int]] = {}
        self._unit: int | None = None
        self._unsynced: set[Path] = set()

    @property
    def unit_count(self) -> int:
        """Number of units of work."""
        return -(-self._arrays["done"].shape[0] // self.unit_sizes["sample"])

    @property
    def complete(self) -> bool:
        """Whether `finish` has run to its end."""
        return bool(_root_attributes(self.path)["complete"])

    def done_units(self) -> list[int]:
        """Units whose data are durable, in order."""
        firsts = np.asarray(self._arrays["done"][...])[:: self.unit_sizes["sample"]]
        return np.flatnonzero(firsts).tolist()

    def unit_slice(self, unit: int, dim: str = "sample") -> slice:
        """Indices of `dim` that belong to a unit."""
        if not 0 <= unit < self.unit_count:
            msg = f"unit: got {unit}, the store has {self.unit_count} units (0 to {self.unit_count - 1})"
            raise StoreError(msg)
        size = self.unit_sizes[dim]
        return slice(unit * size, (unit + 1) * size)

    def write_unit(self, unit: int, data: Mapping[str, np.ndarray]) -> None:
        """Write every per-unit array of one unit, make them durable, and mark the unit done."""
        self.write(unit, data)
        self.commit(unit)

    def write(self, unit: int, data: Mapping[str, np.ndarray], *, at: Mapping[str, int] | None = None) -> None:
        """Write arrays of one unit, or with `at` (such as {"layer": 3}) the piece of them at these indices.

        Arguments
        ---------
        data : arrays by key (`henrici`, `relative/henrici`, `units/jacobian_sum`), of the shape the array has in this
            unit, without the dimensions named in `at`. A dtype that loses nothing is cast; another is refused.

        Raises
        ------
        StoreError : unknown key, wrong shape or dtype, or the disk refuses (the unit is then not marked).
        """
        if unit != self._unit:
            self._unit, self._written, self._unsynced = unit, {}, set()
        for key, values in data.items():
            array, index = self._region(unit, key, at or {})
            values = np.asarray(values)
            shape = tuple(len(range(*i.indices(n))) for i, n in zip(index, array.shape, strict=True) if i != slice(0))
            self._check(key, array, values, self._piece_shape(array, index))
            with _reported(self.path, "write"):
                array[index] = values
            del shape
            self._written.setdefault(key, {})[frozenset((at or {}).items())] = values.size
            self._unsynced.update(_chunk_files(self.path / key, array, index))
