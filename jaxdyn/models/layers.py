"""Stage 1 of 7: the parts of a block, as pure functions of one sequence and one layer's weights.

Everything here takes unbatched arrays ``(T, D)``; batches go through ``jax.vmap``. Matrices are ``(out, in)``, so the
Jacobian of a linear map is the matrix itself. The switch ``derivative="frozen"`` holds the data-dependent factors (the
norm's scale, the MLP's gate) out of differentiation: the value stays the same to the last bit, and the map becomes
linear (affine where there are biases) with the factor at its observed value.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxdyn.models.architecture import Architecture, of_layer
from jaxdyn.models.rotary import rotate as rotate
from jaxdyn.models.rotary import unrotate as unrotate

Derivative = Literal["exact", "frozen"]
Weights = Mapping[str, Any]

HIGHEST = lax.Precision.HIGHEST


def linear(weights: Weights, name: str, x: Float[Array, "... i"]) -> Float[Array, "... o"]:
    """Apply ``y = W x + b`` with ``W = weights[name]`` (o, i) and ``b = weights[name + "_bias"]`` if it is there."""
    y = jnp.matmul(x, weights[name].T, precision=HIGHEST)
    bias = weights.get(f"{name}_bias")
    return y if bias is None else y + bias


def norm(
    arch: Architecture, weights: Weights, x: Float[Array, "... D"], *, derivative: Derivative = "exact"
) -> Float[Array, "... D"]:
    """Normalise the last axis.

    RMSNorm: ``gamma x / rho``, ``rho = sqrt(mean(x^2) + eps)``. LayerNorm: ``gamma (x - mu) / sigma + beta``,
    ``sigma = sqrt(mean((x - mu)^2) + eps)``; gamma is ``norm_offset + scale``.

    Parameters
    ----------
    arch
        Gives the kind, offset and eps.
    weights
        "scale" (D,), and "bias" (D,) for LayerNorm.
    x
        (..., D), residual units.
    derivative
        "frozen" holds 1/rho (1/sigma) fixed under differentiation; the mean is still differentiated, being linear.

    Returns
    -------
    Array
        (..., D). NaN where x has NaN or inf.
    """
    if arch.norm == "layer":
        x = x - jnp.mean(x, axis=-1, keepdims=True)
    scale = lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + arch.norm_eps)
    if derivative == "frozen":
        scale = lax.stop_gradient(scale)
    y = x * scale * (weights["scale"] + arch.norm_offset if arch.norm_offset else weights["scale"])
    return y + weights["bias"] if arch.norm == "layer" else y


def enter(
    arch: Architecture, layer: Weights, name: str, x: Float[Array, "... D"], *, derivative: Derivative = "exact"
) -> Float[Array, "... D"]:
    """Return what a sublayer reads of the stream: its norm, or the stream itself where norms stand behind ("post")."""
    if arch.norm_placement == "post":
        return x
    return norm(arch, layer[f"{name}_norm"], x, derivative=derivative)


def leave(
    arch: Architecture, layer: Weights, name: str, u: Float[Array, "... D"], *, derivative: Derivative = "exact"
) -> Float[Array, "... D"]:
    """Return what a sublayer adds to the stream: its output, or the norm of it where norms stand behind."""
    if arch.norm_placement == "pre":
        return u
    return norm(arch, layer[f"{name}_post_norm"], u, derivative=derivative)


def queries(
    arch: Architecture, layer: Weights, n: Float[Array, "T D"], positions: Int[Array, " T"]
) -> Float[Array, "T H K"]:
    """Return queries ``R_p N(W_Q n)`` of normalised states n (T, D): N where the model has a QK norm, R under RoPE."""
    q = linear(layer["attention"], "q", n).reshape(n.shape[0], arch.heads, arch.head_dim)
    if arch.qk_norm is not None:
        q = head_norm(arch, layer, "q_norm", q)
    return rotate(arch, layer, q, positions) if arch.position == "rope" else q


def keys_values(
    arch: Architecture,
    layer: Weights,
    n: Float[Array, "T D"],
    positions: Int[Array, " T"],
    *,
    derivative: Derivative = "exact",
) -> tuple[Float[Array, "T G K"], Float[Array, "T G K"]]:
    """Return keys ``R_p N(W_K n)`` and values ``W_V n`` (normalised under ``v_norm``) of normalised states n (T, D).

    "frozen" holds the scale of the values' norm; the keys act through the pattern only, which is held whole.
    """
    shape = (n.shape[0], arch.kv_heads, arch.head_dim)
    k = linear(layer["attention"], "k", n).reshape(shape)
    v = linear(layer["attention"], "v", n).reshape(shape)
    if arch.qk_norm is not None:
        k = head_norm(arch, layer, "k_norm", k)
    if arch.v_norm:
        v = head_norm(arch, layer, None, v, derivative=derivative)
    return (rotate(arch, layer, k, positions) if arch.position == "rope" else k), v


def head_norm(
    arch: Architecture,
    layer: Weights,
    name: str | None,
    z: Float[Array, "T heads K"],
    *,
    derivative: Derivative = "exact",
) -> Float[Array, "T heads K"]:
    """RMSNorm of queries or keys (``name`` of the scale) or of values (None: head by head, without a scale)."""
    scale = lax.rsqrt(head_variance(arch, layer, name, z))
    if derivative == "frozen":
        scale = lax.stop_gradient(scale)
    return z * scale * head_scale(arch, layer, name, z.shape[-2])


def head_variance(
    arch: Architecture, layer: Weights, name: str | None, z: Float[Array, "... heads K"]
) -> Float[Array, "... m 1"]:
    """Return ``mean(z^2) + eps`` over each head, or over all of them (m = 1); zeros that pad a head do not count."""
    axes, count = head_norm_span(arch, layer, name, z.shape[-2])
    return jnp.sum(jnp.square(z), axis=axes, keepdims=True) / count.astype(z.dtype) + arch.norm_eps


def head_norm_span(
    arch: Architecture, layer: Weights, name: str | None, heads: int
) -> tuple[tuple[int, ...], Int[Array, ""]]:
    """Return the axes that a norm of queries, keys or values runs over, and how many numbers that is in this layer."""
    whole = name is not None and arch.qk_norm == "projection"
    counts = np.asarray([kind.head_dim * (heads if whole else 1) for kind in arch.kinds], np.int32)
    return (-2, -1) if whole else (-1,), of_layer(counts, layer)


def head_scale(arch: Architecture, layer: Weights, name: str | None, heads: int) -> Float[Array, "m K"] | float:
    """Return what a head norm multiplies by: (1, K) if all heads share it, (heads, K) over the projection, 1.0."""
    if name is None:
        return 1.0
    rows = heads if arch.qk_norm == "projection" else 1
    return arch.norm_offset + layer["attention"][name]["scale"].reshape(rows, arch.head_dim)


def visible(
    arch: Architecture, layer: Weights, q_positions: Int[Array, "Tq 1"], k_positions: Int[Array, "1 Tk"]
) -> Bool[Array, "Tq Tk"]:
    """Whether a query sees a key: not after its own position, and within the layer's window."""
    seen = k_positions <= q_positions
    if all(kind.window is None for kind in arch.kinds):
        return seen
    return seen & (q_positions - k_positions < window(arch, layer))


def window(arch: Architecture, layer: Weights) -> Int[Array, ""]:
    """Return how many positions a query of this layer sees, its own included; where there is no window, 2^30."""
    return of_layer(np.asarray([kind.window or 2**30 for kind in arch.kinds], np.int32), layer)


def capped(scores: Float[Array, "..."], cap: float | None) -> Float[Array, "..."]:
    """Return ``c tanh(s / c)`` with the cap c, or the scores as they are."""
    return scores if cap is None else cap * jnp.tanh(scores / cap)


def attention_pattern(
    arch: Architecture,
    layer: Weights,
    q: Float[Array, "Tq H K"],
    k: Float[Array, "Tk G K"],
    q_positions: Int[Array, " Tq"],
    k_positions: Int[Array, " Tk"],
) -> Float[Array, "H Tq Tk"]:
    """Attention weights: ``softmax_s(cap(scale q_t . k_s))`` over the positions s that t sees.

    Parameters
    ----------
    arch
        Gives the head groups, scale and cap.
    layer
        One layer's weights; only its number is read, for its window.
    q, k
        (Tq, H, K) queries and (Tk, G, K) keys, after RoPE.
    q_positions, k_positions
        (Tq,) and (Tk,) integers; a query sees the keys of ``visible``. Each query must see at least one key, else its
        row is NaN.

    Returns
    -------
    Array
        (H, Tq, Tk), rows sum to 1.
    """
    scores = capped(attention_scores(arch, q, k), arch.attention_softcap)
    seen = visible(arch, layer, q_positions[:, None], k_positions[None, :])
    pattern = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf), axis=-1)
    return pattern.reshape(arch.heads, q.shape[0], k.shape[0])


def attention_scores(
    arch: Architecture, q: Float[Array, "Tq H K"], k: Float[Array, "Tk G K"]
) -> Float[Array, "G J Tq Tk"]:
    """Return ``scale q_t . k_s``, before any cap, by key head and the J = H / G query heads that read it."""
    grouped = q.reshape(q.shape[0], arch.kv_heads, arch.heads // arch.kv_heads, arch.head_dim)
    return jnp.einsum("tgmk,sgk->gmts", grouped, k, precision=HIGHEST) * arch.score_scale


def attention_output(
    arch: Architecture, layer: Weights, pattern: Float[Array, "H Tq Tk"], v: Float[Array, "Tk G K"]
) -> Float[Array, "Tq D"]:
    """Mix values by the pattern and map them to the residual stream: ``W_O concat_h(sum_s p_hts v_hs) + b_O``."""
    grouped = pattern.reshape(arch.kv_heads, arch.heads // arch.kv_heads, *pattern.shape[1:])
    mixed = jnp.einsum("gmts,sgk->tgmk", grouped, v, precision=HIGHEST)
    return linear(layer["attention"], "o", mixed.reshape(pattern.shape[1], arch.heads * arch.head_dim))


def activation_gate(arch: Architecture, z: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return g with ``act(z) = z g(z)``: sigmoid for silu, Phi for gelu, its tanh form for gelu_tanh, step for relu."""
    match arch.activation:
        case "silu":
            return jax.nn.sigmoid(z)
        case "gelu":
            return 0.5 * lax.erfc(-z * math.sqrt(0.5))
        case "gelu_tanh":  # (1 + tanh(u)) / 2 = sigmoid(2 u), without the cancellation at large negative u
            return jax.nn.sigmoid(2 * math.sqrt(2 / math.pi) * (z + 0.044715 * z * z * z))
        case "relu":
            return (z > 0).astype(z.dtype)


def activation(arch: Architecture, z: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return ``act(z) = z g(z)``, elementwise."""
    return z * activation_gate(arch, z)


def mlp(
    arch: Architecture, weights: Weights, n: Float[Array, "... D"], *, derivative: Derivative = "exact"
) -> Float[Array, "... D"]:
    """Apply the feed-forward map to normalised states.

    Gated: ``W_d (act(W_g n) * W_u n)``; not gated: ``W_d (g(W_u n) * W_u n)``, g from ``activation_gate``; biases
    where the architecture has them.

    Parameters
    ----------
    arch
        Gives ``gated`` and the activation.
    weights
        "up" (F, D), "down" (D, F), "gate" (F, D) if gated, and their biases "..._bias".
    n
        (..., D) normalised states.
    derivative
        "frozen" holds ``act(W_g n)`` (gated) or ``g(W_u n)`` (not gated) fixed under differentiation.

    Returns
    -------
    Array
        (..., D), residual units.
    """
    up = linear(weights, "up", n)
    factor = activation(arch, linear(weights, "gate", n)) if arch.gated else activation_gate(arch, up)
    if derivative == "frozen":
        factor = lax.stop_gradient(factor)
    return linear(weights, "down", factor * up)


def per_layer_update(
    arch: Architecture,
    weights: Weights,
    h: Float[Array, "... D"],
    layer_input: Float[Array, "... P"],
    *,
    derivative: Derivative = "exact",
) -> Float[Array, "... D"]:
    """Return what a block adds for its per-layer embedding e of the token: ``W_p (act(W_g h) * e)``, before its norm.

    "frozen" holds ``g(W_g h)``, act(z) = z g(z), so that the map stays linear in h and reproduces the value. Source:
    the E-models of Gemma 4.
    """
    z = linear(weights, "gate", h)
    factor = activation_gate(arch, z)
    if derivative == "frozen":
        factor = lax.stop_gradient(factor)
    return linear(weights, "project", factor * z * layer_input)
