"""Eigenvalues of a Schur form sorted by direct swaps of neighbouring diagonal blocks, many at once.

With blocks A of order p and B of order q beside each other, A X - X B = C for what stands between them, the columns of
[-X; I] span the invariant subspace of B's eigenvalues: a unitary matrix of order p + q with its first q columns in that
span brings B up and A down (Bai and Demmel, Linear Algebra and its Applications 186, 1993; LAPACK's laexc). The
equation has at most four unknowns, and is solved by elimination with complete pivoting. A swap that would leave more
than rounding below the blocks is refused: the two are then equal to rounding.

Swaps of pairs that do not overlap are independent, so all even pairs swap at once, then all odd ones, and so on until
nothing is out of order: m rounds for m blocks (odd-even transposition, Knuth, The Art of Computer Programming 3,
section 5.3.4), of order n^2 operations each, where one swap after another takes up to m^2 / 2.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Inexact, Int

from ..product import matmul
from ..scaling import adjoint
from ..schur.standard import standardize

REFUSED = 20.0
"""Largest part below the blocks after a swap, in eps times the norm of the two blocks, that is rounding."""


class Sorted(NamedTuple):
    """A sorted form."""

    T: Inexact[Array, "n n"]
    Q: Inexact[Array, "n n"]
    key: Float[Array, " n"]
    """Keys of the rows now."""
    source: Int[Array, " n"]
    """Row that every row's eigenvalue came from."""
    rounds: Int[Array, ""]


def by_key(T: Inexact[Array, "n n"], Q: Inexact[Array, "n n"], key: Float[Array, " n"]) -> Sorted:
    """Sort by ascending key, equal keys in the order in which they are; T of order one.

    The keys of a real 2 x 2 block are both the smaller of the two. vmap maps it over a batch, in step.
    """
    n = T.shape[-1]
    rows = jnp.arange(n)
    first = _first(T)
    key = jax.ops.segment_min(key, first, n)[first]
    # Eigenvalues that cannot be told apart stay as they are: the number of rounds is limited.
    most = 2 * n + 2

    def unfinished(state):
        done, count = state
        return (count < most) & jnp.any(_inversions(done.T, done.key))

    def one_round(state):
        done, count = state
        return _round(done, count), count + 1

    if n < 2:
        return Sorted(T, Q, key, rows, jnp.int32(0))
    start = Sorted(T, Q, key, rows, jnp.int32(0))
    done, count = lax.while_loop(unfinished, one_round, (start, jnp.int32(0)))
    return done._replace(rounds=count)


def _first(T: Inexact[Array, "n n"]) -> Int[Array, " n"]:
    """First row of the block of every row."""
    rows = jnp.arange(T.shape[-1])
    if jnp.iscomplexobj(T):
        return rows
    second = jnp.append(jnp.zeros(1, bool), jnp.diagonal(T, -1) != 0)
    return rows - second


def _inversions(T: Inexact[Array, "n n"], key: Float[Array, " n"]) -> Bool[Array, " m"]:
    """Rows i whose block has a larger key than the one of row i + 1, the next block."""
    return key[:-1] > key[1:]


def _round(state: Sorted, count: Int[Array, ""]) -> Sorted:
    """Swap every second pair of neighbours that is out of order."""
    T, Q, key, source, _ = state
    n = T.shape[-1]
    rows = jnp.arange(n)
    first = _first(T)
    begins = first == rows
    number = jnp.cumsum(begins) - 1
    size = jax.ops.segment_sum(jnp.ones(n, rows.dtype), first, n)
    p = size
    after = rows + p
    q = jnp.where(after < n, size[jnp.minimum(after, n - 1)], 0)
    out_of_order = begins & (after < n) & (key > key[jnp.minimum(after, n - 1)])
    chosen = out_of_order & (number % 2 == count % 2)
    (start,) = jnp.nonzero(chosen, size=max(n // 2, 1), fill_value=n)
    here = jnp.minimum(start, n - 1)
    p, q = jnp.where(start < n, p[here], 0), jnp.where(start < n, q[here], 0)
    within = jnp.arange(4) < (p + q)[:, None]
    index = jnp.where(within, start[:, None] + jnp.arange(4), n)
    window = T.at[index[:, :, None], index[:, None, :]].get(mode="fill", fill_value=0)
    U, fine = jax.vmap(_swap)(window, p, q)
    # Refused swaps turn nothing.
    index = jnp.where(fine[:, None], index, n)

    def turned(X):
        """U^H times the rows of every window."""
        picked = X.at[index].get(mode="fill", fill_value=0)
        return X.at[index].set(matmul(adjoint(U), picked), mode="drop")

    T, Q = adjoint(turned(adjoint(turned(T)))), adjoint(turned(adjoint(Q)))
    # Row i of a window now holds row i + p of it, or row i - q.
    place = jnp.arange(4)
    origin = start[:, None] + jnp.where(place < q[:, None], place + p[:, None], place - q[:, None])
    key, source = (x.at[index].set(x[jnp.clip(origin, 0, n - 1)], mode="drop") for x in (key, source))
    below = (place[:, None] >= q[:, None, None]) & (place[None, :] < q[:, None, None])
    T = T.at[index[:, :, None], jnp.where(below, index[:, None, :], n)].set(0, mode="drop")
    T = jnp.triu(T, 0 if jnp.iscomplexobj(T) else -1)
    if not jnp.iscomplexobj(T):
        T, Q = standardize(T, Q)
    return Sorted(T, Q, key, source, state.rounds)


def _swap(window: Inexact[Array, "4 4"], p: Int[Array, ""], q: Int[Array, ""]) -> tuple[Array, Array]:
    """Unitary U that swaps the blocks of order p and q in the upper left corner, and whether it does."""
    at = jnp.arange(4)
    upper, lower = at < p, (at >= p) & (at < p + q)
    X = _sylvester(window, p, q)
    # Columns [-X; I] of the span, scaled to order one.
    basis = jnp.where(upper[:, None], -X, 0) + (at[:, None] == at[None, :2] + p) * (jnp.arange(2) < q)
    norm = jnp.sqrt(jnp.sum(jnp.square(basis.real) + jnp.square(basis.imag), axis=0))
    basis = basis / jnp.where(norm > 0, norm, 1)
    U = jnp.eye(4, dtype=window.dtype)
    for k in range(2):
        x = jnp.where((at >= k) & (upper | lower), basis[:, k], 0)
        size = jnp.sqrt(jnp.sum(jnp.square(x.real) + jnp.square(x.imag)))
        pivot = x[k]
        phase = jnp.where(pivot == 0, 1, pivot / jnp.where(pivot == 0, 1, jnp.abs(pivot)))
        v = x + jnp.where(at == k, phase * size, 0)
        length = jnp.sum(jnp.square(v.real) + jnp.square(v.imag))
        tau = jnp.where((length > 0) & (k < q), 2 / jnp.where(length > 0, length, 1), 0).astype(window.dtype)
        basis = basis - tau * v[:, None] * jnp.sum(jnp.conj(v)[:, None] * basis, axis=0)
        U = U - tau * jnp.sum(U * v, axis=1)[:, None] * jnp.conj(v)
    turned = matmul(adjoint(U), matmul(window, U))
    left = jnp.where((at >= q)[:, None] & (at < q)[None, :], turned, 0)
    limit = REFUSED * jnp.finfo(window.dtype).eps * jnp.max(jnp.abs(window))
    return U, (p > 0) & (jnp.max(jnp.abs(left)) <= limit)


def _sylvester(window: Inexact[Array, "4 4"], p: Int[Array, ""], q: Int[Array, ""]) -> Inexact[Array, "4 2"]:
    """X of A X - X B = C for the blocks of order p and q, in its first p rows and q columns."""
    row, column = jnp.array([0, 1, 0, 1]), jnp.array([0, 0, 1, 1])
    known = (row < p) & (column < q)
    A = window[row[:, None], row[None, :]] * (column[:, None] == column[None, :])
    B = window[(column[None, :] + p) % 4, (column[:, None] + p) % 4] * (row[:, None] == row[None, :])
    system = jnp.where(known[:, None] & known[None, :], A - B, jnp.eye(4, dtype=window.dtype))
    right = jnp.where(known, window[row, (column + p) % 4], 0)
    x = _solve(system, right)
    return jnp.zeros((4, 2), window.dtype).at[row, column].set(x)


def _solve(system: Inexact[Array, "4 4"], right: Inexact[Array, " 4"]) -> Inexact[Array, " 4"]:
    """Gauss-Jordan elimination with complete pivoting; a pivot that vanishes to rounding becomes rounding."""
    at = jnp.arange(4)
    eps, tiny = jnp.finfo(system.dtype).eps, jnp.finfo(system.dtype).tiny
    least = jnp.maximum(eps * jnp.max(jnp.abs(system)), tiny / eps)
    rows_open = columns_open = jnp.ones(4, bool)
    where = jnp.zeros(4, jnp.int32)
    for _ in range(4):
        size = jnp.where(rows_open[:, None] & columns_open[None, :], jnp.abs(system), -1)
        largest = jnp.argmax(size)
        i, j = largest // 4, largest % 4
        pivot = jnp.where(jnp.abs(system[i, j]) > least, system[i, j], least)
        row, value = system[i] / pivot, right[i] / pivot
        row = jnp.where(at == j, 1, row)
        factor = jnp.where(at == i, 0, system[:, j])
        system = jnp.where((at == i)[:, None], row, system - factor[:, None] * row)
        right = jnp.where(at == i, value, right - factor * value)
        where = jnp.where(at == j, i.astype(jnp.int32), where)
        rows_open, columns_open = rows_open & (at != i), columns_open & (at != j)
    # Row where[j] is the equation of unknown j alone.
    return right[where]
