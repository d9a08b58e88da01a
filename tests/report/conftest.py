"""Stores shared by the report tests: written once, read only."""

from pathlib import Path

import pytest
import xarray as xr

from jaxdyn import store
from tests.report import synthetic


@pytest.fixture(scope="session")
def results(tmp_path_factory) -> Path:
    """A finished store: 16 samples of 8 articles, 6 layers, block and update."""
    return synthetic.write(tmp_path_factory.mktemp("finished") / "results.zarr")


@pytest.fixture
def tree(results) -> xr.DataTree:
    """The finished store, opened."""
    return store.open_tree(results)


@pytest.fixture(scope="session")
def failed(tmp_path_factory) -> Path:
    """A finished store of three layers whose second did not decompose in any sample, nor did the averaged block."""
    path = tmp_path_factory.mktemp("failed") / "results.zarr"
    return synthetic.write(path, samples=8, unit_size=8, layers=3, lost_layer=1)


@pytest.fixture(scope="session")
def unfinished(tmp_path_factory) -> Path:
    """A store of a run that stopped after one of two units and drew no N1."""
    return synthetic.write(tmp_path_factory.mktemp("unfinished") / "results.zarr", draws=0, units_done=1)
