"""Hessenberg reduction by LAPACK gehrd and orghr through XLA, on the host: one matrix after another in a program."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact

from ..threads import one_at_a_time


def hessenberg(A: Inexact[Array, "*batch n n"]) -> tuple[Inexact[Array, "*batch n n"], Inexact[Array, "*batch n n"]]:
    """H and Q of finite matrices."""
    one = _gehrd
    for _ in range(A.ndim - 2):
        one = jax.vmap(one)
    return one(A)


@one_at_a_time
def _gehrd(A: Inexact[Array, "n n"]) -> tuple[Inexact[Array, "n n"], Inexact[Array, "n n"]]:
    n = A.shape[-1]
    eye = jnp.eye(n, dtype=A.dtype)
    if n < 3:
        return A, eye
    packed, tau = jax.lax.linalg.hessenberg(A)
    inner = jax.lax.linalg.householder_product(packed[1:, :-1], tau)
    return jnp.triu(packed, -1), eye.at[1:, 1:].set(inner)
