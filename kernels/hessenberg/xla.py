"""Hessenberg reduction by blocked Householder reflectors in plain XLA: runs on every platform.

A panel of columns is reduced with one product A v a column; the rest of the matrix is updated once a panel, by products
of matrices: with P = I - V S V^H the product of the panel's reflectors and Y = A V S, P^H A P = P^H (A - Y V^H). The
method is LAPACK's gehrd (Quintana-Orti and van de Geijn, ACM TOMS 32, 2006). All matrices of a batch go in step: no
index depends on the data.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Inexact

from ..batching import over_flat_batch
from ..product import matmul
from ..reflectors import reflector
from ..scaling import adjoint

PANEL = 32
"""Columns a panel: below, the products are too thin; above, the skinny corrections of a column weigh more."""


def hessenberg(
    A: Inexact[Array, "*batch n n"], *, vectors: bool = True
) -> tuple[Inexact[Array, "*batch n n"], Inexact[Array, "*batch m n"]]:
    """H and Q of A = Q H Q^H, for finite matrices of order one; without vectors Q has no rows."""
    return over_flat_batch(partial(_flat, vectors=vectors), A)


def _flat(A: Inexact[Array, "B n n"], vectors: bool) -> tuple[Inexact[Array, "B n n"], Inexact[Array, "B m n"]]:
    n = A.shape[-1]
    eye = jnp.eye(n, dtype=A.dtype)[: n if vectors else 0]
    Q = jnp.broadcast_to(eye, (len(A), *eye.shape))
    if n < 3:
        return A, Q
    width = min(PANEL, n - 2)
    # The panels are full: columns beyond n - 3 get the identity for a reflector.
    A, Q = lax.fori_loop(0, -(-(n - 2) // width), lambda panel, both: _panel(panel * width, width, *both), (A, Q))
    return jnp.triu(A, -1), Q


def _panel(start: Array, width: int, A: Inexact[Array, "B n n"], Q: Inexact[Array, "B m n"]):
    """Reduce `width` columns from `start` on."""
    batch, n, _ = A.shape
    rows, columns = jnp.arange(n), jnp.arange(width)
    V = Y = jnp.zeros((batch, n, width), A.dtype)
    S = jnp.zeros((batch, width, width), A.dtype)

    def column(j, state):
        V, S, Y = state
        k = jnp.minimum(start + j, n - 1)
        row = lax.dynamic_index_in_dim(V, k, axis=1, keepdims=False)
        a = lax.dynamic_index_in_dim(A, k, axis=2, keepdims=False) - _apply(Y, jnp.conj(row))
        a = a - _apply(V, _apply_adjoint(S, _apply_adjoint(V, a)))
        house = reflector(jnp.where(rows > k, a, 0), rows == k + 1)
        inside = start + j < n - 2
        v = jnp.where((rows > k) & inside, house.v, 0)
        tau = jnp.where(inside, house.tau, 0)
        overlap = _apply_adjoint(V, v)
        s = jnp.where(columns == j, tau[:, None], -tau[:, None] * _apply(S, overlap))
        y = tau[:, None] * (_apply(A, v) - _apply(Y, overlap))
        at = jnp.zeros((), j.dtype)
        V = lax.dynamic_update_slice(V, v[..., None], (at, at, j))
        S = lax.dynamic_update_slice(S, s[..., None], (at, at, j))
        Y = lax.dynamic_update_slice(Y, y[..., None], (at, at, j))
        return V, S, Y

    V, S, Y = lax.fori_loop(0, width, column, (V, S, Y))
    A = A - matmul(Y, adjoint(V))
    A = A - matmul(V, matmul(adjoint(S), matmul(adjoint(V), A)))
    Q = Q - matmul(matmul(matmul(Q, V), S), adjoint(V))
    return A, Q


def _apply(M: Inexact[Array, "B m k"], x: Inexact[Array, "B k"]) -> Inexact[Array, "B m"]:
    return jnp.einsum("bmk,bk->bm", M, x, precision=jax.lax.Precision.HIGHEST)


def _apply_adjoint(M: Inexact[Array, "B m k"], x: Inexact[Array, "B m"]) -> Inexact[Array, "B k"]:
    return jnp.einsum("bmk,bm->bk", jnp.conj(M), x, precision=jax.lax.Precision.HIGHEST)
