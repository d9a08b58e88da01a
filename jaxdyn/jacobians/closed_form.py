"""The fast route: a block's Jacobian assembled from its weights by a few matrix products.

With n the normalised input, p the attention pattern of the position, and Dn, Dm the derivatives of the two norms,

    J_attention = I + sum_h W_O,h [ p_t W_V + C_h R_t W_Q s + w_t (v_t - o_h) (R_t^T q_h)^T W_K s ] Dn
    J_mlp       = I + W_down [ diag(act'(g) u) W_gate + diag(act(g)) W_up ] Dm
    J           = J_mlp J_attention

with s the scale of the scores, o_h = sum_s p_s v_s and C_h = sum_s w_s (v_s - o_h) k_s^T, the softmax's covariance; w =
p without soft-capping, else p times the slope of the cap. The first term in the bracket is the value path (OV), the
other two the routing path. With a source s < t only s moves: the skip and the second term go, and p, w, v, R in the
others are those of s. The gate and up branches merge before the down projection, so that the MLP costs one D x F x D
product; a norm's derivative is a diagonal and a rank-one matrix and costs none.

The variants change little: a norm behind a sublayer multiplies its matrix from the left (`after_norm`), a norm of
queries, keys or values changes W_Q, W_K or W_V to their derivative at the token (`head_norms.py`), a parallel residual
adds the updates, J = J_attention + J_mlp - I, and a per-layer embedding and a layer scale multiply J_mlp. Keys and
values that a block shares, and the per-layer embedding, are held: they are functions of earlier states. Source:
methods.md 1.2 and 1.8.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxdyn.models import layers
from jaxdyn.models import stream as streams
from jaxdyn.models.architecture import Architecture
from jaxdyn.models.split import WHOLE, Split
from jaxdyn.models.stream import Beside

from .head_norms import through_head_norm
from .request import Request

HIGHEST = lax.Precision.HIGHEST


@dataclass(frozen=True)
class Context:
    """What the position sees: every position's block input, the keys and values it attends to, and what is beside.

    `keys` and `values` are made from x by this block, or are those of the block whose it reads; `layer_input` (T, P)
    is the per-layer embedding, where blocks have one.
    """

    x: Float[Array, "T D"]
    keys: Float[Array, "T G K"]
    values: Float[Array, "T G K"]
    layer_input: Float[Array, "T P"] | None = None

    def alone(self, arch: Architecture, position: Int[Array, ""]) -> Beside:
        """What the block reads beside x when fed the position's token alone."""
        one = lax.dynamic_slice_in_dim
        shared = [one(kept, position, 1) if arch.donors else None for kept in (self.keys, self.values)]
        return Beside(None if self.layer_input is None else one(self.layer_input, position, 1), *shared)

    def layer_input_at(self, position: Int[Array, ""]) -> Float[Array, " P"] | None:
        """Return the per-layer embedding of one token."""
        return None if self.layer_input is None else self.layer_input[position]


jax.tree_util.register_dataclass(Context, data_fields=["x", "keys", "values", "layer_input"], meta_fields=[])


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


def make_context(arch: Architecture, weights: dict, x: Float[Array, "T D"], beside: Beside) -> Context:
    """Keys and values of a whole prompt at this block: once for all its positions."""
    streams.check(arch, beside)
    n = layers.enter(arch, weights, "attention", x)
    own = layers.keys_values(arch, weights, n, jnp.arange(x.shape[0]))
    keys, values = streams.own_or_shared(arch, weights, own, (beside.keys, beside.values))
    return Context(x, keys, values, beside.layer_input)


def value_output(arch: Architecture, weights: dict) -> Float[Array, "D D"]:
    """W_O W_V summed over heads, the value path of a token that attends only to itself; once a layer.

    Not for values with a norm (`v_norm`), where it depends on the token.
    """
    return _product(_output_by_key_head(arch, weights), weights["attention"]["v"])


def _output_by_key_head(arch: Architecture, weights: dict) -> Float[Array, "D m"]:
    """W_O with the columns of the query heads that read one value head added up, (D, G K)."""
    grouped = weights["attention"]["o"].reshape(arch.width, arch.kv_heads, -1, arch.head_dim).sum(axis=2)
    return grouped.reshape(arch.width, -1)


def block_jacobian(
    arch: Architecture,
    weights: dict,
    context: Context,
    position: Int[Array, ""],
    request: Request,
    *,
    source: Int[Array, ""] | None = None,
    ov: Float[Array, "D D"] | None = None,
    split: Split = WHOLE,
) -> BlockJacobian:
    """Assemble one sample's Jacobians.

    Parameters
    ----------
    arch, weights : the architecture and the weights of one layer.
    context : block inputs, keys and values of the sample's prompt.
    position : the target position t.
    request : operator and derivative.
    source : the source position s < t, for `cross`.
    ov : `value_output(arch, weights)`, needed for `isolated` where values have no norm.
    split : where `arch` and `weights` are one device's piece of the layer (`models/split.py`), how the pieces add up;
        the matrices then hold this device's columns. The sums over devices: the attention's Jacobian and the MLP's
        (D^2 numbers each), and the two sublayers' outputs (D).

    Notes
    -----
    Cost: 2 D^2 F + 2 D^3 flops isolated, 2 D^3 + 2 D^2 K more in context. Temporaries: D F + 3 D^2 floats.
    """
    x = context.x[position]
    if request.operator == "isolated":
        update, u = _isolated_attention(arch, weights, context, position, ov, request)
    else:
        update, u = _attention(arch, weights, context, position, request, source)
    update, u = split.columns(update, "attention_jacobian"), split.total(u, "attention")
    update = _leaving(arch, weights, "attention", u, update, request)
    h = x + layers.leave(arch, weights, "attention", u)
    if arch.parallel_residual:
        mlp, added = _mlp(arch, weights, x, request, split)
        y = h + added
    else:
        mlp, y = _after_attention(arch, weights, h, context.layer_input_at(position), request, split)
    if request.operator == "cross":
        block = update if arch.parallel_residual else update + _product(mlp, update)
        return BlockJacobian(update, None, block, x, h, y)
    eye = split.own(jnp.eye(arch.width, dtype=x.dtype))
    attention = eye + update
    block = attention + (split.own(mlp) if arch.parallel_residual else _product(mlp, attention))
    return BlockJacobian(attention, eye + split.own(mlp), block, x, h, y)


def _product(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=HIGHEST)


def _isolated_attention(arch, weights, context, position, ov, request):
    """Return W_O W_V Dn and the output of a lone token: its own weight is one, queries and keys drop out exactly."""
    x, v = context.x[position], context.values[position]
    alone = jnp.ones((arch.heads, 1, 1), x.dtype)
    u = layers.attention_output(arch, weights, alone, v[None])[0]
    if ov is None:
        n = layers.enter(arch, weights, "attention", x)
        by_value = through_head_norm(arch, weights, None, "v", n, frozen=request.derivative == "frozen")
        ov = _product(_output_by_key_head(arch, weights), by_value.reshape(-1, arch.width))
    return _entering(arch, weights, "attention", x, ov, request), u


def _attention(arch, weights, context, position, request, source):
    """Return W_O times the per-head derivative (H, K, D) by the source's block input, and attention's output."""
    w = weights["attention"]
    group = arch.heads // arch.kv_heads
    at = position if source is None else source
    x, key_positions = context.x[position], jnp.arange(context.x.shape[0])
    n = layers.enter(arch, weights, "attention", x)
    q = layers.queries(arch, weights, n[None], position[None])
    pattern = layers.attention_pattern(arch, weights, q, context.keys, position[None], key_positions)
    u = layers.attention_output(arch, weights, pattern, context.values)[0]

    p = pattern[:, 0].reshape(arch.kv_heads, group, -1)  # G J T, with J query heads a key head
    moving = n if source is None else layers.enter(arch, weights, "attention", context.x[at])
    frozen = request.derivative == "frozen"
    w_v = through_head_norm(arch, weights, None, "v", moving, frozen=frozen) if arch.v_norm else w["v"]
    heads = p[:, :, at, None, None] * w_v.reshape(arch.kv_heads, 1, arch.head_dim, arch.width)
    if request.operator != "ov" and not frozen:
        states = (n, moving)
        heads = heads + _routing(arch, weights, context, p, q[0], states, position, at, through_query=source is None)
    update = _product(w["o"], heads.reshape(-1, arch.width))
    return _entering(arch, weights, "attention", context.x[at], update, request), u


def _routing(arch, weights, context, p, q, states, position, at, *, through_query):
    """How the pattern's change moves each head's output: through the key at `at`, and the query if it is its own.

    A block that reads another's keys has zeros for W_K: only its query moves.
    """
    group, scale = arch.heads // arch.kv_heads, arch.score_scale
    out = jnp.einsum("gjt,tgk->gjk", p, context.values, precision=HIGHEST)
    if arch.attention_softcap is not None:
        scores = layers.attention_scores(arch, q[None], context.keys)[:, :, 0]
        p = p * (1 - jnp.tanh(scores / arch.attention_softcap) ** 2)
    v_at, q = context.values[at][:, None], q.reshape(arch.kv_heads, group, -1)
    spread = p[:, :, at, None] * (v_at - out) * scale  # G J K
    unturned = _unrotate(arch, weights, q.reshape(1, arch.heads, -1), at[None]).reshape(q.shape)
    w_k = _head_map(arch, weights, "k", states[1]).reshape(arch.kv_heads, arch.head_dim, arch.width)
    row = jnp.einsum("gjk,gkd->gjd", unturned, w_k, precision=HIGHEST)
    change = spread[..., None] * row[:, :, None, :]
    if through_query:
        mean_key = jnp.einsum("gjt,tgk->gjk", p, context.keys, precision=HIGHEST)
        moment = jnp.einsum("gjt,tgk,tgm->gjkm", p, context.values, context.keys, precision=HIGHEST)
        covariance = (moment - out[..., :, None] * mean_key[..., None, :]) * scale
        by_value = covariance.reshape(arch.heads, arch.head_dim, arch.head_dim).swapaxes(0, 1)  # K H K
        turned = _unrotate(arch, weights, by_value, jnp.broadcast_to(position, (arch.head_dim,))).swapaxes(0, 1)
        w_q = _head_map(arch, weights, "q", states[0]).reshape(arch.heads, arch.head_dim, arch.width)
        change = change + jnp.einsum("hkm,hmd->hkd", turned, w_q, precision=HIGHEST).reshape(change.shape)
    return change


def _head_map(arch, weights, name, n):
    """Return the derivative of queries or keys, before RoPE, by n: their matrix, through their norm if there is one."""
    if arch.qk_norm is None:
        return weights["attention"][name]
    return through_head_norm(arch, weights, f"{name}_norm", name, n)


def _unrotate(arch, weights, x, positions):
    return layers.unrotate(arch, weights, x, positions) if arch.position == "rope" else x


def _after_attention(arch, weights, h, layer_input, request, split):
    """Return the update Jacobian of all that follows attention, and the block's output."""
    mlp, added = _mlp(arch, weights, h, request, split)
    y = h + added
    if arch.per_layer_width:
        w = weights["per_layer"]
        z = layers.linear(w, "gate", y)
        value, slope = jax.jvp(lambda z: layers.activation(arch, z), (z,), (jnp.ones_like(z),))
        factor = slope if request.derivative == "exact" else layers.activation_gate(arch, z)
        gate = w["gate"] + _product(w["gate"], mlp)  # W_g (I + mlp): P x D x D, so that no D x D x D product is made
        u = layers.linear(w, "project", value * layer_input)
        update = _product(w["project"], (factor * layer_input)[:, None] * gate)
        mlp = mlp + _leaving(arch, weights, "per_layer", u, update, request)
        y = y + layers.leave(arch, weights, "per_layer", u)
    if arch.layer_scale:
        scale = weights["layer_scale"]["scale"]
        mlp, y = scale * mlp + (scale - 1) * jnp.eye(arch.width, dtype=h.dtype), scale * y
    return mlp, y


def _mlp(arch, weights, h, request, split):
    """Return the MLP's update Jacobian, its branches merged before the one product, and what it adds."""
    w = weights["mlp"]
    n = layers.enter(arch, weights, "mlp", h)
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
    u = split.total(layers.linear(w, "down", hidden), "mlp")
    # The norm is linear in the matrix: it may come before the sum over devices.
    update = split.total(_entering(arch, weights, "mlp", h, _product(w["down"], merged), request), "mlp_jacobian")
    return _leaving(arch, weights, "mlp", u, update, request), layers.leave(arch, weights, "mlp", u)


def _entering(arch, weights, name, x, matrix, request):
    """Multiply by the derivative of the norm before a sublayer, if there is one."""
    return matrix if arch.norm_placement == "post" else through_norm(arch, weights[f"{name}_norm"], x, matrix, request)


def _leaving(arch, weights, name, u, matrix, request):
    """Multiply by the derivative of the norm behind a sublayer, if there is one."""
    if arch.norm_placement == "pre":
        return matrix
    return after_norm(arch, weights[f"{name}_post_norm"], u, matrix, request)


def through_norm(
    arch: Architecture, weights: dict, x: Float[Array, " D"], matrix: Float[Array, "m D"], request: Request
) -> Float[Array, "m D"]:
    """Multiply a matrix from the right with the derivative of a norm at x, without forming that derivative.

    RMSNorm: Dn = diag(gamma)/rho (I - x x^T/(D rho^2)); LayerNorm: Dn = diag(gamma)/sigma (I - 1 1^T/D - c c^T/(D
    sigma^2)) with c = x - mean(x); rho^2 and sigma^2 contain the epsilon. Frozen: the last term is dropped.
    """
    centre = x - jnp.mean(x) if arch.norm == "layer" else x
    variance = jnp.mean(centre * centre) + arch.norm_eps
    scaled = matrix * ((arch.norm_offset + weights["scale"]) / jnp.sqrt(variance))
    if arch.norm == "layer":
        scaled = scaled - jnp.mean(scaled, axis=-1, keepdims=True)
    if request.derivative == "frozen":
        return scaled
    along = jnp.matmul(scaled, centre, precision=HIGHEST) / (x.size * variance)
    return scaled - along[:, None] * centre


def after_norm(
    arch: Architecture, weights: dict, u: Float[Array, " D"], matrix: Float[Array, "D m"], request: Request
) -> Float[Array, "D m"]:
    """Multiply a matrix from the left with the derivative of a norm at u; see `through_norm`."""
    centre = u - jnp.mean(u) if arch.norm == "layer" else u
    variance = jnp.mean(centre * centre) + arch.norm_eps
    if arch.norm == "layer":
        matrix = matrix - jnp.mean(matrix, axis=0, keepdims=True)
    if request.derivative == "exact":
        along = jnp.matmul(centre, matrix, precision=HIGHEST) / (u.size * variance)
        matrix = matrix - centre[:, None] * along
    return matrix * ((arch.norm_offset + weights["scale"]) / jnp.sqrt(variance))[:, None]
