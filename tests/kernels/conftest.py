"""A way to compile quickly: small matrices take XLA longer to compile for than to decompose."""

import functools
from collections.abc import Iterator
from importlib import import_module

import jax
import pytest

QUICK = {"xla_backend_optimization_level": 0}


@functools.cache
def _jitted(function, names):
    return jax.jit(function, static_argnames=names, compiler_options=QUICK)


@pytest.fixture(scope="module")
def quick_to_compile() -> Iterator[None]:
    """Eager calls run programs without XLA's optimisation, for the file that asks for it; LAPACK's stay as they are.

    test_schur.py (under jit), test_reorder.py and test_float32.py run theirs as users have them.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in ("dispatch", "refine.api", "reorder.api"):
            patch.setattr(import_module(f"jaxdyn_kernels.{name}"), "jitted", _jitted)
        yield
