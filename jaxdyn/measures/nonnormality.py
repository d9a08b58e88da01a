"""Stage 5 of 7: how far a matrix is from normal, and what that amplifies (E4 to E7).

The Henrici departure is read off the real Schur form, never from norm(M)^2 - sum |lambda|^2, whose difference cancels:
in float32 it gives 0 where the truth is 1e-6. All functions are pure and batched over the leading dimensions.
"""

import math
from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxdyn.errors import InputError

from .arrays import frobenius, has_nan, nan_where

HIGHEST = lax.Precision.HIGHEST


def henrici(schur: Float[Array, "*batch n n"]) -> Float[Array, "*batch"]:
    """Henrici departure from normality: the norm of the strictly upper part of the complex Schur form.

    h = sqrt(norm(M)_F^2 - sum_i |lambda_i|^2)
      = sqrt(sum of t_ij^2 above the blocks + sum over 2x2 blocks [[a, b], [c, a]] of (b + c)^2)

    Parameters
    ----------
    schur : (..., n, n), real quasi-triangular Schur form of M with standardised blocks (equal diagonal, bc < 0).
        Shifting it by a multiple of the identity changes nothing: h is the same number for J and J - I.

    Returns
    -------
    (...), in the unit of M; 0 for a normal matrix; NaN where the Schur form holds a NaN. Cost: n^2 reads a matrix.

    References
    ----------
    E4. P. Henrici, "Bounds for iterates, inverses, spectral variation and fields of values of non-normal matrices",
    1962.
    """
    rows = jnp.arange(schur.shape[-1] - 1)
    below = jnp.diagonal(schur, offset=-1, axis1=-2, axis2=-1)
    departure = frobenius(jnp.triu(schur, 1).at[..., rows, rows + 1].add(below))
    return nan_where(has_nan(schur, 2), departure)


def henrici_normalized(schur: Float[Array, "*batch n n"]) -> Float[Array, "*batch"]:
    """Henrici departure over the norm, h / norm(M)_F (E4).

    It depends on the mean scaling of M, hence differs between J and J - I.

    Parameters
    ----------
    schur : (..., n, n), real quasi-triangular Schur form of M, as in `henrici`.

    Returns
    -------
    (...), dimensionless, 0 (normal) to 1 (nilpotent); NaN for the zero matrix or a NaN.
    """
    return henrici(schur) / frobenius(schur)


def symmetry_gap(matrix: Float[Array, "*batch n n"]) -> Float[Array, "*batch"]:
    """Distance from the transpose, norm(M - M^T)_F / norm(M)_F (E6).

    It equals sqrt(2 (1 - c)) with c = tr(M^2) / norm(M)_F^2, the third reading of E5, which is therefore not stored.

    Parameters
    ----------
    matrix : (..., n, n).

    Returns
    -------
    (...), dimensionless, 0 (symmetric) to 2 (antisymmetric), sqrt 2 for a Ginibre matrix; NaN for the zero matrix.
    """
    return frobenius(matrix - jnp.swapaxes(matrix, -1, -2)) / frobenius(matrix)


def self_alignment(
    left: Float[Array, "*batch n m"], right_h: Float[Array, "*batch m n"], *, top: int | None = None
) -> Float[Array, "*batch"]:
    """Overlap of the leading output directions of M - tI with its leading input directions.

    s = norm(U_k^T V_k)_F^2 / k

    Parameters
    ----------
    left : (..., n, m), left singular vectors of M - tI in its columns, largest singular value first, m >= k.
    right_h : (..., m, n), right singular vectors in its rows.
    top : k; default ceil(n/10). The measure is well defined where singular values k and k + 1 differ.

    Returns
    -------
    (...), dimensionless, 0 to 1: 1 where M - tI maps its leading subspace onto itself (symmetric, antisymmetric), k/n
    for independent directions. NaN where a vector is NaN. Cost: 2 n k^2 flops a matrix.

    Raises
    ------
    InputError : `top` outside 1..m.

    References
    ----------
    E5 (b), on M - tI by 1.8: J near I aligns by itself.
    """
    given = min(left.shape[-1], right_h.shape[-2])
    k = leading(left.shape[-2]) if top is None else top
    if not 1 <= k <= given:
        msg = (
            f"top: got {k}; allowed: 1 to {given}, the number of singular vectors given; pass more vectors or lower top"
        )
        raise InputError(msg)
    overlap = jnp.matmul(right_h[..., :k, :], left[..., :, :k], precision=HIGHEST)
    return jnp.sum(overlap**2, axis=(-2, -1)) / k


def alignment_of_projectors(
    left: Float[Array, "*batch n n"], right: Float[Array, "*batch n n"], *, top: int | None = None
) -> Float[Array, "*batch"]:
    """Compute `self_alignment` from the projectors on the subspaces, s = tr(P_left P_right) / k.

    Parameters
    ----------
    left, right : (..., n, n), orthogonal projectors on the k leading left and right singular vectors of M - tI.
    top : k; default ceil(n/10).

    Returns
    -------
    (...), as `self_alignment`. Cost: n^2 reads a matrix.
    """
    k = leading(left.shape[-1]) if top is None else top
    return jnp.sum(left * right, axis=(-2, -1)) / k


def leading(width: int) -> int:
    """Return k = ceil(n/10), the size of the leading subspace of E5."""
    return math.ceil(width / 10)


def spectral_norm(singular_values: Float[Array, "*batch n"]) -> Float[Array, "*batch"]:
    """Spectral norm sigma_max, the largest gain over unit inputs (E7), in the unit of M; NaN where one is NaN."""
    return jnp.max(singular_values, axis=-1)


def numerical_abscissa(
    matrix: Float[Array, "*batch n n"],
    *,
    norm: Float[Array, "*batch"] | None = None,
    values: Callable[[Array], Array] | None = None,
) -> Float[Array, "*batch"]:
    """Numerical abscissa omega = lambda_max((M + M^T)/2), the largest value of x^T M x over unit x (E7).

    Parameters
    ----------
    matrix : (..., n, n).
    norm : (...), the spectral norm of M where it is known: (M + M^T)/2 + norm(M) I has no negative eigenvalue, so its
        largest singular value is its largest eigenvalue, at half the cost (JAX's eigvalsh computes vectors too).
    values : with `norm`, what computes singular values, (..., n, n) to (..., n), descending; default XLA's.

    Returns
    -------
    (...), in the unit of M, at least the largest real part of an eigenvalue; NaN for a matrix with NaN. Rounding: a few
    eps norm(M), both ways. Cost: one symmetric eigenvalue problem or one without vectors of singular values.
    """
    symmetric = (matrix + jnp.swapaxes(matrix, -1, -2)) / 2
    if norm is None:
        return _eigvalsh_max(symmetric)
    failed = has_nan(symmetric, 2) | jnp.isnan(norm)
    shifted = symmetric + norm[..., None, None] * jnp.eye(matrix.shape[-1], dtype=matrix.dtype)
    values = partial(jnp.linalg.svd, compute_uv=False) if values is None else values
    largest = values(jnp.where(failed[..., None, None], 0, shifted))[..., 0]
    return nan_where(failed, largest - norm)


def numerical_radius(matrix: Float[Array, "*batch n n"], *, angles: int = 32) -> Float[Array, "*batch"]:
    """Numerical radius w = max over unit complex x of |x^H M x| (E7).

    w = max over theta of lambda_max(H(theta)),  H(theta) = cos(theta) (M + M^T)/2 + i sin(theta) (M - M^T)/2

    The maximum is taken on a grid of [0, pi] (a real matrix has a numerical range symmetric about the real axis), then
    on an eight times finer grid around the best angle. The result is a lower bound; the polygon of the support lines
    bounds w above by result / cos(pi / (2 (angles - 1))): .13 % at the default, before the second grid.

    Parameters
    ----------
    matrix : (..., n, n).
    angles : grid points of the first pass, at least 3.

    Returns
    -------
    (...), in the unit of M, between spectral radius and spectral norm; NaN for a matrix with NaN. Cost: (angles + 17)
    Hermitian eigenvalue problems, one at a time: temporaries of 2 n^2 complex numbers a matrix.

    Raises
    ------
    InputError : fewer than 3 angles.
    """
    if angles < 3:
        msg = f"angles: got {angles}; allowed: at least 3; the default is 32"
        raise InputError(msg)
    symmetric = (matrix + jnp.swapaxes(matrix, -1, -2)) / 2
    antisymmetric = (matrix - jnp.swapaxes(matrix, -1, -2)) / 2

    def support(theta):
        turned = theta[..., None, None]
        return _eigvalsh_max(lax.complex(jnp.cos(turned) * symmetric, jnp.sin(turned) * antisymmetric))

    coarse = jnp.broadcast_to(
        jnp.linspace(0, math.pi, angles, dtype=matrix.dtype).reshape((angles,) + (1,) * (matrix.ndim - 2)),
        (angles, *matrix.shape[:-2]),
    )
    values = lax.map(support, coarse)
    best = jnp.take_along_axis(coarse, jnp.argmax(values, axis=0)[None], axis=0)[0]
    step = math.pi / (angles - 1)
    offsets = jnp.linspace(-step, step, 17, dtype=matrix.dtype).reshape((17,) + (1,) * (matrix.ndim - 2))
    return jnp.maximum(jnp.max(values, axis=0), jnp.max(lax.map(support, best + offsets), axis=0))


def eigenvector_condition(condition: Float[Array, "*batch n"]) -> tuple[Float[Array, "*batch"], ...]:
    """Median, 90 % quantile and maximum of the eigenvalue condition numbers (E7).

    kappa_i = 1 / |y_i^H x_i| for unit left and right eigenvectors; quantiles are interpolated between the reciprocals,
    so that a defective eigenvalue (kappa infinite) spoils no other. Ginibre matrices have a heavy tail: the mean of
    kappa^2 does not exist for their real eigenvalues, so quantiles are reported, not kappa(V).

    Parameters
    ----------
    condition : (..., n), all >= 1, inf allowed.

    Returns
    -------
    Three arrays (...), dimensionless, >= 1; NaN where a condition number is NaN.
    """
    median, ninth = jnp.quantile(1 / condition, jnp.asarray([0.5, 0.1], dtype=condition.dtype), axis=-1)
    return 1 / median, 1 / ninth, jnp.max(condition, axis=-1)


def _eigvalsh_max(hermitian):
    failed = has_nan(hermitian, 2)
    values = jnp.linalg.eigvalsh(jnp.where(failed[..., None, None], 0, hermitian), symmetrize_input=False)
    return nan_where(failed, values[..., -1])
