"""The end of a division: shifted QR of the small blocks, all at once, and of what would not split, zeros around it.

Small blocks take the platform's fastest way to many small forms; what that does not certify counts as not finite.
Blocks are given by `last`, the last row of the block of every row. Neighbouring small ones share a window of `BASE`
rows.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Inexact, Int

from ..product import matmul
from ..scaling import adjoint
from . import pallas_tpu, wavefront, xla

BASE = 64
"""Blocks of at most this order are finished by shifted QR, all at once."""


def finish_small(
    T: Inexact[Array, "B n n"], Q: Inexact[Array, "B n n"], last: Int[Array, "B n"], left: Bool[Array, "B n"]
):
    """Shifted QR of windows of neighbouring small blocks, all windows of all matrices in step."""
    batch, n = T.shape[:2]
    count = 2 * -(-n // BASE) + 1
    start, stop = jax.vmap(partial(windows, count=count))(last, left)
    inside = (start[..., None] + jnp.arange(BASE) < stop[..., None]).reshape(-1, BASE)
    column = start.reshape(-1)
    row = (jnp.arange(batch, dtype=jnp.int32)[:, None] * n + start).reshape(-1)
    room = ((0, BASE), (0, BASE))

    # Windows one after another, as they are neighbouring rows: to gather and scatter all of them is dear to compile.
    def cut(at):
        k, i, j = at
        block = lax.dynamic_slice(padded, (i, j), (BASE, BASE))
        return jnp.where(inside[k][:, None] & inside[k], block, 0)

    def turned(X, form=None):
        """U^H times the rows of every window, and where there is one its form in its place."""

        def one(k, X):
            kept = lax.dynamic_slice_in_dim(X, row[k], BASE)
            new = matmul(adjoint(U[k]), jnp.where(inside[k][:, None], kept, 0))
            if form is not None:
                block = lax.dynamic_slice_in_dim(new, column[k], BASE, axis=1)
                block = jnp.where(inside[k], form[k], block)
                new = lax.dynamic_update_slice_in_dim(new, block, column[k], axis=1)
            return lax.dynamic_update_slice_in_dim(X, jnp.where(inside[k][:, None], new, kept), row[k], axis=0)

        flat = jnp.pad(X.reshape(batch * n, -1), room)
        return lax.fori_loop(0, len(row), one, flat)[: batch * n, : X.shape[-1]].reshape(X.shape)

    padded = jnp.pad(T.reshape(batch * n, n), room)
    form, U, good = small_forms(lax.map(cut, (jnp.arange(len(row)), row, column)))
    form = jnp.where(good[:, None, None], form, jnp.nan)
    done = jnp.all(jnp.isfinite(form).reshape(batch, -1), axis=1)
    # Columns of T and Q in one, then the rows of T.
    both = adjoint(turned(adjoint(jnp.concatenate([T, Q], axis=1))))
    return turned(both[:, :n], form), both[:, n:], done


def small_forms(blocks: Inexact[Array, "w b b"]):
    """T, Q and whether they are sound, of many small matrices of order one: by bulges in step, but on a CPU."""

    def one_bulge(blocks):
        T, Q = xla.schur(blocks)
        return T, Q, jnp.all(jnp.isfinite(T), axis=(1, 2))

    ways = {"cpu": one_bulge, "default": wavefront.attempted}
    if blocks.dtype == jnp.float32:
        ways["tpu"] = partial(wavefront.attempted, iteration=pallas_tpu.in_kernel)
    return lax.platform_dependent(blocks, **ways)


def finish_large(T: Inexact[Array, "B n n"], Q: Inexact[Array, "B n n"], left: Bool[Array, "B n"]):
    """Shifted QR of the rows that are left, zeros around them; one matrix after another, none where none is left."""

    def one(both):
        T, Q, left = both

        def robust():
            inside = left[:, None] & left[None, :]
            form, U = xla.schur(jnp.where(inside, T, 0)[None])
            moved = matmul(adjoint(U[0]), matmul(T, U[0]))
            return jnp.where(inside, form[0], moved), matmul(Q, U[0])

        return lax.cond(jnp.any(left), robust, lambda: (T, Q))

    return lax.map(one, (T, Q, left))


def windows(last: Int[Array, " n"], left: Bool[Array, " n"], count: int) -> tuple[Int[Array, " w"], Int[Array, " w"]]:
    """Starts and ends of windows of whole blocks, at most BASE rows each; empty ones over blocks that are left."""
    n = len(last)
    at = jnp.arange(n + 1, dtype=jnp.int32)
    # A block ends where its last row is the row itself.
    bounds = jnp.append(jnp.array([True]), last == at[:-1])
    # Rows that are left, before every row: a window holds none.
    before = jnp.append(jnp.int32(0), jnp.cumsum(left, dtype=jnp.int32))

    def following(start, _):
        here = jnp.minimum(start, n - 1)
        skip = left[here] & (start < n)
        fits = bounds & (at <= start + BASE) & (before == before[start])
        stop = jnp.where(skip, last[here] + 1, jnp.max(jnp.where(fits, at, start)))
        return stop, (start, jnp.where(skip, start, stop))

    _, (start, stop) = lax.scan(following, jnp.int32(0), None, length=count)
    return start, stop


def ends(begins: Bool[Array, "B n"]) -> tuple[Int[Array, "B n"], Int[Array, "B n"]]:
    """First and last row of the block of every row, from the first rows of blocks."""
    n = begins.shape[1]
    at = jnp.arange(n, dtype=jnp.int32)
    first = lax.cummax(jnp.where(begins, at, 0), axis=1)
    closes = jnp.pad(begins[:, 1:], ((0, 0), (0, 1)), constant_values=True)
    return first, lax.cummin(jnp.where(closes, at, n), axis=1, reverse=True)
