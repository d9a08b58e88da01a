"""Real Hessenberg QR with many bulges on the way at once, in whole-array operations: no index depends on the data.

A step turns the rows and columns of every bulge of every active block of every matrix: disjoint reflectors of three
rows are a pentadiagonal orthogonal matrix, and a product with one is a few rolls of the array along an axis, scaled by
vectors. So a step costs order n^2 whatever the number of bulges, and depth falls with that number.

A round finds the eigenvalues of the last rows of every active block (its window) by an iteration of the same kind on a
copy, one bulge a block and to a loose tolerance, and sends them down the block as shifts of bulges three rows apart,
REPEATS times over. m shifts converge quadratically to m eigenvalues at a time; a train of the same shifts that follows
at once costs three steps a bulge where a new round costs n, and turns quadratic convergence into one of order five.

Everything here is also what Mosaic has for a TPU, so that pallas_tpu.py runs `iterate` inside one kernel: vectors lie
along the lanes, [B, 1, N], flags and places are integers, and masks come from comparing them (grid.py).
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from .grid import Grid, Store

REPEATS = 4
"""Trains of the same shifts in one round."""

LOOSE = 1e-2
"""Relative size of what counts as zero where shifts are computed: the trains make up for it."""

ROUNDS = 60
"""Rounds allowed, as many again as n / 4; what is not done then is left to the robust method."""

NOWHERE = -9
"""A place that no comparison meets, two rows further neither."""


class Blocks(NamedTuple):
    """For every position the ends of its unreduced diagonal block, and whether that has three rows or more."""

    first: Int[Array, "B 1 N"]
    last: Int[Array, "B 1 N"]
    active: Int[Array, "B 1 N"]


class Shifts(NamedTuple):
    """A pair of shifts for every row: real ones r and s, or r = s and the imaginary parts +-im."""

    r: Float[Array, "B 1 N"]
    s: Float[Array, "B 1 N"]
    im: Float[Array, "B 1 N"]


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
    state: Any, store: Store, windows: Store, at: Grid, dtype: DTypeLike
) -> tuple[Any, Int[Array, "B 1 1"], Count]:
    """Bring H to quasi-triangular form, rounds until no block is active; also whether a matrix still has one."""
    eps = float(jnp.finfo(dtype).eps)

    def deflate(state):
        H, Q = store.read(state)
        H, blocks = _deflated(H, at, eps)
        return store.write(H, Q), blocks

    def unfinished(carry):
        _, blocks, _, count = carry
        return (count.rounds < 0) | ((jnp.max(blocks.active) > 0) & (count.rounds < ROUNDS + at.n // 4))

    def one_round(carry):
        state, blocks, age, count = carry
        shifts, inner = _window_shifts(store.read(state)[0], windows, at, blocks, count.window_steps)
        still = (age & 3) == 3
        other = _exceptional(store.read(state)[0], at)
        shifts = Shifts(*(jnp.where(still, x, y) for x, y in zip(other, shifts, strict=True)))
        # A block is not offered all of its eigenvalues at once: then none would come out first.
        pairs = jnp.clip((blocks.last - blocks.first + 1) >> 2, 1, window(at.n) >> 1)
        state, steps = _chain(state, store, at, blocks, shifts, pairs, REPEATS * pairs, count.steps)
        state, after = deflate(state)
        same = (after.first == blocks.first) & (after.last == blocks.last) & (after.active > 0)
        return state, after, jnp.where(same, age + 1, 0), Count(count.rounds + 1, steps, inner)

    # The first turn of the loop does nothing but look for blocks: a second copy of that is dear to compile.
    count = Count(jnp.int32(-1), jnp.int32(0), jnp.int32(0))
    blocks = _no_blocks(store.read(state)[0], at)
    state, blocks, _, count = lax.while_loop(unfinished, one_round, (state, blocks, blocks.active, count))
    return state, jnp.max(blocks.active, axis=2, keepdims=True), count


def _deflated(H: Float[Array, "B R N"], at: Grid, eps: float) -> tuple[Float[Array, "B R N"], Blocks]:
    """Set negligible subdiagonal entries to zero (Ahues and Tisseur, LAPACK Working Note 122), and find the blocks."""
    info = jnp.finfo(H.dtype)
    smallest = float(info.tiny) * (at.n / float(info.eps))
    inside = at.j < at.n - 1
    diagonal, above = at.diagonal(H, 0), at.left(at.diagonal(H, -1), 1)
    one, two = jnp.abs(diagonal), jnp.abs(at.left(diagonal, 1))
    low, high = jnp.where(inside, jnp.abs(at.diagonal(H, 1)), 0), jnp.abs(above)
    neighbours = jnp.where(at.j > 0, at.right(low, 1), 0) + jnp.where(inside, at.left(low, 1), 0)
    around = jnp.where(one + two == 0, neighbours, one + two)
    gap = jnp.abs(diagonal - at.left(diagonal, 1))
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
    return H, Blocks(first, last, _flag((last - first >= 2) & (at.j < at.n)))


def _no_blocks(H: Float[Array, "B R N"], at: Grid) -> Blocks:
    """Every position finished."""
    place = jnp.broadcast_to(at.j, (H.shape[0], 1, H.shape[2]))
    return Blocks(place, place, jnp.zeros_like(place))


def _window_shifts(
    H: Float[Array, "B R N"], store: Store, at: Grid, blocks: Blocks, total: Int[Array, ""]
) -> tuple[Shifts, Int[Array, ""]]:
    """Eigenvalues of the last rows of every active block, as pairs, in those rows."""
    width = window(at.n)
    begin = jnp.maximum(blocks.first, blocks.last - (width - 1))
    begin = jnp.where((blocks.active > 0) & (at.j >= begin), begin, H.shape[2])
    one = jnp.ones_like(begin)

    def deflate(state):
        W, inner = _deflated(store.read(state)[0], at, LOOSE)
        return store.write(W, None), inner

    def unfinished(carry):
        _, inner, sweeps, _ = carry
        return (sweeps < 0) | ((jnp.max(inner.active) > 0) & (sweeps < 2 * width))

    def sweep(carry):
        state, inner, sweeps, total = carry
        W, _ = store.read(state)
        state, total = _chain(state, store, at, inner, _nearest(W, at), one, one, total)
        state, inner = deflate(state)
        return state, inner, sweeps + 1, total

    state = store.write(jnp.where((at.i >= begin) & (at.i <= blocks.last), H, 0), None)
    state, _, _, total = lax.while_loop(unfinished, sweep, (state, _no_blocks(H, at), jnp.int32(-1), total))
    W, _ = store.read(state)
    # A row that is the second or first of a 2 x 2 block has the block's pair, any other its eigenvalue and, where the
    # row before stands alone too, that one's.
    diagonal, below = at.diagonal(W, 0), at.diagonal(W, 1)
    pair = _both(W, at)
    second = at.right(below, 1) != 0
    alone = (at.j > begin) & (at.right(below, 2) == 0)
    single = Shifts(diagonal, jnp.where(alone, at.right(diagonal, 1), diagonal), jnp.zeros_like(diagonal))
    found = (
        jnp.where(second, mine, jnp.where(below != 0, at.left(mine, 1), other))
        for mine, other in zip(pair, single, strict=True)
    )
    return Shifts(*found), total


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


def _chain(
    state: Any,
    store: Store,
    at: Grid,
    blocks: Blocks,
    shifts: Shifts,
    pairs: Int[Array, "B 1 N"],
    launches: Int[Array, "B 1 N"],
    total: Int[Array, ""],
) -> tuple[Any, Int[Array, ""]]:
    """Send `launches` bulges down every active block, three steps apart, with the `pairs` last shifts in turn."""
    first, last, active = blocks
    upright = [at.upright(v) for v in shifts]
    most = jnp.max(jnp.where(active > 0, launches, 0))

    def unfinished(carry):
        _, on, _, slot, _ = carry
        return (slot < most) | (jnp.max(on) > 0)

    def three_steps(carry):
        state, on, turn, slot, total = carry
        start = _flag((at.j == first) & (active > 0) & (slot < launches))
        x = _first_column(store.read(state)[0], at, Shifts(*(at.take(v, last - 2 * turn) for v in upright)))

        def step(_, inner):
            state, on, starting = inner
            on = jnp.maximum(on, starting)
            state = store.write(*_step(*store.read(state), at, on, starting, x, last))
            # The last reflector of a bulge is of the last two rows of its block.
            on = _flag((at.right(on, 1) > 0) & (at.j > first) & (at.j < last))
            return state, on, jnp.zeros_like(starting)

        state, on, _ = lax.fori_loop(0, 3, step, (state, on, start))
        return state, on, jnp.where(turn + 1 >= pairs, 0, turn + 1), slot + 1, total + 3

    zero = jnp.zeros_like(first)
    state, _, _, _, total = lax.while_loop(unfinished, three_steps, (state, zero, zero, jnp.int32(0), total))
    return state, total


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
    """Reflectors of rows k to k + 2 for every k that is `on`: they chase a bulge out of column k - 1, or start one."""
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


def _flag(condition: Array) -> Int[Array, "B 1 N"]:
    return condition.astype(jnp.int32)
