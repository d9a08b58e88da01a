"""The triangular equation behind first-order changes of a Schur form: strictly lower part of (T L - L T) = -E.

With Q -> Q (I + L - L^H), L strictly lower triangular, the strictly lower part of Q^H A Q changes by that of T L - L
T to first order; the upper part of L - L^H adds nothing to it. Entry (i, j) of the equation,

    (t_ii - t_jj) L_ij = -E_ij - sum_{k > i} t_ik L_kj + sum_{k < j} L_ik t_kj,

needs the entries below and to the left, so the diagonals i - j = n - 1, ..., 1 follow one another. Here diagonals of
blocks do: all blocks of a diagonal at once, what they add to the others by products of matrices, and inside a block the
same recursion by plain diagonals. Sequential depth 2 n + n / b for blocks of order b.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Complex, Float

from ..scaling import matmul

BLOCK = 32
"""Order of a block: small against n, large enough that products carry the work."""


def solve_commutator(
    T: Complex[Array, "n n"],
    E: Complex[Array, "n n"],
    wanted: Bool[Array, "n n"],
    floor: Float[Array, ""],
) -> Complex[Array, "n n"]:
    """Solve for L, strictly lower triangular.

    Parameters
    ----------
    T : complex [n, n]
        Upper triangular.
    E : complex [n, n]
        Read where `wanted`.
    wanted : bool [n, n]
        Entries of L to solve for, all below the diagonal; the others are 0 and their equations are left out.
    floor : real
        Entries with abs(t_ii - t_jj) at or below it are 0: a nearly double eigenvalue, which no small change of basis
        resolves.

    Returns
    -------
    complex [n, n]
        L. Cost: 4 n^3 complex operations in products, 3 n^2 numbers of memory.
    """
    n = T.shape[-1]
    size = min(BLOCK, max(n, 1))
    count = -(-n // size)
    extra = count * size - n
    # What is added has zeros beside the diagonal and is not wanted.
    T, E, wanted = (jnp.pad(x, ((0, extra), (0, extra))) for x in (T, E, wanted))
    values = jnp.diagonal(T).reshape(count, size)
    upper = _in_blocks(jnp.triu(T, 1), size)
    right, open_ = _in_blocks(jnp.where(wanted, -E, 0), size), _in_blocks(wanted, size)
    at = jnp.arange(count)
    within = upper[at, at]
    across = jnp.where((at[:, None] < at[None, :])[..., None, None], upper, 0)

    def diagonal(step, state):
        right, L = state
        distance = count - 1 - step
        low = (at + distance) % count
        inside = (at + distance < count)[:, None, None]
        gap = values[low][:, :, None] - values[:, None, :]
        found = _solve_blocks(within[low], within, gap, right[low, at], open_[low, at] & inside, floor)
        # Above in the same columns, and to the right in the same rows.
        right = right - matmul(across[:, low], found[None])
        right = right.at[low].add(matmul(found[:, None], across))
        return right, L.at[low, at].add(found)

    _, L = lax.fori_loop(0, count, diagonal, (right, jnp.zeros_like(right)))
    return L.transpose(0, 2, 1, 3).reshape(count * size, count * size)[:n, :n]


def _solve_blocks(
    left: Complex[Array, "k b b"],
    right: Complex[Array, "k b b"],
    gap: Complex[Array, "k b b"],
    known: Complex[Array, "k b b"],
    wanted: Bool[Array, "k b b"],
    floor: Float[Array, ""],
) -> Complex[Array, "k b b"]:
    """X with left X - X right + gap X = known, `left` and `right` strictly upper triangular, for many blocks."""
    size = known.shape[-1]
    at = jnp.arange(size)
    wanted = wanted & (jnp.abs(gap) > floor)
    inverse = jnp.where(wanted, 1 / jnp.where(wanted, gap, 1), 0)

    def diagonal(step, state):
        known, X = state
        shift = size - 1 - step
        row = (at + shift) % size
        inside = (at + shift >= 0) & (at + shift < size)
        column = (at - shift) % size
        # The diagonal as a vector over its columns, and the same numbers over its rows.
        new = jnp.where(inside, known[:, row, at] * inverse[:, row, at], 0)
        by_row = jnp.where((at - shift >= 0) & (at - shift < size), new[:, column], 0)
        known = known - left[:, :, row] * new[:, None, :] + by_row[:, :, None] * right[:, column, :]
        return known, X.at[:, row, at].add(new)

    _, X = lax.fori_loop(0, 2 * size - 1, diagonal, (known, jnp.zeros_like(known)))
    return X


def _in_blocks(M: Array, size: int) -> Array:
    """[n, n] as [n / b, n / b, b, b]."""
    count = M.shape[-1] // size
    return M.reshape(count, size, count, size).transpose(0, 2, 1, 3)
