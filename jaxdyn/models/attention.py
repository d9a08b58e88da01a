"""Stage 1 of 7: causal attention over whole prompts without ever forming the T x T pattern.

Carrying a context from block to block needs attention's output only. On a CPU it is computed tile by tile with a
running maximum and sum (the online softmax), skipping the tiles above the diagonal and those beyond each prompt's
length: the tiles stay in cache, which is 10-20 times faster than the full pattern at T = 512. On an accelerator the
library's own fused attention serves. The Jacobians need the pattern's values, from `layers.attention_pattern`.
Source of the online softmax: Milakov and Gimelshein, arXiv 1805.02867; of the tiling: Dao et al., arXiv 2205.14135.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

HIGHEST = lax.Precision.HIGHEST
TILE = 64


def causal_attention(
    q: Float[Array, "B T H K"], k: Float[Array, "B T G K"], v: Float[Array, "B T G K"], lengths: Int[Array, " B"]
) -> Float[Array, "B T H K"]:
    """Mix the values of each prompt: ``o_t = sum_{s <= t} softmax_s(q_t . k_s / sqrt(K)) v_s``.

    Parameters
    ----------
    q, k, v
        Queries, keys and values of B prompts padded to T; query head h reads key head h // (H // G).
    lengths
        (B,) real tokens of each prompt, 1 <= length <= T.

    Returns
    -------
    Array
        (B, T, H, K); undefined but finite beyond a prompt's length where the inputs are finite.
        Cost: T^2 H K flops a prompt, on a CPU length^2. Memory on a CPU: one TILE x TILE tile a head.
    """
    return lax.platform_dependent(q, k, v, lengths, cpu=_tiled, default=_fused)


def _fused(q, k, v, lengths):
    with jax.default_matmul_precision("highest"):
        return jax.nn.dot_product_attention(q, k, v, is_causal=True, key_value_seq_lengths=lengths.astype(jnp.int32))


def _tiled(q, k, v, lengths):
    return lax.map(lambda prompt: _tiled_prompt(*prompt), (q, k, v, lengths))


def _tiled_prompt(q, k, v, length):
    """One prompt: heads first, T padded to whole tiles; the outer loop over query tiles, the inner over key tiles."""
    (tokens, heads, size), groups = q.shape, k.shape[1]
    padding = (0, -tokens % TILE)
    q = jnp.pad(q * size**-0.5, (padding, (0, 0), (0, 0))).reshape(-1, groups, heads // groups, size)
    q = q.transpose(1, 2, 0, 3)  # G J T K, with J query heads a key head
    k, v = (jnp.pad(x, (padding, (0, 0), (0, 0))).swapaxes(0, 1) for x in (k, v))
    k = k.swapaxes(-1, -2)
    offsets = jnp.arange(TILE)

    def key_tile(j, carry, i, queries):
        top, total, mixed = carry
        keys = lax.dynamic_slice_in_dim(k, j * TILE, TILE, axis=-1)
        values = lax.dynamic_slice_in_dim(v, j * TILE, TILE, axis=1)
        scores = jnp.einsum("gjtk,gks->gjts", queries, keys, precision=HIGHEST)
        visible = j * TILE + offsets <= (i * TILE + offsets)[:, None]
        scores = jnp.where(visible, scores, -jnp.inf)
        new_top = jnp.maximum(top, scores.max(axis=-1))
        weights, shrink = jnp.exp(scores - new_top[..., None]), jnp.exp(top - new_top)
        mixed = mixed * shrink[..., None] + jnp.einsum("gjts,gsk->gjtk", weights, values, precision=HIGHEST)
        return new_top, total * shrink + weights.sum(axis=-1), mixed

    def query_tile(i, out):
        queries = lax.dynamic_slice_in_dim(q, i * TILE, TILE, axis=2)
        start = jnp.full(queries.shape[:-1], -jnp.inf, q.dtype)
        carry = (start, jnp.zeros_like(start), jnp.zeros_like(queries))
        _, total, mixed = lax.fori_loop(0, i + 1, lambda j, c: key_tile(j, c, i, queries), carry)
        return lax.dynamic_update_slice_in_dim(out, mixed / total[..., None], i * TILE, axis=2)

    out = lax.fori_loop(0, (length + TILE - 1) // TILE, query_tile, jnp.zeros_like(q))
    return out.transpose(2, 0, 1, 3).reshape(-1, heads, size)[:tokens]
