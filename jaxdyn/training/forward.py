"""The loss of a batch of windows, from the decoder's own layers, in mixed precision where asked.

With ``dtype`` float32 the logits are those of `jaxdyn.models.decoder` (a test holds it). With bfloat16 the products of
the linear maps and of pattern and values take bfloat16 inputs; the residual stream, norms, rotary turns, attention
scores, softmax, logits and loss stay float32.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from jaxdyn.errors import InputError
from jaxdyn.models import layers
from jaxdyn.models.architecture import Architecture
from jaxdyn.models.decoder import Params, begin


def token_losses(
    arch: Architecture, params: Params, windows: Int[Array, "B S"], *, dtype: DTypeLike = "float32"
) -> Float[Array, "B S-1"]:
    """Return the cross-entropy of each token given those before it.

    ``loss_t = log sum_v exp(z_v) - z_target``, z the logits at position t, the target the token at t + 1.

    Parameters
    ----------
    arch, params
        The decoder, parameters float32.
    windows
        (B, S) ids, S >= 2.
    dtype
        Of the linear maps' products: float32 or bfloat16.

    Returns
    -------
    Array
        (B, S - 1) float32, nats. Cost: 2 P flops a token for P parameters, 6 P with its gradient.
    """
    scores = logits(arch, params, windows[:, :-1], dtype=dtype)
    chosen = jnp.take_along_axis(scores, windows[:, 1:, None], axis=-1)[..., 0]
    return jax.nn.logsumexp(scores, axis=-1) - chosen


def logits(
    arch: Architecture, params: Params, ids: Int[Array, "B T"], *, dtype: DTypeLike = "float32"
) -> Float[Array, "B T V"]:
    """Return next-token logits (B, T, V), float32, of ids (B, T); nothing but them is kept.

    Raises
    ------
    InputError : a decoder with mechanisms that this pass does not have (see `_check_plain`).
    """
    _check_plain(arch)
    positions = jnp.arange(ids.shape[1])

    def step(x, numbered):
        index, layer = numbered
        layer = layer | {"index": index}
        return jax.vmap(lambda x: _block(arch, layer, x, positions, dtype))(x), None

    x, _ = lax.scan(step, begin(arch, params, ids).x, (jnp.arange(arch.layers), params["blocks"]))
    n = layers.norm(arch, params["final_norm"], x).astype(dtype)
    head = (params["embed"]["tokens"] if arch.tied_head else params["head"]).astype(dtype)
    return jnp.matmul(n, head.T, precision=layers.HIGHEST, preferred_element_type=x.dtype)


def _check_plain(arch: Architecture) -> None:
    """Refuse what `_block` does not compute: norms elsewhere than before a sublayer, head norms, parallel residuals."""
    beyond = {
        "norm_placement": arch.norm_placement != "pre",
        "qk_norm": arch.qk_norm is not None,
        "v_norm": arch.v_norm,
        "parallel_residual": arch.parallel_residual,
        "shared keys and values": bool(arch.donors),
        "per_layer_width": bool(arch.per_layer_width),
        "layer_scale": arch.layer_scale,
        "logit_softcap": arch.logit_softcap is not None,
    }
    if found := [name for name, present in beyond.items() if present]:
        msg = f"architecture: got a {arch.family} decoder with {', '.join(found)}; allowed for training: Llama's blocks"
        raise InputError(msg)


def _block(arch, layer, x, positions, dtype):
    """One block of one sequence (T, D); the sublayers of `decoder.py` with the casts of the mixed precision."""
    cast = layer | {"attention": _cast(layer["attention"], dtype)}
    w = cast["attention"]
    n = layers.norm(arch, layer["attention_norm"], x).astype(dtype)
    q = layers.linear(w, "q", n).reshape(-1, arch.heads, arch.head_dim).astype(x.dtype)
    k = layers.linear(w, "k", n).reshape(-1, arch.kv_heads, arch.head_dim).astype(x.dtype)
    v = layers.linear(w, "v", n).reshape(-1, arch.kv_heads, arch.head_dim)
    if arch.position == "rope":
        q, k = layers.rotate(arch, layer, q, positions), layers.rotate(arch, layer, k, positions)
    pattern = layers.attention_pattern(arch, layer, q, k, positions, positions).astype(dtype)
    h = x + layers.attention_output(arch, cast, pattern, v).astype(x.dtype)
    n = layers.norm(arch, layer["mlp_norm"], h).astype(dtype)
    return h + layers.mlp(arch, _cast(layer["mlp"], dtype), n).astype(x.dtype)


def _cast(weights, dtype):
    return jax.tree.map(lambda leaf: leaf.astype(dtype), weights)
