"""Stage 5 of 7: rung N1, t I plus matrices with the singular values of M - tI and Haar vectors (1.7).

Null matrix: tI + U S V^T, with t = tr M / n, S the singular values of M - tI, U and V independent Haar matrices. J and
J - I share S, so the null of J - I is the null of J minus the identity. All measures of one matrix are unchanged by
M -> V^T M V, so one Haar matrix W = V^T U is enough for them: tI + W S. Products of layers need U and V both.

Every draw has its own key, folded from the caller's key, the matrix's id and the draw's number: draws depend neither
on how matrices are batched nor on how many draws are taken at a time.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key

from jaxdyn.errors import InputError

DRAWS = 8
"""Draws a matrix, the least that gives a usable standard deviation (its own relative error is 27 %)."""


class NullDraws(NamedTuple):
    """Null matrices and the singular vectors of their M - tI, known by construction.

    Attributes
    ----------
    matrix : (..., draws, n, n), tI + U S V^T.
    left, right_h : (..., draws, n, n), U in columns and V^T in rows: what `self_alignment` needs, without an SVD.
    """

    matrix: Float[Array, "*batch draws n n"]
    left: Float[Array, "*batch draws n n"]
    right_h: Float[Array, "*batch draws n n"]


def n1_matrices(
    key: Key[Array, ""],
    singular_values: Float[Array, "*batch n"],
    mean_trace: Float[Array, "*batch"],
    ids: Int[Array, "*batch"],
    *,
    draws: int = DRAWS,
    first_draw: int | Int[Array, ""] = 0,
    full: bool = False,
) -> NullDraws:
    """Draw null matrices t I + U S V^T for each matrix of a batch.

    Parameters
    ----------
    key : a typed JAX key (jax.random.key).
    singular_values : (..., n), those of M - tI.
    mean_trace : (...), t = tr M / n.
    ids : (...), an integer per matrix, unique within the run and independent of batching (sample and layer, say).
    draws : how many to return.
    first_draw : number of the first one, to draw a few at a time; may be traced.
    full : draw U and V both, for products of layers; otherwise V = I, which has the same measures at half the cost.

    Returns
    -------
    NullDraws in the dtype of the singular values. A matrix with NaN singular values gives NaN. Cost: one QR (8/3 n^3
    flops) a Haar matrix, 3 n^2 numbers a draw.

    Raises
    ------
    InputError : no draws, or a negative first draw.

    References
    ----------
    1.7, N1.
    """
    if draws < 1 or (isinstance(first_draw, int) and first_draw < 0):
        msg = f"draws, first_draw: got {draws}, {first_draw}; allowed: at least 1 draw, numbered from 0"
        raise InputError(msg)
    n, dtype = singular_values.shape[-1], singular_values.dtype
    batch = singular_values.shape[:-1]
    numbers = first_draw + jnp.arange(draws)

    def keys_of(matrix_id):
        return jax.vmap(lambda draw: jax.random.fold_in(jax.random.fold_in(key, matrix_id), draw))(numbers)

    keys = jax.vmap(keys_of)(jnp.broadcast_to(ids, batch).reshape(-1)).reshape(-1)
    pair = jax.vmap(jax.random.split)(keys)
    left = haar(pair[:, 0], n, dtype).reshape(*batch, draws, n, n)
    right_h = haar(pair[:, 1], n, dtype).reshape(*batch, draws, n, n) if full else _identity(left)
    scaled = left * singular_values[..., None, None, :]
    product = jnp.matmul(scaled, right_h, precision=lax.Precision.HIGHEST) if full else scaled
    matrix = product + mean_trace[..., None, None, None] * jnp.eye(n, dtype=dtype)
    return NullDraws(matrix, left, right_h)


def haar(keys: Key[Array, " B"], width: int, dtype=jnp.float32) -> Float[Array, "B n n"]:
    """Orthogonal matrices from the Haar measure: QR of a Gaussian matrix with the signs of R's diagonal moved into Q.

    Parameters
    ----------
    keys : (B,), one typed JAX key a matrix; each matrix depends on its own key alone.
    width : n.
    dtype : float32 or float64; the two draw different matrices.

    Returns
    -------
    (B, n, n), norm(Q^T Q - I)_F of order sqrt(n) eps.

    References
    ----------
    F. Mezzadri, "How to generate random matrices from the classical compact groups", 2007.
    """
    gaussian = jax.vmap(lambda key: jax.random.normal(key, (width, width), dtype))(keys)
    # One at a time: batched LAPACK calls that meet on a CPU can wait for each other (jaxdyn_kernels.threads, trap 3).
    orthogonal, triangular = lax.map(jnp.linalg.qr, gaussian)
    diagonal = jnp.diagonal(triangular, axis1=-2, axis2=-1)
    return orthogonal * jnp.where(diagonal < 0, -1, 1).astype(dtype)[:, None, :]


def _identity(like):
    return jnp.broadcast_to(jnp.eye(like.shape[-1], dtype=like.dtype), like.shape)
