"""What the implementations do on each class of tests/matrices.py: accuracy, dependent steps, what was robust.

No times: these figures do not depend on what else the machine does. kernels/README.md quotes them.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import jaxdyn_kernels as jk
import numpy as np
from jaxdyn_kernels.reorder.swaps import by_key
from jaxdyn_kernels.resolvent import xla as resolvent
from jaxdyn_kernels.schur import divide, xla
from jaxdyn_kernels.triangular import complex_triangular

from benchmarks.bench_kernels import flops
from benchmarks.harness import Row
from tests.matrices import CLASSES, matrix

ORDER = 200
"""Two levels of splits below it."""

LARGE, SEEDS = 512, 3
"""Order and number of the matrices whose backward error is followed through the refinement."""

DEPTHS = ((32, 64), (8, 128), (4, 256))


def run(options: Any) -> Iterator[Row]:
    """Accuracy by class, then backward errors, then steps and operations of every implementation."""
    del options
    jax.config.update("jax_enable_x64", True)
    for dtype in ("float32", "float64"):
        A = np.stack([matrix(name, ORDER, np.dtype(dtype)) for name in CLASSES])
        for implementation in ("lapack", "xla", "divide"):
            yield from _by_class(A, dtype, implementation)
    yield from _backward_errors()
    yield from _steps()


def _by_class(A: np.ndarray, dtype: str, implementation: str) -> Iterator[Row]:
    for one, name in zip(A, CLASSES, strict=True):
        # One after another: each row is printed when it is known, and none waits for the slowest of a batch.
        form = jk.schur(jnp.asarray(one), implementation=implementation)
        note = f"orthogonality {form.orthogonality:.2g} n eps"
        if implementation == "divide":
            note += ", robust" * bool(form.robust)
        what = f"{implementation}, residual: {name}, {ORDER}, {dtype}"
        yield Row("classes", what, float(form.residual), "n eps", note=note)


def _backward_errors() -> Iterator[Row]:
    """Largest norm(A Q - Q T)_F / norm(A)_F of LAPACK and of `divide`, before and after Newton's steps."""
    A = np.stack([matrix("ginibre", LARGE, np.dtype("float32"), seed) for seed in range(SEEDS)])
    methods = {
        "lapack": lambda: _form(jk.schur(A, implementation="lapack")),
        "lapack, refined in float32": lambda: _form(_refined(A, jk.schur(A, implementation="lapack"))),
        "divide, before its refinement": lambda: _unrefined(A),
        "divide": lambda: _form(jk.schur(A, implementation="divide")),
    }
    for name, method in methods.items():
        T, Q = method()
        errors = [
            float(np.linalg.norm(M @ q - q @ t) / np.linalg.norm(M))
            for M, t, q in zip(*(np.asarray(x, np.float64) for x in (A, T, Q)), strict=True)
        ]
        note = f"largest; smallest {min(errors) * 1e7:.2g}; {SEEDS} matrices"
        yield Row("classes", f"backward error, {name}: ginibre, {LARGE}, float32", max(errors) * 1e7, "e-7", note=note)


def _form(found: Any) -> tuple[jax.Array, jax.Array]:
    return found.T, found.Q


def _refined(A: np.ndarray, form: Any) -> Any:
    return jk.refine(A, form.Q, form.T)


def _unrefined(A: np.ndarray) -> tuple[jax.Array, jax.Array]:
    # Traced with bounds that nothing exceeds: what the splits drop is then left as it is.
    with mock.patch.multiple(divide, POLISHED=np.inf, ACCEPTED=np.inf):
        T, Q, _ = jax.jit(divide.schur)(A)
    return T, Q


def _steps() -> Iterator[Row]:
    """Dependent steps of each implementation beyond the products of a matrix, on measured inputs."""
    rng = np.random.default_rng(0)
    for batch, n in DEPTHS:
        A = jnp.asarray(rng.standard_normal((batch, n, n)) / np.sqrt(n), jnp.float32)
        yield _row("hessenberg, xla", batch, n, n - 2, flops(n, 0), "columns")
        count = jax.jit(xla.depth)(A)
        yield _row("schur, xla", batch, n, int(count.steps), flops(n, int(count.steps)), f"{count.sweeps} sweeps")
        if n > divide.BASE:
            split = jax.jit(divide.depth)(A)
            small = int(jax.jit(xla.depth)(A[:, : divide.BASE, : divide.BASE]).steps)
            note = f"{split.splits} splits with {split.newton} Newton steps, then shifted QR of windows ({small} steps)"
            per_matrix = float(split.operations) / batch
            yield _row("schur, divide", batch, n, int(split.splits + split.newton), per_matrix, note)
        form = jk.schur(A)
        fine = jk.refine(A, form.Q, form.T)
        steps = int(jnp.max(fine.steps))
        # Each step solves a triangular equation by 2 n diagonals; products as in the docstring of `refine`.
        yield _row("refine, xla", batch, n, steps * 2 * n, steps * 30 * n**3, f"{steps} Newton steps")
        key = -jnp.abs(jk.eigenvalues_from_schur(form.T))
        rounds = int(jnp.max(jax.jit(jax.vmap(by_key))(form.T, form.Q, key).rounds))
        yield _row("reorder, xla", batch, n, rounds, rounds * 50 * n**2, "rounds, by modulus")
        z = (jnp.linspace(-1, 1, 8)[:, None] + 1j * jnp.linspace(-1, 1, 8)).astype(jnp.complex64).ravel() * 1.5
        T = complex_triangular(form.T[0])
        lanczos = int(jax.jit(partial(resolvent.depth, tolerance=jnp.float32(1e-3)))(T, z))
        note = f"{lanczos} Lanczos steps, {len(z)} points"
        yield _row("resolvent_norm, xla", 1, n, lanczos * 2 * n, lanczos * 2 * 4 * n**2 * len(z), note)


def _row(name: str, batch: int, n: int, steps: int, operations: float, note: str) -> Row:
    what = f"{name}, dependent steps: {batch} x {n}, float32"
    return Row("classes", what, float(steps), "steps", note=f"{operations:.2e} operations a matrix; {note}")
