"""The reference route: forward-mode differentiation of the decoder itself, a chunk of columns at a time.

It differentiates the functions the model runs (`models.layers`), so a new architecture has a correct Jacobian before
it has a closed form, and the closed form has something to be measured against.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxdyn.models import decoder, layers
from jaxdyn.models import stream as streams
from jaxdyn.models.architecture import Architecture
from jaxdyn.models.split import WHOLE, Split

from .closed_form import BlockJacobian, Context
from .request import Request


def block_jacobian(
    arch: Architecture,
    weights: dict,
    context: Context,
    position: Int[Array, ""],
    request: Request,
    *,
    source: Int[Array, ""] | None = None,
    chunk: int = 64,
    split: Split = WHOLE,
) -> BlockJacobian:
    """Differentiate one block at one position, as `closed_form.block_jacobian` and with the same result.

    Parameters
    ----------
    chunk : columns pushed forward at once: more is faster and takes chunk x (T K + F) floats more memory.
    split : as in `closed_form.block_jacobian`. Every device pushes all columns through its piece of the layer, and
        keeps its own.

    Notes
    -----
    Cost: D forward passes of the block for one token, each for the attention, the MLP and the block.
    """
    x = context.x[position]
    attention = _attention_map(arch, weights, context, position, request, source, split)
    at = x if source is None else context.x[source]
    layer_input = context.layer_input_at(position)
    options: dict = {"derivative": request.derivative, "layer_input": layer_input, "split": split}

    def mlp(h: Array) -> Array:
        return decoder.mlp_sublayer(arch, weights, h, **options)

    def block(z: Array) -> Array:
        return decoder.finish_block(arch, weights, z if source is None else x, attention(z), **options)

    h = attention(at)
    jacobian_attention = split.own(columns(attention, at, chunk))
    jacobian_block = split.own(columns(block, at, chunk))
    jacobian_mlp = None
    if request.operator != "cross":
        jacobian_mlp = split.own(columns(mlp, x if arch.parallel_residual else h, chunk))
    return BlockJacobian(jacobian_attention, jacobian_mlp, jacobian_block, x, h, block(at))


def columns(f: Callable[[Array], Array], x: Float[Array, " D"], chunk: int) -> Float[Array, "m D"]:
    """Jacobian of f at x by forward mode, `chunk` columns at once."""
    basis = jnp.eye(x.size, dtype=x.dtype)
    return lax.map(lambda e: jax.jvp(f, (x,), (e,))[1], basis, batch_size=min(chunk, x.size)).T


def _attention_map(arch, weights, context, position, request, source, split):
    """Return the attention sublayer at `position` as a function of one block input, the others held."""
    x, options = context.x[position], {"derivative": request.derivative}
    if request.operator == "isolated":
        alone, beside = jnp.zeros(1, int), context.alone(arch, position)
        return lambda z: decoder.attention_sublayer(
            arch, weights, z[None], alone, beside=beside, split=split, **options
        )[0]

    at = position if source is None else source
    key_positions = jnp.arange(context.x.shape[0])
    hold_pattern = request.operator == "ov" or request.derivative == "frozen"

    def attention(z: Array) -> Array:
        target = z if source is None else x
        n_source = layers.enter(arch, weights, "attention", z, **options)
        n_target = layers.enter(arch, weights, "attention", target, **options)
        own = layers.keys_values(arch, weights, n_source[None], at[None], **options)
        held = (context.keys[at][None], context.values[at][None]) if arch.donors else (None, None)
        key, value = streams.own_or_shared(arch, weights, own, held)
        keys, values = context.keys.at[at].set(key[0]), context.values.at[at].set(value[0])
        q = layers.queries(arch, weights, n_target[None], position[None])
        pattern = layers.attention_pattern(arch, weights, q, keys, position[None], key_positions)
        if hold_pattern:
            pattern = lax.stop_gradient(pattern)
        u = split.total(layers.attention_output(arch, weights, pattern, values)[0], "attention")
        return target + layers.leave(arch, weights, "attention", u, **options)

    return attention
