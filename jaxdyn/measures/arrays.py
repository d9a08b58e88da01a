"""Stage 5 of 7: the few array operations that every measure shares.

Norms are scaled by the largest entry before squaring, so that nothing over- or underflows; a matrix with a NaN gives
NaN and leaves the other matrices of its batch alone.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Inexact


def frobenius(matrix: Inexact[Array, "*batch m n"]) -> Float[Array, "*batch"]:
    """sqrt(sum |x_ij|^2), scaled so that the squares neither overflow nor underflow."""
    size = jnp.abs(matrix)
    largest = jnp.max(size, axis=(-2, -1), initial=0)
    scale = jnp.where((largest > 0) & jnp.isfinite(largest), largest, jnp.ones_like(largest))
    return scale * jnp.sqrt(jnp.sum((size / scale[..., None, None]) ** 2, axis=(-2, -1)))


def mean_trace(matrix: Inexact[Array, "*batch n n"]) -> Inexact[Array, "*batch"]:
    """Mean of the diagonal, t = tr M / n: tI is the multiple of the identity nearest to M in the Frobenius norm."""
    return jnp.mean(jnp.diagonal(matrix, axis1=-2, axis2=-1), axis=-1)


def deviator(matrix: Inexact[Array, "*batch n n"]) -> Inexact[Array, "*batch n n"]:
    """M - tI with t = tr M / n: what is left of M without its mean scaling; the same matrix for J and for J - I."""
    return matrix - mean_trace(matrix)[..., None, None] * jnp.eye(matrix.shape[-1], dtype=matrix.dtype)


def paired(schur: Float[Array, "*batch n n"]) -> Bool[Array, "*batch n"]:
    """Whether each diagonal place of a real Schur form lies in a 2x2 block, that is, holds a complex eigenvalue."""
    below = jnp.diagonal(schur, offset=-1, axis1=-2, axis2=-1) != 0
    edge = jnp.zeros((*schur.shape[:-2], 1), dtype=bool)
    return jnp.concatenate([below, edge], axis=-1) | jnp.concatenate([edge, below], axis=-1)


def nan_where(failed: Bool[Array, "*batch"], value: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """`value`, or NaN where the matrix failed."""
    return jnp.where(failed, jnp.full_like(value, jnp.nan), value)


def has_nan(array: Inexact[Array, "*batch n"], dimensions: int) -> Bool[Array, "..."]:
    """Whether any element over the last `dimensions` axes is NaN."""
    return jnp.any(jnp.isnan(array), axis=tuple(range(-dimensions, 0)))
