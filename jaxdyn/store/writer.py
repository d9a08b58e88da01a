"""Stage 6 of 7: write a store's units, each marked done after its data are durable, and finish it."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr
import zarr

from . import arrays, files
from .files import StoreError, reported, root_attributes


class Store:
    """A store open for writing; made by `start`, `create` or `open_for_resume`.

    A unit is written in one call (`write_unit`), or piece by piece (`write`, then `commit`), so that a unit of large
    matrices never has to be in memory whole.
    """

    def __init__(self, path: Path):
        attributes = root_attributes(path)
        self.path = path
        layout = json.loads(attributes["layout"])
        self.unit_sizes: dict[str, int] = layout["units"]
        with reported(path, "open"):
            keys = ["done", *layout["per_unit"]]
            opened = arrays.results([arrays.open_array(path / key) for key in keys])
        self._done, *rest = opened
        self._arrays = dict(zip(layout["per_unit"], rest, strict=True))
        self.unit_count: int = -(-self._done.shape[0] // self.unit_sizes["sample"])
        self._labels: dict[str, np.ndarray] = {}
        self._written: dict[int, dict[str, dict[tuple, int]]] = {}
        """By unit that is being written and array: sizes of the pieces that are durable."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The per-unit arrays, as `write` and `read` call them."""
        return tuple(self._arrays)

    def dims(self, key: str) -> tuple[str, ...]:
        """Return the dimension names of a per-unit array."""
        return tuple(self._arrays[key].domain.labels)

    @property
    def complete(self) -> bool:
        """Whether `finish` has run to its end."""
        return bool(root_attributes(self.path)["complete"])

    def done_units(self) -> list[int]:
        """Units whose data are durable, in order."""
        return np.flatnonzero(self._done.read().result()[:: self.unit_sizes["sample"]]).tolist()

    def is_done(self, unit: int) -> bool:
        """Whether a unit's data are durable; reads its marker alone."""
        with reported(self.path, "read"):
            return bool(arrays.results([self._done[self.unit_slice(unit).start].read()])[0])

    def reopen(self, units: Sequence[int]) -> None:
        """Take back that these units are done, so that they can be written once more; the store is then not complete.

        Their data stay until they are written. Killed on the way, the store is one whose run was interrupted.
        """
        with reported(self.path, "write"):
            files.consolidate(self.path, {"complete": False}, {})
            pending = [self._done[self._clipped(unit, "sample")].write(np.bool_(False)) for unit in units]
            arrays.results(pending)

    def unit_slice(self, unit: int, dim: str = "sample") -> slice:
        """Return the indices along a unit dimension that belong to a unit."""
        if not 0 <= unit < self.unit_count:
            msg = f"unit: got {unit}; the store has {self.unit_count} units, 0 to {self.unit_count - 1}"
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
        data : arrays by key (`henrici`, `relative/henrici`, `units/jacobian_sum`), each with the shape it has in this
            unit, without the dimensions named in `at`. A dtype is cast where nothing can be lost.
        at : index along dimensions that are not unit dimensions.

        Raises
        ------
        StoreError : unknown key, wrong shape or dtype, or the disk refuses; the unit is then not marked.
        """
        if unit not in self._written:
            if self.is_done(unit):
                msg = f"unit {unit} of {self.path} is done; a done unit is never written again"
                raise StoreError(msg)
            self._written[unit] = {}
        at = dict(at or {})
        pending, sizes = [], {}
        for key, given in data.items():
            array, index = self._region(unit, key, at)
            values = _checked(key, np.asarray(given), array, index)
            pending.append(array[index].write(values))
            sizes[key] = values.size
        with reported(self.path, "write"):
            arrays.results(pending)
        for key, size in sizes.items():
            self._written[unit].setdefault(key, {})[tuple(sorted(at.items()))] = size

    def commit(self, unit: int) -> None:
        """Mark a unit done: its data are durable since `write` came back.

        Raises
        ------
        StoreError : an array of the unit is missing or has missing pieces, or the disk refuses.
        """
        missing = [key for key in self._arrays if self._missing(unit, key)]
        if missing:
            msg = f"unit {unit}: not written, or not whole: {', '.join(missing)}; write every per-unit array first"
            raise StoreError(msg)
        with reported(self.path, "write"):
            arrays.results([self._done[self._clipped(unit, "sample")].write(np.bool_(True))])
        del self._written[unit]

    def read(self, unit: int, key: str, *, at: Mapping[str, int] | None = None) -> np.ndarray:
        """Read back one per-unit array of one unit, or the piece of it at these indices."""
        array, index = self._region(unit, key, dict(at or {}))
        with reported(self.path, "read"):
            return arrays.results([array[index].read()])[0]

    def read_all(self, keys: Sequence[str]) -> dict[str, np.ndarray]:
        """Read whole per-unit arrays; units that are not done read as fill values."""
        with reported(self.path, "read"):
            return dict(zip(keys, arrays.results([self._arrays[key].read() for key in keys]), strict=True))

    def finish(self, groups: Mapping[str, xr.Dataset], *, complete: bool = True) -> None:
        """Write what belongs to no unit, by group name ("" is the root), and mark the store complete.

        Every variable, coordinate and attribute of the datasets is stored; index coordinates that the root has are
        inherited. The first call becomes visible at once at its end; calling it again replaces what it wrote. With
        `complete` false more groups follow, in calls of their own, and the store is not marked yet.

        Raises
        ------
        StoreError : units are missing, a name was declared at creation, a dimension has another length or other labels
            than in the store, or the disk refuses.
        """
        if missing := sorted(set(range(self.unit_count)) - set(self.done_units())):
            msg = f"{self.path}: {len(missing)} of {self.unit_count} units are not done (first: {missing[0]}); resume"
            raise StoreError(msg)
        datasets = {name: self._own_part(name, dataset) for name, dataset in groups.items()}
        root_update, below = {}, {}
        with reported(self.path, "write"):
            root = zarr.open_group(self.path, mode="r+", use_consolidated=False)
            for name, dataset in datasets.items():
                group = root.require_group(name) if name else root
                variables = dataset.variables.items()
                items = [(str(key), [str(d) for d in v.dims], v.values, v.attrs) for key, v in variables]
                described = files.put_arrays(group, self.path / name, items)
                below |= {f"{name}/{key}" if name else key: value for key, value in described.items()}
                update = with_coordinates({**group.attrs, **dataset.attrs}, _labels(dataset))
                if name:
                    group.update_attributes(update)
                    below[name] = files.group_metadata(update)
                else:
                    root_update = update
            files.sync_groups(self.path, [name for name in datasets if name])
            files.consolidate(self.path, {**root_update, **({"complete": True} if complete else {})}, below)
            if complete:  # who writes now was thought dead, and all that it does is done
                arrays.remove_unfinished(self.path / key for key in ("done", *self._arrays))

    def _region(self, unit, key, at):
        """Return the array called key and the index of a unit's part in it."""
        if key not in self._arrays:
            msg = f"{key}: not a per-unit array of {self.path}; it has {', '.join(sorted(self._arrays))}"
            raise StoreError(msg)
        array = self._arrays[key]
        dims = array.domain.labels
        if wrong := [f"{dim}={i}" for dim, i in at.items() if dim in self.unit_sizes or dim not in dims]:
            msg = f"{key}: at={', '.join(wrong)} is not an index along one of its dimensions {dims} outside the units"
            raise StoreError(msg)
        index = []
        for dim, size in zip(dims, array.shape, strict=True):
            if dim in self.unit_sizes:
                index.append(self._clipped(unit, dim, size))
            else:
                index.append(int(at[dim]) if dim in at else slice(0, size))
        return array, tuple(index)

    def _clipped(self, unit, dim, size=None):
        """Indices of a unit along a dimension that the array really has: the last unit may be short."""
        part = self.unit_slice(unit, dim)
        return slice(part.start, min(part.stop, self._done.shape[0] if size is None else size))

    def _missing(self, unit, key):
        _, index = self._region(unit, key, {})
        return sum(self._written.get(unit, {}).get(key, {}).values()) != math.prod(_lengths(index))

    def _own_part(self, name, dataset):
        """Return the dataset without the index coordinates the store has, after checking that it fits the store."""
        layout = json.loads(root_attributes(self.path)["layout"])
        declared = {*layout["per_unit"], *layout["coordinates"], "done"}
        kept = []
        for variable, data in dataset.variables.items():
            key = f"{name}/{variable}" if name else str(variable)
            labels = {key, str(variable)} & set(layout["coordinates"]) if data.dims == (variable,) else set()
            for label in labels:
                if label not in self._labels:
                    self._labels[label] = np.asarray(zarr.open_array(self.path / label, mode="r")[...])
                stored = self._labels[label]
                if data.values.tolist() != stored.tolist():
                    msg = f"group {name!r}: {variable} has other labels than the store: {data.values} against {stored}"
                    raise StoreError(msg)
                kept.append(variable)
            if key in declared and not labels:
                msg = f"{key} was declared at creation; give what finish writes another name"
                raise StoreError(msg)
        for dim, size in dataset.sizes.items():
            if layout["sizes"].get(dim, size) != size:
                msg = f"group {name!r}: {dim} has length {size}, in the store {layout['sizes'][dim]}; name it apart"
                raise StoreError(msg)
        return dataset.drop_vars(kept)


def with_coordinates(attributes, labels):
    """Attributes plus the CF attribute by which xarray knows coordinates that are not indices."""
    names = sorted({*str(attributes.get("coordinates", "")).split(), *labels})
    return {**attributes, **({"coordinates": " ".join(names)} if names else {})}


def _labels(dataset):
    return [str(name) for name in dataset.coords if dataset.coords[name].dims != (name,)]


def _lengths(index):
    return tuple(part.stop - part.start for part in index if isinstance(part, slice))


def _checked(key, values, array, index):
    if values.shape != _lengths(index):
        msg = f"{key}: got shape {values.shape}, this unit needs {_lengths(index)}"
        raise StoreError(msg)
    if not np.can_cast(values.dtype, array.dtype.numpy_dtype, "safe"):
        msg = f"{key}: got dtype {values.dtype}, the store has {array.dtype.name}; convert it or declare it so"
        raise StoreError(msg)
    return values
