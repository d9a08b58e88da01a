"""Fixtures shared by all tests: float64 on, strict promotion off the library's back, real data where it is at hand."""

from pathlib import Path

import jax
import numpy as np
import pytest

jax.config.update("jax_enable_x64", True)

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the real model and the real texts; tests that need it are skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("needs the real model and texts in ../shared; place that folder beside the checkout to run it")
    return SHARED


@pytest.fixture
def rng() -> np.random.Generator:
    """A seeded generator: every test draws the same numbers each time."""
    return np.random.default_rng(20260514)
