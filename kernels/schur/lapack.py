"""Schur form by LAPACK gees through XLA: the reference, on the host.

Hessenberg reduction, small-bulge multishift QR with aggressive early deflation (Braman, Byers and Mathias, SIAM J.
Matrix Anal. Appl. 23, 2002), 2 x 2 blocks standardised by dlanv2. A batch is taken one matrix after another inside one
program; the caller spreads it over the cores (`threads.spread`).
"""

import jax
from jaxtyping import Array, Inexact

from ..threads import one_at_a_time


def schur(A: Inexact[Array, "*batch n n"]) -> tuple[Inexact[Array, "*batch n n"], Inexact[Array, "*batch n n"]]:
    """T and Q of finite matrices; NaN in both for a matrix whose QR iteration did not converge."""
    one = _gees
    for _ in range(A.ndim - 2):
        one = jax.vmap(one)
    return one(A)


@one_at_a_time
def _gees(A: Inexact[Array, "n n"]) -> tuple[Inexact[Array, "n n"], Inexact[Array, "n n"]]:
    T, Q = jax.lax.linalg.schur(A)
    return T, Q
