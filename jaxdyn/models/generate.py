"""Stage 1 of 7: text generation, greedy or sampled, with a cache of keys and values.

One program does it all: the prompt, padded to the buffer's length, fills the cache in one pass; a while loop then adds
a token at a time until the limit or a stop id. Positions after the current one hold no valid keys, but the causal rule
(a query sees positions up to its own) never lets them be seen before they are overwritten. The program is compiled once
per buffer length, a power of two; prompt length, limit, temperature, top_k and seed are its arguments.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key

from jaxdyn.errors import InputError
from jaxdyn.models import decoder, layers
from jaxdyn.models import stream as streams
from jaxdyn.models.architecture import Architecture
from jaxdyn.models.decoder import Params

SMALLEST_BUFFER = 32


def generate(
    arch: Architecture,
    params: Params,
    ids: Sequence[int],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    seed: int = 0,
    stop_ids: Sequence[int] = (),
) -> list[int]:
    """Continue token ids.

    Each token is ``argmax(logits)`` at temperature 0, else a draw from ``softmax(logits / temperature)``, restricted to
    the ``top_k`` largest logits if given.

    Parameters
    ----------
    arch, params
        The decoder.
    ids
        The prompt, at least one token.
    max_new_tokens
        At least 1; with the prompt it must fit the context.
    temperature
        0 or above.
    top_k
        1 to V, or None for all; only with a temperature above 0.
    seed
        Seed of the draws.
    stop_ids
        Generation ends after the first of these.

    Returns
    -------
    list of int
        The new tokens, a stop id included. Cost: one pass over the padded prompt, then per token one pass over the
        weights and 2 L G K buffer cache entries.
    """
    room = arch.context - len(ids)
    if not 1 <= max_new_tokens <= room:
        msg = (
            f"max_new_tokens: got {max_new_tokens} after a prompt of {len(ids)} tokens, allowed 1 to {room} in a "
            f"context of {arch.context}; ask for fewer or shorten the prompt"
        )
        raise InputError(msg)
    if not (np.isfinite(temperature) and temperature >= 0):
        msg = f"temperature: got {temperature}, allowed a finite number, 0 (greedy) or above"
        raise InputError(msg)
    if top_k is not None and (temperature == 0 or not 1 <= top_k <= arch.vocab):
        msg = f"top_k: got {top_k} at temperature {temperature}, allowed 1 to {arch.vocab} at a temperature above 0"
        raise InputError(msg)
    needed = len(ids) + max_new_tokens
    length = min(max(SMALLEST_BUFFER, 1 << (needed - 1).bit_length()), arch.context)
    buffer = np.zeros(length, np.int32)
    buffer[: len(ids)] = ids
    stops = np.zeros(arch.vocab, bool)
    stops[[stop for stop in stop_ids if 0 <= stop < arch.vocab]] = True
    k = arch.vocab if top_k is None else top_k
    limits = (len(ids), needed, np.float32(temperature), k)
    filled, end = _continue(arch, params, jnp.asarray(buffer), jnp.asarray(stops), jax.random.key(seed), *limits)
    return np.asarray(filled)[len(ids) : int(end)].tolist()


@partial(jax.jit, static_argnums=0)
def _continue(
    arch: Architecture,
    params: Params,
    buffer: Int[Array, " S"],
    stops: Bool[Array, " V"],
    key: Key[Array, ""],
    prompt_length: Int[Array, ""],
    needed: Int[Array, ""],
    temperature: Float[Array, ""],
    top_k: Int[Array, ""],
) -> tuple[Int[Array, " S"], Int[Array, ""]]:
    """Fill ``buffer[prompt_length:needed]``; return it with the position after the last token written."""
    kv = (arch.layers, buffer.shape[0], arch.kv_heads, arch.head_dim)
    empty = jnp.zeros(kv, decoder.compute_dtype(params))
    positions = jnp.arange(buffer.shape[0])
    final, cache = _forward(arch, params, buffer, positions, (empty, empty))

    def choose(x, end):
        scores = decoder.unembed(arch, params, x)
        return _choose(scores, jax.random.fold_in(key, end), temperature, top_k).astype(buffer.dtype)

    def step(state):
        buffer, end, cache, token = state
        buffer = buffer.at[end].set(token)
        x, cache = _forward(arch, params, token[None], end[None], cache)
        return buffer, end + 1, cache, choose(x[0], end + 1)

    def unfinished(state):
        _, end, _, _ = state
        return (end < needed) & ~((end > prompt_length) & stops[state[0][end - 1]])

    prompt_length = jnp.asarray(prompt_length, jnp.int32)
    state = (buffer, prompt_length, cache, choose(final[prompt_length - 1], prompt_length))
    buffer, end, _, _ = lax.while_loop(unfinished, step, state)
    return buffer, end


def _forward(
    arch: Architecture,
    params: Params,
    ids: Int[Array, " T"],
    positions: Int[Array, " T"],
    cache: tuple[Float[Array, "L S G K"], Float[Array, "L S G K"]],
) -> tuple[Float[Array, "T D"], tuple[Float[Array, "L S G K"], Float[Array, "L S G K"]]]:
    """Run the blocks on new tokens, whose keys and values are written into the cache at their positions."""
    slots = jnp.arange(cache[0].shape[1])
    x = decoder.embed(arch, params, ids, positions)
    inputs = decoder.layer_inputs(arch, params, ids, x)

    def step(carry, scanned):
        x, kept = carry
        index, keys, values = scanned
        layer = decoder.layer_weights(params, index)
        beside = streams.beside(arch, layer, kept)
        layer_input = None if inputs is None else inputs[:, index]
        n = layers.enter(arch, layer, "attention", x)
        q = layers.queries(arch, layer, n, positions)
        k, v = layers.keys_values(arch, layer, n, positions)
        keys, values = keys.at[positions].set(k), values.at[positions].set(v)
        batch = keys[None], values[None]
        (k,), (v,) = streams.own_or_shared(arch, layer, batch, (beside.keys, beside.values))
        pattern = layers.attention_pattern(arch, layer, q, k, positions, slots)
        u = layers.attention_output(arch, layer, pattern, v)
        h = x + layers.leave(arch, layer, "attention", u)
        y = decoder.finish_block(arch, layer, x, h, layer_input=layer_input)
        return (y, streams.step(arch, layer, kept, kept.x, *batch)), (keys, values)

    kept = streams.begin(arch, jnp.zeros((1, *slots.shape, 0), x.dtype), None)
    (x, _), cache = lax.scan(step, (x, kept), (jnp.arange(arch.layers), *cache))
    return x, cache


def _choose(
    scores: Float[Array, " V"], key: Key[Array, ""], temperature: Float[Array, ""], top_k: Int[Array, ""]
) -> Int[Array, ""]:
    """Take the largest score at temperature 0, else draw from the ``top_k`` largest."""

    def draw():
        threshold = jnp.sort(scores)[scores.shape[0] - top_k]
        kept = jnp.where(scores >= threshold, scores, -jnp.inf)
        return jax.random.categorical(key, kept / temperature.astype(scores.dtype))

    return lax.cond(temperature > 0, draw, lambda: jnp.argmax(scores))
