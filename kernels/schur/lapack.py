"""Schur form by LAPACK gees through XLA: the reference, on the host.

Hessenberg reduction, small-bulge multishift QR with aggressive early deflation (Braman, Byers and Mathias, SIAM J.
Matrix Anal. Appl. 23, 2002), 2 x 2 blocks standardised by dlanv2. A batch is taken one matrix after another inside one
program; the caller spreads it over the cores (`threads.spread`).
"""

import jax
from jaxtyping import Array, Inexact

from ..threads import one_at_a_time


def schur(
    A: Inexact[Array, "*batch n n"], *, vectors: bool = True
) -> tuple[Inexact[Array, "*batch n n"], Inexact[Array, "*batch m n"]]:
    """T and Q of finite matrices, NaN where the QR iteration did not converge; without vectors Q has no rows."""
    one = _gees if vectors else _gees_alone
    for _ in range(A.ndim - 2):
        one = jax.vmap(one)
    return one(A)


@one_at_a_time
def _gees(A: Inexact[Array, "n n"]) -> tuple[Inexact[Array, "n n"], Inexact[Array, "n n"]]:
    T, Q = jax.lax.linalg.schur(A)
    return T, Q


@one_at_a_time
def _gees_alone(A: Inexact[Array, "n n"]) -> tuple[Inexact[Array, "n n"], Inexact[Array, "0 n"]]:
    T, *_ = jax.lax.linalg.schur(A, compute_schur_vectors=False)
    return T, A[:0]
