"""Schur form in plain XLA: Hessenberg reduction, implicitly shifted QR with a bulge in every active block at once.

Real matrices take Francis' double shift in real arithmetic (three rows a reflector), complex ones a single shift (two
rows). All matrices of a batch go through the positions k = 0, 1, ... of a sweep in step, and in each of them every
unreduced diagonal block chases its own bulge, so that a matrix that splits early does not wait for its halves one after
the other. Blocks end at subdiagonal entries that are negligible in the sense of Ahues and Tisseur (LAPACK Working Note
122); shifts are the eigenvalues of a block's trailing 2 x 2, two equal ones where those are real, and exceptional ones
after every tenth sweep without a deflation (Golub and Van Loan, 4th edition, section 7.5; LAPACK's lahqr).

Sequential depth: n steps a sweep, n to 2 n sweeps (README.md has the counts). This is the reference that runs
everywhere; nothing in it is tuned to a platform.
"""

from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Inexact, Int

from ..batching import over_flat_batch
from ..hessenberg.xla import hessenberg
from ..reflectors import reflector
from ..scaling import size
from .standard import standardize

SWEEPS = 30
"""Sweeps allowed for each row (at least 10 rows are counted), as in LAPACK."""

EXCEPTIONAL = (0.75, -0.4375)
"""Entries of the 2 x 2 matrix, relative to its neighbours, whose eigenvalues are the exceptional shifts."""


def schur(
    A: Inexact[Array, "*batch n n"], *, vectors: bool = True
) -> tuple[Inexact[Array, "*batch n n"], Inexact[Array, "*batch m n"]]:
    """T and Q of finite matrices of order one, NaN where the iteration did not converge; Q may be left without rows."""
    return over_flat_batch(partial(_flat, vectors=vectors), A)


class Depth(NamedTuple):
    """Length of the chain of dependent steps that a batch took beyond its Hessenberg reduction."""

    sweeps: Int[Array, ""]
    steps: Int[Array, ""]
    """Positions of a bulge, over all sweeps: each is one reflector on rows and columns of the whole batch."""


def depth(A: Inexact[Array, "B n n"]) -> Depth:
    """Count sweeps and steps that the Schur form of this batch takes; finite matrices of order one."""
    return _iterate(*hessenberg(A, vectors=False))[3]


def _flat(A: Inexact[Array, "B n n"], vectors: bool) -> tuple[Inexact[Array, "B n n"], Inexact[Array, "B m n"]]:
    n = A.shape[-1]
    if n == 0 or A.shape[0] == 0:
        return A, A if vectors else A[:, :0]
    H, Q = hessenberg(A, vectors=vectors)
    H, Q, done, _ = _iterate(H, Q)
    if not jnp.iscomplexobj(A):
        H, Q = standardize(H, Q)
    failed = ~done[:, None, None]
    return jnp.where(failed, jnp.nan, jnp.triu(H, -1)), jnp.where(failed, jnp.nan, Q)


class _Blocks(NamedTuple):
    """For every position the first and last row of its unreduced diagonal block, and whether it is still at work."""

    first: Int[Array, "B n"]
    last: Int[Array, "B n"]
    active: Bool[Array, "B n"]


def _iterate(H: Inexact[Array, "B n n"], Q: Inexact[Array, "B m n"]):
    """Sweep until every block is finished: of one row, or of two for a real matrix."""
    n = H.shape[-1]
    wide = 2 if jnp.iscomplexobj(H) else 3
    limit = SWEEPS * max(n, 10)
    # One column before, and rows and columns behind, so that every window of a sweep lies inside; Q below H, so that
    # one operation turns the columns of both.
    both = jnp.concatenate([jnp.pad(H, ((0, 0), (1, 2), (1, 2))), jnp.pad(Q, ((0, 0), (0, 0), (1, 2)))], axis=1)
    inner = slice(1, n + 1)

    def prepare(both):
        H, negligible = _deflated(both[:, inner, inner])
        both = both.at[:, 1 : n + 1, 1 : n + 1].set(H)
        return both, H, _blocks(negligible, wide)

    def unfinished(state):
        _, _, blocks, _, count = state
        return jnp.any(blocks.active) & (count.sweeps < limit)

    def advance(state):
        both, H, blocks, age, count = state
        both, steps = _sweep(both, blocks, _first_vectors(H, blocks, age), wide)
        both, H, after = prepare(both)
        same = (after.first == blocks.first) & (after.last == blocks.last) & after.active
        return both, H, after, jnp.where(same, age + 1, 0), Depth(count.sweeps + 1, count.steps + steps)

    both, H, blocks = prepare(both)
    start = (both, H, blocks, jnp.zeros(blocks.first.shape, jnp.int32), Depth(jnp.int32(0), jnp.int32(0)))
    both, H, blocks, _, count = lax.while_loop(unfinished, advance, start)
    return H, both[:, n + 3 :, inner], ~jnp.any(blocks.active, axis=-1), count


def _deflated(H: Inexact[Array, "B n n"]) -> tuple[Inexact[Array, "B n n"], Bool[Array, "B n-1"]]:
    """Set negligible subdiagonal entries to zero, and say which are zero."""
    n = H.shape[-1]
    if n < 2:
        return H, jnp.zeros((len(H), 0), bool)
    info = jnp.finfo(H.dtype)
    eps, smallest = info.eps, info.tiny * (n / info.eps)
    diagonal, below, above = (jnp.diagonal(H, k, axis1=1, axis2=2) for k in (0, -1, 1))
    one, two, low, high = (size(x) for x in (diagonal[:, :-1], diagonal[:, 1:], below, above))
    edge = jnp.zeros_like(low[:, :1])
    neighbours = jnp.concatenate([edge, low[:, :-1]], axis=1) + jnp.concatenate([low[:, 1:], edge], axis=1)
    around = jnp.where(one + two == 0, neighbours, one + two)
    gap = size(diagonal[:, :-1] - diagonal[:, 1:])
    aa, bb = jnp.maximum(two, gap), jnp.minimum(two, gap)
    ab, ba = jnp.maximum(low, high), jnp.minimum(low, high)
    total = jnp.where(aa + ab > 0, aa + ab, 1)
    tisseur = ba * (ab / total) <= jnp.maximum(smallest, eps * (bb * (aa / total)))
    negligible = (low <= smallest) | ((low <= eps * around) & tisseur)
    i = jnp.arange(n - 1)
    return H.at[:, i + 1, i].set(jnp.where(negligible, 0, below)), negligible


def _blocks(negligible: Bool[Array, "B n-1"], wide: int) -> _Blocks:
    batch, n = negligible.shape[0], negligible.shape[1] + 1
    edge = jnp.ones((batch, 1), bool)
    at = jnp.broadcast_to(jnp.arange(n, dtype=jnp.int32), (batch, n))
    first = lax.cummax(jnp.where(jnp.concatenate([edge, negligible], axis=1), at, 0), axis=1)
    last = lax.cummin(jnp.where(jnp.concatenate([negligible, edge], axis=1), at, n), axis=1, reverse=True)
    return _Blocks(first, last, last - first + 1 >= wide)


def _first_vectors(H: Inexact[Array, "B n n"], blocks: _Blocks, age: Int[Array, "B n"]) -> Inexact[Array, "B n w"]:
    """First column of (H - s)(H - s') or of H - s for the block of every position, up to a factor; see _double."""
    diagonal, below, above = (jnp.diagonal(H, k, axis1=1, axis2=2) for k in (0, -1, 1))
    take = partial(jnp.take_along_axis, axis=1)
    low = jnp.maximum(blocks.last - 1, 0)
    corner = [take(diagonal, low), take(above, low), take(below, low), take(diagonal, blocks.last)]
    # An exceptional shift looks at the block's end, the next one at its start.
    tenth = (age % 10 == 9) & blocks.active
    at_end = age % 20 == 9
    near = jnp.where(at_end, low, blocks.first)
    next_one = jnp.where(at_end, jnp.maximum(low - 1, 0), jnp.minimum(blocks.first + 1, below.shape[1] - 1))
    strength = size(take(below, near)) + size(take(below, next_one)) * (next_one != near)
    centre = EXCEPTIONAL[0] * strength + jnp.where(at_end, corner[3], take(diagonal, blocks.first))
    odd = [centre, EXCEPTIONAL[1] * strength, strength, centre]
    corner = [jnp.where(tenth, other.astype(H.dtype), usual) for other, usual in zip(odd, corner, strict=True)]
    n = H.shape[-1]
    top = [
        _ahead(diagonal, 0, n),
        _ahead(above, 0, n),
        _ahead(below, 0, n),
        _ahead(diagonal, 1, n),
        _ahead(below, 1, n),
    ]
    return _single(corner, top) if jnp.iscomplexobj(H) else _double(corner, top)


def _double(corner: list[Array], top: list[Array]) -> Array:
    """First column of (H - s)(H - s') for the two eigenvalues of the corner; a real pair is replaced by its best."""
    a, b, c, d = _order_one(corner)
    scale = _scale(corner)
    half, p = (a + d) / 2, (a - d) / 2
    disc = p * p + b * c
    root = jnp.sqrt(jnp.abs(disc))
    near = half + jnp.where(jnp.abs(half + root - d) < jnp.abs(half - root - d), root, -root)
    real = jnp.where(disc >= 0, near, half) * scale
    imaginary = jnp.where(disc >= 0, 0, root) * scale
    h11, h12, h21, h22, h32 = top
    unit = jnp.abs(h11 - real) + imaginary + jnp.abs(h21)
    unit = jnp.where(unit > 0, unit, 1)
    h21 = h21 / unit
    x = h21 * h12 + (h11 - real) * ((h11 - real) / unit) + imaginary * (imaginary / unit)
    return jnp.stack([x, h21 * (h11 + h22 - 2 * real), h21 * h32], axis=-1)


def _single(corner: list[Array], top: list[Array]) -> Array:
    """First column of H - s, s the eigenvalue of the corner that is nearer to its last entry."""
    a, b, c, d = _order_one(corner)
    half, p = (a + d) / 2, (a - d) / 2
    root = jnp.sqrt(p * p + b * c)
    near = jnp.where(size(half + root - d) < size(half - root - d), half + root, half - root) * _scale(corner)
    return jnp.stack([top[0] - near, top[2]], axis=-1)


def _sweep(both: Array, blocks: _Blocks, vectors: Inexact[Array, "B n w"], wide: int) -> tuple[Array, Array]:
    """Chase one bulge through every active block, all blocks and matrices in step; also the number of steps."""
    batch, n = blocks.first.shape
    height, width = both.shape[1:]
    at = jnp.arange(n)
    working = blocks.active & (at < blocks.last)
    any_work = jnp.any(working, axis=0)
    begin, end = jnp.min(jnp.where(any_work, at, n)), jnp.max(jnp.where(any_work, at + 1, 0))
    starts = blocks.first == at
    kept = jnp.arange(wide) == 0

    def step(k, both):
        zero = jnp.zeros((), k.dtype)
        on, start, last = (
            lax.dynamic_index_in_dim(x, k, axis=1, keepdims=False) for x in (working, starts, blocks.last)
        )
        rows = lax.dynamic_slice(both, (zero, k + 1, zero), (batch, wide, width))
        bulge = lax.dynamic_slice(rows, (zero, zero, k), (batch, wide, 1))[..., 0]
        x = jnp.where(start[:, None], lax.dynamic_index_in_dim(vectors, k, axis=1, keepdims=False), bulge)
        x = jnp.where(k + jnp.arange(wide) <= last[:, None], x, 0)
        house = reflector(x, kept)
        v, tau = house.v, jnp.where(on, house.tau, 0)
        turned = (
            rows
            - jnp.conj(tau)[:, None, None] * v[:, :, None] * jnp.sum(jnp.conj(v)[:, :, None] * rows, axis=1)[:, None]
        )
        # What was chased is beta and exact zeros.
        there = lax.dynamic_slice(turned, (zero, zero, k), (batch, wide, 1))[..., 0]
        chased = jnp.where((on & ~start)[:, None], jnp.where(kept, house.beta[:, None], 0).astype(both.dtype), there)
        turned = lax.dynamic_update_slice(turned, chased[..., None], (zero, zero, k))
        both = lax.dynamic_update_slice(both, turned, (zero, k + 1, zero))
        columns = lax.dynamic_slice(both, (zero, zero, k + 1), (batch, height, wide))
        moved = tau[:, None] * jnp.sum(columns * v[:, None, :], axis=-1)
        columns = columns - moved[:, :, None] * jnp.conj(v)[:, None, :]
        return lax.dynamic_update_slice(both, columns, (zero, zero, k + 1))

    return lax.fori_loop(begin, end, step, both), (end - begin).astype(jnp.int32)


def _ahead(x: Array, shift: int, n: int) -> Array:
    """Return x moved `shift` places towards the start, with zeros behind, n long."""
    moved = x[:, shift:n]
    return jnp.pad(moved, ((0, 0), (0, n - moved.shape[1])))


def _order_one(corner: list[Array]) -> list[Array]:
    scale = _scale(corner)
    return [x / scale for x in corner]


def _scale(corner: list[Array]) -> Array:
    total = sum(size(x) for x in corner)
    return jnp.where(total > 0, total, 1)
