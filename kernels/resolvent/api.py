"""The norm of the resolvent on a grid: the pseudospectra of a batch of matrices, from their Schur forms."""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Complex, Float, Inexact

from ..dispatch import Implementation, case_of, choose, platform_of, square_matrices
from ..scaling import to_order_one
from ..triangular import complex_triangular


def resolvent_norm(
    T: ArrayLike, z: ArrayLike, *, tolerance: float = 1e-3, implementation: str | None = None
) -> Float[Array, "..."]:
    """Norm of the resolvent norm((z I - T)^-1)_2 = 1 / sigma_min(z I - T) for triangular T and every z.

    The epsilon-pseudospectrum of T is the set of z where it exceeds 1/epsilon. T may be the Schur form of any matrix:
    unitary similarity does not change the norm.

    Parameters
    ----------
    T : real or complex [..., n, n]
        Upper triangular, or real quasi-triangular with standard 2 x 2 blocks, as `schur` returns it.
    z : real or complex [...]
        The points, an array of any shape, the same for every matrix; for a grid of its own for each matrix use vmap.
        Taken in T's precision.
    tolerance : float
        Relative error at which to stop, estimated from the growth of the values, which are lower bounds; not less than
        100 eps. It is an estimate and not a bound; after 40 steps the value is returned as it is.
    implementation : str, optional
        Force one of ``implementations("resolvent_norm")``.

    Returns
    -------
    real [..., *z.shape]
        Infinity where z equals an eigenvalue exactly, or where the norm exceeds what the type can hold (1e38 in
        float32); NaN where T or z is not finite. It is the norm for T: where it is near 1/(eps norm(T)) or above, the
        rounding in a computed T can change it by any factor.

    Raises
    ------
    ValueError
        For a T that is not [..., n, n] of a floating type, n = 0, or a tolerance outside (0, 1).

    Notes
    -----
    Golub-Kahan-Lanczos bidiagonalisation of the inverse: two triangular solves a step for all points at once as
    products of matrices, 8 n^2 operations a point and step, 4 to 40 steps; memory 4 n numbers a point. Trefethen and
    Embree, Spectra and Pseudospectra, 2005, section 39; Golub and Van Loan, Matrix Computations, 4th edition, 10.4.
    """
    T = jnp.asarray(square_matrices("resolvent_norm", "T", T))
    chosen = choose("resolvent_norm", platform_of(T), implementation, case=case_of(T))
    if T.shape[-1] == 0:
        message = "resolvent_norm: T has shape [..., 0, 0]; an empty matrix has no resolvent: pass n of at least 1"
        raise ValueError(message)
    if not 0 < tolerance < 1:
        message = f"resolvent_norm: tolerance={tolerance} is outside (0, 1): use 1e-3 for contours, 1e-6 for values"
        raise ValueError(message)
    real = jnp.finfo(T.dtype).dtype
    points = jnp.asarray(z).astype(jnp.result_type(real, jnp.complex64))
    stop = jnp.asarray(max(tolerance, 100 * float(jnp.finfo(real).eps)), real)
    return _norms(T, points, stop, chosen=chosen)


@functools.partial(jax.jit, static_argnames="chosen")
def _norms(
    T: Inexact[Array, "*batch n n"], z: Complex[Array, "*grid"], tolerance: Float[Array, ""], *, chosen: Implementation
):
    body = functools.partial(_grid_norms, chosen=chosen)
    for _ in range(T.ndim - 2):
        body = jax.vmap(body, in_axes=(0, None, None))
    return body(T, z, tolerance)


def _grid_norms(
    T: Inexact[Array, "n n"], z: Complex[Array, "*grid"], tolerance: Float[Array, ""], *, chosen: Implementation
) -> Float[Array, "*grid"]:
    """Scale one matrix and the grid to order one, compute, and write what is known without computing."""
    finite = jnp.all(jnp.isfinite(T)) & jnp.isfinite(z)
    safe = jnp.where(jnp.all(jnp.isfinite(T)), T, 0)
    scaled, scale = to_order_one(safe)
    triangle = complex_triangular(scaled)
    points = jnp.where(finite, z, 1).ravel() * (1 / scale)
    norms = chosen.load("resolvent_norm")(triangle, points, tolerance).reshape(z.shape) / scale
    exact = jnp.any(z.ravel()[:, None] == jnp.diagonal(triangle) * scale, axis=1).reshape(z.shape)
    norms = jnp.where(exact | ~jnp.isfinite(norms), jnp.inf, norms)
    return jnp.where(finite, norms, jnp.nan)
