"""Stage 5 of 7: singular values whose range exceeds what a float can hold, by one-sided Jacobi on scaled columns.

The matrix is X = C diag(exp(l)): columns of moderate size with logarithmic scales. Rotations orthogonalise pairs of
columns. With r = exp(l_j - l_i) <= 1 the rotation that orthogonalises x_i and x_j reads, in the columns of C,
    c_i <- cos (c_i + tau r^2 c_j),  c_j <- cos (c_j - tau c_i),
    tau = 2 <c_i, c_j> / (D + sign(D) sqrt(D^2 + 4 r^2 <c_i, c_j>^2)),  D = |c_i|^2 - r^2 |c_j|^2,
so r may underflow without harm: then it is a projection. Small singular values keep the relative accuracy that the
condition of C allows, however small they are (Demmel and Veselic).
"""

from functools import partial

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

MAX_SWEEPS = 30
"""Jacobi converges in 5 to 9 sweeps; a matrix that needs more than 30 is reported as not converged."""


def graded_singular_values(
    columns: Float[Array, "*batch n m"], log_scale: Float[Array, "*batch n"]
) -> tuple[Float[Array, "*batch n"], Bool[Array, "*batch"]]:
    """Logarithms of the singular values of C diag(exp(l)), C given by the rows of `columns` (its transpose).

    Parameters
    ----------
    columns : (..., n, m), column i of C in row i; norms of moderate size, C well conditioned.
    log_scale : (..., n), natural logarithms l of the scales; -inf for a zero column.

    Returns
    -------
    log singular values (..., n), descending, -inf for zero; converged (...). NaN where an entry is NaN or the sweeps
    did not converge; the other matrices of the batch are unaffected. Relative error of a singular value: of order
    n eps cond(C). Cost: 6 n^2 m flops a sweep, n - 1 dependent steps a sweep, 5 to 9 sweeps.

    References
    ----------
    J. Demmel and K. Veselic, "Jacobi's method is more accurate than QR", 1992; the round-robin ordering is that of
    R. Brent and F. Luk, 1985.
    """
    n = columns.shape[-2]
    dtype = columns.dtype
    if n == 1:
        size = jnp.linalg.norm(columns, axis=-1)
        return log_scale + jnp.log(size), ~jnp.isnan(size[..., 0])
    failed = jnp.any(jnp.isnan(columns), axis=(-2, -1)) | jnp.any(jnp.isnan(log_scale), axis=-1)
    columns = jnp.where(failed[..., None, None], 0, columns)
    log_scale = jnp.where(failed[..., None], 0, log_scale)
    if n % 2:
        columns = jnp.concatenate([columns, jnp.zeros_like(columns[..., :1, :])], axis=-2)
        log_scale = jnp.concatenate([log_scale, jnp.full_like(log_scale[..., :1], -jnp.inf)], axis=-1)
    tolerance = 4 * float(np.sqrt(columns.shape[-1])) * float(jnp.finfo(dtype).eps)

    def unconverged(state):
        sweep, _, _, largest = state
        return (sweep < MAX_SWEEPS) & jnp.any(largest > tolerance)

    def sweep(state):
        count, columns, log_scale, _ = state
        columns, log_scale = _ordered(columns, log_scale)
        largest = jnp.zeros(columns.shape[:-2], dtype=dtype)
        columns, log_scale, largest = lax.fori_loop(
            0,
            columns.shape[-2] - 1,
            partial(_round, order=_round_robin(columns.shape[-2])),
            (columns, log_scale, largest),
        )
        return count + 1, columns, log_scale, largest

    start = jnp.full(columns.shape[:-2], jnp.inf, dtype=dtype)
    _, columns, log_scale, largest = lax.while_loop(unconverged, sweep, (0, columns, log_scale, start))
    converged = (largest <= tolerance) & ~failed
    _, logs = _ordered(columns, log_scale)
    return jnp.where(converged[..., None], logs[..., :n], jnp.nan), converged


def _round(_, state, *, order):
    """Orthogonalise the pairs (k, h + k), k < h = n/2, then move the columns on to the next pairing."""
    columns, log_scale, largest = state
    half = columns.shape[-2] // 2
    first, second = columns[..., :half, :], columns[..., half:, :]
    first_log, second_log = log_scale[..., :half], log_scale[..., half:]
    swap = second_log > first_log
    big = jnp.where(swap[..., None], second, first)
    small = jnp.where(swap[..., None], first, second)
    gap = jnp.where(first_log == second_log, 0, -jnp.abs(first_log - second_log))
    ratio = jnp.exp(gap)
    big_square, small_square = jnp.sum(big**2, axis=-1), jnp.sum(small**2, axis=-1)
    inner = jnp.sum(big * small, axis=-1)
    difference = big_square - ratio**2 * small_square
    root = jnp.sqrt(difference**2 + 4 * ratio**2 * inner**2)
    denominator = difference + jnp.where(difference < 0, -root, root)
    tau = jnp.where(denominator == 0, 0, 2 * inner / jnp.where(denominator == 0, 1, denominator))
    cosine = lax.rsqrt(1 + (ratio * tau) ** 2)
    rotated_big = cosine[..., None] * (big + (tau * ratio**2)[..., None] * small)
    rotated_small = cosine[..., None] * (small - tau[..., None] * big)
    norms = jnp.sqrt(big_square) * jnp.sqrt(small_square)
    cosines = jnp.where(norms > 0, jnp.abs(inner) / jnp.where(norms > 0, norms, 1), 0)
    columns = jnp.concatenate(
        [
            jnp.where(swap[..., None], rotated_small, rotated_big),
            jnp.where(swap[..., None], rotated_big, rotated_small),
        ],
        axis=-2,
    )
    largest = jnp.maximum(largest, jnp.max(cosines, axis=-1))
    return columns[..., order, :], log_scale[..., order], largest


def _ordered(columns, log_scale):
    """Columns of unit norm, by descending scale; a zero column gets the scale -inf."""
    norms = jnp.sqrt(jnp.sum(columns**2, axis=-1))
    logs = log_scale + jnp.log(norms)
    columns = columns / jnp.where(norms > 0, norms, 1)[..., None]
    order = jnp.argsort(-logs, axis=-1)
    return jnp.take_along_axis(columns, order[..., None], axis=-2), jnp.take_along_axis(logs, order, axis=-1)


def _round_robin(size: int) -> np.ndarray:
    """Where each place takes its column from for the next round: all pairs meet once in size - 1 rounds."""
    half = size // 2
    first, second = np.arange(half), np.arange(half, size)
    if half == 1:
        return np.arange(2)
    return np.concatenate([first[:1], second[:1], first[1:-1], second[1:], first[-1:]])
