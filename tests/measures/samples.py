"""Matrices with known measures, and a reference decomposition of any matrix by LAPACK through scipy."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array
from threadpoolctl import threadpool_limits


class Pieces(NamedTuple):
    """What `measure_all` needs of one matrix or of a stack of them."""

    matrix: Array
    schur: Array
    eigenvalues: Array
    singular_values: Array
    left: Array
    right_h: Array
    condition: Array
    backward_error: Array


def pieces(matrix: np.ndarray) -> Pieces:
    """Decompose (..., n, n) one by one with scipy, in the matrix's dtype, with one BLAS thread (matrices are small)."""
    with threadpool_limits(1, user_api="blas"):
        parts = [_single(one) for one in matrix.reshape(-1, *matrix.shape[-2:])]
    stacked = [np.stack(part) for part in zip(*parts, strict=True)]
    return Pieces(*(jnp.asarray(part.reshape((*matrix.shape[:-2], *part.shape[1:]))) for part in stacked))


def _single(matrix: np.ndarray) -> tuple[np.ndarray, ...]:
    schur, vectors = scipy.linalg.schur(matrix, output="real")  # pyright: ignore[reportAssignmentType]
    eigenvalues, left, right = scipy.linalg.eig(matrix, left=True, right=True)  # pyright: ignore[reportAssignmentType]
    deviator = matrix - np.trace(matrix) / len(matrix) * np.eye(len(matrix), dtype=matrix.dtype)
    u, _, vh = np.linalg.svd(deviator)
    with np.errstate(divide="ignore"):
        condition = 1 / np.abs(np.sum(left.conj() * right, axis=0))
    return (
        matrix,
        schur,
        eigenvalues.astype(np.result_type(matrix.dtype, np.complex64)),
        np.linalg.svd(matrix, compute_uv=False),
        u,
        vh,
        condition.astype(matrix.dtype),
        np.asarray(np.linalg.norm(matrix @ vectors - vectors @ schur), dtype=matrix.dtype),
    )


def ginibre(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Gaussian matrices (..., n, n) with entries of variance 1/n."""
    return rng.standard_normal(shape) / np.sqrt(shape[-1])


def orthogonal(rng: np.random.Generator, n: int) -> np.ndarray:
    """A Haar orthogonal matrix."""
    q, r = np.linalg.qr(rng.standard_normal((n, n)))
    return q * np.sign(np.diag(r))


def symmetric(rng: np.random.Generator, n: int) -> np.ndarray:
    """A random symmetric matrix."""
    m = ginibre(rng, n, n)
    return m + m.T


def antisymmetric(rng: np.random.Generator, n: int) -> np.ndarray:
    """A random antisymmetric matrix."""
    m = ginibre(rng, n, n)
    return m - m.T


def jordan(n: int, eigenvalue: float = 0.0) -> np.ndarray:
    """One Jordan block."""
    return eigenvalue * np.eye(n) + np.eye(n, k=1)
