"""Certificates: the scaled residuals that every decomposition carries, so that a result is its own evidence.

Both numbers are in units of n eps, eps being the spacing of the working type: a backward stable method gives a number
of order one or below, whatever n, norm and type (LAPACK's own acceptance threshold for the same two ratios is 20,
Anderson et al., LAPACK Working Note 41, section on the nonsymmetric eigenvalue tests).
"""

import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, Inexact

from .product import matmul
from .scaling import adjoint, frobenius_norm, to_order_one


def schur_residual(
    A: Inexact[Array, "*batch n n"], Q: Inexact[Array, "*batch n n"], T: Inexact[Array, "*batch n n"]
) -> Float[Array, "*batch"]:
    """Scaled backward error of a Schur form: norm(A Q - Q T)_F / (n eps norm(A)_F).

    Parameters
    ----------
    A, Q, T : real or complex [..., n, n]
        The matrix, its Schur vectors and its Schur form.

    Returns
    -------
    real [...]
        0 for a zero or empty matrix with a zero residual, infinity for a zero matrix with another one; NaN where any
        of the three holds NaN. Cost: two n^3 products a matrix, in the type of the input.
    """
    A, scale = to_order_one(A)
    T = T * (1 / scale)[..., None, None]
    return _ratio(frobenius_norm(matmul(A, Q) - matmul(Q, T)), A)


def invariant_residual(A: Inexact[Array, "*batch n n"], T: Inexact[Array, "*batch n n"]) -> Float[Array, "*batch"]:
    """What a unitary similarity keeps and T has lost: abs(tr A - tr T) + abs(norm(A)_F - norm(T)_F), as a ratio.

    Evidence of a Schur form without vectors: necessary, not sufficient.

    Parameters
    ----------
    A, T : real or complex [..., n, n]
        The matrix and its Schur form.

    Returns
    -------
    real [...]
        Over n eps norm(A)_F, as `schur_residual`. Cost: order n^2.
    """
    A, scale = to_order_one(A)
    T = T * (1 / scale)[..., None, None]
    trace = jnp.abs(jnp.trace(A, axis1=-2, axis2=-1) - jnp.trace(T, axis1=-2, axis2=-1))
    return _ratio(trace + jnp.abs(frobenius_norm(A) - frobenius_norm(T)), A)


def orthogonality(Q: Inexact[Array, "*batch n n"]) -> Float[Array, "*batch"]:
    """Scaled departure from unitarity: norm(Q^H Q - I)_F / (n eps).

    Parameters
    ----------
    Q : real or complex [..., n, n]
        Vectors in columns.

    Returns
    -------
    real [...]
        0 for an empty matrix; NaN where Q holds NaN. Cost: one n^3 product a matrix.
    """
    n = Q.shape[-1]
    departure = matmul(adjoint(Q), Q) - jnp.eye(n, dtype=Q.dtype)
    return frobenius_norm(departure) / (max(n, 1) * jnp.finfo(Q.dtype).eps)


def eigenvector_residual(
    A: Inexact[Array, "*batch n n"], values: Complex[Array, "*batch n"], vectors: Complex[Array, "*batch n n"]
) -> Float[Array, "*batch"]:
    """Largest scaled residual over unit right eigenvectors: max_k norm(A v_k - lambda_k v_k)_2 / (n eps norm(A)_F).

    Left eigenvectors y_k (y^H A = lambda y^H) are right eigenvectors of A^H for conj(lambda): pass those.

    Parameters
    ----------
    A : real or complex [..., n, n]
        The matrix.
    values : complex [..., n]
        Eigenvalues.
    vectors : complex [..., n, n]
        Unit vectors in columns, in the order of `values`.

    Returns
    -------
    real [...]
        As `schur_residual`. Cost: one n^3 product a matrix, two real ones for a real matrix.
    """
    A, scale = to_order_one(A)
    values = values * (1 / scale)[..., None]
    if jnp.iscomplexobj(A):
        image = matmul(A, vectors)
    else:
        image = matmul(A, vectors.real) + 1j * matmul(A, vectors.imag)
    difference = image - vectors * values[..., None, :]
    squares = jnp.square(difference.real) + jnp.square(difference.imag)
    return _ratio(jnp.sqrt(jnp.max(jnp.sum(squares, axis=-2), axis=-1, initial=0)), A)


def _ratio(absolute: Float[Array, "*batch"], A: Inexact[Array, "*batch n n"]) -> Float[Array, "*batch"]:
    """Divide by n eps norm(A)_F; 0/0 is 0."""
    unit = max(A.shape[-1], 1) * jnp.finfo(A.dtype).eps * frobenius_norm(A)
    return jnp.where((absolute == 0) & (unit == 0), 0, absolute / unit)
