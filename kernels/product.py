"""Large matrix products, and many small ones, by parts in a loop: for a TPU, whose compiler takes long for the whole.

Full precision of float32 there is six passes of bfloat16 products, unrolled: one product of order 4096 takes the
compiler 10 to 15 s of processor time, 129 of order 64 take 8 s, and a decomposition holds dozens. Blocks of order 512
in two loops take it 1.5 s, whatever the order, groups of eight matrices of order 64 in one loop 1.3 s, and further
loops of the same shape next to nothing. They need no temporaries; every operand of a block is read n / 512 times, which
the operations hide. Blocks that are longer one way were cheap or dear as the operands were transposed or not. Elsewhere
a product stays one call of the platform's own.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Inexact

TILE = 128
"""Blocks are multiples of this, the width of a TPU's matrix unit."""

BLOCK = 512
"""Order of a block at most."""

LARGE = 256**3
"""Multiplications of one product that is worth a loop."""

GROUP = 8 * 64**3
"""Multiplications of the products that are taken at once; a batch of twice as many is worth a loop."""


def matmul(A: Inexact[Array, "*batch m k"], B: Inexact[Array, "*batch k n"]) -> Inexact[Array, "*batch m n"]:
    """Matrix product in the full precision of the type (a TPU's default float32 product is bfloat16)."""
    one = A.shape[-2] * A.shape[-1] * B.shape[-1]
    count = math.prod(jnp.broadcast_shapes(A.shape[:-2], B.shape[:-2]))
    in_parts = one > LARGE or (count > 1 and one * count > 2 * GROUP)
    return by_parts(A, B) if in_parts else whole(A, B)


@jax.custom_jvp
def by_parts(A: Inexact[Array, "*batch m k"], B: Inexact[Array, "*batch k n"]) -> Inexact[Array, "*batch m n"]:
    """A B in the full precision of the type, by parts on a TPU. Derivatives are products in one piece."""
    return lax.platform_dependent(A, B, tpu=looped, default=whole)


@by_parts.defjvp
def _rule(primals, tangents):
    (A, B), (dA, dB) = primals, tangents
    return by_parts(A, B), whole(dA, B) + whole(A, dB)


def whole(A: Inexact[Array, "*batch m k"], B: Inexact[Array, "*batch k n"]) -> Inexact[Array, "*batch m n"]:
    """A B in the full precision of the type, in one piece."""
    return jnp.matmul(A, B, precision=lax.Precision.HIGHEST)


def looped(
    A: Inexact[Array, "*batch m k"],
    B: Inexact[Array, "*batch k n"],
    *,
    group: int = GROUP,
    block: int = BLOCK,
    tile: int = TILE,
) -> Inexact[Array, "*batch m n"]:
    """A B: small matrices in groups, large ones one after another by blocks, each as a sum over blocks of terms."""
    (m, k), n = A.shape[-2:], B.shape[-1]
    batch = jnp.broadcast_shapes(A.shape[:-2], B.shape[:-2])
    A, B = (jnp.broadcast_to(X, (*batch, *X.shape[-2:])).reshape(-1, *X.shape[-2:]) for X in (A, B))
    together = group // max(1, m * k * n)
    if together >= len(A):
        C = whole(A, B)
    else:
        C = _by_groups(A, B, together) if together > 1 else _by_blocks(A, B, block, tile)
    return C.reshape(*batch, m, n)


def _by_groups(A: Inexact[Array, "B m k"], B: Inexact[Array, "B k n"], group: int) -> Inexact[Array, "B m n"]:
    count = len(A)
    trips = -(-count // group)
    A, B = (jnp.pad(X, ((0, trips * group - count), (0, 0), (0, 0))) for X in (A, B))

    def some(trip, C):
        left, right = (lax.dynamic_slice_in_dim(X, trip * group, group) for X in (A, B))
        return lax.dynamic_update_slice_in_dim(C, whole(left, right), trip * group, axis=0)

    C = jnp.zeros((trips * group, A.shape[1], B.shape[2]), A.dtype)
    return lax.fori_loop(0, trips, some, C)[:count]


def _by_blocks(A: Inexact[Array, "B m k"], B: Inexact[Array, "B k n"], block: int, tile: int):
    (m, k), n = A.shape[-2:], B.shape[-1]
    rows, terms, columns = (_even(size, block, tile) for size in (m, k, n))
    down, deep, across = -(-m // rows), -(-k // terms), -(-n // columns)
    A = jnp.pad(A, ((0, 0), (0, down * rows - m), (0, deep * terms - k)))
    B = jnp.pad(B, ((0, 0), (0, deep * terms - k), (0, across * columns - n)))

    def one_block(place, C):
        which, i, j = place // (down * across), place // across % down * rows, place % across * columns

        def some_terms(part, total):
            high = lax.dynamic_slice(A, (which, i, part * terms), (1, rows, terms))
            wide = lax.dynamic_slice(B, (which, part * terms, j), (1, terms, columns))
            return total + whole(high[0], wide[0])

        total = lax.fori_loop(0, deep, some_terms, jnp.zeros((rows, columns), A.dtype))
        return lax.dynamic_update_slice(C, total[None], (which, i, j))

    C = jnp.zeros((len(A), down * rows, across * columns), A.dtype)
    return lax.fori_loop(0, len(A) * down * across, one_block, C)[:, :m, :n]


def _even(size: int, most: int, tile: int) -> int:
    """Largest multiple of `tile`, up to `most`, that `size` is filled up least for."""
    if size <= most:
        return size
    return min(range(most, most // 2, -tile), key=lambda part: -(-size // part) * part)
