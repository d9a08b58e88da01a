"""Singular values by what XLA calls on the platform; on a CPU LAPACK's gesdd, one matrix after another."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from ..threads import one_at_a_time_on_the_host


def singular_values(A: Inexact[Array, "n n"]) -> Float[Array, " n"]:
    """Singular values of one matrix of order one, descending."""
    return _values(A)


_values = one_at_a_time_on_the_host(lambda A: jnp.linalg.svd(A, compute_uv=False))
