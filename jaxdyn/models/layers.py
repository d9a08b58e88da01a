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
from jaxtyping import Array, Float, Int

from jaxdyn.models.architecture import Architecture

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
    ``sigma = sqrt(mean((x - mu)^2) + eps)``.

    Parameters
    ----------
    arch
        Gives the kind and eps.
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
    y = x * scale * weights["scale"]
    return y + weights["bias"] if arch.norm == "layer" else y


def rotate(arch: Architecture, x: Float[Array, "T heads K"], positions: Int[Array, " T"]) -> Float[Array, "T heads K"]:
    """Turn queries or keys by their position: RoPE in the rotate-half convention.

    ``(a, b) -> (a cos p f - b sin p f, b cos p f + a sin p f)`` with a, b the two halves of a head, p the position
    and f the frequencies of ``arch.rope``.

    Parameters
    ----------
    arch
        ``arch.rope`` must be set.
    x
        (T, heads, K) queries or keys.
    positions
        (T,) integers, 0 <= p < 2^20.

    Returns
    -------
    Array
        (T, heads, K). The angle, reduced to one turn, is accurate to an eps of x's dtype at every position (see
        ``_angles``); a float32 product p * f would lose an absolute p * 6e-8 radians.
    """
    return _turn(x, _angles(arch, positions, x.dtype))


def unrotate(
    arch: Architecture, x: Float[Array, "T heads K"], positions: Int[Array, " T"]
) -> Float[Array, "T heads K"]:
    """Undo ``rotate``: turn by the opposite angle, which is the transpose of the rotation."""
    return _turn(x, -_angles(arch, positions, x.dtype))


def queries(
    arch: Architecture, weights: Weights, n: Float[Array, "T D"], positions: Int[Array, " T"]
) -> Float[Array, "T H K"]:
    """Return queries ``R_p W_Q n`` of normalised states n (T, D), turned by position where the model uses RoPE."""
    q = linear(weights, "q", n).reshape(n.shape[0], arch.heads, arch.head_dim)
    return rotate(arch, q, positions) if arch.position == "rope" else q


def keys_values(
    arch: Architecture, weights: Weights, n: Float[Array, "T D"], positions: Int[Array, " T"]
) -> tuple[Float[Array, "T G K"], Float[Array, "T G K"]]:
    """Return keys ``R_p W_K n`` (turned under RoPE) and values ``W_V n`` of normalised states n (T, D)."""
    k = linear(weights, "k", n).reshape(n.shape[0], arch.kv_heads, arch.head_dim)
    v = linear(weights, "v", n).reshape(n.shape[0], arch.kv_heads, arch.head_dim)
    return (rotate(arch, k, positions) if arch.position == "rope" else k), v


def attention_pattern(
    arch: Architecture,
    q: Float[Array, "Tq H K"],
    k: Float[Array, "Tk G K"],
    q_positions: Int[Array, " Tq"],
    k_positions: Int[Array, " Tk"],
) -> Float[Array, "H Tq Tk"]:
    """Attention weights: ``softmax_s(q_t . k_s / sqrt(K))`` over the positions s <= t.

    Parameters
    ----------
    arch
        Gives the head groups and K.
    q, k
        (Tq, H, K) queries and (Tk, G, K) keys, after RoPE.
    q_positions, k_positions
        (Tq,) and (Tk,) integers; a query sees the keys whose position is not after its own. Each query must see at
        least one key, else its row is NaN.

    Returns
    -------
    Array
        (H, Tq, Tk), rows sum to 1.
    """
    grouped = q.reshape(q.shape[0], arch.kv_heads, arch.heads // arch.kv_heads, arch.head_dim)
    scores = jnp.einsum("tgmk,sgk->gmts", grouped, k, precision=HIGHEST) / math.sqrt(arch.head_dim)
    visible = k_positions[None, :] <= q_positions[:, None]
    pattern = jax.nn.softmax(jnp.where(visible, scores, -jnp.inf), axis=-1)
    return pattern.reshape(arch.heads, q.shape[0], k.shape[0])


def attention_output(
    arch: Architecture, weights: Weights, pattern: Float[Array, "H Tq Tk"], v: Float[Array, "Tk G K"]
) -> Float[Array, "Tq D"]:
    """Mix values by the pattern and map them to the residual stream: ``W_O concat_h(sum_s p_hts v_hs) + b_O``."""
    grouped = pattern.reshape(arch.kv_heads, arch.heads // arch.kv_heads, *pattern.shape[1:])
    mixed = jnp.einsum("gmts,sgk->tgmk", grouped, v, precision=HIGHEST)
    return linear(weights, "o", mixed.reshape(pattern.shape[1], arch.heads * arch.head_dim))


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


def _turn(x: Float[Array, "T heads K"], angles: Float[Array, "T half"]) -> Float[Array, "T heads K"]:
    cos, sin = jnp.cos(angles)[:, None, :], jnp.sin(angles)[:, None, :]
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def _angles(arch: Architecture, positions: Int[Array, " T"], dtype: jnp.dtype) -> Float[Array, "T half"]:
    """Angles ``p f`` reduced to (-pi, pi] in fixed point, or the plain product where the dtype is float64.

    The frequency in turns per position has 44 fractional bits, f = (hi 2^12 + lo) 2^-44. The top 32 bits of the phase,
    p hi + (p lo >> 12) modulo 2^32, are exact in uint32 as long as p lo < 2^32, hence p < 2^20.
    """
    if arch.rope is None:
        msg = f"arch.rope: got None, but rotate needs a Rope; this architecture has position={arch.position!r}"
        raise ValueError(msg)
    frequencies = arch.rope.frequencies(arch.head_dim)
    if dtype == jnp.float64:
        return positions.astype(dtype)[:, None] * jnp.asarray(frequencies, dtype)
    turns = np.round(np.mod(frequencies / (2 * np.pi), 1.0) * 2.0**44).astype(np.uint64)
    hi = jnp.asarray((turns >> 12).astype(np.uint32))
    lo = jnp.asarray((turns & 0xFFF).astype(np.uint32))
    p = positions.astype(jnp.uint32)[:, None]
    phase = lax.bitcast_convert_type(p * hi + ((p * lo) >> 12), jnp.int32)
    return phase.astype(dtype) * (2 * math.pi / 2**32)
