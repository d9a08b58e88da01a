"""Stage 5 of 7: the rest of the model from a block on, with one position's state replaced, for many states at once.

By causality nothing before the position sees it, so the other positions' keys and values are those of the undisturbed
prompt: each replaced state is one row that attends to them and to itself.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxdyn.models import decoder, layers
from jaxdyn.models import stream as streams
from jaxdyn.models.architecture import Architecture
from jaxdyn.models.model import Model
from jaxdyn.models.stream import Stream

ROWS = 64
"""Rows that one step takes at once."""


def rows_at(contexts: Stream, prompt: Int[Array, " V"], position: Int[Array, " V"]) -> Stream:
    """Take single positions out of whole prompts: V prompts of one token, with what they read beside the stream."""

    def take(leaf: Array | None) -> Array | None:
        return None if leaf is None else leaf[prompt, position][:, None]

    def kept(leaf: Array | None) -> Array | None:
        return None if leaf is None else leaf[prompt, :, position][:, :, None]

    x = contexts.x[prompt, position][:, None]
    return Stream(x, take(contexts.layer_inputs), kept(contexts.keys), kept(contexts.values))


@partial(jax.jit, static_argnums=0)
def advance_rows(
    arch: Architecture,
    weights: dict,
    contexts: Stream,
    rows: Stream,
    prompt: Int[Array, " V"],
    position: Int[Array, " V"],
) -> Stream:
    """Carry single rows through one block.

    Parameters
    ----------
    arch : the description of the decoder.
    weights : the block's weights, from `decoder.layer_weights`.
    contexts : the undisturbed prompts at the block's entry, (B, T, D).
    rows : V prompts of one token at the block's entry, `x` (V, 1, D) their states.
    prompt, position : where each row stands; what follows the position is not seen.

    Returns
    -------
    The rows after the block. Cost: one token's work a row; temporaries of `ROWS` copies of a prompt's keys and values.
    """
    positions = jnp.arange(contexts.x.shape[1])
    beside = streams.beside(arch, weights, contexts)
    n = layers.enter(arch, weights, "attention", contexts.x)
    own = jax.vmap(lambda n: layers.keys_values(arch, weights, n, positions))(n)
    keys, values = streams.own_or_shared(arch, weights, own, (beside.keys, beside.values))

    def one(row):
        x, beside, b, t = row
        n = layers.enter(arch, weights, "attention", x)
        q = layers.queries(arch, weights, n, t[None])
        own = layers.keys_values(arch, weights, n, t[None])
        k, v = streams.own_or_shared(arch, weights, own, (beside.keys, beside.values))
        pattern = layers.attention_pattern(arch, weights, q, keys[b].at[t].set(k[0]), t[None], positions)
        u = layers.attention_output(arch, weights, pattern, values[b].at[t].set(v[0]))
        h = x + layers.leave(arch, weights, "attention", u)
        return decoder.finish_block(arch, weights, x, h, layer_input=beside.layer_input), k, v

    each = rows.x, streams.beside(arch, weights, rows), prompt, position
    y, k, v = lax.map(one, each, batch_size=ROWS)
    return streams.step(arch, weights, rows, y, k, v)


def run_on(
    model: Model,
    contexts: Stream,
    rows: Stream,
    prompt: Int[Array, " V"],
    position: Int[Array, " V"],
    lengths: Int[Array, " B"],
    *,
    layer: int,
) -> Float[Array, "V D"]:
    """Run rows and prompts from the entry of block `layer` to the end of the stack; the rows' final states (V, D).

    Parameters
    ----------
    model : the model.
    contexts, rows, prompt, position : as in `advance_rows`, at the entry of block `layer`, which may be the number of
        blocks: then nothing is left to run.
    lengths : (B,) real tokens of each prompt.
    """
    arch = model.architecture
    for index in range(layer, arch.layers):
        weights = decoder.layer_weights(model.params, index)
        rows = advance_rows(arch, weights, contexts, rows, prompt, position)
        if index + 1 < arch.layers:
            contexts = advance_contexts(arch, weights, contexts, lengths)
    return rows.x[:, 0]


@partial(jax.jit, static_argnums=0)
def advance_contexts(arch: Architecture, weights: dict, contexts: Stream, lengths: Int[Array, " B"]) -> Stream:
    """Carry the undisturbed prompts through one block."""
    return decoder.advance(arch, weights, contexts, lengths)[1]
