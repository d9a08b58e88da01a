"""Stores of several sweeps put together: more texts of the same model and operator, or the halves of one sweep.

Units are known by their addresses. One that several stores hold must be the same bytes in all, and is taken once; a
sample that two different units hold is refused. Samples follow in the order of the folders, those of one sweep in the
order of their units; the averages are made again from the units' sums, added in that order.
"""

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import yaml

from jaxdyn import provenance
from jaxdyn.pipeline.averaged import add_sums, averaged_groups, unit_sums
from jaxdyn.pipeline.settings import Settings
from jaxdyn.store import Coordinate, Schema, Store, StoreError, Variable, create, open_tree
from jaxdyn.store.files import reported, root_attributes

from .models import load
from .plan import ModelEntry
from .strict_yaml import PAGE

MAY_DIFFER = ("texts_hash", "padded_tokens", "rows", "unit", "cores")
"""Settings of merged stores that need not agree: the texts, and how they were cut into units."""

SAMPLE_DIMS = ("sample", "prompt_sample")


@dataclass(frozen=True)
class Part:
    """A unit that goes into the merged store."""

    source: int
    unit: int
    address: str
    samples: int


@dataclass
class Source:
    """A store to be merged: its path, the store, what fixes its bits, and its labels."""

    path: Path
    store: Store
    fixed: dict[str, Any]
    labels: xr.Dataset
    addresses: list[str]


def merge(folders: list[Path], out: Path) -> dict[str, Any]:
    """Merge all stores below the folders, by model and operator, into `out`.

    Parameters
    ----------
    folders : of sweeps, finished or not: units that are not done are left out.
    out : folder of the merged stores, `MODEL/OPERATOR/results.zarr`; must not hold any.

    Returns
    -------
    dict of plain values: "stores", for each its path, samples, units and the number of its sources.

    Raises
    ------
    StoreError : fewer than two folders, no store in one, settings or code that differ, a unit of two contents, a sample
        in two units, something in the way, or the disk refuses.
    """
    if len(folders) < 2:
        msg = f"merge: got {len(folders)} folders; give two or more, of sweeps"
        raise StoreError(msg, page=PAGE)
    groups: dict[Path, list[Path]] = {}
    for folder in folders:
        found = sorted(Path(folder).rglob("results.zarr"))
        if not found:
            msg = f"merge: {folder} holds no results.zarr; give the out folders of sweeps"
            raise StoreError(msg, page=PAGE)
        for path in found:
            groups.setdefault(path.relative_to(folder), []).append(path)
    return {"stores": [_merge(paths, Path(out) / place) for place, paths in groups.items()]}


def _merge(paths: list[Path], place: Path) -> dict[str, Any]:
    """Merge the stores of one model and operator."""
    sources = [_open(path) for path in paths]
    _check_settings(sources)
    parts = _choose(sources)
    first = sources[0]
    told = json.loads(root_attributes(first.path)["provenance"])
    fixed = {**first.fixed, "merged": [str(source.fixed["texts_hash"]) for source in sources]}
    info = {**provenance.provenance(), **{key: told[key] for key in told if key.startswith(("model", "corpus"))}}
    info |= {"merged_from": [str(source.path) for source in sources], "samples": sum(part.samples for part in parts)}
    target = create(place, _schema(sources, parts), fixed, provenance=info)
    for unit, data in _units(sources, parts, target):
        for layer, arrays in data:
            target.write(unit, arrays, at={} if layer is None else {"layer": layer})
        target.commit(unit)
    _finish(target, sources, parts, told, fixed)
    with reported(place.parent, "write"):
        config = {"model": info.get("model_source"), **fixed, "provenance": info}
        (place.parent / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    samples = sum(part.samples for part in parts)
    return {"store": str(place), "samples": samples, "units": len(parts), "sources": len(sources)}


def _open(path: Path) -> Source:
    attributes = root_attributes(path)
    tree = open_tree(path)
    if "prompt_hash" not in tree or "units" not in tree.children or "address" not in tree["units"]:
        msg = f"merge: {path} was not made by a sweep (its units have no address); make it with jaxdyn sweep"
        raise StoreError(msg, page=PAGE)
    addresses = [str(one) for one in tree["units"].to_dataset()["address"].values]
    labels = tree.to_dataset().reset_coords()
    names = json.loads(attributes["layout"])["coordinates"]
    kept = labels[[name for name in names if name in labels.variables and "/" not in name]].load()
    return Source(path, Store(path), json.loads(attributes["settings"]), kept, addresses)


def _check_settings(sources: list[Source]) -> None:
    """Refuse stores whose numbers cannot stand side by side, with all that differs."""
    first = sources[0]
    for other in sources[1:]:
        keys = sorted({*first.fixed, *other.fixed} - set(MAY_DIFFER))
        if different := [key for key in keys if first.fixed.get(key) != other.fixed.get(key)]:
            listed = "; ".join(f"{key} ({first.fixed.get(key)}, {other.fixed.get(key)})" for key in different)
            msg = f"merge: {first.path} and {other.path} differ in {listed}; merge stores of equal settings"
            raise StoreError(msg, page=PAGE)


def _choose(sources: list[Source]) -> list[Part]:
    """Return the units to be taken, each once, after comparing those that several stores hold."""
    chosen: dict[str, Part] = {}
    seen: dict[tuple[str, int], Part] = {}
    for number, source in enumerate(sources):
        for unit in source.store.done_units():
            members = range(*source.store.unit_slice(unit).indices(source.labels.sizes["sample"]))
            part = Part(number, unit, source.addresses[unit], len(members))
            if part.address in chosen:
                _check_equal(sources, chosen[part.address], part)
                continue
            chosen[part.address] = part
            for member in members:
                key = (str(source.labels["prompt_hash"].values[member]), int(source.labels["position"].values[member]))
                other = seen.setdefault(key, part)
                if other.source != number:
                    msg = (
                        f"merge: position {key[1]} of the same prompt is in {sources[other.source].path} (unit "
                        f"{other.unit}) and in {source.path} (unit {unit}), in different units; leave one of the "
                        "stores out, or sweep texts that do not overlap"
                    )
                    raise StoreError(msg, page=PAGE)
    if not chosen:
        msg = f"merge: no unit is done in {', '.join(str(source.path) for source in sources)}; run the sweeps first"
        raise StoreError(msg, page=PAGE)
    order = list(dict.fromkeys(_texts(source) for source in sources))
    return sorted(chosen.values(), key=lambda part: (order.index(_texts(sources[part.source])), part.unit))


def _texts(source: Source) -> tuple[str, int]:
    """What makes two stores parts of one sweep: the same texts in the same units."""
    return source.fixed["texts_hash"], source.fixed["unit"]


def _check_equal(sources: list[Source], one: Part, other: Part) -> None:
    first, second = sources[one.source].store, sources[other.source].store
    for key in first.keys:
        if first.read(one.unit, key).tobytes() != second.read(other.unit, key).tobytes():
            msg = (
                f"merge: unit {one.address[:12]} differs in {key} between {first.path} and {second.path}; of the same "
                "address they must be the same bytes: sweep one of them again"
            )
            raise StoreError(msg, page=PAGE)


def _schema(sources: list[Source], parts: list[Part]) -> Schema:
    """Declare the merged store: the per-sample arrays of the first, at the new length; sums are merged at the end."""
    path = sources[0].path
    layout = json.loads(root_attributes(path)["layout"])
    total = sum(part.samples for part in parts)
    sizes = {**layout["sizes"], **{dim: total for dim in SAMPLE_DIMS if dim in layout["sizes"]}}
    units = {dim: min(size, total) for dim, size in layout["units"].items() if dim in SAMPLE_DIMS}
    described = json.loads((path / "zarr.json").read_text())
    below = described["consolidated_metadata"]["metadata"]
    variables = []
    for key in layout["per_unit"]:
        told = below[key]
        if "unit" in told["dimension_names"]:
            continue
        group, _, name = key.rpartition("/")
        split = ("layer",) if group == "matrices" else ()
        dims = tuple(told["dimension_names"])
        variables.append(Variable(name, dims, told["data_type"], told["attributes"], group, split=split))
    own = {key: value for key, value in described["attributes"].items() if key not in _OWN}
    groups = {name: below[name]["attributes"] for name in {variable.group for variable in variables} if name}
    return Schema(
        sizes={dim: size for dim, size in sizes.items() if dim not in ("unit", "half")},
        units=units,
        variables=tuple(variables),
        coordinates=tuple(_coordinates(sources, parts, total)),
        attrs={**own, "samples": total},
        group_attrs={name: {k: v for k, v in attrs.items() if k != "coordinates"} for name, attrs in groups.items()},
    )


_OWN = ("jaxdyn_store", "complete", "settings", "provenance", "layout", "coordinates")


def _coordinates(sources: list[Source], parts: list[Part], total: int) -> Iterator[Coordinate]:
    """Labels of the merged samples; prompts are numbered on, by even steps, so that halves stay halves."""
    shift, shifts = 0, {}
    for source in sources:
        if _texts(source) not in shifts:
            shifts[_texts(source)] = shift
            shift += (int(source.labels["prompt"].max()) + 2) // 2 * 2
    for name, first in sources[0].labels.variables.items():
        attrs = {key: value for key, value in first.attrs.items() if key != "coordinates"}
        if first.dims != ("sample",):
            yield Coordinate(str(name), tuple(map(str, first.dims)), first.values, attrs)
        elif name == "sample":
            yield Coordinate("sample", ("sample",), np.arange(total), attrs)
        else:
            pieces = []
            for part in parts:
                values = sources[part.source].labels[name].values[sources[part.source].store.unit_slice(part.unit)]
                pieces.append(
                    values + shifts[_texts(sources[part.source])] if name in ("prompt", "article") else values
                )
            yield Coordinate(str(name), ("sample",), np.concatenate(pieces), attrs)


Pieces = Iterator[tuple[int | None, dict[str, np.ndarray]]]


def _units(sources: list[Source], parts: list[Part], target: Store) -> Iterator[tuple[int, Pieces]]:
    """For every unit of the target its arrays, gathered from the units that hold its samples."""
    places = [(part, offset) for part in parts for offset in range(part.samples)]
    layers = len(sources[0].fixed["layers"])
    for unit in range(target.unit_count):
        taken = places[target.unit_slice(unit)]
        runs: dict[tuple[int, int], list[int]] = {}
        for part, offset in taken:
            runs.setdefault((part.source, part.unit), []).append(offset)
        yield unit, _gathered(sources, runs, target, layers)


def _gathered(sources: list[Source], runs: dict[tuple[int, int], list[int]], target: Store, layers: int) -> Pieces:
    whole = [key for key in target.keys if not key.startswith("matrices/")]
    yield None, {key: _cut(sources, runs, target, key, {}) for key in whole}
    matrices = [key for key in target.keys if key.startswith("matrices/")]
    for layer in range(layers) if matrices else ():
        yield layer, {key: _cut(sources, runs, target, key, {"layer": layer}) for key in matrices}


def _cut(
    sources: list[Source], runs: dict[tuple[int, int], list[int]], target: Store, key: str, at: dict[str, int]
) -> np.ndarray:
    dims = [dim for dim in target.dims(key) if dim not in at]
    axis = next(i for i, dim in enumerate(dims) if dim in SAMPLE_DIMS)
    pieces = [
        np.take(sources[source].store.read(unit, key, at=at), offsets, axis=axis)
        for (source, unit), offsets in runs.items()
    ]
    return np.concatenate(pieces, axis=axis)


def _finish(
    target: Store, sources: list[Source], parts: list[Part], told: dict[str, Any], fixed: dict[str, Any]
) -> None:
    """Add the sums in order, measure the averages with the model at hand, and complete the store."""
    table = xr.Dataset(
        {
            "address": (("source_unit",), np.array([part.address for part in parts], dtype=object)),
            "source": (("source_unit",), np.array([part.source for part in parts])),
        },
        attrs={"title": "units that were merged, in the order in which their sums were added"},
    )
    groups = {"merged": table}
    if "averages" in fixed["outputs"]:
        names = {field.name for field in fields(Settings)}
        chosen: dict[str, Any] = {
            key: tuple(v) if isinstance(v, list) else v for key, v in fixed.items() if key in names
        }
        settings, layers = Settings(**chosen), tuple(fixed["layers"])
        held = fixed["weights_dtype"] if fixed["dtype"] == "float32" else None
        model = load(ModelEntry(**told["model_entry"]), dtype=fixed["dtype"], weights_dtype=held)
        if model.weights_hash != fixed["model_hash"]:
            msg = f"merge: the weights at {model.source} are not those of {sources[0].path}; put the right ones there"
            raise StoreError(msg, page=PAGE)

        def sums(layer: int) -> tuple[np.ndarray, np.ndarray]:
            each = (unit_sums(sources[part.source].store, [part.unit], layer) for part in parts)
            return functools.reduce(add_sums, each)

        groups |= averaged_groups(target, model, settings, layers, lambda: None, sums=sums)
    target.finish(groups)
