"""The segment [0, 1], whose ends have smaller balls: the constant kernel's laws beyond a homogeneous space.

b_p = min(p + eps, 1) - max(p - eps, 0); <b> = 2 eps - eps^2, and for eps <= 1/2 Var b = (2/3) eps^3 - eps^4.
Source: methods.md 3.2, item 6; eps > 1/2 and n items are derived here.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from .theory import front, front_from_moments

ORDER = 64


def ball(p: ArrayLike, eps: ArrayLike) -> Array:
    """Return b_p, the length of [p - eps, p + eps] inside [0, 1]."""
    p, eps = jnp.asarray(p), jnp.asarray(eps)
    return jnp.minimum(p + eps, 1.0) - jnp.maximum(p - eps, 0.0)


def moments(eps: ArrayLike) -> tuple[Array, Array]:
    """Return (<b>, Var b) over uniform probes, eps in [0, 1]; exact.

    <b> = 2 eps - eps^2; <b^2> = 4 eps^2 - (10/3) eps^3 up to 1/2, beyond (2/3)(1 - eps^3) + 2 eps - 1.
    """
    eps = jnp.asarray(eps, jnp.result_type(eps, float))
    mean = 2 * eps - eps**2
    narrow = 2 / 3 * eps**3 - eps**4  # the difference <b^2> - <b>^2, without its cancellation
    wide = (2 - 2 * eps**3) / 3 + 2 * eps - 1 - mean**2
    return mean, jnp.where(eps <= 0.5, narrow, wide)


def front_on_segment(eps: ArrayLike, n: ArrayLike = 2, noise: ArrayLike = 0.0) -> tuple[Array, Array]:
    """Return (p_S, p_I) of the constant kernel on the segment.

    Two items: from <b> and Var b, exactly. n items: the mean of the homogeneous front at b_p over probes, by
    Gauss-Legendre on the two pieces of b_p; exact for n up to 127, better than 1e-10 beyond.

    Parameters
    ----------
    eps : resolution, 0 to 1.
    n : number of items, 1 or more.
    noise : the floor Delta. All broadcast.
    """
    if not isinstance(n, Array) and np.all(np.asarray(n) == 2):
        return front_from_moments(*moments(eps), noise=noise)
    eps = jnp.asarray(eps, jnp.result_type(eps, float))
    node, weight = (jnp.asarray(column, eps.dtype) for column in np.polynomial.legendre.leggauss(ORDER))
    edge = jnp.minimum(eps, 1 - eps)  # b_p rises up to here, then is flat up to the middle; the other half mirrors it
    flat = jnp.minimum(2 * eps, 1.0)
    b = ball(edge[..., None] * (1 + node) / 2, eps[..., None])
    rising = front(b, jnp.asarray(n)[..., None], noise=jnp.asarray(noise)[..., None])
    level = front(flat, n, noise=noise)
    p_s, p_i = (
        edge * jnp.sum(weight * one, axis=-1) + (1 - 2 * edge) * other for one, other in zip(rising, level, strict=True)
    )
    return p_s, p_i
