"""Fixtures shared by all tests: float64 on, seeded randomness, real data where it is at hand."""

import gc
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.programs import compile_quickly

compile_quickly()

# float64 is on for the oracles; test_float32.py is also run without it, as the library runs on a TPU.
jax.config.update("jax_enable_x64", os.environ.get("JAXDYN_TEST_X64", "1") == "1")

# What one worker or one command has compiled, the others of this run read: a third of the time goes into compiling.
PROGRAMS = None if "JAX_COMPILATION_CACHE_DIR" in os.environ else tempfile.mkdtemp(prefix="jaxdyn-programs-")
if PROGRAMS is not None:  # the process that starts the workers
    os.environ |= {"JAX_COMPILATION_CACHE_DIR": PROGRAMS, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    jax.config.update("jax_compilation_cache_dir", PROGRAMS)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)

# Every compiled program keeps memory mappings, up to hundreds, and Linux gives a process 65530: beyond, XLA crashes.
MAPPINGS, MOST_MAPPINGS = Path("/proc/self/maps"), 20_000
_tests = itertools.count(1)

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_unconfigure() -> None:
    """Remove the programs: the process that made their folder does, which has outlived its workers."""
    if PROGRAMS is not None:
        shutil.rmtree(PROGRAMS, ignore_errors=True)


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


@pytest.fixture(autouse=True)
def _few_mappings() -> Iterator[None]:
    """Let go of compiled programs before the process runs out of memory mappings; looked at every 25 tests."""
    yield
    if next(_tests) % 25 == 0 and MAPPINGS.exists() and MAPPINGS.read_bytes().count(b"\n") > MOST_MAPPINGS:
        jax.clear_caches()
        gc.collect()
