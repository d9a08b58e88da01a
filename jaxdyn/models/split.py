"""A layer whose heads and hidden units lie on several devices: how the pieces are put together.

Attention's output and Jacobian are sums over heads, the MLP's are sums over hidden units. So the functions of one
layer, given the weights of a device's own heads and hidden units and an architecture with so many, return this device's
term of the sum, and a `Split` says where the sum over the devices is taken. `WHOLE` is one device that has them all.
"""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxdyn.errors import InputError
from jaxdyn.models.architecture import Architecture


@dataclass(frozen=True)
class Split:
    """The mesh axis over which heads, hidden units and the columns of a Jacobian are split; None is one device.

    Its methods are called inside `jax.shard_map`. Each sum over devices runs in a scope of its name, which the compiled
    program shows.
    """

    axis: str | None = None

    def total(self, term: Array, name: str) -> Array:
        """Sum the devices' terms; every device gets the sum. Scope ``sum_NAME``."""
        if self.axis is None:
            return term
        with jax.named_scope(f"sum_{name}"):
            return lax.psum(term, self.axis)

    def columns(self, term: Float[Array, "m D"], name: str) -> Float[Array, "m C"]:
        """Sum the devices' terms of a matrix; every device gets its own columns of the sum. Scope ``columns_NAME``."""
        if self.axis is None:
            return term
        with jax.named_scope(f"columns_{name}"):
            return lax.psum_scatter(term, self.axis, scatter_dimension=1, tiled=True)

    def own(self, matrix: Float[Array, "m D"]) -> Float[Array, "m C"]:
        """Take a device's own columns of a matrix that every device has."""
        if self.axis is None:
            return matrix
        count = matrix.shape[1] // lax.axis_size(self.axis)
        return lax.dynamic_slice_in_dim(matrix, lax.axis_index(self.axis) * count, count, axis=1)


WHOLE = Split()


def piece_of(arch: Architecture, pieces: int) -> Architecture:
    """Describe what one of several devices has of a layer: an equal part of its heads and hidden units.

    Raises
    ------
    InputError : sizes that do not divide, or a norm over all heads of a layer, which no device sees.
    """
    if pieces == 1:
        return arch
    sizes = {"heads": arch.heads, "kv_heads": arch.kv_heads, "ff_dim": arch.ff_dim, "width": arch.width}
    for name, size in sizes.items():
        if size % pieces:
            msg = (
                f"mesh: got {pieces} devices on the model's axis; allowed a divisor of every one of "
                f"{', '.join(f'{one} {count}' for one, count in sizes.items())}: {name} does not divide"
            )
            raise InputError(msg)
    if arch.qk_norm == "projection":
        msg = (
            f"mesh: got a {arch.family} model on {pieces} devices of the model's axis; allowed 1, because its queries "
            "and keys are normalised over all heads at once; use the layout 'fsdp'"
        )
        raise InputError(msg)
    return replace(arch, heads=arch.heads // pieces, kv_heads=arch.kv_heads // pieces, ff_dim=arch.ff_dim // pieces)


def once(bias: Array, split: Split) -> Array:
    """Keep a bias that is added to a sum over devices on the first of them, zeros on the others."""
    return bias if split.axis is None else jnp.where(lax.axis_index(split.axis) == 0, bias, 0)
