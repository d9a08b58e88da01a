"""Stage 6 of 7: a store that holds one finished dataset as a group, for what is computed in one go."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from .opening import open_tree, start
from .schema import Schema, Variable


def write_dataset(
    path: Path, group: str, found: xr.Dataset, fixed: Mapping, *, provenance: Mapping | None = None
) -> Path:
    """Write a dataset as a group of a new store, durable when this returns.

    Parameters
    ----------
    path : folder of the store.
    group : its name in the store.
    found : the dataset; its dimension `sample`, if it has one, is called `GROUP_sample` in the store, whose own samples
        are the units of work.
    fixed : JSON values that must be equal for two runs to give the same bits; `written` compares them.
    provenance : JSON values that only inform.

    Raises
    ------
    StoreError : something is there already, or the disk refuses.
    """
    schema = Schema(
        sizes={"sample": 1},
        units={"sample": 1},
        variables=(Variable("written", ("sample",), "bool", {"long_name": f"the group {group} is there"}),),
    )
    store = start(path, schema, fixed, provenance=provenance)
    store.write_unit(0, {"written": np.ones(1, bool)})
    store.finish({group: found.rename({"sample": f"{group}_sample"}) if "sample" in found.dims else found})
    return store.path


def read_dataset(path: Path, group: str) -> xr.Dataset:
    """Read the dataset back, in memory."""
    found = open_tree(path)[group].to_dataset().load()
    own = f"{group}_sample"
    return found.rename({own: "sample"}) if own in found.dims else found
