"""Bulges of one shift in complex Hessenberg matrices: rotations of two rows, two rows apart.

The single shift of complex QR (Golub and Van Loan, Matrix Computations, 4th edition, section 7.3); bulges.py sends
them. Rotations have a real cosine, as LAPACK's lartg makes them.
"""

import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, Int

from ..scaling import size
from .bulges import Kind
from .grid import NOWHERE, Grid


def _eigenvalues(W: Complex[Array, "B R N"], at: Grid, begin: Int[Array, "B 1 N"]) -> Complex[Array, "B 1 N"]:
    """Of blocks of one and two rows, one for each row; of two the nearer to its diagonal entry in the second."""
    del begin
    below = at.diagonal(W, 1)
    near, far = _both(W, at)
    return jnp.where(at.right(below, 1) != 0, near, jnp.where(below != 0, at.left(far, 1), at.diagonal(W, 0)))


def _nearest(H: Complex[Array, "B R N"], at: Grid) -> Complex[Array, "B 1 N"]:
    """Eigenvalue of rows j - 1 and j that is nearer to H[j, j]: Wilkinson's shift."""
    return _both(H, at)[0]


def _both(H: Complex[Array, "B R N"], at: Grid) -> tuple[Complex[Array, "B 1 N"], Complex[Array, "B 1 N"]]:
    """Eigenvalues of the 2 x 2 matrix in rows j - 1 and j, that nearer to H[j, j] first."""
    d = at.diagonal(H, 0)
    a, b, c = at.right(d, 1), at.diagonal(H, -1), at.right(at.diagonal(H, 1), 1)
    scale = size(a) + size(b) + size(c) + size(d)
    scale = jnp.where(scale > 0, scale, 1)
    a, b, c, e = a / scale, b / scale, c / scale, d / scale
    half, p = (a + e) / 2, (a - e) / 2
    root = jnp.sqrt(p * p + b * c)
    root = jnp.where(size(half + root - e) < size(half - root - e), root, -root)
    return (half + root) * scale, (half - root) * scale


def _exceptional(H: Complex[Array, "B R N"], at: Grid) -> Complex[Array, "B 1 N"]:
    """Shifts of LAPACK's exceptional kind, from the subdiagonal entry beside a row."""
    return at.diagonal(H, 0) + 0.75 * at.right(size(at.diagonal(H, 1)), 1)


def _first_column(
    H: Complex[Array, "B R N"], at: Grid, shift: Complex[Array, "B 1 N"]
) -> tuple[Complex[Array, "B 1 N"], Complex[Array, "B 1 N"]]:
    """First column of H - s for a block that begins at j."""
    return at.diagonal(H, 0) - shift, at.diagonal(H, 1)


def _step(
    H: Complex[Array, "B R N"],
    Q: Complex[Array, "B R N"] | None,
    at: Grid,
    on: Int[Array, "B 1 N"],
    starting: Int[Array, "B 1 N"],
    first_column: tuple[Array, Array],
    last: Int[Array, "B 1 N"],
) -> tuple[Array, Array | None]:
    """Rotations of rows k and k + 1 for every k that is `on`: they chase a bulge out of column k - 1, or start one."""
    del last  # a bulge is not on in the last row of its block, so that both rows are of the block
    bulge = (at.right(at.diagonal(H, below), 1) for below in (1, 2))
    x, y = (jnp.where(starting > 0, new, old) for new, old in zip(first_column, bulge, strict=True))
    unit = jnp.maximum(size(x), size(y))
    unit = jnp.where(unit > 0, unit, 1)
    x, y = x / unit, y / unit
    other = _square(y)
    needed = (on > 0) & (other > 0)
    # The phase is x over its modulus at whatever size: squares of a tiny x would lose its digits, and Q its unitarity.
    own = size(x)
    some = own > float(jnp.finfo(own.dtype).tiny)
    direction = jnp.where(some, x / jnp.where(some, own, 1), 1)
    modulus = jnp.sqrt(_square(direction))
    phase, modulus = direction / modulus, jnp.where(some, own * modulus, 0)
    norm = jnp.sqrt(jnp.where(needed, jnp.square(modulus) + other, 1))
    cosine = jnp.where(needed, modulus / norm, 1)
    sine = jnp.where(needed, phase * jnp.conj(y) / norm, 0)
    # Rows k and k + 1 become cosine, sine and -conj(sine), cosine times both: one matrix for rows and columns.
    diagonal = jnp.where(needed, cosine, at.right(jnp.where(needed, cosine, 1), 1))
    above, below = sine, -at.right(jnp.conj(sine), 1)
    rows, (main, up, down) = H.shape[1], (at.upright(v) for v in (diagonal, above, below))
    H = main * H + up * at.roll(H, rows - 1, 1) + down * at.roll(H, 1, 1)
    # What was chased is one entry and an exact zero, in the column before; what is too small to be turned goes too.
    chased = at.left(jnp.where((on > 0) & (starting == 0), at.j, NOWHERE), 1)
    H = jnp.where(at.i == chased, at.left(jnp.where(needed, phase * norm, x) * unit, 1), H)
    H = jnp.where(at.i == chased + 1, 0, H)

    def columns(X):
        return diagonal * X + jnp.conj(above) * at.left(X, 1) + jnp.conj(below) * at.right(X, 1)

    return columns(H), None if Q is None else columns(Q)


def _square(x: Complex[Array, "B 1 N"]) -> Float[Array, "B 1 N"]:
    return jnp.square(x.real) + jnp.square(x.imag)


COMPLEX = Kind(
    rows=2,
    eigenvalues=_eigenvalues,
    nearest=_nearest,
    exceptional=_exceptional,
    first_column=_first_column,
    step=_step,
)
