"""Bulges of two shifts in real Hessenberg matrices: reflectors of three rows, pairs of shifts, real arithmetic.

Francis' double shift (Golub and Van Loan, Matrix Computations, 4th edition, section 7.5). bulges.py sends them; what a
block of two rows has left is standard.py's.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .bulges import Kind
from .grid import NOWHERE, Grid


class Shifts(NamedTuple):
    """A pair of shifts for every row: real ones r and s, or r = s and the imaginary parts +-im."""

    r: Float[Array, "B 1 N"]
    s: Float[Array, "B 1 N"]
    im: Float[Array, "B 1 N"]


def _eigenvalues(W: Float[Array, "B R N"], at: Grid, begin: Int[Array, "B 1 N"]) -> Shifts:
    """Of blocks of one and two rows, the pair of the block in both rows of two.

    A row that stands alone has its eigenvalue and, where the row before stands alone too, that one's.
    """
    diagonal, below = at.diagonal(W, 0), at.diagonal(W, 1)
    pair = _both(W, at)
    second = at.right(below, 1) != 0
    alone = (at.j > begin) & (at.right(below, 2) == 0)
    single = Shifts(diagonal, jnp.where(alone, at.right(diagonal, 1), diagonal), jnp.zeros_like(diagonal))
    found = (
        jnp.where(second, mine, jnp.where(below != 0, at.left(mine, 1), other))
        for mine, other in zip(pair, single, strict=True)
    )
    return Shifts(*found)


def _exceptional(H: Float[Array, "B R N"], at: Grid) -> Shifts:
    """Shifts of LAPACK's exceptional kind, from the two subdiagonal entries above a row."""
    below = jnp.abs(at.diagonal(H, 1))
    strength = at.right(below, 1) + at.right(below, 2)
    centre = 0.75 * strength + at.diagonal(H, 0)
    return Shifts(centre, centre, 0.4375**0.5 * strength)


def _nearest(H: Float[Array, "B R N"], at: Grid) -> Shifts:
    """Eigenvalues of rows j - 1 and j; of two real ones that nearer to H[j, j], twice."""
    r, _, im = _both(H, at)
    return Shifts(r, r, im)


def _both(H: Float[Array, "B R N"], at: Grid) -> Shifts:
    """Eigenvalues of the 2 x 2 matrix in rows j - 1 and j, of two real ones that nearer to H[j, j] first."""
    d = at.diagonal(H, 0)
    a, b, c = at.right(d, 1), at.diagonal(H, -1), at.right(at.diagonal(H, 1), 1)
    scale = jnp.abs(a) + jnp.abs(b) + jnp.abs(c) + jnp.abs(d)
    scale = jnp.where(scale > 0, scale, 1)
    a, b, c, e = a / scale, b / scale, c / scale, d / scale
    half, p = (a + e) / 2, (a - e) / 2
    disc = p * p + b * c
    root = jnp.sqrt(jnp.abs(disc))
    root = jnp.where(jnp.abs(half + root - e) < jnp.abs(half - root - e), root, -root)
    real = disc >= 0
    r, s = half + jnp.where(real, root, 0), half - jnp.where(real, root, 0)
    return Shifts(r * scale, s * scale, jnp.where(real, 0, jnp.abs(root)) * scale)


def _first_column(H: Float[Array, "B R N"], at: Grid, shifts: Shifts) -> tuple[Array, Array, Array]:
    """First column of (H - r)(H - s) for a block that begins at j, up to a factor."""
    r, s, im = shifts
    h11, h12, h21 = at.diagonal(H, 0), at.left(at.diagonal(H, -1), 1), at.diagonal(H, 1)
    h22, h32 = at.left(h11, 1), at.left(h21, 1)
    size = jnp.abs(h11 - s) + im + jnp.abs(h21)
    size = jnp.where(size > 0, size, 1)
    h21 = h21 / size
    x = h21 * h12 + (h11 - r) * ((h11 - s) / size) + im * (im / size)
    return x, h21 * (h11 + h22 - r - s), h21 * h32


def _step(
    H: Float[Array, "B R N"],
    Q: Float[Array, "B R N"] | None,
    at: Grid,
    on: Int[Array, "B 1 N"],
    starting: Int[Array, "B 1 N"],
    first_column: tuple[Array, Array, Array],
    last: Int[Array, "B 1 N"],
) -> tuple[Array, Array | None]:
    """Reflectors of rows k to k + 2 for every k that is `on`: they chase a bulge out of column k - 1, or start one.

    Where k is `starting` they turn the first column that is given; `last` is the last row of the block of k.
    """
    bulge = (at.right(at.diagonal(H, below), 1) for below in (1, 2, 3))
    x, y, z = (jnp.where(starting > 0, new, old) for new, old in zip(first_column, bulge, strict=True))
    # Squares that vanish leave tiny entries behind: without this one of them would turn rows of two blocks together.
    y, z = jnp.where(at.j + 1 <= last, y, 0), jnp.where(at.j + 2 <= last, z, 0)
    size = jnp.maximum(jnp.maximum(jnp.abs(x), jnp.abs(y)), jnp.abs(z))
    scale = jnp.where(size > 0, size, 1)
    x, y, z = x / scale, y / scale, z / scale
    beyond = y * y + z * z
    norm = jnp.sqrt(x * x + beyond)
    beta = jnp.where(x > 0, -norm, norm)
    needed = (on > 0) & (beyond > 0)
    divisor = jnp.where(needed, x - beta, 1)
    a, b = jnp.where(needed, y / divisor, 0), jnp.where(needed, z / divisor, 0)  # v = (1, a, b)
    tau = jnp.where(needed, (beta - x) / jnp.where(needed, beta, 1), 0)
    # The same three numbers for rows and for columns, so that both are turned by the same matrix.
    rows, (up, down, factor) = H.shape[1], (at.upright(v) for v in (a, b, tau))
    moved = factor * (H + up * at.roll(H, rows - 1, 1) + down * at.roll(H, rows - 2, 1))
    H = H - moved - at.roll(up * moved, 1, 1) - at.roll(down * moved, 2, 1)
    # What was chased is beta and exact zeros, in the column before.
    chased = at.left(jnp.where(needed & (starting == 0), at.j, NOWHERE), 1)
    H = jnp.where(at.i == chased, at.left(beta * scale, 1), H)
    H = jnp.where((at.i == chased + 1) | (at.i == chased + 2), 0, H)

    def columns(X):
        moved = tau * (X + a * at.left(X, 1) + b * at.left(X, 2))
        return X - moved - at.right(a * moved, 1) - at.right(b * moved, 2)

    return columns(H), None if Q is None else columns(Q)


REAL = Kind(
    rows=3,
    eigenvalues=_eigenvalues,
    nearest=_nearest,
    exceptional=_exceptional,
    first_column=_first_column,
    step=_step,
)
