"""Standard form of the 2 x 2 blocks of a real quasi-triangular matrix, all of them at once.

A block with real eigenvalues becomes triangular; one with a complex pair gets equal diagonal entries and off-diagonal
ones of opposite sign. Each takes one plane rotation, and the blocks do not overlap. The formulas are those of LAPACK's
lanv2 (Bai and Demmel, Computing the generalized singular value decomposition, 1993; LAPACK Users' Guide).
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

CLOSE = 4
"""A discriminant below this many eps counts as none: the eigenvalues are a pair, or equal."""


def standardize(
    T: Float[Array, "*batch n n"], Q: Float[Array, "*batch n n"]
) -> tuple[Float[Array, "*batch n n"], Float[Array, "*batch n n"]]:
    """Rotate every 2 x 2 block of the diagonal into standard form.

    Parameters
    ----------
    T, Q : real [..., n, n]
        Quasi-triangular with blocks of at most two rows, and the vectors that belong to it.

    Returns
    -------
    T, Q : [..., n, n]
        The same product Q T Q^T, with standard blocks. Cost: order n^2.
    """
    n = T.shape[-1]
    if n < 2:
        return T, Q
    a, d = (jnp.diagonal(T, axis1=-2, axis2=-1)[..., s] for s in (slice(0, n - 1), slice(1, n)))
    b, c = jnp.diagonal(T, 1, axis1=-2, axis2=-1), jnp.diagonal(T, -1, axis1=-2, axis2=-1)
    block = c != 0
    cosine, sine, entries = _rotation(*(jnp.where(block, x, y) for x, y in ((a, 1), (b, 0), (c, 0), (d, 1))))
    T = turn_columns(T, cosine, sine)
    T = jnp.swapaxes(turn_columns(jnp.swapaxes(T, -1, -2), cosine, sine), -1, -2)
    Q = turn_columns(Q, cosine, sine)
    i = jnp.arange(n - 1)
    for (row, column), new in zip(((i, i), (i, i + 1), (i + 1, i), (i + 1, i + 1)), entries, strict=True):
        T = T.at[..., row, column].set(jnp.where(block, new, T[..., row, column]))
    # XLA may compute one number twice, with other roundings; read back, the diagonals of a pair are equal.
    diagonal, below = jnp.diagonal(T, axis1=-2, axis2=-1), jnp.diagonal(T, -1, axis1=-2, axis2=-1)
    return T.at[..., i + 1, i + 1].set(jnp.where(below != 0, diagonal[..., :-1], diagonal[..., 1:])), Q


def _rotation(a: Array, b: Array, c: Array, d: Array) -> tuple[Array, Array, tuple[Array, Array, Array, Array]]:
    """Cosine and sine for every block [[a, b], [c, d]], and the entries of the turned block."""
    eps = jnp.finfo(a.dtype).eps
    p, largest, smallest = (a - d) / 2, jnp.maximum(jnp.abs(b), jnp.abs(c)), jnp.minimum(jnp.abs(b), jnp.abs(c))
    smallest = smallest * jnp.sign(b) * jnp.sign(c)
    scale = jnp.maximum(jnp.abs(p), largest)
    scale = jnp.where(scale > 0, scale, 1)
    disc = p / scale * p + largest / scale * smallest
    real = _real_pair(a, b, c, d, p, scale, disc, largest, smallest)
    equal = _equal_diagonal(a, b, c, d)
    swapped = jnp.zeros_like(a), jnp.ones_like(a), (d, -c, jnp.zeros_like(a), a)
    kept = jnp.ones_like(a), jnp.zeros_like(a), (a, b, c, d)
    standard = (c == 0) | ((a == d) & (jnp.sign(b) * jnp.sign(c) < 0))

    def pick(position, entry=None):
        each = [x[position] if entry is None else x[position][entry] for x in (kept, swapped, real, equal)]
        return jnp.select([standard, b == 0, disc >= CLOSE * eps], each[:3], each[3])

    return pick(0), pick(1), (pick(2, 0), pick(2, 1), pick(2, 2), pick(2, 3))


def _real_pair(a, b, c, d, p, scale, disc, largest, smallest):
    """Two real eigenvalues, well apart."""
    z = p + jnp.where(p < 0, -1, 1) * jnp.sqrt(scale) * jnp.sqrt(jnp.maximum(disc, 0))
    safe = jnp.where(z == 0, 1, z)
    length = jnp.where(z == 0, 1, jnp.hypot(c, z))
    return z / length, c / length, (d + z, b - c, jnp.zeros_like(c), d - largest / safe * smallest)


def _equal_diagonal(a, b, c, d):
    """Make the diagonal equal; then a complex pair is in standard form, and two close real ones take one more turn."""
    cosine, sine = equalizing_rotation(a - d, b + c)
    aa, bb, cc, dd = a * cosine + b * sine, b * cosine - a * sine, c * cosine + d * sine, d * cosine - c * sine
    a, b, c, d = aa * cosine + cc * sine, bb * cosine + dd * sine, cc * cosine - aa * sine, dd * cosine - bb * sine
    mean, zero = (a + d) / 2, jnp.zeros_like(a)
    upper, lower = jnp.sqrt(jnp.abs(b)), jnp.sqrt(jnp.abs(c))
    root = jnp.where(c < 0, -1, 1) * upper * lower
    norm = jnp.sqrt(jnp.abs(b + c))
    norm = jnp.where(norm > 0, norm, 1)
    second = (cosine * upper - sine * lower) / norm, (cosine * lower + sine * upper) / norm
    split = (c != 0) & (b != 0) & (jnp.sign(b) * jnp.sign(c) > 0)
    turned = (c != 0) & (b == 0)
    cases = [split, turned]
    entries = (
        jnp.select(cases, [mean + root, mean], mean),
        jnp.select(cases, [b - c, -c], b),
        jnp.select(cases, [zero, zero], c),
        jnp.select(cases, [mean - root, mean], mean),
    )
    return jnp.select(cases, [second[0], -sine], cosine), jnp.select(cases, [second[1], cosine], sine), entries


def equalizing_rotation(gap: Array, sigma: Array) -> tuple[Array, Array]:
    """Cosine and sine that make the diagonal of [[a, b], [c, d]] equal, from gap = a - d and sigma = b + c."""
    length = jnp.hypot(sigma, gap)
    none = length == 0
    length = jnp.where(none, 1, length)
    cosine = jnp.where(none, 1, jnp.sqrt((1 + jnp.abs(sigma) / length) / 2))
    return cosine, -(gap / 2) / (length * cosine) * jnp.where(sigma < 0, -1, 1)


def turn_columns(X: Array, cosine: Array, sine: Array) -> Array:
    """Columns i and i + 1 of every block turned: x_i c + x_{i+1} s and x_{i+1} c - x_i s."""
    edge = jnp.zeros_like(cosine[..., :1])
    untouched = (cosine == 1) & (sine == 0)
    inner, outer = jnp.where(untouched, 0, cosine), jnp.where(untouched, 0, sine)
    first = ~jnp.concatenate([untouched, edge == 0], axis=-1)
    second = ~jnp.concatenate([edge == 0, untouched], axis=-1)
    own = jnp.where(first | second, _both(inner, edge), 1)
    upper = jnp.concatenate([outer, edge], axis=-1)[..., None, :]
    lower = jnp.concatenate([edge, outer], axis=-1)[..., None, :]
    return X * own[..., None, :] + jnp.roll(X, -1, axis=-1) * upper - jnp.roll(X, 1, axis=-1) * lower


def _both(x: Array, edge: Array) -> Array:
    return jnp.concatenate([x, edge], axis=-1) + jnp.concatenate([edge, x], axis=-1)
