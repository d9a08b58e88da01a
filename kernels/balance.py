"""Balancing: a diagonal similarity by powers of two that brings rows and columns to like norms.

D^-1 A D has the eigenvalues of A, and where entries differ by many decades its eigenvalues come out with small errors
relative to themselves, not to norm(A). Row i and column i are scaled against each other by the power of two nearest
to (norm of row / norm of column)^(1/2), their diagonal entry left out, one i after another until nothing is gained:
Osborne, J. ACM 7, 1960; Parlett and Reinsch, Numerische Mathematik 13, 1969; with 2-norms, as James, Langou and
Lowery (arXiv 1401.5766) advise. Not every matrix gains: the backward error is small against the balanced matrix, not
always against A.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Inexact

from .batching import over_flat_batch

WORTH = 0.95
"""A scaling is taken where it brings the sum of the two norms below this part of what it was."""

SWEEPS = 30
"""Sweeps at most; two to five are usual."""


def balance(A: Inexact[Array, "*batch n n"]) -> tuple[Inexact[Array, "*batch n n"], Float[Array, "*batch n"]]:
    """Balance finite matrices of order one.

    Parameters
    ----------
    A : real or complex [..., n, n]
        The matrices.

    Returns
    -------
    balanced : [..., n, n], dtype of A
        D^-1 A D, exactly: every entry times a power of two.
    scale : real [..., n]
        The diagonal of D. A derivative takes it for a constant, which it is almost everywhere.
    """
    scale = over_flat_batch(_scales, lax.stop_gradient(A))
    return A * (1 / scale)[..., :, None] * scale[..., None, :], scale


def _scales(A: Inexact[Array, "B n n"]) -> Float[Array, "B n"]:
    n = A.shape[-1]
    info = jnp.finfo(A.dtype)
    eye = jnp.eye(n, dtype=bool)
    sizes = jnp.where(eye, 0, jnp.abs(A))
    most = -info.minexp // 4  # the exponents of a row and a column add up

    def worth_it(state):
        _, changed, count = state
        return changed & (count < SWEEPS)

    def sweep(state):
        exponents, _, count = state
        after = lax.fori_loop(0, n, one, exponents)
        return after, jnp.any(after != exponents), count + 1

    def one(i, exponents):
        here = lax.dynamic_index_in_dim(exponents, i, axis=1)
        column = _norm(lax.dynamic_index_in_dim(sizes, i, axis=2, keepdims=False), here - exponents)
        row = _norm(lax.dynamic_index_in_dim(sizes, i, axis=1, keepdims=False), exponents - here)
        usable = (column > 0) & (row > 0)
        ratio = jnp.where(usable, row, 1) / jnp.where(usable, column, 1)
        step = jnp.round(jnp.log2(ratio) / 2).astype(exponents.dtype)
        step = jnp.clip(here[:, 0] + step, -most, most) - here[:, 0]
        factor = jnp.ldexp(jnp.ones_like(row), step)
        gain = usable & (column * factor + row / factor < WORTH * (column + row))
        return lax.dynamic_update_slice_in_dim(exponents, here + jnp.where(gain, step, 0)[:, None], i, axis=1)

    start = jnp.zeros(A.shape[:2], jnp.int32)
    exponents, _, _ = lax.while_loop(worth_it, sweep, (start, jnp.bool_(n > 1), jnp.int32(0)))
    return jnp.ldexp(jnp.ones(A.shape[:2], info.dtype), exponents)


def _norm(sizes: Float[Array, "B n"], exponents: Array) -> Float[Array, " B"]:
    """2-norm of sizes times powers of two, without overflow."""
    scaled = sizes * jnp.ldexp(jnp.ones_like(sizes), exponents)
    largest = jnp.max(scaled, axis=1)
    unit = jnp.where(largest > 0, largest, 1)
    return unit * jnp.sqrt(jnp.sum(jnp.square(scaled / unit[:, None]), axis=1))
