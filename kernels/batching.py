"""Routines that take a whole batch in step: one leading axis, also under vmap.

jax.vmap of a loop with data-dependent length keeps a copy of the state for the matrices that are done, at every step.
The routines here mask by themselves, so vmap only has to add its axis to theirs.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact


def over_flat_batch(function: Callable[..., Any], *arrays: Inexact[Array, "*batch n n"]) -> Any:
    """Apply a function of [B, n, n] arrays to [..., n, n], results with the same leading axes; vmap joins the batch."""

    @jax.custom_batching.custom_vmap
    def batched(*arrays):
        flat = function(*(A.reshape(math.prod(A.shape[:-2]), *A.shape[-2:]) for A in arrays))
        return jax.tree.map(lambda leaf: leaf.reshape(*arrays[0].shape[:-2], *leaf.shape[1:]), flat)

    @batched.def_vmap
    def _rule(size, mapped, *arrays):
        joined = (A if own else jnp.broadcast_to(A, (size, *A.shape)) for A, own in zip(arrays, mapped, strict=True))
        found = over_flat_batch(function, *joined)
        return found, jax.tree.map(lambda _: True, found)

    return batched(*arrays)
