"""All defining equations of a Schur form, an eigendecomposition and a singular value decomposition, as assertions.

Everything is computed here in numpy, in double precision, not with the library's own certificate. Tolerances are
FACTOR n eps norm, with eps of the type under test: FACTOR = 20 is the threshold that LAPACK's test programs use for
these ratios (LAPACK Working Note 41); results are typically below 3.
"""

from typing import Any

import numpy as np
import scipy.linalg
from scipy.optimize import linear_sum_assignment

FACTOR = 20.0


def lapack_schur(A) -> tuple[np.ndarray, np.ndarray]:
    """LAPACK's T and Q, real for a real matrix."""
    form: Any = scipy.linalg.schur(A)
    return form


def lapack_eig(A) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """LAPACK's eigenvalues, unit left and right eigenvectors, and the condition numbers from their overlap."""
    answer: Any = scipy.linalg.eig(A, left=True)
    values, left, right = answer
    overlap = np.abs(np.sum(left.conj() * right, axis=0))
    return values, left, right, 1 / np.maximum(overlap, np.finfo(A.dtype).tiny)


def assert_schur(A, T, Q, *, factor: float = FACTOR):
    """A Q = Q T, Q unitary, T (quasi-)triangular with exact zeros, real 2 x 2 blocks standard."""
    A, T, Q = np.asarray(A), np.asarray(T), np.asarray(Q)
    n = A.shape[-1]
    assert T.shape == Q.shape == A.shape, f"shapes: A {A.shape}, T {T.shape}, Q {Q.shape}"
    assert T.dtype == Q.dtype == A.dtype, f"dtypes: A {A.dtype}, T {T.dtype}, Q {Q.dtype}"
    eps = np.finfo(A.dtype).eps
    assert_triangular(T)
    if n == 0:
        return
    wide_A, wide_T, wide_Q = (_wide(x) for x in (A, T, Q))
    scale = np.max(np.abs(wide_A), initial=0) or 1.0
    wide_A, wide_T = wide_A / scale, wide_T / scale
    residual = np.linalg.norm(wide_A @ wide_Q - wide_Q @ wide_T)
    limit = factor * n * eps * np.linalg.norm(wide_A)
    assert residual <= limit, f"A Q = Q T: residual {residual:.3g} above {limit:.3g}"
    departure = np.linalg.norm(wide_Q.conj().T @ wide_Q - np.eye(n))
    assert departure <= factor * n * eps, f"Q unitary: departure {departure:.3g} above {factor * n * eps:.3g}"


def assert_triangular(T):
    """Exact zeros below the diagonal; a real one may have standard 2 x 2 blocks that do not overlap."""
    T = np.asarray(T)
    assert np.all(np.isfinite(T)), "T has entries that are not finite"
    if np.iscomplexobj(T):
        assert np.all(np.tril(T, -1) == 0), "T is not upper triangular"
        return
    assert np.all(np.tril(T, -2) == 0), "T is not upper quasi-triangular"
    below = np.diagonal(T, -1)
    at = np.flatnonzero(below)
    assert np.all(np.diff(at) > 1), "two 2 x 2 blocks of T overlap"
    diagonal, above = np.diagonal(T), np.diagonal(T, 1)
    assert np.all(diagonal[at] == diagonal[at + 1]), "a 2 x 2 block of T has unequal diagonal entries"
    assert np.all(np.sign(above[at]) * np.sign(below[at]) == -1), "a 2 x 2 block of T has b c >= 0"


def assert_eigenpairs(A, values, right, left=None, condition=None, *, factor: float = FACTOR):
    """A x = lambda x and y^H A = lambda y^H with unit vectors; biorthogonality; conditions; pairs; the trace."""
    A, values, right = np.asarray(A), np.asarray(values), np.asarray(right)
    n = A.shape[-1]
    eps = np.finfo(A.dtype).eps
    assert values.shape == (n,), f"eigenvalues have shape {values.shape}, not {(n,)}"
    assert values.dtype == right.dtype == np.result_type(A.dtype, np.complex64), "eigenvalues or vectors not complex"
    if n == 0:
        return
    wide = _wide(A)
    scale = np.max(np.abs(wide), initial=0) or 1.0
    wide, lam = wide / scale, _wide(values) / scale
    norm = np.linalg.norm(wide)
    small = factor * n * eps
    _assert_vectors(wide, lam, _wide(right), small, norm, "right")
    trace = abs(np.sum(lam) - np.trace(wide))
    assert trace <= small * max(norm, 1.0), f"sum of eigenvalues differs from the trace by {trace:.3g}"
    if not np.iscomplexobj(A):
        assert_conjugate_pairs(values)
    if left is None:
        return
    left = np.asarray(left)
    _assert_vectors(wide.conj().T, lam.conj(), _wide(left), small, norm, "left")
    overlap = _wide(left).conj().T @ _wide(right)
    # y_i^H x_j (lambda_j - lambda_i) is a difference of two residuals.
    mixed = np.max(np.abs(overlap * (lam[None, :] - lam[:, None])))
    assert mixed <= 2 * small * norm, f"left and right vectors are not biorthogonal: {mixed:.3g}"
    if condition is None:
        return
    wrong = np.max(np.abs(1 / _wide(condition).real - np.abs(np.diagonal(overlap))))
    assert wrong <= small, f"condition numbers differ from 1 / abs(y^H x) by {wrong:.3g} in the inverse"
    assert np.all(np.asarray(condition) >= 1), "a condition number below one"


def assert_conjugate_pairs(values):
    """Non-real eigenvalues stand beside their exact conjugates, positive imaginary part first."""
    values = np.asarray(values)
    at = np.flatnonzero(values.imag > 0)
    assert 2 * len(at) == np.count_nonzero(values.imag), "non-real eigenvalues without a conjugate"
    assert np.all(at + 1 < len(values)), "a pair is cut off"
    assert np.array_equal(values[at + 1], values[at].conj()), "a pair is not beside each other or not conjugate"


def assert_same_eigenvalues(values, reference, A, condition, *, factor: float = FACTOR):
    """The two lists agree, matched one to one, within condition n eps norm(A) each (first-order perturbation)."""
    values, reference = np.asarray(values, complex), np.asarray(reference, complex)
    assert values.shape == reference.shape, f"{values.shape} eigenvalues against {reference.shape}"
    distance = np.abs(values[:, None] - reference[None, :])
    rows, columns = linear_sum_assignment(distance)
    limit = factor * len(values) * np.finfo(A.dtype).eps * np.linalg.norm(_wide(A)) * np.asarray(condition)[columns]
    excess = distance[rows, columns] - limit
    assert np.all(excess <= 0), (
        f"an eigenvalue is {np.max(excess):.3g} further from its partner than its condition allows"
    )


def assert_svd(A, U, s, Vh, *, factor: float = FACTOR):
    """A = U diag(s) V^H, unitary factors, s descending and not negative."""
    A, s = _wide(A), np.asarray(s)
    n = A.shape[-1]
    eps = np.finfo(s.dtype).eps
    U, Vh = _wide(U), _wide(Vh)
    residual = np.linalg.norm(A - U * s.astype(float) @ Vh)
    assert residual <= factor * n * eps * np.linalg.norm(A), f"A = U diag(s) V^H: residual {residual:.3g}"
    for name, W in (("U", U), ("V", Vh)):
        departure = np.linalg.norm(W @ W.conj().T - np.eye(n))
        assert departure <= factor * n * eps, f"{name} is not unitary: {departure:.3g}"
    assert np.all(s >= 0), "a negative singular value"
    assert np.all(np.diff(s) <= 0), "singular values not descending"


def _assert_vectors(A, lam, V, small, norm, name):
    lengths = np.linalg.norm(V, axis=0)
    assert np.all(np.abs(lengths - 1) <= small), f"{name} vectors are not unit: {lengths}"
    residual = np.max(np.linalg.norm(A @ V - V * lam, axis=0))
    assert residual <= small * norm, f"{name} vectors: residual {residual:.3g} above {small * norm:.3g}"


def _wide(x):
    x = np.asarray(x)
    return x.astype(np.complex128 if np.iscomplexobj(x) else np.float64)
