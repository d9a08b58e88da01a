"""Stage 1 of 7: the decoder, from token ids through the residual stream to logits.

A block is two halves, each with its skip: attention, and all that follows it. They are separate functions because their
Jacobians are measured apart. The stack is one ``lax.scan`` over the layers, so the compiled program does not grow with
depth, and weights stored in a low precision are cast one layer at a time.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxdyn.models import layers
from jaxdyn.models import stream as streams
from jaxdyn.models.architecture import Architecture
from jaxdyn.models.attention import causal_attention
from jaxdyn.models.layers import HIGHEST, Derivative
from jaxdyn.models.split import WHOLE, Split
from jaxdyn.models.stream import NOTHING, Beside, Stream

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
        {"attention_norm", "attention", "mlp_norm", "mlp", ...}, each a dict of arrays without the layer axis, and
        "index", the layer's number, by which a block finds its window, its rope and what it shares.
    """
    one = jax.tree.map(lambda leaf: lax.dynamic_index_in_dim(leaf, layer, keepdims=False), params["blocks"])
    return _cast(one, compute_dtype(params)) | {"index": jnp.asarray(layer, jnp.int32)}


def embed(
    arch: Architecture, params: Params, ids: Int[Array, " T"], positions: Int[Array, " T"]
) -> Float[Array, "T D"]:
    """Embed token ids: ``s E[id]``, plus ``P[position]`` where positions are learned; the compute dtype."""
    dtype = compute_dtype(params)
    x = params["embed"]["tokens"][ids].astype(dtype)
    if arch.embedding_scale != 1.0:
        x = x * arch.embedding_scale
    if arch.position == "learned":
        x = x + params["embed"]["positions"][positions].astype(dtype)
    return x


def layer_inputs(
    arch: Architecture, params: Params, ids: Int[Array, "... T"], x: Float[Array, "... T D"]
) -> Float[Array, "... T L P"] | None:
    """Return the tokens' embeddings made for each block, or None where the blocks read none.

    ``(sqrt(P) E_l[id] + norm(W_l x / sqrt(D))) / sqrt(2)`` with x the token's scaled embedding. Source: Gemma 4.
    """
    if not arch.per_layer_width:
        return None
    weights, dtype = params["embed"], x.dtype
    shape = (*ids.shape, arch.layers, arch.per_layer_width)
    own = weights["per_layer"][ids].astype(dtype).reshape(shape) * arch.per_layer_width**0.5
    projected = jnp.matmul(x, weights["per_layer_projection"].astype(dtype).T, precision=HIGHEST)
    projected = (projected * arch.width**-0.5).reshape(shape)
    return (layers.norm(arch, _cast(weights["per_layer_norm"], dtype), projected) + own) * 2**-0.5


def begin(arch: Architecture, params: Params, ids: Int[Array, "B T"]) -> Stream:
    """Embed whole prompts, positions 0 .. T-1: the stream at the entry of the first block."""
    positions = jnp.arange(ids.shape[1])
    x = jax.vmap(lambda row: embed(arch, params, row, positions))(ids)
    return streams.begin(arch, x, layer_inputs(arch, params, ids, x))


def attention_sublayer(
    arch: Architecture,
    layer: Params,
    x: Float[Array, "T D"],
    positions: Int[Array, " T"],
    *,
    derivative: Derivative = "exact",
    beside: Beside = NOTHING,
    split: Split = WHOLE,
) -> Float[Array, "T D"]:
    """Attention with its skip: ``h = x + attention(norm(x))``, norms as ``arch.norm_placement`` says.

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
        "frozen" holds the norms' scales and the attention pattern fixed under differentiation.
    beside
        Shared keys and values, where blocks share them.
    split
        Where `layer` and `arch` are one device's piece: how the pieces add up.

    Returns
    -------
    Array
        (T, D) residual stream between attention and MLP.
    """
    streams.check(arch, beside)
    n = layers.enter(arch, layer, "attention", x, derivative=derivative)
    q = layers.queries(arch, layer, n, positions)
    own = layers.keys_values(arch, layer, n, positions, derivative=derivative)
    k, v = streams.own_or_shared(arch, layer, own, (beside.keys, beside.values))
    pattern = layers.attention_pattern(arch, layer, q, k, positions, positions)
    if derivative == "frozen":
        pattern = lax.stop_gradient(pattern)
    u = split.total(layers.attention_output(arch, layer, pattern, v), "attention")
    return x + layers.leave(arch, layer, "attention", u, derivative=derivative)


def mlp_update(
    arch: Architecture,
    layer: Params,
    h: Float[Array, "... D"],
    *,
    derivative: Derivative = "exact",
    split: Split = WHOLE,
) -> Float[Array, "... D"]:
    """Return what the MLP adds to the stream, ``mlp(norm(h))``, norms as ``arch.norm_placement`` says."""
    n = layers.enter(arch, layer, "mlp", h, derivative=derivative)
    u = split.total(layers.mlp(arch, layer["mlp"], n, derivative=derivative), "mlp")
    return layers.leave(arch, layer, "mlp", u, derivative=derivative)


def mlp_sublayer(
    arch: Architecture,
    layer: Params,
    h: Float[Array, "... D"],
    *,
    derivative: Derivative = "exact",
    layer_input: Float[Array, "... P"] | None = None,
    split: Split = WHOLE,
) -> Float[Array, "... D"]:
    """MLP with its skip and what follows it, position by position; "frozen" as in ``norm`` and ``mlp``.

    ``y = c (m + norm(per_layer_update(m)))`` with ``m = h + mlp(norm(h))``; without a per-layer embedding and a layer
    scale c, ``y = m``.
    """
    y = h + mlp_update(arch, layer, h, derivative=derivative, split=split)
    if arch.per_layer_width:
        assert layer_input is not None, "streams.check has seen to it"
        u = layers.per_layer_update(arch, layer["per_layer"], y, layer_input, derivative=derivative)
        y = y + layers.leave(arch, layer, "per_layer", u, derivative=derivative)
    return y * layer["layer_scale"]["scale"] if arch.layer_scale else y


def finish_block(
    arch: Architecture,
    layer: Params,
    x: Float[Array, "... D"],
    h: Float[Array, "... D"],
    *,
    derivative: Derivative = "exact",
    layer_input: Float[Array, "... P"] | None = None,
    split: Split = WHOLE,
) -> Float[Array, "... D"]:
    """Return the block's output from its input x and the stream h after attention.

    ``mlp_sublayer(h)``, or ``h + mlp(norm(x))`` where the residual is parallel.
    """
    if arch.parallel_residual:
        return h + mlp_update(arch, layer, x, derivative=derivative, split=split)
    return mlp_sublayer(arch, layer, h, derivative=derivative, layer_input=layer_input, split=split)


def block(
    arch: Architecture,
    layer: Params,
    x: Float[Array, "T D"],
    positions: Int[Array, " T"],
    *,
    derivative: Derivative = "exact",
    beside: Beside = NOTHING,
) -> Float[Array, "T D"]:
    """Apply one block: ``attention_sublayer``, then ``finish_block``."""
    h = attention_sublayer(arch, layer, x, positions, derivative=derivative, beside=beside)
    return finish_block(arch, layer, x, h, derivative=derivative, layer_input=beside.layer_input)


def advance(
    arch: Architecture, layer: Params, stream: Stream, lengths: Int[Array, " B"], *, split: Split = WHOLE
) -> tuple[Float[Array, "B T D"], Stream]:
    """Carry whole prompts through one block without forming the attention pattern.

    Parameters
    ----------
    arch
        The description of the decoder.
    layer
        One layer's weights, from ``layer_weights``.
    stream
        At the block's entry, prompts padded on the right.
    lengths
        (B,) real tokens of each prompt; what lies beyond is undefined in the result.
    split
        As in `attention_sublayer`.

    Returns
    -------
    tuple
        h (B, T, D), the residual stream before the MLP, and the stream after the block: equal to
        ``attention_sublayer`` and ``block`` of each prompt up to rounding, at every real position.
    """
    x, beside = stream.x, streams.beside(arch, layer, stream)
    streams.check(arch, beside)
    positions = jnp.arange(x.shape[1])
    n = layers.enter(arch, layer, "attention", x)
    q = jax.vmap(lambda n: layers.queries(arch, layer, n, positions))(n)
    own = jax.vmap(lambda n: layers.keys_values(arch, layer, n, positions))(n)
    k, v = streams.own_or_shared(arch, layer, own, (beside.keys, beside.values))
    mixed = causal_attention(arch, layer, q, k, v, lengths)
    u = split.total(layers.linear(layer["attention"], "o", mixed.reshape(*x.shape[:2], -1)), "attention")
    h = x + layers.leave(arch, layer, "attention", u)
    y = finish_block(arch, layer, x, h, layer_input=beside.layer_input, split=split)
    return h, streams.step(arch, layer, stream, y, k, v)


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
        inputs (L, B, T, D), the stream at each block's entry; middle (L, B, T, D), after its attention;
        final (B, T, D), after the last block, before the final norm. Compute dtype. Nothing of size V is formed.
    """
    positions = jnp.arange(ids.shape[1])

    def step(stream, index):
        layer = layer_weights(params, index)
        x, beside = stream.x, streams.beside(arch, layer, stream)
        h = jax.vmap(lambda x, beside: attention_sublayer(arch, layer, x, positions, beside=beside))(x, beside)
        y = finish_block(arch, layer, x, h, layer_input=beside.layer_input)
        if not arch.donors:
            return streams.Stream(y, stream.layer_inputs), (x, h)
        n = layers.enter(arch, layer, "attention", x)
        kept = jax.vmap(lambda n: layers.keys_values(arch, layer, n, positions))(n)
        return streams.step(arch, layer, stream, y, *kept), (x, h)

    final, (inputs, middle) = lax.scan(step, begin(arch, params, ids), jnp.arange(arch.layers))
    return inputs, middle, final.x


def unembed(arch: Architecture, params: Params, x: Float[Array, "... D"]) -> Float[Array, "... V"]:
    """Map the stream after the last block to logits: ``cap(W_U norm(x))``, with W_U the token embedding if tied."""
    dtype = compute_dtype(params)
    n = layers.norm(arch, _cast(params["final_norm"], dtype), x)
    head = params["embed"]["tokens"] if arch.tied_head else params["head"]
    return layers.capped(jnp.matmul(n, head.astype(dtype).T, precision=HIGHEST), arch.logit_softcap)


@partial(jax.jit, static_argnums=0)
def logits(arch: Architecture, params: Params, ids: Int[Array, "B T"]) -> Float[Array, "B T V"]:
    """Return next-token logits (B, T, V) of token ids (B, T); the residual stream is not kept."""
    _, _, final = residual_stream(arch, params, ids)
    return unembed(arch, params, final)


def _cast(weights: Any, dtype: jnp.dtype) -> Any:
    return jax.tree.map(lambda leaf: leaf.astype(dtype), weights)
