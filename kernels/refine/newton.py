"""Newton's step for a Schur form: what is left below the blocks of Q^H A Q is rotated away, to first order.

With F = Q^H A Q and E its part below the diagonal blocks, Q (I + L - L^H) removes E up to squares where L solves the
triangular equation of commutator.py, and one Newton-Schulz step, Q + Q (I - Q^H Q) / 2, makes Q unitary again. F and
I - Q^H Q are computed in the precision of the residual (arithmetic.py), their small corrections in the working one. A
real matrix stays real: L is real in blocks, and is found in the complex basis that makes the 2 x 2 blocks triangular
(triangular.py); the blocks themselves are turned to equal diagonals in each step.

After a step in which E did not fall to half, a matrix keeps the better of the two and is done. Refinement of a Schur
form: Bujanovic, Kressner and Schroeder, Numerical Algorithms 92, 2023; Newton-Schulz: Higham, Functions of Matrices,
section 8.3.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Inexact, Int

from ..product import matmul
from ..scaling import adjoint, frobenius_norm
from ..schur.standard import equalizing_rotation, turn_columns
from ..triangular import blocks, from_complex_basis, to_complex_basis
from .arithmetic import Arithmetic
from .commutator import solve_commutator

ENOUGH = 0.5
"""What is left of this many n^(1/2) eps norm(A) is rounding."""

LARGEST = 0.1
"""Entries of L above this are no small rotation: their equation is left out."""


class State(NamedTuple):
    """One refinement, a batch of matrices in step; Q and F in the precision of the residual."""

    Q: Any
    F: Any
    left: Float[Array, " B"]
    """What keeps F from being a standard Schur form."""
    active: Bool[Array, " B"]
    steps: Int[Array, " B"]


def refine(
    A: Inexact[Array, "B n n"],
    Q: Inexact[Array, "B n n"],
    T: Inexact[Array, "B n n"],
    arithmetic: Arithmetic,
    most: int,
) -> tuple[State, Bool[Array, "B m"]]:
    """Refine Q for finite matrices of order one; also which entries (i + 1, i) belong to a block of T."""
    batch, n = A.shape[:2]
    precise = arithmetic.lift(A)
    small = ENOUGH * max(n, 1) ** 0.5 * arithmetic.eps * frobenius_norm(A)
    paired = jnp.zeros((batch, max(n - 1, 0)), bool)
    if n > 1 and not jnp.iscomplexobj(A):
        paired = jnp.diagonal(T, -1, axis1=-2, axis2=-1) != 0

    def judged(Q):
        F = arithmetic.product(arithmetic.adjoint(Q), arithmetic.product(precise, Q))
        gap, _ = _blocks(F, paired, arithmetic)
        below = frobenius_norm(_below(arithmetic.rounded(F), paired))
        return F, jnp.hypot(below, jnp.sqrt(jnp.sum(gap * gap, axis=-1)))

    def unfinished(both):
        state, count = both
        return jnp.any(state.active) & (count <= most)

    def advance(both):
        state, count = both
        Q = lax.cond(count > 0, lambda: _step(state, paired, arithmetic), lambda: state.Q)
        Q = _unitary(Q, arithmetic)
        F, left = judged(Q)
        better = state.active & ((left < state.left) | (count == 0))
        fresh = State(Q, F, left, better & (left > small) & (left < state.left / 2), state.steps + (count > 0))
        pick = jax.vmap(lambda take, new, old: jax.tree.map(lambda x, y: jnp.where(take, x, y), new, old))
        return pick(better, fresh, state._replace(active=jnp.zeros_like(state.active))), count + 1

    # The first turn of the loop only judges what was given: a second copy of that is dear to compile.
    F, everything = arithmetic.lift(jnp.zeros_like(A)), jnp.full(batch, jnp.inf, small.dtype)
    start = State(arithmetic.lift(Q), F, everything, jnp.ones(batch, bool), jnp.zeros(batch, jnp.int32))
    state, _ = lax.while_loop(unfinished, advance, (start, jnp.int32(0)))
    return state, paired


def block_triangular(F: Any, paired: Bool[Array, "B m"]) -> Any:
    """Upper triangle and the entries of 2 x 2 blocks."""
    return jnp.where(_is_below(paired, F.shape[-1]), 0, F)


def _step(state: State, paired: Bool[Array, "B m"], arithmetic: Arithmetic) -> Any:
    """New Q, unitary to first order: blocks standard and E zero, to first order too."""
    F = arithmetic.rounded(state.F)
    Q, E = state.Q, _below(F, paired)
    T = F - E
    if not jnp.iscomplexobj(F) and F.shape[-1] > 1:
        gap, sigma = _blocks(state.F, paired, arithmetic)
        cosine, sine = equalizing_rotation(gap, sigma)
        turn = turn_columns(jnp.broadcast_to(jnp.eye(F.shape[-1], dtype=F.dtype), F.shape), cosine, sine)
        # A block that is nearly normal may turn by any angle, so the product is not left to the working type.
        Q = arithmetic.product(Q, arithmetic.lift(turn))
        T, E = (matmul(adjoint(turn), matmul(x, turn)) for x in (T, E))
        T, E = T - _below(T, paired), _below(E, paired)
    L = jax.vmap(_rotation)(T, E, paired)
    change = matmul(arithmetic.rounded(Q), L - adjoint(L))
    return arithmetic.plus(Q, change)


def _rotation(T: Inexact[Array, "n n"], E: Inexact[Array, "n n"], paired: Bool[Array, " m"]) -> Inexact[Array, "n n"]:
    """L below the diagonal blocks, of one matrix."""
    wanted = _is_below(paired, T.shape[-1])
    floor = jnp.max(jnp.abs(E), initial=0) / LARGEST
    if jnp.iscomplexobj(T):
        return solve_commutator(T, E, wanted, floor)
    d = blocks(T)
    T, E = jax.lax.map(partial(to_complex_basis, d), jnp.stack([T, E]))
    found = solve_commutator(jnp.triu(T, 1) + jnp.diag(d.values), E, wanted, floor)
    return from_complex_basis(d, found).real


def _blocks(F: Any, paired: Bool[Array, "B m"], arithmetic: Arithmetic) -> tuple[Array, Array]:
    """Gap a - d and sum b + c of the 2 x 2 blocks [[a, b], [c, d]] of a real matrix; 0 and 1 where there is none."""
    i = jnp.arange(paired.shape[-1])
    a, d, b, c = (arithmetic.entries(F, i + x, i + y) for x, y in ((0, 0), (1, 1), (0, 1), (1, 0)))
    minus = arithmetic.minus
    gap, sigma = arithmetic.rounded(minus(a, d)), arithmetic.rounded(minus(b, jax.tree.map(jnp.negative, c)))
    return jnp.where(paired, gap.real, 0), jnp.where(paired, sigma.real, 1)


def _unitary(Q: Any, arithmetic: Arithmetic) -> Any:
    """Two Newton-Schulz steps: a departure of 1e-2 falls to 1e-8 and to rounding."""

    def closer(_, Q):
        low = arithmetic.rounded(Q)
        eye = arithmetic.lift(jnp.broadcast_to(jnp.eye(low.shape[-1], dtype=low.dtype), low.shape))
        departure = arithmetic.rounded(arithmetic.minus(eye, arithmetic.product(arithmetic.adjoint(Q), Q)))
        return arithmetic.plus(Q, matmul(low, departure) / 2)

    return lax.fori_loop(0, 2, closer, Q)


def _below(F: Inexact[Array, "B n n"], paired: Bool[Array, "B m"]) -> Inexact[Array, "B n n"]:
    """Strictly lower part, without the entries of 2 x 2 blocks."""
    return jnp.where(_is_below(paired, F.shape[-1]), F, 0)


def _is_below(paired: Bool[Array, "*B m"], n: int) -> Bool[Array, "*B n n"]:
    """Places below the diagonal blocks; `paired` says where one of two rows begins."""
    at = jnp.arange(n)
    first = jnp.pad(paired, [(0, 0)] * (paired.ndim - 1) + [(0, n - paired.shape[-1])])
    distance = at[:, None] - at
    return (distance > 0) & ~((distance == 1) & first[..., None, :])
