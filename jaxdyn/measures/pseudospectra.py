"""Stage 5 of 7: pseudospectra, Kreiss constant and transient growth of one matrix (E7).

All three describe what happens when one block is applied again and again, which a transformer does not do: each of
its layers is applied once. They are properties of the matrix, comparable between blocks; growth along depth is a
property of the products in `propagate`. Resolvent norms come from the Schur form, by `jaxdyn_kernels.resolvent_norm`.
"""

import math
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import jaxdyn_kernels
from jax import lax
from jaxtyping import Array, Complex, Float

from jaxdyn.errors import InputError

from .arrays import has_nan, nan_where

DISTANCES = (3e-3, 1.0, 6)
"""Distances |z| - 1 of the first grid of the Kreiss constant: first, last, number; geometric."""
OWN_ANGLES, UNIFORM_ANGLES = 6, 5
"""Angles of that grid: arguments of the eigenvalues that pull most, and uniform ones on [0, pi]."""
NEAR = 0.03
"""At distance h from the circle an eigenvalue pulls by its condition / (h + 1 - its modulus); this is the h used."""


class Pseudospectrum(NamedTuple):
    """Resolvent norms on a grid of the upper half plane; those of a real matrix are symmetric about the real axis.

    Attributes
    ----------
    real : (..., p), abscissas.
    imaginary : (..., p), ordinates, from 0 up.
    log_resolvent : (..., p, p), log10 norm((zI - M)^-1), row = ordinate: z lies in the eps-pseudospectrum where it is
        above -log10(eps).
    """

    real: Float[Array, "*batch p"]
    imaginary: Float[Array, "*batch p"]
    log_resolvent: Float[Array, "*batch p p"]


def pseudospectrum(
    schur: Float[Array, "*batch n n"],
    eigenvalues: Complex[Array, "*batch n"],
    *,
    points: int = 48,
    margin: float = 0.25,
) -> Pseudospectrum:
    """log10 norm((zI - M)^-1) on a rectangle of the upper half plane around the spectrum.

    Parameters
    ----------
    schur : (..., n, n), real Schur form of M.
    eigenvalues : (..., n), those of M; they set the rectangle.
    points : grid points a side, at least 2.
    margin : how far the rectangle reaches beyond the spectrum, as a share of the spectrum's extent.

    Returns
    -------
    Pseudospectrum; NaN for a matrix with NaN, +inf on an eigenvalue. Cost: points^2 resolvent norms, each a few
    triangular solves of n^2 flops.

    Raises
    ------
    InputError : fewer than 2 points.

    References
    ----------
    E7; L. Trefethen and M. Embree, "Spectra and Pseudospectra", 2005.
    """
    if points < 2:
        msg = f"points: got {points}; allowed: at least 2 a side"
        raise InputError(msg)
    low, high = jnp.min(eigenvalues.real, axis=-1), jnp.max(eigenvalues.real, axis=-1)
    top = jnp.max(jnp.abs(eigenvalues.imag), axis=-1)
    extent = jnp.maximum(high - low, 2 * top)
    reach = margin * jnp.where(extent > 0, extent, 1)
    unit = jnp.linspace(0, 1, points, dtype=schur.dtype)
    real = (low - reach)[..., None] + (high - low + 2 * reach)[..., None] * unit
    imaginary = (top + reach)[..., None] * unit
    grid = lax.complex(*jnp.broadcast_arrays(real[..., None, :], imaginary[..., :, None]))
    norms = _resolvent(schur, grid.reshape(*grid.shape[:-2], -1), 1e-3).reshape(grid.shape)
    return Pseudospectrum(real, imaginary, jnp.log10(norms))


def kreiss_scaled(
    schur: Float[Array, "*batch n n"],
    eigenvalues: Complex[Array, "*batch n"],
    condition: Float[Array, "*batch n"],
) -> Float[Array, "*batch"]:
    """Kreiss constant of M / rho(M): a property of the block iterated, which a transformer does not do.

    K = sup over |z| > 1 of (|z| - 1) norm((zI - M/rho)^-1)

    By the Kreiss matrix theorem K <= sup_k norm((M/rho)^k) <= e n K. Without the division K is infinite for every block
    of spectral radius above 1. The supremum is taken over the value 1 at infinity, the limit at the dominant
    eigenvalue, which is its condition number and most often the answer, and a polar grid: 6 distances from the circle
    times 11 angles, 6 of them arguments of the eigenvalues that pull most, then 25 points around the best. The result
    is a lower bound, within 1 % of a dense grid on random, graded and block-like matrices of n = 12 to 288.

    Parameters
    ----------
    schur : (..., n, n), real Schur form of M.
    eigenvalues, condition : (..., n), eigenvalues and their condition numbers.

    Returns
    -------
    (...), dimensionless, at least 1; 1 for a normal matrix; inf where the dominant eigenvalue has infinite condition;
    NaN where rho is 0 or an input is NaN. Cost: 91 resolvent norms a matrix, each 4 to 40 steps of 8 n^2 flops: several
    Schur forms at n = 64, less than one from n of about 500.

    References
    ----------
    E7; H.-O. Kreiss, 1962; L. Trefethen and M. Embree, "Spectra and Pseudospectra", 2005, chapter 18.
    """
    size = jnp.abs(eigenvalues)
    radius = jnp.max(size, axis=-1)
    failed = has_nan(schur, 2) | has_nan(eigenvalues, 1) | has_nan(condition, 1) | ~(radius > 0)
    scaled = jnp.where(failed[..., None, None], 0, schur / radius[..., None, None])
    order = jnp.argsort(-size, axis=-1)
    limit = jnp.take_along_axis(condition, order[..., :1], axis=-1)[..., 0]
    pull = condition / (1 + NEAR - size / radius[..., None])
    pulling = jnp.argsort(jnp.where(eigenvalues.imag < 0, -jnp.inf, pull), axis=-1)[..., : -OWN_ANGLES - 1 : -1]
    own = jnp.angle(jnp.take_along_axis(eigenvalues, pulling, axis=-1))
    own = jnp.where(failed[..., None], 0, jnp.abs(own))
    uniform = jnp.linspace(0, math.pi, UNIFORM_ANGLES, dtype=schur.dtype)
    angles = jnp.concatenate([own, jnp.broadcast_to(uniform, (*own.shape[:-1], UNIFORM_ANGLES))], axis=-1)
    first, last, count = DISTANCES
    distances = jnp.linspace(math.log(first), math.log(last), count, dtype=schur.dtype)
    grid = _mesh(jnp.broadcast_to(distances, (*own.shape[:-1], count)), angles)
    coarse, at_distance, at_angle = _best(scaled, *grid, tolerance=1e-2)
    offsets = jnp.asarray([-2, -1, 0, 1, 2], dtype=schur.dtype) / 3
    step, turn = math.log(last / first) / (count - 1), math.pi / (UNIFORM_ANGLES - 1) / 2
    around = _mesh(at_distance[..., None] + step * offsets, at_angle[..., None] + turn * offsets)
    fine, _, _ = _best(scaled, *around, tolerance=1e-3)
    return nan_where(failed, jnp.maximum(jnp.maximum(coarse, fine), jnp.maximum(limit, 1)))


def transient_growth(
    matrix: Float[Array, "*batch n n"], spectral_radius: Float[Array, "*batch"], *, steps: int = 32
) -> Float[Array, "*batch"]:
    """Largest norm of a power of M / rho(M): a property of the block iterated, which a transformer does not do.

    max over 0 <= k <= steps of norm((M/rho)^k)_2

    Parameters
    ----------
    matrix : (..., n, n), M.
    spectral_radius : (...), rho.
    steps : the highest power, at least 1. The result is a lower bound of the supremum over all powers.

    Returns
    -------
    (...), dimensionless, at least 1; 1 for a normal matrix. NaN where rho is 0 or an input is NaN. Cost: `steps` times
    a product and the singular values, about 10 n^3 flops each.

    Raises
    ------
    InputError : no steps.

    References
    ----------
    E7; `kreiss_scaled` gives the matching lower bound.
    """
    if steps < 1:
        msg = f"steps: got {steps}; allowed: at least 1 power"
        raise InputError(msg)
    failed = has_nan(matrix, 2) | ~(spectral_radius > 0)
    scaled = jnp.where(failed[..., None, None], 0, matrix / spectral_radius[..., None, None])

    def advance(power, _):
        power = jnp.matmul(scaled, power, precision=lax.Precision.HIGHEST)
        return power, jnp.linalg.svd(power, compute_uv=False)[..., 0]

    identity = jnp.broadcast_to(jnp.eye(matrix.shape[-1], dtype=matrix.dtype), matrix.shape)
    _, norms = lax.scan(advance, identity, length=steps)
    return nan_where(failed, jnp.maximum(jnp.max(norms, axis=0), 1))


def _mesh(log_distances, angles):
    """All pairs of distances (..., a) and angles (..., b), each as (..., a b)."""
    pairs = jnp.broadcast_arrays(log_distances[..., :, None], angles[..., None, :])
    return tuple(part.reshape(*part.shape[:-2], -1) for part in pairs)


def _best(schur, log_distances, angles, *, tolerance):
    """Return the largest (|z| - 1) norm((zI - T)^-1) over the points, and where it is."""
    distance = jnp.exp(log_distances)
    points = (1 + distance) * lax.complex(jnp.cos(angles), jnp.sin(angles))
    values = distance * _resolvent(schur, points, tolerance)
    index = jnp.argmax(values, axis=-1, keepdims=True)

    def chosen(array):
        return jnp.take_along_axis(array, index, axis=-1)[..., 0]

    return chosen(values), chosen(log_distances), chosen(angles)


def _resolvent(schur, points, tolerance):
    """norm((zI - T)^-1)_2 at points (..., m) of each matrix of (..., n, n)."""
    norms = partial(jaxdyn_kernels.resolvent_norm, tolerance=tolerance)
    return jnp.vectorize(norms, signature="(n,n),(m)->(m)")(schur, points)
