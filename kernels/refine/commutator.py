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

from ..product import matmul

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
    if n < 2:
        return jnp.zeros_like(E)  # nothing lies below the diagonal
    size = min(BLOCK, n)
    count = -(-n // size)
    extra = count * size - n
    # What is added has zeros beside the diagonal and is not wanted.
    T, E, wanted = (jnp.pad(x, ((0, extra), (0, extra))) for x in (T, E, wanted))
    values = jnp.diagonal(T).reshape(count, size)
    at = jnp.arange(count)
    within = jnp.triu(_in_blocks(T, size)[at, :, at], 1)
    number = jnp.arange(count * size) // size
    across = jnp.where(number[:, None] < number, T, 0)
    # Complex products as real ones of twice the inner order, real parts beside and above imaginary ones.
    by_column = _in_blocks(across, size).transpose(2, 0, 1, 3).reshape(count, -1, size)
    by_column = jnp.concatenate([by_column.real, by_column.imag], axis=2)
    by_row = across.reshape(count, size, -1)
    by_row = jnp.concatenate([by_row.real, by_row.imag], axis=1)

    def diagonal(right, distance):
        low = (at + distance) % count
        inside = (at + distance < count)[:, None, None]
        gap = values[low][:, :, None] - values[:, None, :]
        known, open_ = (_in_blocks(x, size)[low, :, at] for x in (right, wanted))
        found = _solve_blocks(within[low], within, gap, known, open_ & inside, floor)
        # Above in the same columns, and to the right in the same rows: two products for the whole diagonal.
        real, imaginary = found.real, found.imag
        above = matmul(jnp.roll(by_column, -distance, axis=0), jnp.block([[real, imaginary], [-imaginary, real]]))
        beside = matmul(jnp.block([[real, -imaginary], [imaginary, real]]), by_row)
        above = lax.complex(above[:, :, :size], above[:, :, size:])
        beside = lax.complex(beside[:, :size], beside[:, size:]).reshape(right.shape)
        above = above.reshape(count, count, size, size).transpose(1, 2, 0, 3).reshape(right.shape)
        return right - above + jnp.roll(beside, distance * size, axis=0), found

    _, found = lax.scan(diagonal, jnp.where(wanted, -E, 0), count - 1 - at)
    # Block (i, j) was found with the diagonal i - j, the last one first.
    distance = at[:, None] - at
    L = jnp.where((distance >= 0)[..., None, None], found[(count - 1 - distance) % count, at], 0)
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

    row, column = at[:, None], at

    def diagonal(step, state):
        known, X = state
        shift = size - 1 - step
        new = jnp.where(row - column == shift, known * inverse, 0)
        # Its numbers by columns times the columns of `left` that they meet, and by rows times the rows of `right`.
        known = known - jnp.roll(left, -shift, axis=2) * jnp.sum(new, axis=1, keepdims=True)
        known = known + jnp.sum(new, axis=2, keepdims=True) * jnp.roll(right, shift, axis=1)
        return known, X + new

    _, X = lax.fori_loop(0, 2 * size - 1, diagonal, (known, jnp.zeros_like(known)))
    return X


def _in_blocks(M: Array, size: int) -> Array:
    """[n, n] as [n / b, b, n / b, b]."""
    count = M.shape[-1] // size
    return M.reshape(count, size, count, size)
