"""Stage 1 of 7: the decoder, from token ids through the residual stream to logits.

A block is two sublayers, each with its skip; the sublayers are separate functions because their Jacobians are measured
apart. The stack is one ``lax.scan`` over the layers, so the compiled program does not grow with depth, and weights
stored in a low precision are cast one layer at a time.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxdyn.models import layers
from jaxdyn.models.architecture import Architecture
from jaxdyn.models.attention import causal_attention
from jaxdyn.models.layers import HIGHEST, Derivative

Params = Mapping[str, Any]


def compute_dtype(params: Params) -> jnp.dtype:
    """Return the dtype of the computation: float32, or float64 where the weights are float64."""
    return jnp.promote_types(jnp.float32, params["embed"]["tokens"].dtype)


def layer_weights(params: Params, layer: int | Int[Array, ""]) -> dict[str, Any]:
    """Take one layer's weights out of the stacked blocks, cast to the compute dtype.

    Parameters
    ----------
    params
        The model's parameters, block leaves stacked over layers.
    layer
        0 <= layer < L; may be a traced integer. Out of range is the caller's error (indexing clamps under jit).

    Returns
    -------
    dict
        {"attention_norm", "attention", "mlp_norm", "mlp"}, each a dict of arrays without the layer axis.
    """
    one = jax.tree.map(lambda leaf: lax.dynamic_index_in_dim(leaf, layer, keepdims=False), params["blocks"])
    return _cast(one, compute_dtype(params))


def embed(
    arch: Architecture, params: Params, ids: Int[Array, " T"], positions: Int[Array, " T"]
) -> Float[Array, "T D"]:
    """Embed token ids: ``E[id]``, plus ``P[position]`` where positions are learned; the compute dtype."""
    dtype = compute_dtype(params)
    x = params["embed"]["tokens"][ids].astype(dtype)
    if arch.position == "learned":
        x = x + params["embed"]["positions"][positions].astype(dtype)
    return x


def attention_sublayer(
    arch: Architecture,
    layer: Params,
    x: Float[Array, "T D"],
    positions: Int[Array, " T"],
    *,
    derivative: Derivative = "exact",
) -> Float[Array, "T D"]:
    """Attention with its skip: ``h = x + attention(norm(x))``.

    Parameters
    ----------
    arch
        The description of the decoder.
    layer
        One layer's weights, from ``layer_weights``.
    x
        (T, D) residual stream at the block's input.
    positions
        (T,) integers.
    derivative
        "frozen" holds the norm's scale and the attention pattern fixed under differentiation.

    Returns
    -------
    Array
        (T, D) residual stream between attention and MLP.
    """
    n = layers.norm(arch, layer["attention_norm"], x, derivative=derivative)
    q = layers.queries(arch, layer["attention"], n, positions)
    k, v = layers.keys_values(arch, layer["attention"], n, positions)
    pattern = layers.attention_pattern(arch, q, k, positions, positions)
    if derivative == "frozen":
        pattern = lax.stop_gradient(pattern)
    return x + layers.attention_output(arch, layer["attention"], pattern, v)


def mlp_sublayer(
    arch: Architecture, layer: Params, h: Float[Array, "... D"], *, derivative: Derivative = "exact"
) -> Float[Array, "... D"]:
    """MLP with its skip, ``y = h + mlp(norm(h))``, position by position; "frozen" as in ``norm`` and ``mlp``."""
    n = layers.norm(arch, layer["mlp_norm"], h, derivative=derivative)
    return h + layers.mlp(arch, layer["mlp"], n, derivative=derivative)


def block(
    arch: Architecture,
    layer: Params,
    x: Float[Array, "T D"],
    positions: Int[Array, " T"],
    *,
    derivative: Derivative = "exact",
) -> Float[Array, "T D"]:
    """Apply one block, ``mlp_sublayer(attention_sublayer(x))``."""
    h = attention_sublayer(arch, layer, x, positions, derivative=derivative)
    return mlp_sublayer(arch, layer, h, derivative=derivative)


def embed_prompts(arch: Architecture, params: Params, ids: Int[Array, "B T"]) -> Float[Array, "B T D"]:
    """Embed whole prompts, positions 0 .. T-1."""
    positions = jnp.arange(ids.shape[1])
    return jax.vmap(lambda row: embed(arch, params, row, positions))(ids)


def advance(
    arch: Architecture, layer: Params, x: Float[Array, "B T D"], lengths: Int[Array, " B"]
) -> tuple[Float[Array, "B T D"], Float[Array, "B T D"]]:
    """Carry whole prompts through one block without forming the attention pattern.

    Parameters
    ----------
    arch
        The description of the decoder.
    layer
        One layer's weights, from ``layer_weights``.
    x
        (B, T, D) residual stream at the block's entry, prompts padded on the right.
    lengths
        (B,) real tokens of each prompt; what lies beyond is undefined in the result.

    Returns
    -------
    tuple
        h (B, T, D), the stream before the MLP, and y (B, T, D), after the block: equal to ``attention_sublayer`` and
        ``block`` of each prompt up to rounding, at every real position.
    """
    positions, w = jnp.arange(x.shape[1]), layer["attention"]
    n = layers.norm(arch, layer["attention_norm"], x)
    q = jax.vmap(lambda n: layers.queries(arch, w, n, positions))(n)
    k, v = jax.vmap(lambda n: layers.keys_values(arch, w, n, positions))(n)
    mixed = causal_attention(q, k, v, lengths)
    h = x + layers.linear(w, "o", mixed.reshape(*x.shape[:2], -1))
    return h, mlp_sublayer(arch, layer, h)


@partial(jax.jit, static_argnums=0)
def residual_stream(
    arch: Architecture, params: Params, ids: Int[Array, "B T"]
) -> tuple[Float[Array, "L B T D"], Float[Array, "L B T D"], Float[Array, "B T D"]]:
    """Run the blocks and keep the residual stream.

    Parameters
    ----------
    arch
        The description of the decoder (static).
    params
        The model's parameters.
    ids
        (B, T) token ids, positions 0 .. T-1. Padding on the right changes nothing to its left (causal attention).

    Returns
    -------
    tuple
        inputs (L, B, T, D), the stream at each block's entry; middle (L, B, T, D), between its attention and MLP;
        final (B, T, D), after the last block, before the final norm. Compute dtype. Nothing of size V is formed.
    """
    positions = jnp.arange(ids.shape[1])
    dtype = compute_dtype(params)

    def step(x, stored):
        layer = _cast(stored, dtype)
        h = jax.vmap(lambda x: attention_sublayer(arch, layer, x, positions))(x)
        return mlp_sublayer(arch, layer, h), (x, h)

    x = jax.vmap(lambda ids: embed(arch, params, ids, positions))(ids)
    final, (inputs, middle) = lax.scan(step, x, params["blocks"])
    return inputs, middle, final


def unembed(arch: Architecture, params: Params, x: Float[Array, "... D"]) -> Float[Array, "... V"]:
    """Map the stream after the last block to logits: ``W_U norm(x)``, with W_U the token embedding if tied."""
    dtype = compute_dtype(params)
    n = layers.norm(arch, _cast(params["final_norm"], dtype), x)
    head = params["embed"]["tokens"] if arch.tied_head else params["head"]
    return jnp.matmul(n, head.astype(dtype).T, precision=HIGHEST)


@partial(jax.jit, static_argnums=0)
def logits(arch: Architecture, params: Params, ids: Int[Array, "B T"]) -> Float[Array, "B T V"]:
    """Return next-token logits (B, T, V) of token ids (B, T); the residual stream is not kept."""
    _, _, final = residual_stream(arch, params, ids)
    return unembed(arch, params, final)


def _cast(weights: Any, dtype: jnp.dtype) -> Any:
    return jax.tree.map(lambda leaf: leaf.astype(dtype), weights)
