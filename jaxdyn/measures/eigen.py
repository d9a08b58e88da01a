"""Stage 5 of 7: what the eigenvalues say - how many are complex, how much the map rotates (E2, E3).

The rotation measures are taken on M - tI, t = tr M / n: a block J = I + A of a residual network aligns with the
identity by itself, and without its mean scaling J and A = J - I give the same number. All functions are pure, batched
over the leading dimensions, and return NaN for a matrix whose decomposition is NaN.
"""

import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from .arrays import deviator, frobenius, has_nan, nan_where, paired


def complex_fraction(schur: Float[Array, "*batch n n"]) -> Float[Array, "*batch"]:
    """Share of the eigenvalues that are complex: those in standardised 2x2 blocks of the real Schur form.

    f = 2 (number of 2x2 blocks) / n

    A random matrix has nearly all of them (98.7 % at n = 4096): always read it beside its null.

    Parameters
    ----------
    schur : (..., n, n), real quasi-triangular Schur form with standardised blocks (equal diagonal, bc < 0).

    Returns
    -------
    (...), dimensionless, 0 to 1; NaN where the Schur form holds a NaN. Cost: n reads a matrix.

    References
    ----------
    E2. Null: Edelman, Kostlan and Shub, "How many eigenvalues of a random matrix are real?", 1994.
    """
    share = jnp.mean(paired(schur).astype(schur.dtype), axis=-1)
    return nan_where(has_nan(schur, 2), share)


def complex_undecided(
    eigenvalues: Complex[Array, "*batch n"],
    condition: Float[Array, "*batch n"],
    backward_error: Float[Array, "*batch"],
) -> Float[Array, "*batch"]:
    """Share of the eigenvalues of which rounding cannot tell whether they are real or complex.

    undecided_i  <=>  distance_i <= condition_i * backward_error

    distance is what separates the eigenvalue from the collision on the real axis where real and complex pairs turn into
    each other: |Im lambda| of a complex one, half the gap to the nearest other real eigenvalue of a real one. The right
    side is the first-order bound on the eigenvalue's error.

    Parameters
    ----------
    eigenvalues : (..., n), those of a real matrix.
    condition : (..., n), eigenvalue condition numbers 1 / |y^H x| for unit left and right eigenvectors, >= 1.
    backward_error : (...), norm(A Q - Q T)_F of the decomposition, not scaled.

    Returns
    -------
    (...), dimensionless, 0 to 1. Without backward error nothing is undecided. NaN where an input is NaN.
    Cost: one sort of n numbers a matrix.

    References
    ----------
    E2 as amended in 1.8 (imaginary parts beyond condition times backward error).
    """
    real, height = eigenvalues.real, jnp.abs(eigenvalues.imag)
    bound = jnp.where(backward_error[..., None] > 0, condition * backward_error[..., None], 0)
    distance = jnp.where(height > 0, height, _nearest_gap(real, height == 0) / 2)
    share = jnp.mean(((bound > 0) & (distance <= bound)).astype(real.dtype), axis=-1)
    return nan_where(has_nan(eigenvalues, 1) | has_nan(condition, 1) | jnp.isnan(backward_error), share)


def mean_rotation_angle(eigenvalues: Complex[Array, "*batch n"]) -> Float[Array, "*batch"]:
    """Mean angle by which an eigendirection of M - tI turns.

    phi = mean_i |arg(lambda_i - t)|,  t = mean_i Re lambda_i = tr M / n

    A negative real eigenvalue counts as pi, so a symmetric matrix and a Ginibre matrix both lie near pi/2: read it
    together with `imaginary_energy`.

    Parameters
    ----------
    eigenvalues : (..., n), of M or of M shifted by any multiple of the identity.

    Returns
    -------
    (...), radian, 0 to pi; NaN where an eigenvalue is NaN.

    References
    ----------
    E3, on M - tI by 1.8, so that block and update agree.
    """
    centred = _centred(eigenvalues)
    return jnp.mean(jnp.abs(jnp.angle(centred)), axis=-1)


def imaginary_energy(eigenvalues: Complex[Array, "*batch n"]) -> Float[Array, "*batch"]:
    """Share of the eigenvalue energy of M - tI that is imaginary.

    e = sum_i (Im lambda_i)^2 / sum_i |lambda_i - t|^2,  t = tr M / n

    Parameters
    ----------
    eigenvalues : (..., n), of M or of M shifted by any multiple of the identity.

    Returns
    -------
    (...), dimensionless, 0 (real spectrum) to 1 (tI + antisymmetric); NaN for a multiple of the identity or NaN input.

    References
    ----------
    E3, on M - tI by 1.8, so that block and update agree.
    """
    centred = _centred(eigenvalues)
    largest = jnp.max(jnp.abs(centred), axis=-1, keepdims=True)
    scaled = centred / jnp.where(largest > 0, largest, jnp.ones_like(largest))
    return jnp.sum(scaled.imag**2, axis=-1) / jnp.sum(jnp.abs(scaled) ** 2, axis=-1)


def antisymmetric_share(matrix: Float[Array, "*batch n n"]) -> Float[Array, "*batch"]:
    """Share of the squared norm of M - tI that its antisymmetric part carries.

    a = norm((M - M^T)/2)_F^2 / norm(M - tI)_F^2,  t = tr M / n

    Parameters
    ----------
    matrix : (..., n, n).

    Returns
    -------
    (...), dimensionless, 0 (symmetric) to 1 (tI + antisymmetric); NaN for a multiple of the identity or NaN input.

    References
    ----------
    E3, on M - tI by 1.8, so that block and update agree.
    """
    antisymmetric = (matrix - jnp.swapaxes(matrix, -1, -2)) / 2
    return (frobenius(antisymmetric) / frobenius(deviator(matrix))) ** 2


def spectral_radius(eigenvalues: Complex[Array, "*batch n"]) -> Float[Array, "*batch"]:
    """Spectral radius rho = max_i |lambda_i| (E7), in the unit of M; NaN where an eigenvalue is NaN."""
    return jnp.max(jnp.abs(eigenvalues), axis=-1)


def _centred(eigenvalues):
    return eigenvalues - jnp.mean(eigenvalues.real, axis=-1, keepdims=True)


def _nearest_gap(values, keep):
    """Distance of each kept value to the nearest other kept value; inf where there is none."""
    order = jnp.argsort(jnp.where(keep, values, jnp.inf), axis=-1)
    ordered = jnp.take_along_axis(jnp.where(keep, values, jnp.inf), order, axis=-1)
    gap = jnp.where(jnp.isfinite(ordered[..., 1:]), ordered[..., 1:] - ordered[..., :-1], jnp.inf)
    edge = jnp.full((*values.shape[:-1], 1), jnp.inf, dtype=values.dtype)
    nearest = jnp.minimum(jnp.concatenate([edge, gap], axis=-1), jnp.concatenate([gap, edge], axis=-1))
    return jnp.take_along_axis(nearest, jnp.argsort(order, axis=-1), axis=-1)
