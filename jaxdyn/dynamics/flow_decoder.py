"""Stage 5 of 7: the last token of a prompt as a system of its own, its context read once (D10).

By causality no other position sees the last token, so their keys and values are computed once a prompt, whatever is
put in its place; from the chosen layer on only its own row runs: one query against cached keys and values, and its own.
What else a block reads is carried along: the row's own keys and values where later blocks share them, its per-layer
embedding. Attention to the other positions can be held: the pattern at its natural value, so that the context adds
W_O sum_{s<t} p_s v_s as it did for the natural state, or nothing.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxdyn.models import decoder, layers
from jaxdyn.models import stream as streams
from jaxdyn.models.architecture import Architecture
from jaxdyn.models.layers import HIGHEST, Weights
from jaxdyn.models.stream import Stream


@dataclass(frozen=True)
class Context:
    """What the last tokens of C prompts see, and their own ("natural") states, layer by layer.

    position : (C,), that of the last token.
    states : (L + 1, C, D), the last token's stream at every site.
    keys, values : (L, C, T, G, K), as each layer reads them, of all positions; only those before the last are read.
    mixed : (L, C, H, K), sum_{s<t} p_s v_s of each head in the natural state. weight : (L, C, H), p_t.
    layer_inputs : (C, 1, L, P), the last token's per-layer embeddings, or None.
    shared_keys, shared_values : (C, N, 1, G, K), the last token's own at the N layers whose keys later ones read.
    """

    position: Int[Array, " C"]
    states: Float[Array, "sites C D"]
    keys: Float[Array, "L C T G K"]
    values: Float[Array, "L C T G K"]
    mixed: Float[Array, "L C H K"]
    weight: Float[Array, "L C H"]
    layer_inputs: Float[Array, "C 1 L P"] | None
    shared_keys: Float[Array, "C N 1 G K"] | None
    shared_values: Float[Array, "C N 1 G K"] | None


@dataclass(frozen=True)
class Rows:
    """P last tokens in each of C contexts: x (C, P, D), and their own shared keys and values, (C, N, P, G, K)."""

    x: Float[Array, "C P D"]
    keys: Float[Array, "C N P G K"] | None = None
    values: Float[Array, "C N P G K"] | None = None


for _kind in (Context, Rows):
    jax.tree_util.register_dataclass(_kind, data_fields=list(_kind.__dataclass_fields__), meta_fields=[])


class Data(NamedTuple):
    """What `DecoderSystem` reads.

    params, context : of the model and its prompts.
    held : whether the attention pattern stays at its natural value.
    gain : what the context's held contribution is multiplied by: 1, or 0 to take it away.
    """

    params: decoder.Params
    context: Context
    held: Bool[Array, ""]
    gain: Float[Array, ""]


ATTENTION = ("free", "frozen", "ablated")
"""What the other positions do: attended to as always; pattern held at its natural value; held, and the others cut."""


def data_of(params: decoder.Params, context: Context, attention: str = "free") -> Data:
    """Put together what the system reads; `attention` one of `ATTENTION`."""
    held, gain = {"free": (False, 1.0), "frozen": (True, 1.0), "ablated": (True, 0.0)}[attention]
    return Data(params, context, jnp.asarray(held), jnp.asarray(gain, context.states.dtype))


@dataclass(frozen=True)
class DecoderSystem:
    """The last token of each prompt, from block to block; see `flow.System`."""

    arch: Architecture

    @property
    def depth(self) -> int:
        """The number of blocks."""
        return self.arch.layers

    def begin(self, data: Data, first: Int[Array, ""], x: Float[Array, "C P D"]) -> Rows:
        """Put x in place of the last tokens' stream at the entry of a block; what earlier ones left stays natural."""
        shared = (data.context.shared_keys, data.context.shared_values)
        return Rows(x, *(None if kept is None else jnp.repeat(kept, x.shape[1], axis=2) for kept in shared))

    def step(self, data: Data, layer: Int[Array, ""], state: Rows) -> Rows:
        """Carry the rows through one block: `decoder.block` at the last position, for every point."""
        arch, context = self.arch, data.context
        weights = decoder.layer_weights(data.params, layer)
        stream = Stream(state.x, context.layer_inputs, state.keys, state.values)
        beside = streams.beside(arch, weights, stream)
        positions = jnp.broadcast_to(context.position[:, None], state.x.shape[:2])
        keys, values, mixed, weight = (
            lax.dynamic_index_in_dim(leaf, layer, keepdims=False)
            for leaf in (context.keys, context.values, context.mixed, context.weight)
        )
        n = layers.enter(arch, weights, "attention", state.x)
        q = jax.vmap(partial(layers.queries, arch, weights))(n, positions)
        own = jax.vmap(partial(layers.keys_values, arch, weights))(n, positions)
        k, v = streams.own_or_shared(arch, weights, own, (beside.keys, beside.values))
        moved, self_weight = jax.vmap(partial(attend, arch, weights))(q, k, v, keys, values, context.position)
        moved = jnp.where(data.held, data.gain * mixed[:, None], moved)
        self_weight = jnp.where(data.held, weight[:, None], self_weight)
        total = moved + self_weight[..., None] * jnp.repeat(v, arch.heads // arch.kv_heads, axis=2)
        u = layers.linear(weights["attention"], "o", total.reshape(*state.x.shape[:2], -1))
        h = state.x + layers.leave(arch, weights, "attention", u)
        y = decoder.finish_block(arch, weights, state.x, h, layer_input=beside.layer_input)
        after = streams.step(arch, weights, stream, y, k, v)
        return Rows(after.x, after.keys, after.values)

    def read(self, state: Rows) -> Float[Array, "C P D"]:
        """Return the residual stream."""
        return state.x


def attend(
    arch: Architecture,
    weights: Weights,
    q: Float[Array, "P H K"],
    k: Float[Array, "P G K"],
    v: Float[Array, "P G K"],
    keys: Float[Array, "T G K"],
    values: Float[Array, "T G K"],
    position: Int[Array, ""],
) -> tuple[Float[Array, "P H K"], Float[Array, "P H"]]:
    """Let P variants of the token at one position attend to what stands before it and to themselves.

    Parameters
    ----------
    q, k, v : each variant's own. keys, values : of all positions; those before `position` are read.

    Returns
    -------
    sum_{s<t} p_s v_s and p_t of every head, where p is the softmax over s <= t within the layer's window. Their sum
    with p_t v_t is what `layers.attention_output` would map. Cost: P T H K multiplications twice.
    """
    count, groups, size = k.shape
    at = jnp.arange(keys.shape[0])
    seen = (at < position) & layers.visible(arch, weights, position[None, None], at[None, :])[0]
    scores = layers.capped(layers.attention_scores(arch, q, keys), arch.attention_softcap)
    grouped = q.reshape(count, groups, -1, size)
    own = jnp.einsum("pgjk,pgk->gjp", grouped, k, precision=HIGHEST) * arch.score_scale
    own = layers.capped(own, arch.attention_softcap)
    pattern = jax.nn.softmax(jnp.concatenate([jnp.where(seen, scores, -jnp.inf), own[..., None]], axis=-1), axis=-1)
    mixed = jnp.einsum("gjps,sgk->pgjk", pattern[..., :-1], values, precision=HIGHEST)
    return mixed.reshape(count, -1, size), pattern[..., -1].reshape(-1, count).T


@partial(jax.jit, static_argnums=0)
def read_context(
    arch: Architecture, params: decoder.Params, ids: Int[Array, "C T"], lengths: Int[Array, " C"]
) -> Context:
    """Run whole prompts once and keep what their last tokens see.

    Parameters
    ----------
    arch : static. params : the model's.
    ids, lengths : (C, T) token ids padded on the right, and (C,) real tokens of each prompt.

    Returns
    -------
    Context, in the compute dtype. Cost: one forward pass; 2 L C T G K numbers kept.
    """
    last = lengths - 1
    take = jax.vmap(lambda rows, t: lax.dynamic_slice_in_dim(rows, t, 1))

    def layer(stream, index):
        weights = decoder.layer_weights(params, index)
        positions = jnp.arange(ids.shape[1])
        beside = streams.beside(arch, weights, stream)
        n = layers.enter(arch, weights, "attention", stream.x)
        own = jax.vmap(lambda n: layers.keys_values(arch, weights, n, positions))(n)
        keys, values = streams.own_or_shared(arch, weights, own, (beside.keys, beside.values))
        q = jax.vmap(partial(layers.queries, arch, weights))(take(n, last), last[:, None])
        mixed, weight = jax.vmap(partial(attend, arch, weights))(
            q, take(keys, last), take(values, last), keys, values, last
        )
        after = decoder.advance(arch, weights, stream, lengths)[1]
        return after, (take(stream.x, last)[:, 0], keys, values, mixed[:, 0], weight[:, 0])

    final, (states, keys, values, mixed, weight) = lax.scan(
        layer, decoder.begin(arch, params, ids), jnp.arange(arch.layers)
    )
    states = jnp.concatenate([states, take(final.x, last)[None, :, 0]])
    inputs = None if final.layer_inputs is None else take(final.layer_inputs, last)
    shared = (
        None if kept is None else jax.vmap(lambda rows, t: lax.dynamic_slice_in_dim(rows, t, 1, axis=1))(kept, last)
        for kept in (final.keys, final.values)
    )
    return Context(last, states, keys, values, mixed, weight, inputs, *shared)
