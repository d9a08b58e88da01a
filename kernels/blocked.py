"""Inverse and orthonormal basis by panels in one loop: programs that are as small for n = 4096 as for n = 64.

XLA's own LU, triangular solve and QR unroll their panels of 128 columns on a TPU: at n = 4096 each is 32 programs of
shapes of their own, and takes minutes to compile. Here every panel is one trip of a loop over arrays of full size,
masked where a panel has no part. That costs up to three times the operations, all of them in products of an n x b and a
b x n matrix. On platforms whose vendor has a library the library is called (schur/sign.py, schur/split.py).

Inverse: Gauss-Jordan elimination in place with partial pivoting (Higham, Accuracy and Stability of Numerical
Algorithms, 2nd edition, section 14.4), pivot rows remembered and not swapped. Basis: Householder reflectors in the
compact form I - V S V^H (Schreiber and Van Loan, SIAM J. Sci. Stat. Comput. 10, 1989).
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Inexact, Int

from .product import looped
from .reflectors import reflector
from .scaling import adjoint

PANEL = 128
"""Columns a panel: the width of a TPU's matrix unit."""


def inverse(X: Inexact[Array, "*batch n n"], panel: int = PANEL) -> Inexact[Array, "*batch n n"]:
    """Inverses, with infinity or NaN for a matrix that is singular. Cost: 2 n^3 operations, n dependent steps."""
    flat = X.reshape(-1, *X.shape[-2:])
    return _inverse(flat, min(panel, X.shape[-1])).reshape(X.shape)


def _inverse(X: Inexact[Array, "B n n"], width: int) -> Inexact[Array, "B n n"]:
    batch, n, _ = X.shape
    rows, columns = jnp.arange(n), jnp.arange(width)
    count = -(-n // width)
    # The last panel is filled up with columns of zeros that take no pivot.
    extra = count * width - n
    X = jnp.pad(X, ((0, 0), (0, 0), (0, extra)))

    def eliminate(j, state, *, start):
        W, pivots, free = state
        column = lax.dynamic_index_in_dim(W, j, axis=2, keepdims=False)
        size = jnp.abs(column.real) + jnp.abs(column.imag)
        at = jnp.argmax(jnp.where(free, jnp.where(jnp.isnan(size), jnp.inf, size), -1), axis=1).astype(jnp.int32)
        real = start + j < n
        here = rows == at[:, None]
        # The pivot row as a sum of one: an index of its own for every matrix would be a gather.
        row = jnp.sum(jnp.where(here[:, :, None], W, 0), axis=1)
        unit = 1 / lax.dynamic_index_in_dim(row, j, axis=1)
        row = jnp.where(columns == j, unit, row * unit)[:, None]
        others = jnp.where(columns == j, 0, W) - column[:, :, None] * row
        new = jnp.where(here[:, :, None], row, others)
        return (
            jnp.where(real, new, W),
            lax.dynamic_update_slice_in_dim(pivots, at[:, None], start + j, axis=1),
            free & (~here | ~real),
        )

    def one_panel(k, state):
        X, pivots, free = state
        start = (k * width).astype(jnp.int32)
        W = lax.dynamic_slice_in_dim(X, start, width, axis=2)
        W, pivots, free = lax.fori_loop(0, width, partial(eliminate, start=start), (W, pivots, free))
        chosen = lax.dynamic_slice_in_dim(pivots, start, width, axis=1)
        chosen = jnp.where(start + columns < n, chosen, n)
        top, rest = jax.vmap(_taken_out)(X, chosen)
        X = rest + looped(W, top)
        return lax.dynamic_update_slice_in_dim(X, W, start, axis=2), pivots, free

    start = X, jnp.zeros((batch, count * width), jnp.int32), jnp.ones((batch, n), bool)
    X, pivots, _ = lax.fori_loop(0, count, one_panel, start)
    return jax.vmap(_in_order)(X[:, :, :n], pivots[:, :n])


def _taken_out(X: Inexact[Array, "n m"], chosen: Int[Array, " k"]):
    """Rows that are chosen, and zeros in their places."""
    return X.at[chosen].get(mode="fill", fill_value=0), X.at[chosen].set(0, mode="drop")


def _in_order(X: Inexact[Array, "n n"], pivots: Int[Array, " n"]) -> Inexact[Array, "n n"]:
    """Row pivots[c] holds row c of the inverse of P X, whose columns are those of the inverse times P."""
    column_of = jnp.zeros(len(X), jnp.int32).at[pivots].set(jnp.arange(len(X), dtype=jnp.int32))
    return X[pivots][:, column_of]


def orthonormal(X: Inexact[Array, "*batch n n"], panel: int = PANEL) -> Inexact[Array, "*batch n n"]:
    """Unitary Q of X = Q R. Cost: 8 n^3 operations, n dependent steps."""
    flat = X.reshape(-1, *X.shape[-2:])
    return _orthonormal(flat, min(panel, X.shape[-1])).reshape(X.shape)


def _orthonormal(X: Inexact[Array, "B n n"], width: int) -> Inexact[Array, "B n n"]:
    batch, n, _ = X.shape
    rows, columns = jnp.arange(n), jnp.arange(width)
    count = -(-n // width)
    X = jnp.pad(X, ((0, 0), (0, 0), (0, count * width - n)))

    # X^H above Q: both are multiplied from the right by the same reflectors.
    def one_panel(k, both):
        start = k * width
        W = adjoint(lax.dynamic_slice_in_dim(both, start, width, axis=1))

        def column(j, state):
            W, V, S = state
            x = lax.dynamic_index_in_dim(W, j, axis=2, keepdims=False)
            house = reflector(jnp.where(rows >= start + j, x, 0), rows == start + j)
            # Beyond the last column there is nothing left, and the reflector is the identity.
            v = jnp.where(rows >= start + j, house.v, 0)
            W = W - v[:, :, None] * (jnp.conj(house.tau)[:, None] * _product(jnp.conj(v), W))[:, None, :]
            overlap = _product(v, jnp.conj(V))
            s = jnp.sum(S * overlap[:, None, :], axis=2)
            s = jnp.where(columns == j, house.tau[:, None], -house.tau[:, None] * s)
            here = columns == j
            return W, jnp.where(here, v[:, :, None], V), jnp.where(here, s[:, :, None], S)

        zeros = jnp.zeros((batch, n, width), X.dtype), jnp.zeros((batch, width, width), X.dtype)
        _, V, S = lax.fori_loop(0, width, column, (W, *zeros))
        return both - looped(looped(both, V), looped(S, adjoint(V)))

    Q = jnp.broadcast_to(jnp.eye(n, dtype=X.dtype), (batch, n, n))
    both = jnp.concatenate([adjoint(X), Q], axis=1)
    return lax.fori_loop(0, count, one_panel, both)[:, -n:]


def _product(x: Inexact[Array, "B m"], M: Inexact[Array, "B m k"]) -> Inexact[Array, "B k"]:
    """x^T M of every matrix, in the full precision of the type."""
    return jnp.einsum("bm,bmk->bk", x, M, precision=lax.Precision.HIGHEST)
