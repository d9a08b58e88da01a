"""Layers that are done, each in a store of its own until all are, so that a killed run goes on where it was."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from jaxdyn.store import describe, open_for_resume
from jaxdyn.store.dataset import read_dataset, write_dataset

GROUP = "layer"


def kept_layer(folder: Path, layer: int, fixed: Mapping[str, Any], compute: Callable[[], xr.Dataset]) -> xr.Dataset:
    """Read a layer that is there, or compute and keep it.

    Parameters
    ----------
    folder : made where it is missing.
    layer : its number, which names the store.
    fixed : JSON values that decide its bits.
    compute : makes the dataset.

    Returns
    -------
    The dataset as the store gives it back, whether it was there or not, so that both runs have the same bits.

    Raises
    ------
    StoreError : a layer is there that another run made, by `fixed`; the disk refuses.
    """
    path = folder / f"{layer}.zarr"
    if path.exists() and not describe(path).complete:
        shutil.rmtree(path)  # the process was killed while writing it
    if path.exists():
        open_for_resume(path, fixed)
    else:
        write_dataset(path, GROUP, compute(), fixed)
    return read_dataset(path, GROUP)
