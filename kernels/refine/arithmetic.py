"""Precisions that a refinement can take its residual in: a wider type, or pairs of numbers of the working one.

A pair (hi, lo) of float32 numbers holds about 48 bits, on hardware without float64. Its matrix product cuts each
operand into slices of a few bits by rows (left operand) or columns (right), each slice an integer times a power of
two, so short that products of slices and their sums over the inner dimension are exact in float32: Ozaki, Ogita,
Oishi and Rump, Numerical Algorithms 59, 2012. Slices of at most 8 bits are exact as bfloat16 and TF32 numbers too, so
the products run at the full rate of a tensor core or a TPU's matrix unit, and lose nothing there. Sums of two numbers
carry their error (Knuth's two-sum; Dekker, Numerische Mathematik 18, 1971).
"""

import math
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from ..product import matmul
from ..scaling import adjoint, power_of_two_above

PAIR_BITS = 48
"""Bits that a pair of float32 numbers holds."""


CHUNK = 64
"""Terms of a sum that the working type takes in one go, where that makes no more than `MOST_CHUNKS`."""

MOST_CHUNKS = 16
"""More would read and write the result more often than the products do."""


class Pair(NamedTuple):
    """An unevaluated sum hi + lo, abs(lo) at most half a unit in the last place of hi."""

    hi: Inexact[Array, "*shape"]
    lo: Inexact[Array, "*shape"]


class Arithmetic(Protocol):
    """What a refinement needs of the precision of its residual; a value is an array or a `Pair`."""

    eps: float
    """Spacing of the numbers at one."""

    def lift(self, x: Array) -> Any:
        """Bring an array of the working type over, exactly."""
        ...

    def rounded(self, x: Any) -> Array:
        """Round to the working type."""
        ...

    def adjoint(self, x: Any) -> Any:
        """Conjugate transpose."""
        ...

    def product(self, x: Any, y: Any) -> Any:
        """Matrix product in this precision."""
        ...

    def plus(self, x: Any, y: Array) -> Any:
        """Add an array of the working type."""
        ...

    def minus(self, x: Any, y: Any) -> Any:
        """Return x - y."""
        ...

    def entries(self, x: Any, row: Array, column: Array) -> Any:
        """Entries [..., row, column] of a matrix."""
        ...


class Wide:
    """Numbers of one type, the working one or a wider."""

    def __init__(self, working: Any, wide: Any) -> None:
        """Take the two dtypes, both real or both complex."""
        self.working, self.wide = jnp.dtype(working), jnp.dtype(wide)
        self.eps = float(jnp.finfo(self.wide).eps)

    def lift(self, x: Array) -> Array:
        """Widen."""
        return x.astype(self.wide)

    def rounded(self, x: Array) -> Array:
        """Round to the working type."""
        return x.astype(self.working)

    def adjoint(self, x: Array) -> Array:
        """Conjugate transpose."""
        return adjoint(x)

    def product(self, x: Array, y: Array) -> Array:
        """Matrix product in the wide type; sums of `CHUNK` terms are added up with what their sum loses."""
        n = x.shape[-1]
        if self.wide != self.working or n <= CHUNK:
            return matmul(x, y)
        size = max(CHUNK, -(-n // MOST_CHUNKS))
        count = -(-n // size)
        x, y = (_padded(z, axis, count * size - n) for z, axis in ((x, x.ndim - 1), (y, y.ndim - 2)))

        def add(k, total):
            left = jax.lax.dynamic_slice_in_dim(x, k * size, size, axis=x.ndim - 1)
            right = jax.lax.dynamic_slice_in_dim(y, k * size, size, axis=y.ndim - 2)
            found = two_sum(total.hi, matmul(left, right))
            return Pair(found.hi, total.lo + found.lo)

        zero = jnp.zeros((*x.shape[:-1], y.shape[-1]), x.dtype)
        total = jax.lax.fori_loop(0, count, add, Pair(zero, zero))
        return total.hi + total.lo

    def plus(self, x: Array, y: Array) -> Array:
        """Add in the wide type."""
        return x + y.astype(self.wide)

    def minus(self, x: Array, y: Array) -> Array:
        """Subtract in the wide type."""
        return x - y

    def entries(self, x: Array, row: Array, column: Array) -> Array:
        """Entries [..., row, column] of a matrix."""
        return x[..., row, column]


class DoubleSingle:
    """Pairs of float32 or complex64 numbers."""

    eps = 2.0 ** (1 - PAIR_BITS)

    def lift(self, x: Array) -> Pair:
        """Append zeros."""
        return Pair(x, jnp.zeros_like(x))

    def rounded(self, x: Pair) -> Array:
        """Return the leading numbers."""
        return x.hi

    def adjoint(self, x: Pair) -> Pair:
        """Conjugate transpose."""
        return Pair(adjoint(x.hi), adjoint(x.lo))

    def product(self, x: Pair, y: Pair) -> Pair:
        """Matrix product; an error below n^(1/2) 2^-49 times the largest entries of row and column."""
        if not jnp.iscomplexobj(x.hi):
            return _product(x, y)
        left, right = _parts(x), _parts(y)
        four = _product(jax.tree.map(lambda z: z[:, None], left), jax.tree.map(lambda z: z[None], right))
        rr, ri, ir, ii = (jax.tree.map(lambda z, i=i, j=j: z[i, j], four) for i in (0, 1) for j in (0, 1))
        real, imaginary = self.minus(rr, ii), _sum(ri, ir)
        return Pair(jax.lax.complex(real.hi, imaginary.hi), jax.lax.complex(real.lo, imaginary.lo))

    def plus(self, x: Pair, y: Array) -> Pair:
        """Add one array."""
        return _sum(x, self.lift(y))

    def minus(self, x: Pair, y: Pair) -> Pair:
        """Subtract."""
        return _sum(x, Pair(-y.hi, -y.lo))

    def entries(self, x: Pair, row: Array, column: Array) -> Pair:
        """Entries [..., row, column] of a matrix."""
        return Pair(x.hi[..., row, column], x.lo[..., row, column])


def _padded(x: Array, axis: int, extra: int) -> Array:
    """Zeros behind, along one axis."""
    return jnp.pad(x, [(0, extra * (place == axis)) for place in range(x.ndim)])


def two_sum(a: Inexact[Array, "*shape"], b: Inexact[Array, "*shape"]) -> Pair:
    """Add without error: the rounded sum, and what rounding took."""
    total = a + b
    other = total - a
    return Pair(total, (a - (total - other)) + (b - other))


def _sum(x: Pair, y: Pair) -> Pair:
    high, low = two_sum(x.hi, y.hi), two_sum(x.lo, y.lo)
    first = two_sum(high.hi, high.lo + low.hi)
    return two_sum(first.hi, first.lo + low.lo)


def _parts(x: Pair) -> Pair:
    """Real and imaginary parts along a new leading axis."""
    return Pair(jnp.stack([x.hi.real, x.hi.imag]), jnp.stack([x.lo.real, x.lo.imag]))


def _product(x: Pair, y: Pair) -> Pair:
    """Real product of pairs, by slices: one product of slices after another, the small ones first."""
    bits = slice_bits(x.hi.shape[-1])
    count = -(-(PAIR_BITS + 2) // bits)
    left, row = _slices(x, bits, count, axis=-1)
    right, column = _slices(y, bits, count, axis=-2)
    terms = [(first, level - first) for level in reversed(range(count)) for first in range(level + 1)]
    firsts, seconds = (jnp.array(place) for place in zip(*terms, strict=True))

    def add(k, total):
        # Integers times powers of two, exact in any type that holds `bits` bits: no precision is asked for.
        term = jnp.matmul(left[firsts[k]], right[seconds[k]])
        return _sum(total, Pair(term, jnp.zeros_like(term)))

    zero = jnp.zeros(jnp.broadcast_shapes(row.shape, column.shape), x.hi.dtype)
    total = jax.lax.fori_loop(0, len(terms), add, Pair(zero, zero))
    scale = row * column  # powers of two
    return Pair(total.hi * scale, total.lo * scale)


def slice_bits(n: int) -> int:
    """Bits of a slice so that n products of two sum up without error in float32, at most 7."""
    return min(7, (24 - math.ceil(math.log2(max(n, 2)))) // 2)


def _slices(x: Pair, bits: int, count: int, axis: int) -> tuple[Float[Array, "slices ..."], Float[Array, "..."]]:
    """Slices of x over a power of two a row (or column), and that power: their sum is x to 2^-(bits count)."""
    scale = power_of_two_above(jnp.max(jnp.abs(x.hi), axis=axis, keepdims=True, initial=0))

    def cut(rest, unit):
        piece = jnp.round(rest.hi * (1 / unit)) * unit
        return two_sum(rest.hi - piece, rest.lo), piece

    units = jnp.array([2.0 ** (-bits * place) for place in range(1, count + 1)], x.hi.dtype)
    _, pieces = jax.lax.scan(cut, Pair(x.hi * (1 / scale), x.lo * (1 / scale)), units)
    return pieces, scale
