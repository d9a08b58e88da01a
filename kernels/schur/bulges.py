"""Hessenberg QR with many bulges on the way at once, in whole-array operations: no index depends on the data.

A step turns the rows and columns of every bulge of every active block of every matrix: disjoint reflectors of two or
three rows are a banded unitary matrix, and a product with one is a few rolls of the array along an axis, scaled by
vectors. So a step costs order n^2 whatever the number of bulges, and depth falls with that number.

A round finds the eigenvalues of the last rows of every active block (its window) by an iteration of the same kind on a
copy, one sweep at a time and to a loose tolerance, and sends them down the block as shifts of bulges as many rows apart
as a reflector has, REPEATS times over. m shifts converge quadratically to m eigenvalues at a time; a train of the same
shifts that follows at once costs two or three steps a bulge where a new round costs n, and turns quadratic convergence
into one of order five. What a bulge is, two shifts of a real matrix or one of a complex one, is a `Kind`
(bulges_real.py, bulges_complex.py).

Everything here is also what Mosaic has for a TPU, so that pallas_tpu.py runs `iterate` inside one kernel, for real
matrices: vectors lie along the lanes, [B, 1, N], flags and places are integers, and masks come from comparing them
(grid.py).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Inexact, Int

from ..scaling import size
from .grid import NOWHERE, Grid, Store, flag

REPEATS = 4
"""Trains of the same shifts in one round."""

LOOSE = 1e-2
"""Relative size of what counts as zero where shifts are computed: the trains make up for it."""

ROUNDS = 60
"""Rounds allowed, as many again as n / 4; what is not done then is left to the robust method."""


class Blocks(NamedTuple):
    """For every position the ends of its unreduced diagonal block, and whether there is work on it."""

    first: Int[Array, "B 1 N"]
    last: Int[Array, "B 1 N"]
    active: Int[Array, "B 1 N"]


class Kind(NamedTuple):
    """What a bulge is. Shifts, one bulge's for every row, are an array [B, 1, N] or a tuple of them."""

    rows: int
    """Of a reflector: so far apart are bulges, and a smaller block is finished. One fewer shifts a bulge."""
    eigenvalues: Callable[[Array, Grid, Array], Any]
    """Shifts from windows of blocks of one and two rows, which begin at a place given for every column."""
    nearest: Callable[[Array, Grid], Any]
    """Shifts for a window: the eigenvalue of rows j - 1 and j that is nearer to H[j, j]."""
    exceptional: Callable[[Array, Grid], Any]
    """Shifts for a block that the others do not divide."""
    first_column: Callable[[Array, Grid, Any], tuple[Array, ...]]
    """What the first reflector of a bulge turns, for a block that begins at j, up to a factor."""
    step: Callable[..., tuple[Array, Array | None]]
    """H and Q turned by reflectors of rows k, k + 1, ... for every k that is on; see bulges_real.py."""


class Count(NamedTuple):
    """What an iteration took, for the slowest matrix of those that go in step."""

    rounds: Int[Array, ""]
    steps: Int[Array, ""]
    """Steps on the matrices: each is reflectors on rows and columns."""
    window_steps: Int[Array, ""]
    """The same on the windows that give the shifts."""


def window(n: int) -> int:
    """Rows of a block whose eigenvalues are its shifts, at matrices of order n."""
    return 12 if n <= 128 else 16


def iterate(
    state: Any, store: Store, windows: Store, at: Grid, kind: Kind, dtype: DTypeLike
) -> tuple[Any, Int[Array, "B 1 1"], Count]:
    """Bring H to (quasi-)triangular form, rounds until no block is active; also whether a matrix still has one."""
    eps = float(jnp.finfo(dtype).eps)

    def deflate(state):
        H, Q = store.read(state)
        H, blocks = _deflated(H, at, eps, kind.rows)
        return store.write(H, Q), blocks

    def unfinished(carry):
        _, blocks, _, count = carry
        return (count.rounds < 0) | ((jnp.max(blocks.active) > 0) & (count.rounds < ROUNDS + at.n // 4))

    def one_round(carry):
        state, blocks, age, count = carry
        shifts, inner = _window_shifts(store.read(state)[0], windows, at, kind, blocks, count.window_steps)
        still = (age & 3) == 3
        other = kind.exceptional(store.read(state)[0], at)
        shifts = jax.tree.map(lambda x, y: jnp.where(still, x, y), other, shifts)
        # A block is not offered all of its eigenvalues at once, but half: else none would come out first.
        most = window(at.n) // (kind.rows - 1)
        bulges = jnp.clip((blocks.last - blocks.first + 1) >> (kind.rows - 1), 1, most)
        state, steps = _chain(state, store, at, kind, blocks, shifts, bulges, REPEATS * bulges, count.steps)
        state, after = deflate(state)
        same = (after.first == blocks.first) & (after.last == blocks.last) & (after.active > 0)
        return state, after, jnp.where(same, age + 1, 0), Count(count.rounds + 1, steps, inner)

    # The first turn of the loop does nothing but look for blocks: a second copy of that is dear to compile.
    count = Count(jnp.int32(-1), jnp.int32(0), jnp.int32(0))
    blocks = _no_blocks(store.read(state)[0], at)
    state, blocks, _, count = lax.while_loop(unfinished, one_round, (state, blocks, blocks.active, count))
    return state, jnp.max(blocks.active, axis=2, keepdims=True), count


def _deflated(H: Inexact[Array, "B R N"], at: Grid, eps: float, least: int) -> tuple[Inexact[Array, "B R N"], Blocks]:
    """Set negligible subdiagonal entries to zero (Ahues and Tisseur, LAPACK Working Note 122), and find the blocks.

    Those of fewer than `least` rows are not active.
    """
    info = jnp.finfo(H.dtype)
    smallest = float(info.tiny) * (at.n / float(info.eps))
    inside = at.j < at.n - 1
    diagonal, above = at.diagonal(H, 0), at.left(at.diagonal(H, -1), 1)
    one, two = size(diagonal), size(at.left(diagonal, 1))
    low, high = jnp.where(inside, size(at.diagonal(H, 1)), 0), size(above)
    neighbours = jnp.where(at.j > 0, at.right(low, 1), 0) + jnp.where(inside, at.left(low, 1), 0)
    around = jnp.where(one + two == 0, neighbours, one + two)
    gap = size(diagonal - at.left(diagonal, 1))
    aa, bb = jnp.maximum(two, gap), jnp.minimum(two, gap)
    ab, ba = jnp.maximum(low, high), jnp.minimum(low, high)
    total = jnp.where(aa + ab > 0, aa + ab, 1)
    tisseur = ba * (ab / total) <= jnp.maximum(smallest, eps * (bb * (aa / total)))
    negligible = (low <= smallest) | ((low <= eps * around) & tisseur) | (at.j >= at.n - 1)
    ends = jnp.where(negligible, at.j, NOWHERE)
    H = jnp.where(at.i == ends + 1, 0, H)
    width = H.shape[2]
    first = jnp.where((at.right(ends, 1) >= 0) | (at.j == 0), at.j, 0)
    last = jnp.where(ends >= 0, at.j, width)
    reach = 1
    while reach < width:
        first = jnp.maximum(first, jnp.where(at.j >= reach, at.right(first, reach), 0))
        last = jnp.minimum(last, jnp.where(at.j < width - reach, at.left(last, reach), width))
        reach *= 2
    return H, Blocks(first, last, flag((last - first >= least - 1) & (at.j < at.n)))


def _no_blocks(H: Inexact[Array, "B R N"], at: Grid) -> Blocks:
    """Every position finished."""
    place = jnp.broadcast_to(at.j, (H.shape[0], 1, H.shape[2]))
    return Blocks(place, place, jnp.zeros_like(place))


def _window_shifts(
    H: Inexact[Array, "B R N"], store: Store, at: Grid, kind: Kind, blocks: Blocks, total: Int[Array, ""]
) -> tuple[Any, Int[Array, ""]]:
    """Eigenvalues of the last rows of every active block, as shifts, in those rows."""
    width = window(at.n)
    begin = jnp.maximum(blocks.first, blocks.last - (width - 1))
    begin = jnp.where((blocks.active > 0) & (at.j >= begin), begin, H.shape[2])
    one = jnp.ones_like(begin)

    def deflate(state):
        W, inner = _deflated(store.read(state)[0], at, LOOSE, 3)
        return store.write(W, None), inner

    def unfinished(carry):
        _, inner, sweeps, _ = carry
        return (sweeps < 0) | ((jnp.max(inner.active) > 0) & (sweeps < 2 * width))

    def sweep(carry):
        state, inner, sweeps, total = carry
        W, _ = store.read(state)
        state, total = _chain(state, store, at, kind, inner, kind.nearest(W, at), one, one, total)
        state, inner = deflate(state)
        return state, inner, sweeps + 1, total

    state = store.write(jnp.where((at.i >= begin) & (at.i <= blocks.last), H, 0), None)
    state, _, _, total = lax.while_loop(unfinished, sweep, (state, _no_blocks(H, at), jnp.int32(-1), total))
    W, _ = store.read(state)
    return kind.eigenvalues(W, at, begin), total


def _chain(
    state: Any,
    store: Store,
    at: Grid,
    kind: Kind,
    blocks: Blocks,
    shifts: Any,
    different: Int[Array, "B 1 N"],
    launches: Int[Array, "B 1 N"],
    total: Int[Array, ""],
) -> tuple[Any, Int[Array, ""]]:
    """Send `launches` bulges down every active block, closely, with the `different` last shifts in turn."""
    first, last, active = blocks
    upright = jax.tree.map(at.upright, shifts)
    most = jnp.max(jnp.where(active > 0, launches, 0))

    def unfinished(carry):
        _, on, _, slot, _ = carry
        return (slot < most) | (jnp.max(on) > 0)

    def launch(carry):
        state, on, turn, slot, total = carry
        start = flag((at.j == first) & (active > 0) & (slot < launches))
        shift = jax.tree.map(lambda v: at.take(v, last - (kind.rows - 1) * turn), upright)
        x = kind.first_column(store.read(state)[0], at, shift)

        def step(_, inner):
            state, on, starting = inner
            on = jnp.maximum(on, starting)
            state = store.write(*kind.step(*store.read(state), at, on, starting, x, last))
            # The last reflector of a bulge is of the last two rows of its block.
            on = flag((at.right(on, 1) > 0) & (at.j > first) & (at.j < last))
            return state, on, jnp.zeros_like(starting)

        state, on, _ = lax.fori_loop(0, kind.rows, step, (state, on, start))
        return state, on, jnp.where(turn + 1 >= different, 0, turn + 1), slot + 1, total + kind.rows

    zero = jnp.zeros_like(first)
    state, _, _, _, total = lax.while_loop(unfinished, launch, (state, zero, zero, jnp.int32(0), total))
    return state, total
