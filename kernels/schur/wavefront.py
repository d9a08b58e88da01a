"""Schur form by Hessenberg QR with many bulges in a wavefront (bulges.py), real and complex, the batch in step.

Bai and Demmel, Int. J. High Speed Computing 1, 1989: many shifts at a time. Braman, Byers and Mathias, SIAM J. Matrix
Anal. Appl. 23, 2002: trains of small bulges in place of one large one. Watkins, The Matrix Eigenvalue Problem, SIAM
2007, section 4.9: what delays do to convergence. A matrix that does not converge here, or whose form is not certified,
goes to the robust method (xla.py) inside the same program, masked, and says so.
"""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Inexact

from ..batching import over_flat_batch
from ..certificate import invariant_residual, orthogonality, schur_residual
from ..hessenberg.xla import hessenberg
from . import xla
from .bulges import Count, Kind, iterate
from .bulges_complex import COMPLEX
from .bulges_real import REAL
from .grid import Carried, grid
from .standard import standardize

ACCEPTED = 5.0
"""Residual and, over four, orthogonality that a result may have, in n eps; they are about .4 and 3 at n = 64."""

Iteration = Callable[[Array, Array | None], tuple[Array, Array | None, Bool[Array, " B"]]]
"""From H [B, n, n] and Q, which may be None, to their forms and whether each matrix is done."""


def schur(A: Inexact[Array, "*batch n n"], *, vectors: bool = True):
    """T, Q and which matrices needed the robust method; finite matrices of order one. Q may be left without rows."""
    return certified(A, vectors, _iterated)


def depth(A: Inexact[Array, "B n n"]) -> Count:
    """Count what the Schur forms of this batch take beyond the Hessenberg reduction."""
    return _in_step(*hessenberg(A, vectors=False))[2]


def certified(A: Inexact[Array, "*batch n n"], vectors: bool, iteration: Iteration):
    """Schur forms by this iteration, and by the robust method where it did not succeed."""
    return over_flat_batch(partial(_flat, vectors=vectors, iteration=iteration), A)


def _flat(A: Inexact[Array, "B n n"], vectors: bool, iteration: Iteration):
    T, Q, good = attempted(A, vectors=vectors, iteration=iteration)

    def robust():
        pick = ~good[:, None, None]
        # The others are zero matrices, which are done at once.
        form, basis = xla.schur(jnp.where(pick, A, 0), vectors=vectors)
        return jnp.where(pick, form, T), jnp.where(pick, basis, Q)

    T, Q = lax.cond(jnp.all(good), lambda: (T, Q), robust)
    return T, Q, ~good


def attempted(A: Inexact[Array, "B n n"], *, vectors: bool = True, iteration: Iteration | None = None):
    """T and Q of matrices of order one by this iteration alone, and which of them are done and certified."""
    batch, n = A.shape[:2]
    if n == 0 or batch == 0:
        return A, A if vectors else A[:, :0], jnp.ones(batch, bool)
    H, Q = hessenberg(A, vectors=vectors)
    turned, done = None, jnp.ones(batch, bool)
    if n >= _kind(A).rows:
        H, turned, done = (iteration or _iterated)(H, Q if vectors else None)
    Q = Q if turned is None else turned
    T, Q = (jnp.triu(H), Q) if jnp.iscomplexobj(A) else standardize(jnp.triu(H, -1), Q)
    if vectors:
        good = (schur_residual(A, Q, T) <= ACCEPTED) & (orthogonality(Q) <= 4 * ACCEPTED)
    else:
        good = invariant_residual(A, T) <= ACCEPTED
    return T, Q, done & good


def _iterated(H: Inexact[Array, "B n n"], Q: Inexact[Array, "B n n"] | None):
    state, active, _ = _in_step(H, Q)
    return *state, active[:, 0, 0] == 0


def _in_step(H: Inexact[Array, "B n n"], Q: Inexact[Array, "B n n"] | None):
    store = Carried()
    state = H, None if Q is None or Q.shape[1] == 0 else Q
    return iterate(state, store, store, grid(H.shape, H.shape[1]), _kind(H), H.dtype)


def _kind(A: Array) -> Kind:
    return COMPLEX if jnp.iscomplexobj(A) else REAL
