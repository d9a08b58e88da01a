"""Singular values by two loops that any compiler builds in seconds: to bidiagonal form, then bisection.

Householder reflectors from the left and the right in turn make A = P B R^H with B real and upper bidiagonal (Golub and
Kahan, SIAM J. Numer. Anal. 2, 1965; Golub and Van Loan, Matrix Computations, 4th edition, section 5.4.8): backward
stable, an error of order n eps norm(A) in each singular value. The symmetric tridiagonal matrix with zeros on its
diagonal and d_1, e_1, d_2, ..., e_{n-1}, d_n beside it has the eigenvalues +- sigma_i (Golub and Van Loan, section
8.6.1). How many of them lie below x is the number of negative pivots of its elimination less x (Sturm), so all n are
found side by side by halving an interval each; the count is monotone in x also in floating point (Demmel, Dhillon and
Ren, ETNA 3, 1995).
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Inexact

from ..reflectors import reflector

HIGHEST = lax.Precision.HIGHEST


def singular_values(A: Inexact[Array, "n n"]) -> Float[Array, " n"]:
    """Singular values of one matrix of order one, descending."""
    n = A.shape[-1]
    if n == 0:
        return jnp.zeros(0, A.real.dtype)
    return bidiagonal_singular_values(*bidiagonal(A))


def bidiagonal(A: Inexact[Array, "n n"]) -> tuple[Float[Array, " n"], Float[Array, " n-1"]]:
    """Diagonal and superdiagonal of a real bidiagonal matrix with the singular values of A, signs as they come.

    Cost: 8 n^3 operations (at full size, masked), 16/3 n^3 of them without effect; n dependent steps.
    """
    n, at = A.shape[-1], jnp.arange(A.shape[-1])

    def step(j, state):
        A, d, e = state
        column = jnp.where(at >= j, lax.dynamic_index_in_dim(A, j, axis=1, keepdims=False), 0)
        left = reflector(column[None], at == j)
        v, tau = left.v[0], jnp.conj(left.tau[0])
        w = jnp.matmul(jnp.conj(v), A, precision=HIGHEST)
        # Row j of the matrix when the left reflector is applied, of which v has the entry 1 there.
        row = jnp.where(at > j, lax.dynamic_index_in_dim(A, j, axis=0, keepdims=False) - tau * w, 0)
        right = reflector(jnp.conj(row)[None], at == j + 1)
        g = right.v[0]
        z = jnp.matmul(A, g, precision=HIGHEST) - tau * v * jnp.sum(w * g)
        A = A - tau * v[:, None] * w - right.tau[0] * z[:, None] * jnp.conj(g)
        return A, d.at[j].set(left.beta[0]), e.at[j].set(right.beta[0])

    zeros = jnp.zeros(n, A.real.dtype)
    _, d, e = lax.fori_loop(0, n, step, (A, zeros, zeros))
    return d, e[:-1]


def bidiagonal_singular_values(d: Float[Array, " n"], e: Float[Array, " n-1"]) -> Float[Array, " n"]:
    """Singular values, descending, of the bidiagonal matrix with d on its diagonal and e beside it.

    Halved until the interval is below eps/4 times the bound it began with, which is at most 2 norm(B).
    """
    n, info = d.shape[0], jnp.finfo(d.dtype)
    beside = jnp.stack([jnp.abs(d), jnp.append(jnp.abs(e), 0)], axis=1).reshape(-1)[:-1]
    squares = jnp.append(jnp.zeros(1, d.dtype), beside**2)
    least = float(info.tiny) * jnp.maximum(1, jnp.max(squares))
    number = jnp.arange(1, n + 1)

    def at_least(x):
        """How many singular values are x or more, for each x."""

        def pivot(k, state):
            q, negative = state
            q = -x - squares[k] / q
            q = jnp.where(jnp.abs(q) < least, -least, q)
            return q, negative + (q < 0)

        return 2 * n - lax.fori_loop(0, 2 * n, pivot, (jnp.ones_like(x), jnp.zeros(n, jnp.int32)))[1]

    def halve(_, interval):
        low, high = interval
        middle = (low + high) / 2
        above = at_least(middle) >= number
        return jnp.where(above, middle, low), jnp.where(above, high, middle)

    bound = jnp.max(jnp.append(beside, 0)[: 2 * n - 1] + jnp.append(0, beside)[: 2 * n - 1]) * (1 + 4 * float(info.eps))
    low, high = lax.fori_loop(0, info.nmant + 3, halve, (jnp.zeros(n, d.dtype), jnp.full(n, bound)))
    return (low + high) / 2
