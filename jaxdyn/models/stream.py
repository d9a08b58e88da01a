"""Stage 1 of 7: what flows from block to block: the residual stream, and what some blocks read beside it.

Most decoders have the residual stream alone. Two mechanisms of Gemma 4 reach past it: a block may read the keys and
values of an earlier one (shared KV), and an embedding of the token made for it (per-layer embedding). A `Stream`
carries both along with whole prompts; `beside` is what one block reads of them. A Jacobian of the block holds them,
since they are functions of earlier states, not of its input.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from jaxdyn.models import layers
from jaxdyn.models.architecture import Architecture, of_layer

Weights = Mapping[str, Any]


@dataclass(frozen=True)
class Stream:
    """Whole prompts at the entry of a block.

    x : (B, T, D), the residual stream.
    layer_inputs : (B, T, L, P), the per-layer embeddings of all blocks; None without.
    keys, values : (B, N, T, G, K), those of the N donors so far, zeros before; None where no block shares.
    """

    x: Float[Array, "B T D"]
    layer_inputs: Float[Array, "B T L P"] | None = None
    keys: Float[Array, "B N T G K"] | None = None
    values: Float[Array, "B N T G K"] | None = None


@dataclass(frozen=True)
class Beside:
    """What one block reads beside the residual stream of one sequence; None where it reads no such thing.

    layer_input : (T, P), the tokens' embeddings made for this block.
    keys, values : (T, G, K), of the block whose keys and values this one reads, if it has none of its own.
    """

    layer_input: Float[Array, "*B T P"] | None = None
    keys: Float[Array, "*B T G K"] | None = None
    values: Float[Array, "*B T G K"] | None = None


NOTHING = Beside()

for _kind, _names in ((Stream, ["x", "layer_inputs", "keys", "values"]), (Beside, ["layer_input", "keys", "values"])):
    jax.tree_util.register_dataclass(_kind, data_fields=_names, meta_fields=[])


def begin(arch: Architecture, x: Float[Array, "B T D"], layer_inputs: Float[Array, "B T L P"] | None) -> Stream:
    """Return the stream at the entry of the first block."""
    if not arch.donors:
        return Stream(x, layer_inputs)
    empty = jnp.zeros((x.shape[0], len(arch.donors), x.shape[1], arch.kv_heads, arch.head_dim), x.dtype)
    return Stream(x, layer_inputs, empty, empty)


def beside(arch: Architecture, layer: Weights, stream: Stream) -> Beside:
    """Take what a block reads beside x out of the stream, prompts in front."""
    layer_input = keys = values = None
    if stream.layer_inputs is not None:
        layer_input = lax.dynamic_index_in_dim(stream.layer_inputs, layer["index"], axis=2, keepdims=False)
    if stream.keys is not None and stream.values is not None:
        slot = of_layer(_slots(arch), layer)
        keys, values = (
            lax.dynamic_index_in_dim(kept, slot, axis=1, keepdims=False) for kept in (stream.keys, stream.values)
        )
    return Beside(layer_input, keys, values)


def check(arch: Architecture, beside: Beside) -> None:
    """Refuse to run a block without what it reads."""
    for given, wanted, what in (
        (beside.layer_input is not None, bool(arch.per_layer_width), "per-layer embeddings"),
        (beside.keys is not None, bool(arch.donors), "shared keys and values"),
    ):
        if given != wanted:
            msg = (
                f"stream: got {'some' if given else 'no'} {what}, allowed {'some' if wanted else 'none'}, as this "
                f"{arch.family} model's blocks read; start from decoder.begin"
            )
            raise ValueError(msg)


def own_or_shared(
    arch: Architecture,
    layer: Weights,
    own: tuple[Float[Array, "*B T G K"], Float[Array, "*B T G K"]],
    shared: tuple[Float[Array, "*B T G K"] | None, Float[Array, "*B T G K"] | None],
) -> tuple[Float[Array, "*B T G K"], Float[Array, "*B T G K"]]:
    """Return a block's own keys and values, or those of the block whose it reads."""
    if shared[0] is None or shared[1] is None:
        return own
    shares = of_layer(np.asarray([arch.shares(one) for one in range(arch.layers)]), layer)
    return jnp.where(shares, shared[0], own[0]), jnp.where(shares, shared[1], own[1])


def step(
    arch: Architecture,
    layer: Weights,
    stream: Stream,
    y: Float[Array, "B T D"],
    keys: Float[Array, "B T G K"],
    values: Float[Array, "B T G K"],
) -> Stream:
    """Return the stream after a block: y in place of x, and its keys and values kept if later blocks read them."""
    if stream.keys is None or stream.values is None:
        return replace(stream, x=y)
    slot, donates = (of_layer(table, layer) for table in (_slots(arch), _donates(arch)))

    def keep(kept: Array, new: Array) -> Array:
        old = lax.dynamic_index_in_dim(kept, slot, axis=1, keepdims=False)
        return lax.dynamic_update_index_in_dim(kept, jnp.where(donates, new, old), slot, axis=1)

    return replace(stream, x=y, keys=keep(stream.keys, keys), values=keep(stream.values, values))


def lone(
    arch: Architecture,
    x: Float[Array, "S D"],
    layer_inputs: Float[Array, "S L P"] | None,
    donor: tuple[Weights, Float[Array, "S D"], Int[Array, " S"]] | None,
    layer: Weights,
) -> Stream:
    """Make every sample a prompt of one token, at the entry of a block: what the isolated operator reads.

    Parameters
    ----------
    arch
        The description of the decoder.
    x
        (S, D) block inputs.
    layer_inputs
        (S, L, P) per-layer embeddings of the samples' tokens, or None.
    donor
        For a block that reads another's keys and values: that block's weights, the samples' states at its entry and
        their positions. The token's own key and value there are what the lone token sees.
    layer
        The block's weights.
    """
    stream = begin(arch, x[:, None], None if layer_inputs is None else layer_inputs[:, None])
    if donor is None or stream.keys is None or stream.values is None:
        return stream
    weights, states, positions = donor
    n = layers.enter(arch, weights, "attention", states)
    keys, values = layers.keys_values(arch, weights, n, positions)
    slot = of_layer(_slots(arch), layer)

    def put(kept: Array, new: Array) -> Array:
        return lax.dynamic_update_index_in_dim(kept, new[:, None], slot, axis=1)

    return replace(stream, keys=put(stream.keys, keys), values=put(stream.values, values))


def _slots(arch: Architecture) -> np.ndarray:
    """Which of the N kept keys and values a block reads or writes; 0 for a block that does neither."""
    slots = {donor: slot for slot, donor in enumerate(arch.donors)}
    return np.asarray([slots.get(source, 0) for source in arch.kv_sources], np.int32)


def _donates(arch: Architecture) -> np.ndarray:
    return np.isin(np.arange(arch.layers), arch.donors)
