"""Large matrix products by blocks in a loop: for a TPU, whose compiler takes long for them in one piece.

Full precision of float32 there is six passes of bfloat16 products, unrolled: one product of order 4096 takes the
compiler 10 to 15 s of processor time, and a decomposition holds dozens. Blocks of order 512 in two loops take it 1.5 s,
whatever the order, and further loops of the same shape next to nothing. They need no temporaries; every operand is read
n / 512 times, which the operations hide. Blocks that are longer one way were cheap or dear as the operands were
transposed or not. Elsewhere a product stays one call of the platform's own.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Inexact

TILE = 128
"""Blocks are multiples of this, the width of a TPU's matrix unit."""

BLOCK = 512
"""Order of a block at most."""

LARGE = 512**3
"""Multiplications of one product that is worth a loop."""


@jax.custom_jvp
def by_blocks(A: Inexact[Array, "*batch m k"], B: Inexact[Array, "*batch k n"]) -> Inexact[Array, "*batch m n"]:
    """A B in the full precision of the type, by blocks on a TPU. Derivatives are products in one piece."""
    return lax.platform_dependent(A, B, tpu=looped, default=whole)


@by_blocks.defjvp
def _rule(primals, tangents):
    (A, B), (dA, dB) = primals, tangents
    return by_blocks(A, B), whole(dA, B) + whole(A, dB)


def whole(A: Inexact[Array, "*batch m k"], B: Inexact[Array, "*batch k n"]) -> Inexact[Array, "*batch m n"]:
    """A B in the full precision of the type, in one piece."""
    return jnp.matmul(A, B, precision=lax.Precision.HIGHEST)


def looped(
    A: Inexact[Array, "*batch m k"], B: Inexact[Array, "*batch k n"], block: int = BLOCK, tile: int = TILE
) -> Inexact[Array, "*batch m n"]:
    """A B by blocks of rows and columns, each as a sum over blocks of terms."""
    (m, k), n = A.shape[-2:], B.shape[-1]
    rows, terms, columns = (_even(size, block, tile) for size in (m, k, n))
    down, deep, across = -(-m // rows), -(-k // terms), -(-n // columns)
    left, right = A.ndim - 2, B.ndim - 2
    A = _padded(_padded(A, left, down * rows - m), left + 1, deep * terms - k)
    B = _padded(_padded(B, right, deep * terms - k), right + 1, across * columns - n)
    batch = jnp.broadcast_shapes(A.shape[:left], B.shape[:right])
    C = jnp.zeros((*batch, down * rows, across * columns), A.dtype)

    def one_block(place, C):
        i, j = place // across * rows, place % across * columns
        high = lax.dynamic_slice_in_dim(A, i, rows, axis=left)
        wide = lax.dynamic_slice_in_dim(B, j, columns, axis=right + 1)

        def some_terms(l, total):
            return total + whole(
                lax.dynamic_slice_in_dim(high, l * terms, terms, axis=left + 1),
                lax.dynamic_slice_in_dim(wide, l * terms, terms, axis=right),
            )

        zero = jnp.zeros((*batch, rows, columns), A.dtype)
        total = lax.fori_loop(0, deep, some_terms, zero)
        at = jnp.zeros_like(i)
        return lax.dynamic_update_slice(C, total, (*[at] * len(batch), i, j))

    return lax.fori_loop(0, down * across, one_block, C)[..., :m, :n]


def _even(size: int, most: int, tile: int) -> int:
    """Largest multiple of `tile`, up to `most`, that `size` is filled up least for."""
    if size <= most:
        return size
    return min(range(most, most // 2, -tile), key=lambda part: -(-size // part) * part)


def _padded(X: Array, axis: int, extra: int) -> Array:
    """Zeros behind, along one axis."""
    return jnp.pad(X, [(0, extra * (place == axis)) for place in range(X.ndim)]) if extra else X
