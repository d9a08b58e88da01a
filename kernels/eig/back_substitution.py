"""All eigenvectors of a triangular matrix at once, by blocked back-substitution with products of matrices.

The k-th eigenvector x of T solves (T - t_kk) x = 0 with x_k = 1 and zeros below; row i gives
x_i = -(sum_{j>i} t_ij x_j) / (t_ii - t_kk). Rows are taken from the bottom, for all k at once; the sum over rows
outside the current block is one matrix product a block. A real quasi-triangular T stays real: the vectors of a complex
pair are packed as real and imaginary part, and a 2 x 2 block is solved in the basis that makes it triangular
(triangular.py), which takes two divisions and no determinant.

Overflow: as in LAPACK's trevc a divisor is kept away from zero by eps abs(t_kk), which moves an eigenvalue by no more
than rounding does, and a column that would grow beyond one is scaled down by a power of two, so that every intermediate
number is below n / sqrt(tiny) and the result's columns are of order one.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, Inexact

from ..product import matmul
from ..scaling import power_of_two_above
from ..triangular import Blocks, blocks

# Rows a block: small against n, so that the products carry the work, and large enough to fill them.
_ROWS = 32


def triangular_eigenvectors(T: Inexact[Array, "n n"]) -> Inexact[Array, "n n"]:
    """Eigenvectors of one triangular or standard quasi-triangular matrix, in columns, packed for a real one.

    Parameters
    ----------
    T : real or complex [n, n]
        Entries of order one or below (`scaling.scale_of`).

    Returns
    -------
    [n, n], dtype of T
        Upper (quasi-)triangular; each column's largest entry is between 1/4 and sqrt(2). Real T: unpack with
        `triangular.unpack`. Cost: 2 n^3 operations of T's type in products, n sequential steps of order 64 n.
    """
    n = T.shape[-1]
    if n == 0:
        return T
    rows = min(_ROWS, n)
    count = -(-n // rows)
    # Zero rows in front make every block full; one more lets a block reach up to the other row of a split pair.
    front = count * rows - n + 1
    d = blocks(T)
    padded = jnp.pad(T, ((front, 0), (front, 0)))
    at_rows = _padded_blocks(d, front)
    X = jnp.pad(_start(d, T.dtype), ((front, 0), (0, 0)))

    def block(step, X):
        top = (count - 1 - step) * rows
        window = jax.lax.dynamic_slice_in_dim(padded, top, rows + 1)
        later = jnp.arange(padded.shape[-1]) > top + rows
        known = matmul(jnp.where(later, window, 0), X)
        inside = jax.lax.dynamic_slice_in_dim(window, top, rows + 1, axis=1)
        Xw = jax.lax.dynamic_slice_in_dim(X, top, rows + 1)
        local = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, top, rows + 1), at_rows)
        Xw, scale = _solve_window(inside, Xw, known, local, d, top - front)
        return jax.lax.dynamic_update_slice_in_dim(X * scale, Xw, top, axis=0)

    return jax.lax.fori_loop(0, count, block, X)[front:]


def _start(d: Blocks, dtype: jnp.dtype) -> Inexact[Array, "n n"]:
    """Each column's own diagonal block, packed: 1, or the eigenvector of a 2 x 2 block for a + i w."""
    single = ~(d.first | d.second)
    wide = jnp.abs(d.b) >= jnp.abs(d.c)
    big = jnp.where(single, 1, jnp.maximum(jnp.abs(d.b), jnp.abs(d.c)))
    small = jnp.where(single, 1, jnp.minimum(jnp.abs(d.b), jnp.abs(d.c)))
    ratio = jnp.where(single, 0, jnp.sqrt(small / big))
    sign = jnp.sign(d.b)
    # wide: (1, i ratio sign(b)); otherwise (-i ratio sign(b), 1).
    diagonal = jnp.where(single, 1, jnp.where(wide, jnp.where(d.first, 1, sign * ratio), 0))
    real_below = jnp.where(d.first & ~wide, 1, 0).astype(ratio.dtype)
    imaginary_above = jnp.where(d.second & ~wide, -sign * ratio, 0)
    X = jnp.diag(diagonal) + jnp.diag(real_below[:-1], -1) + jnp.diag(imaginary_above[1:], 1)
    return X.astype(dtype)


def _padded_blocks(d: Blocks, front: int) -> tuple[Array, ...]:
    """Row data of the blocks with `front` harmless rows before them: second, first, alpha, beta, b + c, values."""
    fill = (False, False, 1, 0, 0, 0)
    data = (d.second, d.first, d.alpha, d.beta, d.b + d.c, d.values)
    return tuple(jnp.pad(x, (front, 0), constant_values=v) for x, v in zip(data, fill, strict=True))


def _solve_window(
    T: Inexact[Array, "r r"],
    X: Inexact[Array, "r n"],
    known: Inexact[Array, "r n"],
    rows: tuple[Array, ...],
    d: Blocks,
    top: Array,
) -> tuple[Inexact[Array, "r n"], Float[Array, " n"]]:
    """Solve the rows of one window from the bottom; also the scale that every other row of X has to take."""
    size = T.shape[-1]
    real = not jnp.iscomplexobj(T)
    columns = jnp.arange(X.shape[-1])
    second, first, alpha, beta, corner, values = rows
    eps, tiny = jnp.finfo(T.dtype).eps, jnp.finfo(T.dtype).tiny
    # Both columns of a pair carry the vector of a + i w, so that they are scaled alike.
    shift = jnp.where(d.second, jnp.conj(d.values), d.values)
    floor = jnp.maximum(eps * jnp.abs(shift), jnp.sqrt(tiny).astype(alpha.dtype))

    def row(step, carry):
        X, known, total = carry
        i = size - 1 - step
        active = (columns > top + i) & ~first[i]
        beyond = jnp.arange(size) > i
        pair = jax.lax.dynamic_slice_in_dim(T, i - 1, 2)
        sums = matmul(jnp.where(beyond, pair, 0), X) + jax.lax.dynamic_slice_in_dim(known, i - 1, 2)
        upper, lower = _both_of_a_pair(d, sums)
        if real:
            # Into the basis in which the block is triangular: G^H (upper, lower).
            upper, lower = alpha[i] * upper - 1j * beta[i] * lower, alpha[i] * lower - 1j * beta[i] * upper
        y2, scale2 = _divide(-lower, values[i] - shift, floor)
        if not real:
            new, scale = y2[None], scale2
        else:
            y1, scale1 = _divide(-(upper * scale2 + corner[i] * y2), values[i - 1] - shift, floor)
            # Outside a pair y1 means nothing: it neither counts nor scales.
            paired = second[i]
            y1, scale1 = jnp.where(paired, y1, 0), jnp.where(paired, scale1, 1)
            y2, scale = y2 * scale1, scale1 * scale2
            new = _pack(d, jnp.stack([alpha[i] * y1 + 1j * beta[i] * y2, alpha[i] * y2 + 1j * beta[i] * y1]))
        scale = jnp.where(active, scale, 1)
        X, known, total = X * scale, known * scale, total * scale
        if real:
            old = jax.lax.dynamic_slice_in_dim(X, i - 1, 2)
            new = jnp.where(active & jnp.stack([second[i], ~first[i]])[:, None], new, old)
            return jax.lax.dynamic_update_slice_in_dim(X, new, i - 1, axis=0), known, total
        old = jax.lax.dynamic_slice_in_dim(X, i, 1)
        return jax.lax.dynamic_update_slice_in_dim(X, jnp.where(active, new, old), i, axis=0), known, total

    ones = jnp.ones(X.shape[-1], floor.dtype)
    X, _, total = jax.lax.fori_loop(0, size - 1, row, (X, known, ones))
    return X, total


def _divide(
    numerator: Complex[Array, " n"], divisor: Complex[Array, " n"], floor: Float[Array, " n"]
) -> tuple[Complex[Array, " n"], Float[Array, " n"]]:
    """Quotient times a power of two that keeps it at or below one, and that power; small divisors are replaced."""
    divisor = jnp.where(jnp.abs(divisor) < floor, floor, divisor)
    unit = power_of_two_above(jnp.maximum(jnp.abs(divisor.real), jnp.abs(divisor.imag)))
    near_one = divisor * (1 / unit)
    quotient = numerator * jnp.conj(near_one) / (jnp.square(near_one.real) + jnp.square(near_one.imag))
    scale = 1 / power_of_two_above(jnp.maximum(jnp.abs(quotient) / unit, 0.5))
    return quotient * (scale / unit), scale


def _both_of_a_pair(d: Blocks, X: Inexact[Array, "m n"]) -> Complex[Array, "m n"]:
    """Packed columns as complex numbers, the same in both columns of a pair; a complex matrix as it is."""
    if jnp.iscomplexobj(X):
        return X
    before, after = jnp.roll(X, 1, axis=-1), jnp.roll(X, -1, axis=-1)
    return jax.lax.complex(jnp.where(d.second, before, X), jnp.where(d.first, after, jnp.where(d.second, X, 0)))


def _pack(d: Blocks, x: Complex[Array, "m n"]) -> Float[Array, "m n"]:
    """Inverse of `_both_of_a_pair`: the real part in a pair's first column, the imaginary part in its second."""
    return jnp.where(d.second, x.imag, x.real)
