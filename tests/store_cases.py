"""A small store with every kind of array, and what is written into it."""

import json
from pathlib import Path

import numpy as np
import xarray as xr
import zarr

from jaxdyn import store
from jaxdyn.store import Coordinate, Schema, Store, Variable

SAMPLES, UNIT, LAYERS, WIDTH = 13, 4, 3, 6
SETTINGS = {"model_hash": "ab" * 32, "layers": [0, 1, 2], "seed": 0, "bits": {"x64": False}}
PER_UNIT = {
    "eigenvalues": (("part", "layer", "sample", "eig"), "complex64"),
    "henrici": (("part", "layer", "sample"), "float32"),
    "status": (("part", "layer", "sample"), "int8"),
    "relative/henrici": (("part", "layer", "sample"), "float32"),
    "cumulative/effective_rank": (("prompt_sample", "depth"), "float64"),
    "units/jacobian_sum": (("unit", "layer", "row", "column"), "float32"),
}


def make_schema(samples: int = SAMPLES, unit: int = UNIT, width: int = WIDTH) -> Schema:
    """A small schema with every kind of array: root and groups, complex, integer, text, per sample and per unit."""
    variables = []
    for key, (dims, dtype) in PER_UNIT.items():
        group, _, name = key.rpartition("/")
        variables.append(Variable(name, dims, dtype, {"long_name": name, "units": "1"}, group))
    sizes = {"part": 2, "layer": LAYERS, "sample": samples, "eig": width, "prompt_sample": samples, "depth": LAYERS}
    return Schema(
        sizes={**sizes, "unit": -(-samples // unit), "row": width, "column": width},
        units={"sample": unit, "prompt_sample": unit, "unit": 1},
        variables=tuple(variables),
        coordinates=(
            Coordinate("part", ("part",), ["block", "update"]),
            Coordinate("layer", ("layer",), np.arange(LAYERS)),
            Coordinate("prompt", ("sample",), [f"é {i}" for i in range(samples)]),
            Coordinate("depth", ("depth",), np.arange(1, LAYERS + 1), group="cumulative"),
        ),
        attrs={"operator": "in-context"},
        group_attrs={"cumulative": {"long_name": "products of blocks"}},
    )


def unit_data(schema: Schema, unit: int, seed: int = 7) -> dict[str, np.ndarray]:
    """The synthetic result of one unit: depends on the unit alone, as a real unit does."""
    rng = np.random.default_rng([seed, unit])
    data = {}
    for key, (dims, dtype) in PER_UNIT.items():
        shape = [_length(schema, dim, unit) for dim in dims]
        values = rng.standard_normal(shape)
        if dtype == "complex64":
            data[key] = (values + 1j * rng.standard_normal(shape)).astype(dtype)
        else:
            data[key] = (10 * values).astype(dtype)
    return data


def final_groups(results: Store) -> dict[str, xr.Dataset]:
    """What finish gets in these tests: a sum merged over units in order, root variables, one in an old group."""
    total = np.zeros((LAYERS, results.read(0, "units/jacobian_sum").shape[-1]), np.float32)
    for unit in range(results.unit_count):
        total += results.read(unit, "units/jacobian_sum")[0].sum(axis=-1, dtype=np.float32)
    layer = {"layer": np.arange(LAYERS)}
    return {
        "mean": xr.Dataset({"row_sum": (("layer", "row"), total, {"units": "1"})}, layer, {"long_name": "means"}),
        "cumulative": xr.Dataset({"mean_effective_rank": ("depth", np.arange(3.0))}, {"depth": [1, 2, 3]}),
        "": xr.Dataset({"kept": ("layer", np.ones(LAYERS)), "label": ("layer", ["a", "b", "c"])}).set_coords("label"),
    }


def finished(folder: Path) -> Store:
    """A finished store."""
    schema = make_schema()
    results = store.create(folder / "out" / "results.zarr", schema, SETTINGS, provenance={"jax": "0"})
    for unit in range(results.unit_count):
        results.write_unit(unit, unit_data(schema, unit))
    results.finish(final_groups(results))
    return results


def _length(schema, dim, unit):
    if dim not in schema.units:
        return schema.sizes[dim]
    size = schema.units[dim]
    return min((unit + 1) * size, schema.sizes[dim]) - unit * size


def all_bytes(path: Path) -> dict[str, bytes]:
    """The bytes of every array of a store, by path."""
    root = zarr.open_group(path, mode="r", use_consolidated=False)
    arrays = {key: item for key, item in root.members(max_depth=None) if isinstance(item, zarr.Array)}
    return {key: _bytes(np.asarray(array[...])) for key, array in arrays.items()}


def _bytes(values):
    return values.tobytes() if values.dtype.kind != "T" else json.dumps(values.tolist()).encode()
