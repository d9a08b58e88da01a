"""A toy network trained into `semanticity-toy.zarr`: one unit, all networks at once."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from jaxdyn import provenance
from jaxdyn.store import Schema, Variable, open_tree, start

from .dataset import of_trajectory
from .toy import ToySettings, train

STORE, GROUP = "semanticity-toy.zarr", "semanticity"


def train_into(out: str | Path, settings: ToySettings, *, origin: Mapping[str, str] | None = None) -> xr.Dataset:
    """Train and store; return the group `semanticity` of `out/semanticity-toy.zarr`, in memory.

    Raises
    ------
    StoreError : a store is there already, or the disk refuses; nothing is trained then.
    """
    fixed = {"kind": type(settings).__name__, **dataclasses.asdict(settings), **provenance.bits()}
    fixed = {name: list(value) if isinstance(value, tuple) else value for name, value in fixed.items()}
    schema = Schema(
        sizes={"sample": settings.seeds},
        units={"sample": settings.seeds},
        variables=(
            Variable("p_s", ("sample",), "float32", {"long_name": "p_S after training", "units": "1"}),
            Variable("p_i", ("sample",), "float32", {"long_name": "p_I after training", "units": "1"}),
        ),
        attrs={"model": "toy network", "seed": settings.seed},
    )
    store = start(Path(out) / STORE, schema, fixed, provenance=provenance.provenance(**(origin or {})))
    run = train(settings)
    store.write_unit(0, {"p_s": run.p_s[-1].astype(np.float32), "p_i": run.p_i[-1].astype(np.float32)})
    store.finish({GROUP: of_trajectory(run)})
    return open_tree(store.path)[GROUP].to_dataset().load()
