"""The derivative of queries, keys or values through their norm: what takes the place of W_Q, W_K or W_V.

With z = W n the projection of one token, an RMSNorm of it over each head, or over all heads at once, has the derivative
diag(gamma)/rho (I - z z^T/(m rho^2)), where m counts what the mean runs over. Times W that is a diagonal and a rank-one
update for each norm: no matrix product.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxdyn.models import layers
from jaxdyn.models.architecture import Architecture


def through_head_norm(
    arch: Architecture,
    weights: dict,
    norm: str | None,
    name: str,
    n: Float[Array, " D"],
    *,
    frozen: bool = False,
) -> Float[Array, "m D"]:
    """Return d N(W n + b) / d n, the derivative of a normalised projection of one token, before RoPE.

    Parameters
    ----------
    arch, weights : the architecture and the weights of one layer.
    norm : name of the norm's weights, or None for the values' norm, which has none.
    name : "q", "k" or "v".
    n : what attention reads of the stream at the token.
    frozen : whether the norm's scale is held, so that only the diagonal stays.
    """
    w = weights["attention"]
    z = layers.linear(w, name, n).reshape(-1, arch.head_dim)
    variance = layers.head_variance(arch, weights, norm, z)  # (heads or 1, 1)
    matrix = w[name].reshape(*z.shape, -1)
    gain = layers.head_scale(arch, weights, norm, z.shape[0]) * lax.rsqrt(variance)
    if not frozen:
        axes, count = layers.head_norm_span(arch, weights, norm, z.shape[0])
        along = jnp.einsum("hk,hkd->hd", z, matrix, precision=lax.Precision.HIGHEST)
        if len(axes) > 1:
            along = along.sum(axis=0, keepdims=True)
        matrix = matrix - z[:, :, None] * (along / (count.astype(n.dtype) * variance))[:, None, :]
    return (jnp.broadcast_to(gain, z.shape)[:, :, None] * matrix).reshape(-1, arch.width)
