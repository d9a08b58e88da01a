"""Schur form by spectral divide and conquer: products, LU and QR factorisations of large blocks, few dependent steps.

Blocks of the diagonal are split (split.py) until they are small, largest first, and the small ones are finished by
shifted QR (xla.py) all at once. Neither XLA nor a batch can recurse, so the recursion is a list of blocks: `blocks`
holds the size of each at its first row, over the rows of all matrices of the batch, and each level has a width,
`widths` below, into which its blocks are padded. A level takes as many blocks at once as fit, from whatever matrices,
until none is wider than the next level; a block that is not split goes round again with another line or circle.

The blocks are kept packed: row i of a block, from its own first column on, in row `first + i` of an array as wide as
the level, so that a block is a run of rows to gather and scatter. What is above the blocks is not kept: Q is (as Q^H,
for the same reason), and T = Q^H A Q is computed at the end. Hence nothing adds up on the way but the rounding of Q.

Rules for what will not split. A block that is triangular to rounding is done (clusters of a normal kind, the identity,
zero). A block that was tried TRIES times (defective clusters: no gap to find) is left, and finished by shifted QR of
the whole matrix with zeros around it. A split in float32 drops 1e-5 to 1e-4 of the norm, more than QR's rounding: what
was dropped is removed by Newton's steps (refine/newton.py), and a matrix where that does not succeed goes to shifted QR
as a whole. Those matrices are taken one by one inside the program, and say so (`robust`).
"""

from functools import partial
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Inexact, Int, Shaped

from ..batching import over_flat_batch
from ..product import matmul
from ..refine.arithmetic import Wide
from ..refine.newton import block_triangular, refine
from ..scaling import adjoint, frobenius_norm
from . import xla
from .finish import BASE, ends, finish_large, finish_small
from .split import NOISE, split
from .standard import standardize

ROOM = 1.125
"""Width of a level over its part of n: splits are not quite even."""

TRIES = 8
"""Lines and circles for one block."""

# Norms of what is dropped below the blocks, in n^(1/2) eps norm(A); shifted QR leaves about 2.
LOOSE, POLISHED, ACCEPTED = 300.0, 3.0, 10.0
"""What one split may drop; what is left as it is, and Newton's steps remove where it is more; what may remain."""

STEPS = 3
"""Newton steps of the refinement at most."""

TOGETHER = 512
"""Up to this order the matrices of a batch are refined in step, larger ones one after another."""


def widths(n: int) -> tuple[int, ...]:
    """Widths of the levels for matrices of order n, the last one that of the blocks that are finished by QR.

    Two halvings, then quarters: every width is a program of its own to compile, and of blocks below n / 4 even those
    that are padded to twice their order take less than a fifth of the operations of the first split.
    """
    found, power = [n], 1
    while found[-1] > BASE:
        part = -(-int(ROOM * n) // (32 << power)) * 32
        # A level of its own for what is hardly wider than the base costs more to compile than it saves.
        found.append(part if 1.75 * BASE < part < found[-1] else BASE)
        power += 1 if power < 2 else 2
    return tuple(found)


class Depth(NamedTuple):
    """What a batch took, and what of it was left to shifted QR."""

    splits: Int[Array, ""]
    """Splits, one after another; each is of as many blocks as a level takes at once."""
    newton: Int[Array, ""]
    """Newton steps of all of them, one after another."""
    operations: Float[Array, ""]
    """Of the splits, padding included, a complex multiplication and addition counted as eight."""
    left: Int[Array, " B"]
    """Rows of each matrix that the robust method finished."""


def schur(A: Inexact[Array, "*batch n n"], *, vectors: bool = True):
    """T, Q and which matrices needed the robust method; finite matrices of order one. Q may be left without rows."""
    T, Q, count = over_flat_batch(_flat, A)
    return T, Q if vectors else Q[..., :0, :], count > 0


def depth(A: Inexact[Array, "B n n"]) -> Depth:
    """Count what the Schur forms of this batch take."""
    state = _divided(A)
    return Depth(state.splits, state.newton, state.operations, jnp.sum(_bounds(state, *A.shape[:2])[2], axis=1))


class _State(NamedTuple):
    packed: Inexact[Array, "R N"]
    """Blocks, R = B n rows over the whole batch."""
    Qt: Inexact[Array, "R n"]
    """Q^H of every matrix."""
    blocks: Int[Array, "R 2"]
    """At the first row of every block its rows and the number of times that it was tried; zeros elsewhere."""
    splits: Int[Array, ""]
    newton: Int[Array, ""]
    operations: Float[Array, ""]


def _flat(A: Inexact[Array, "B n n"]):
    batch, n = A.shape[:2]
    if n <= BASE or batch == 0:
        T, Q = xla.schur(A)
        return T, Q, jnp.zeros(batch, jnp.int32)
    state = _divided(A)
    Q = adjoint(state.Qt.reshape(batch, n, n))
    first, last, left = _bounds(state, batch, n)
    T = matmul(adjoint(Q), matmul(A, Q))
    below = jnp.arange(n) < first[:, :, None]
    dropped = frobenius_norm(jnp.where(below, T, 0))
    T, Q, done = finish_small(jnp.where(below, 0, T), Q, last, left)
    unit = n**0.5 * jnp.finfo(A.dtype).eps * frobenius_norm(A)
    T, Q, remains = _polished(A, T, Q, dropped, (dropped > POLISHED * unit) & ~jnp.any(left, axis=1))
    # What is not small after that, or not a number, is decomposed anew as a whole.
    whole = ~(done & (remains <= ACCEPTED * unit))
    T = jnp.where(whole[:, None, None], A, T)
    Q = jnp.where(whole[:, None, None], jnp.eye(n, dtype=A.dtype), Q)
    left = left | whole[:, None]
    T, Q = finish_large(T, Q, left)
    return T, Q, jnp.sum(left, axis=1, dtype=jnp.int32)


def _divided(A: Inexact[Array, "B n n"]) -> _State:
    """Split every block until it is small or has to be left."""
    batch, n = A.shape[:2]
    rows = batch * n
    norm = frobenius_norm(A)
    eye = jnp.eye(n, dtype=A.dtype)
    state = _State(
        packed=A.reshape(rows, n),
        Qt=jnp.broadcast_to(eye, A.shape).reshape(rows, n),
        blocks=jnp.where((jnp.arange(rows) % n == 0)[:, None], jnp.array([n, 0], jnp.int32), 0),
        splits=jnp.int32(0),
        newton=jnp.int32(0),
        operations=jnp.float32(0),
    )
    for width, following in pairwise(widths(n)):
        state = _level(state, norm, n, width, following)
        state = state._replace(packed=state.packed[:, :following])
    return state


def _level(state: _State, norm: Float[Array, " B"], n: int, width: int, following: int) -> _State:
    """Split blocks until each is at most as wide as the following level, or was tried often enough."""
    rows = len(state.blocks)
    slots = max(1, rows // width)
    factor = 4 if jnp.iscomplexobj(state.packed) else 1
    # Two QR factorisations, four products of a split, and one with the rows of Q^H.
    once = factor * (2 * 8 / 3 * width**3 + 4 * 2 * width**3 + 2 * width**2 * n)
    eps = jnp.finfo(state.packed.dtype).eps

    def wide(state):
        size, tries = state.blocks.T
        return (size > following) & (size <= width) & (tries < TRIES)

    def unfinished(state):
        return jnp.any(wide(state))

    def one_round(state):
        (start,) = jnp.nonzero(wide(state), size=slots, fill_value=rows)
        size, tries = state.blocks.at[start].get(mode="fill", fill_value=0).T
        row = jnp.arange(width)
        inside = row < size[:, None]
        D = jnp.where(inside[:, :, None] & inside[:, None, :], _taken(state.packed, start, width), 0)
        unit = eps * norm[jnp.minimum(start // n, len(norm) - 1)]
        # The draws of a block do not depend on what else is in the batch.
        place = (start % n) * TRIES + tries
        keys = jax.vmap(partial(jax.random.fold_in, jax.random.key(width)))(place)
        found = split(D, size, tries, LOOSE * n**0.5 * unit, NOISE * unit, keys)
        rank = found.rank[:, None]
        # Triangular already, to rounding: every row is a block of its own.
        lower = jnp.tril(D, -1)
        done = jnp.sqrt(jnp.sum(jnp.square(lower.real) + jnp.square(lower.imag), axis=(1, 2))) <= unit
        twice = jnp.concatenate([found.D, found.D], axis=2)
        moved = lax.map(lambda both: lax.dynamic_slice_in_dim(both[0], both[1], width, axis=1), (twice, found.rank))
        blocks = jnp.where((row < rank)[:, :, None], found.D, moved)
        took = found.accepted & ~done
        to = took[:, None] & inside
        old = jnp.where(to[:, :, None], _taken(state.Qt, start, width), 0)
        sizes = jnp.select(
            [done[:, None], took[:, None] & (row == 0), took[:, None] & (row == rank), row == 0],
            [jnp.ones_like(rank), rank, size[:, None] - rank, size[:, None]],
            0,
        )
        count = jnp.where(sizes > 0, jnp.where(took, tries % 2, tries + 1)[:, None], 0)
        return _State(
            packed=_put(state.packed, start, blocks, to),
            Qt=_put(state.Qt, start, matmul(adjoint(found.Q), old), to),
            blocks=_put(state.blocks, start, jnp.stack([sizes, count], axis=2), inside),
            splits=state.splits + 1,
            newton=state.newton + found.steps,
            operations=state.operations + slots * (8 / 3 * factor * width**3 * found.steps + once),
        )

    return lax.while_loop(unfinished, one_round, state)


# Blocks are runs of rows, sliced one after another: to gather and scatter all their rows is dear to compile for a TPU.
def _taken(X: Inexact[Array, "R N"], start: Int[Array, " K"], count: int) -> Inexact[Array, "K m N"]:
    """Rows from each start on, with zeros behind the last."""
    padded = jnp.pad(X, ((0, count), (0, 0)))
    return lax.map(lambda at: lax.dynamic_slice_in_dim(padded, at, count), start)


def _put(
    X: Shaped[Array, "R N"], start: Int[Array, " K"], new: Shaped[Array, "K m N"], where: Bool[Array, "K m"]
) -> Shaped[Array, "R N"]:
    """X with the rows from each start on replaced where it is said."""

    def one(k, padded):
        old = lax.dynamic_slice_in_dim(padded, start[k], new.shape[1])
        return lax.dynamic_update_slice_in_dim(padded, jnp.where(where[k][:, None], new[k], old), start[k], axis=0)

    padded = jnp.pad(X, ((0, new.shape[1]), (0, 0)))
    return lax.fori_loop(0, len(start), one, padded)[: len(X)]


def _bounds(state: _State, batch: int, n: int) -> tuple[Int[Array, "B n"], Int[Array, "B n"], Bool[Array, "B n"]]:
    """First and last row of the block of every row, and which rows are of blocks that would not split."""
    first, last = ends(state.blocks[:, 0].reshape(batch, n) > 0)
    return first, last, last - first + 1 > BASE


def _polished(A, T, Q, dropped: Float[Array, " B"], wanted: Bool[Array, " B"]):
    """Newton's steps (refine/newton.py) where `wanted`; T, Q and what remains below the blocks."""

    def some(given):
        A, T, Q, dropped, wanted = given

        def refined():
            state, paired = refine(A, Q, T, Wide(A.dtype, A.dtype), STEPS)
            form, vectors = block_triangular(state.F, paired), state.Q
            if not jnp.iscomplexobj(A):
                form, vectors = standardize(form, vectors)
            pick = wanted[:, None, None]
            return jnp.where(pick, form, T), jnp.where(pick, vectors, Q), jnp.where(wanted, state.left, dropped)

        return lax.cond(jnp.any(wanted), refined, lambda: (T, Q, dropped))

    given = A, T, Q, dropped, wanted
    if A.shape[-1] <= TOGETHER:
        return some(given)
    found = lax.map(lambda one: some(jax.tree.map(lambda x: x[None], one)), given)
    return jax.tree.map(lambda x: x[:, 0], found)
