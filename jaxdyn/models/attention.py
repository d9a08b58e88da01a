"""Stage 1 of 7: causal attention over whole prompts without ever forming the T x T pattern.

Carrying a context from block to block needs attention's output only. On a CPU it is computed tile by tile with a
running maximum and sum (the online softmax), skipping the tiles above the diagonal and those beyond each prompt's
length, and those before a sliding window: the tiles stay in cache, which is 10-20 times faster than the full pattern at
T = 512. On an accelerator the library's own fused attention serves, but for soft-capping, which it does not know, and
float64, where its softmax is a float32 one. The Jacobians need the pattern's values, from `layers.attention_pattern`.
Source of the online softmax: Milakov and Gimelshein, arXiv 1805.02867; of the tiling: Dao et al., arXiv 2205.14135.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxdyn.models.architecture import Architecture
from jaxdyn.models.layers import HIGHEST, Weights, capped, visible, window

TILE = 64


def causal_attention(
    arch: Architecture,
    layer: Weights,
    q: Float[Array, "B T H K"],
    k: Float[Array, "B T G K"],
    v: Float[Array, "B T G K"],
    lengths: Int[Array, " B"],
) -> Float[Array, "B T H K"]:
    """Mix the values of each prompt: ``o_t = sum_s softmax_s(cap(scale q_t . k_s)) v_s`` over the s that t sees.

    Parameters
    ----------
    arch, layer
        Scale and cap; the layer's window, by its number.
    q, k, v
        Queries, keys and values of B prompts padded to T; query head h reads key head h // (H // G).
    lengths
        (B,) real tokens of each prompt, 1 <= length <= T.

    Returns
    -------
    Array
        (B, T, H, K); undefined but finite beyond a prompt's length where the inputs are finite.
        Cost: T^2 H K flops a prompt, on a CPU length^2, or length times the window. Memory on a CPU: one TILE x TILE
        tile a head; so too on an accelerator under soft-capping or in float64.
    """
    tiled = partial(_tiled, arch, layer)
    if arch.attention_softcap is not None or q.dtype == jnp.float64:
        return tiled(q, k, v, lengths)
    return lax.platform_dependent(q, k, v, lengths, cpu=tiled, default=partial(_fused, arch, layer))


def _fused(arch, layer, q, k, v, lengths):
    options: dict[str, Any] = {"is_causal": True}
    if any(kind.window is not None for kind in arch.kinds):
        at = jnp.arange(q.shape[1])
        options = {"mask": visible(arch, layer, at[:, None], at[None, :])[None, None]}
    with jax.default_matmul_precision("highest"):
        return jax.nn.dot_product_attention(
            q, k, v, scale=arch.score_scale, key_value_seq_lengths=lengths.astype(jnp.int32), **options
        )


def _tiled(arch, layer, q, k, v, lengths):
    return lax.map(lambda prompt: _tiled_prompt(arch, layer, *prompt), (q, k, v, lengths))


def _tiled_prompt(arch, layer, q, k, v, length):
    """One prompt: heads first, T padded to whole tiles; the outer loop over query tiles, the inner over key tiles."""
    (tokens, heads, size), groups = q.shape, k.shape[1]
    padding = (0, -tokens % TILE)
    q = jnp.pad(q * arch.score_scale, (padding, (0, 0), (0, 0))).reshape(-1, groups, heads // groups, size)
    q = q.transpose(1, 2, 0, 3)  # G J T K, with J query heads a key head
    k, v = (jnp.pad(x, (padding, (0, 0), (0, 0))).swapaxes(0, 1) for x in (k, v))
    k = k.swapaxes(-1, -2)
    offsets = jnp.arange(TILE)

    def key_tile(j, carry, i, queries):
        top, total, mixed = carry
        keys = lax.dynamic_slice_in_dim(k, j * TILE, TILE, axis=-1)
        values = lax.dynamic_slice_in_dim(v, j * TILE, TILE, axis=1)
        scores = jnp.einsum("gjtk,gks->gjts", queries, keys, precision=HIGHEST)
        seen = visible(arch, layer, (i * TILE + offsets)[:, None], (j * TILE + offsets)[None, :])
        scores = jnp.where(seen, capped(scores, arch.attention_softcap), -jnp.inf)
        new_top = jnp.maximum(top, scores.max(axis=-1))
        level = jnp.where(new_top == -jnp.inf, 0, new_top)  # a window may begin after this tile
        weights, shrink = jnp.exp(scores - level[..., None]), jnp.exp(top - level)
        mixed = mixed * shrink[..., None] + jnp.einsum("gjts,gsk->gjtk", weights, values, precision=HIGHEST)
        return new_top, total * shrink + weights.sum(axis=-1), mixed

    def query_tile(i, out):
        queries = lax.dynamic_slice_in_dim(q, i * TILE, TILE, axis=2)
        start = jnp.full(queries.shape[:-1], -jnp.inf, q.dtype)
        carry = (start, jnp.zeros_like(start), jnp.zeros_like(queries))
        first = jnp.maximum(i * TILE + 1 - window(arch, layer), 0) // TILE
        _, total, mixed = lax.fori_loop(first, i + 1, lambda j, c: key_tile(j, c, i, queries), carry)
        return lax.dynamic_update_slice_in_dim(out, mixed / total[..., None], i * TILE, axis=2)

    out = lax.fori_loop(0, (length + TILE - 1) // TILE, query_tile, jnp.zeros_like(q))
    return out.transpose(2, 0, 1, 3).reshape(-1, heads, size)[:tokens]
