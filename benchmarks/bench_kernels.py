"""Batches of matrices: a portrait from one Schur form against scipy in a loop; steps of the portable Schur form."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import jaxdyn_kernels as jk
import numpy as np
import scipy.linalg
from jaxdyn_kernels.schur import wavefront, xla

from benchmarks.harness import Candidate, Row, Timings

BATCHES = ((128, 64), (64, 128), (64, 256), (16, 512))
DEPTHS = ((32, 64), (8, 128), (4, 256))
PORTRAIT = {"float32": ">= 1.5", "float64": ">= 1"}


def run(options: Any) -> Iterator[Row]:
    """Time the portrait and the Schur form in both types, and count the steps of the portable Schur form."""
    jax.config.update("jax_enable_x64", True)
    rng = np.random.default_rng(0)
    for batch, n in BATCHES:
        for dtype in ("float32", "float64"):
            A = (rng.standard_normal((batch, n, n)) / np.sqrt(n)).astype(dtype)
            yield from _against_scipy(A, f"{batch} x {n}, {dtype}", dtype, options.repeats)
    for batch, n in DEPTHS:
        A = jnp.asarray(rng.standard_normal((batch, n, n)) / np.sqrt(n), jnp.float32)
        count = jax.jit(xla.depth)(A)
        note = f"{int(count.sweeps)} sweeps; {flops(n, int(count.steps)):.2e} operations a matrix"
        yield Row("kernels", f"xla schur, steps: {batch} x {n}, float32", float(count.steps), "steps", note=note)
        rounds, steps, inside = (int(x) for x in jax.jit(wavefront.depth)(A))
        name = f"wavefront schur, steps: {batch} x {n}, float32"
        yield Row("kernels", name, float(steps + inside), "steps", note=f"{rounds} rounds, {inside} steps on windows")


def _against_scipy(A: np.ndarray, what: str, dtype: str, repeats: int) -> Iterator[Row]:
    count = len(A)
    names = {
        "portrait": (f"portrait, ours: {what}", f"portrait, scipy: {what}"),
        "schur": (f"schur, ours: {what}", f"schur, scipy: {what}"),
    }
    calls = ((portrait, _scipy_portrait), (jk.schur, _scipy_schur))
    candidates = [
        Candidate(name, lambda call=call: call(A))
        for pair, both in zip(names.values(), calls, strict=True)
        for name, call in zip(pair, both, strict=True)
    ]
    timings = Timings(candidates, repeats=repeats)
    for name in names["portrait"]:
        error = _portrait_residual(A, timings.results[name])
        yield timings.row("kernels", name, per=count, error=error)
    for name in names["schur"]:
        error = _schur_residual(A, timings.results[name])
        yield timings.row("kernels", name, per=count, error=error)
    ours, theirs = names["portrait"]
    yield Row("kernels", f"portrait, scipy / ours: {what}", timings.ratio(theirs, ours), "x", target=PORTRAIT[dtype])
    ours, theirs = names["schur"]
    target = ">= 1.3" if dtype == "float32" else None
    yield Row("kernels", f"schur, scipy / ours: {what}", timings.ratio(theirs, ours), "x", target=target)


def portrait(A: np.ndarray) -> dict[str, Any]:
    """Eigenvalues, right and left vectors, conditions, residual, Henrici departure."""
    found = jk.eig(A, left=True)
    return {
        "values": found.eigenvalues,
        "right": found.right,
        "left": found.left,
        "condition": found.condition,
        "residual": found.residual,
        "henrici": _henrici(A, np.asarray(found.eigenvalues)),
    }


def _scipy_portrait(A: np.ndarray) -> dict[str, Any]:
    """The same numbers by scipy: eigenvectors and a Schur form of each matrix, the threads as they are."""
    values, left, right, residual = [], [], [], []
    for M in A:
        answer: Any = scipy.linalg.eig(M, left=True)
        T, Q = _schur_of(M)
        values.append(answer[0])
        left.append(answer[1])
        right.append(answer[2])
        residual.append(np.linalg.norm(M @ Q - Q @ T))
    found = {"values": np.stack(values), "right": np.stack(right), "left": np.stack(left)}
    overlap = np.abs(np.sum(found["left"].conj() * found["right"], axis=1))
    henrici = _henrici(A, found["values"])
    return found | {"condition": 1 / overlap, "residual": np.array(residual), "henrici": henrici}


def _scipy_schur(A: np.ndarray) -> list[Any]:
    return [_schur_of(M) for M in A]


def _schur_of(M: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    form: Any = scipy.linalg.schur(M)
    return form


def _henrici(A: np.ndarray, values: np.ndarray) -> np.ndarray:
    squares = np.sum(np.square(A), axis=(1, 2)) - np.sum(np.square(np.abs(values)), axis=1)
    return np.sqrt(np.maximum(squares, 0))


def _portrait_residual(A: np.ndarray, found: dict[str, Any]) -> float:
    """Largest norm(A v - lambda v) / norm(A)_F over matrices, vectors and sides, in double precision."""
    worst = 0.0
    for k, M in enumerate(A.astype(np.float64)):
        values = np.asarray(found["values"][k], np.complex128)
        for matrix, lam, side in ((M, values, "right"), (M.T, values.conj(), "left")):
            V = np.asarray(found[side][k], np.complex128)
            worst = max(worst, float(np.linalg.norm(matrix @ V - V * lam, axis=0).max() / np.linalg.norm(M)))
    return worst


def _schur_residual(A: np.ndarray, found: Any) -> float:
    """Largest norm(A Q - Q T)_F / norm(A)_F, in double precision."""
    forms = found if isinstance(found, list) else list(zip(np.asarray(found.T), np.asarray(found.Q), strict=True))
    wide = ((M.astype(float), T.astype(float), Q.astype(float)) for M, (T, Q) in zip(A, forms, strict=True))
    return max(float(np.linalg.norm(M @ Q - Q @ T) / np.linalg.norm(M)) for M, T, Q in wide)


def flops(n: int, steps: int) -> float:
    """Operations a matrix: Hessenberg reduction and its vectors, then a reflector of three on 3 n numbers a step."""
    return 14 / 3 * n**3 + 30 * n * steps
