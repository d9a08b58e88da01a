"""The fast route: a block's Jacobian assembled from its weights by a few matrix products.

With n the normalised input, p the attention pattern of the position, and Dn, Dm the derivatives of the two norms,

    J_attention = I + sum_h W_O,h [ p_t W_V + C_h R_t W_Q / sqrt(K) + p_t (v_t - o_h) (R_t^T q_h)^T W_K / sqrt(K) ] Dn
    J_mlp       = I + W_down [ diag(act'(g) u) W_gate + diag(act(g)) W_up ] Dm
    J           = J_mlp J_attention

with o_h = sum_s p_s v_s and C_h = sum_s p_s (v_s - o_h) k_s^T, the softmax's covariance. The first term in the bracket
is the value path (OV), the other two the routing path. With a source s < t only s moves: the skip and the second term
go, and p, v, R in the others are those of s. The gate and up branches merge before the down projection, so
that the MLP costs one D x F x D product; a norm's derivative is a diagonal and a rank-one matrix and costs none.
Source: methods.md 1.2 and 1.8.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxdyn.models import layers
from jaxdyn.models.architecture import Architecture

from .request import Request

HIGHEST = lax.Precision.HIGHEST


@dataclass(frozen=True)
class Context:
    """What the position sees: every position's block input, and the layer's keys and values made from it."""

    x: Float[Array, "T D"]
    keys: Float[Array, "T G K"]
    values: Float[Array, "T G K"]


jax.tree_util.register_dataclass(Context, data_fields=["x", "keys", "values"], meta_fields=[])


@dataclass(frozen=True)
class BlockJacobian:
    """Jacobians of a block and its two sublayers (with their skips, but for `cross`), and the states between them.

    attention, mlp, block: (D, D). `mlp` is None for `cross`, where only the target position has an MLP.
    x, h, y: (D,), the residual stream before attention, before the MLP, and after the block, under this operator.
    """

    attention: Float[Array, "D D"]
    mlp: Float[Array, "D D"] | None
    block: Float[Array, "D D"]
    x: Float[Array, " D"]
    h: Float[Array, " D"]
    y: Float[Array, " D"]


jax.tree_util.register_dataclass(
    BlockJacobian, data_fields=["attention", "mlp", "block", "x", "h", "y"], meta_fields=[]
)


def make_context(arch: Architecture, weights: dict, x: Float[Array, "T D"]) -> Context:
    """Keys and values of a whole prompt at this block: once for all its positions."""
    n = layers.norm(arch, weights["attention_norm"], x)
    keys, values = layers.keys_values(arch, weights["attention"], n, jnp.arange(x.shape[0]))
    return Context(x, keys, values)


def value_output(arch: Architecture, weights: dict) -> Float[Array, "D D"]:
    """W_O W_V summed over heads, the value path of a token that attends only to itself; once a layer."""
    w = weights["attention"]
    grouped = w["o"].reshape(arch.width, arch.kv_heads, -1, arch.head_dim).sum(axis=2)
    return jnp.matmul(grouped.reshape(arch.width, -1), w["v"], precision=HIGHEST)


def block_jacobian(
    arch: Architecture,
    weights: dict,
    context: Context,
    position: Int[Array, ""],
    request: Request,
    *,
    source: Int[Array, ""] | None = None,
    ov: Float[Array, "D D"] | None = None,
) -> BlockJacobian:
    """Assemble one sample's Jacobians.

    Parameters
    ----------
    arch, weights : the architecture and the weights of one layer.
    context : block inputs, keys and values of the sample's prompt.
    position : the target position t.
    request : operator and derivative.
    source : the source position s < t, for `cross`.
    ov : `value_output(arch, weights)`, needed for `isolated`.

    Notes
    -----
    Cost: 2 D^2 F + 2 D^3 flops isolated, 2 D^3 + 2 D^2 K more in context. Temporaries: D F + 3 D^2 floats.
    """
    x = context.x[position]
    if request.operator == "isolated":
        update, h = _isolated_attention(arch, weights, x, ov, request)
    else:
        update, h = _attention(arch, weights, context, position, request, source)
    mlp, y = _mlp(arch, weights, h, request)
    if request.operator == "cross":
        return BlockJacobian(update, None, update + _product(mlp, update), x, h, y)
    eye = jnp.eye(arch.width, dtype=x.dtype)
    attention = eye + update
    return BlockJacobian(attention, eye + mlp, attention + _product(mlp, attention), x, h, y)


def _product(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=HIGHEST)


def _isolated_attention(arch, weights, x, ov, request):
    """Return W_O W_V Dn and h of a lone token: its own weight is one, queries and keys drop out exactly."""
    n = layers.norm(arch, weights["attention_norm"], x)
    _, v = layers.keys_values(arch, weights["attention"], n[None], jnp.zeros(1, int))
    alone = jnp.ones((arch.heads, 1, 1), x.dtype)
    h = x + layers.attention_output(arch, weights["attention"], alone, v)[0]
    return through_norm(arch, weights["attention_norm"], x, ov, request), h


def _attention(arch, weights, context, position, request, source):
    """Return W_O times the per-head derivative (H, K, D) by the source's block input, and h at the target."""
    w = weights["attention"]
    group = arch.heads // arch.kv_heads
    at = position if source is None else source
    x, key_positions = context.x[position], jnp.arange(context.x.shape[0])
    n = layers.norm(arch, weights["attention_norm"], x)
    q = layers.queries(arch, w, n[None], position[None])
    pattern = layers.attention_pattern(arch, q, context.keys, position[None], key_positions)
    h = x + layers.attention_output(arch, w, pattern, context.values)[0]

    p = pattern[:, 0].reshape(arch.kv_heads, group, -1)  # G J T, with J query heads a key head
    w_v = w["v"].reshape(arch.kv_heads, 1, arch.head_dim, arch.width)
    heads = p[:, :, at, None, None] * w_v
    if request.operator != "ov" and request.derivative == "exact":
        heads = heads + _routing(arch, w, context, p, q[0], position, at, through_query=source is None)
    update = _product(w["o"], heads.reshape(-1, arch.width))
    return through_norm(arch, weights["attention_norm"], context.x[at], update, request), h


def _routing(arch, w, context, p, q, position, at, *, through_query):
    """How the pattern's change moves each head's output: through the key at `at`, and the query if it is its own."""
    group, scale = arch.heads // arch.kv_heads, arch.head_dim**-0.5
    out = jnp.einsum("gjt,tgk->gjk", p, context.values, precision=HIGHEST)
    v_at, q = context.values[at][:, None], q.reshape(arch.kv_heads, group, -1)
    spread = p[:, :, at, None] * (v_at - out) * scale  # G J K
    unturned = _unrotate(arch, q.reshape(1, arch.heads, -1), at[None]).reshape(q.shape)
    w_k = w["k"].reshape(arch.kv_heads, arch.head_dim, arch.width)
    row = jnp.einsum("gjk,gkd->gjd", unturned, w_k, precision=HIGHEST)
    change = spread[..., None] * row[:, :, None, :]
    if through_query:
        mean_key = jnp.einsum("gjt,tgk->gjk", p, context.keys, precision=HIGHEST)
        moment = jnp.einsum("gjt,tgk,tgm->gjkm", p, context.values, context.keys, precision=HIGHEST)
        covariance = (moment - out[..., :, None] * mean_key[..., None, :]) * scale
        by_value = covariance.reshape(arch.heads, arch.head_dim, arch.head_dim).swapaxes(0, 1)  # K H K
        turned = _unrotate(arch, by_value, jnp.broadcast_to(position, (arch.head_dim,))).swapaxes(0, 1)
        w_q = w["q"].reshape(arch.heads, arch.head_dim, arch.width)
        change = change + jnp.einsum("hkm,hmd->hkd", turned, w_q, precision=HIGHEST).reshape(change.shape)
    return change


def _unrotate(arch, x, positions):
    return layers.unrotate(arch, x, positions) if arch.position == "rope" else x


def _mlp(arch, weights, h, request):
    """Return the MLP's update Jacobian, its branches merged before the one product, and the block's output."""
    w = weights["mlp"]
    n = layers.norm(arch, weights["mlp_norm"], h)
    up = layers.linear(w, "up", n)
    driver = layers.linear(w, "gate", n) if arch.gated else up
    value, slope = jax.jvp(lambda z: layers.activation(arch, z), (driver,), (jnp.ones_like(driver),))
    exact = request.derivative == "exact"
    if arch.gated:
        hidden = value * up
        merged = value[:, None] * w["up"]
        if exact:
            merged = merged + (slope * up)[:, None] * w["gate"]
    else:
        hidden = value
        merged = (slope if exact else layers.activation_gate(arch, up))[:, None] * w["up"]
    update = _product(w["down"], merged)
    return through_norm(arch, weights["mlp_norm"], h, update, request), h + layers.linear(w, "down", hidden)


def through_norm(
    arch: Architecture, weights: dict, x: Float[Array, " D"], matrix: Float[Array, "m D"], request: Request
) -> Float[Array, "m D"]:
    """Multiply a matrix from the right with the derivative of a norm at x, without forming that derivative.

    RMSNorm: Dn = diag(gamma)/rho (I - x x^T/(D rho^2)); LayerNorm: Dn = diag(gamma)/sigma (I - 1 1^T/D - c c^T/(D
    sigma^2)) with c = x - mean(x); rho^2 and sigma^2 contain the epsilon. Frozen: the last term is dropped.
    """
    centre = x - jnp.mean(x) if arch.norm == "layer" else x
    variance = jnp.mean(centre * centre) + arch.norm_eps
    scaled = matrix * (weights["scale"] / jnp.sqrt(variance))
    if arch.norm == "layer":
        scaled = scaled - jnp.mean(scaled, axis=-1, keepdims=True)
    if request.derivative == "frozen":
        return scaled
    along = jnp.matmul(scaled, centre, precision=HIGHEST) / (x.size * variance)
    return scaled - along[:, None] * centre
