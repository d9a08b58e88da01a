"""Derivative of a Schur form: how T and Q move with A, where the eigenvalues are simple.

With F = Q^H dA Q and Q^H dQ = X skew-Hermitian, differentiating A = Q T Q^H gives

    dT = F - X T + T X,

whose strictly lower part has to vanish: with L the strictly lower part of X that is the triangular equation of
refine/commutator.py with F for E, and X = L - L^H. Two choices are free. A complex form is unique up to phases of the
columns of Q: X has a zero diagonal here. The 2 x 2 blocks of a real form keep equal diagonal entries, which fixes their
angle; a block with b + c = 0 looks the same from every angle, and turns by none. So derivatives of what does not depend
on these choices (eigenvalues, condition numbers, norms of parts of T, invariant subspaces) are those of any Schur form.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact

from ..dispatch import choose
from ..product import matmul
from ..refine.commutator import solve_commutator
from ..scaling import adjoint, frobenius_norm
from ..triangular import blocks, complex_triangular, from_complex_basis, to_complex_basis


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def schur_form(implementation: str, vectors: bool, A: Inexact[Array, "*batch n n"]):
    """T, Q and whether the robust method took over, by the implementation of that name, differentiable.

    Q has no rows where no `vectors` are wanted; `robust` is 0 or 1 in the real type, all 0 for the robust methods.
    """
    T, Q, *robust = choose("schur", "", implementation).load("schur")(A, vectors=vectors)
    real = jnp.finfo(A.dtype).dtype
    return T, Q, robust[0].astype(real) if robust else jnp.zeros(A.shape[:-2], real)


@schur_form.defjvp
def _rule(implementation, vectors, primals, tangents):
    (A,), (dA,) = primals, tangents
    T, Q, robust = schur_form(implementation, True, A)  # the vectors say how T moves
    move = _move
    for _ in range(A.ndim - 2):
        move = jax.vmap(move)
    dT, dQ = move(T, Q, dA)
    if not vectors:
        Q, dQ = Q[..., :0, :], dQ[..., :0, :]
    return (T, Q, robust), (dT, dQ, jnp.zeros_like(robust))


def _move(T: Inexact[Array, "n n"], Q: Inexact[Array, "n n"], dA: Inexact[Array, "n n"]):
    """Change dT and dQ of one matrix; NaN where two eigenvalues agree to n eps norm(T)."""
    n = T.shape[-1]
    if n == 0:
        return T, Q
    d = blocks(T)
    at = jnp.arange(n)
    wanted = (at[:, None] > at) & ~(d.second[:, None] & (at[:, None] == at + 1))
    gaps = jnp.where(wanted, jnp.abs(d.values[:, None] - d.values), jnp.inf)
    simple = jnp.min(gaps) > n * jnp.finfo(T.dtype).eps * frobenius_norm(T)
    F = matmul(adjoint(Q), matmul(dA, Q))
    zero = jnp.zeros((), gaps.dtype)
    if jnp.iscomplexobj(T):
        L = solve_commutator(T, F, wanted, zero)
    else:
        L = from_complex_basis(d, solve_commutator(complex_triangular(T), to_complex_basis(d, F), wanted, zero)).real
    X = L - adjoint(L)
    dT = F + matmul(T, X) - matmul(X, T)
    if not jnp.iscomplexobj(T):
        turn = _turn(d, dT)
        X = X + turn
        dT = _mean_in_pairs(d, dT + matmul(T, turn) - matmul(turn, T))
    dT = jnp.where(wanted, 0, dT)
    # A factor, not a choice between two values: it stays when the rule is transposed.
    known = jnp.where(simple, jnp.ones((), gaps.dtype), jnp.nan)
    return known * dT, known * matmul(Q, X)


def _turn(d, dT: Array) -> Array:
    """Skew matrix that keeps the diagonal entries of each 2 x 2 block equal."""
    sigma = d.b + d.c
    round_ = jnp.abs(sigma) <= 4 * jnp.finfo(dT.dtype).eps * (jnp.abs(d.b) + jnp.abs(d.c))
    gap = jnp.diagonal(dT) - jnp.roll(jnp.diagonal(dT), -1)
    angle = jnp.where(d.first & ~round_, -gap / (2 * jnp.where(round_, 1, sigma)), 0)
    return jnp.diag(angle[:-1], -1) - jnp.diag(angle[:-1], 1)


def _mean_in_pairs(d, dT: Array) -> Array:
    """Replace both diagonal entries of each 2 x 2 block by their mean, from which they differ in round blocks only."""
    diagonal = jnp.diagonal(dT)
    other = jnp.where(d.first, jnp.roll(diagonal, -1), jnp.where(d.second, jnp.roll(diagonal, 1), diagonal))
    return dT + jnp.diag((other - diagonal) / 2)
