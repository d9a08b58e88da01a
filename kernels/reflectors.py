"""Householder reflectors of a batch of vectors: P = I - tau v v^H with P^H x = beta e_first, v_first = 1, beta real."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Inexact


class Reflector(NamedTuple):
    """One reflector a matrix of the batch; tau = 0 is the identity."""

    v: Inexact[Array, "B m"]
    tau: Inexact[Array, " B"]
    beta: Float[Array, " B"]


def reflector(x: Inexact[Array, "B m"], first: Bool[Array, " m"]) -> Reflector:
    """Reflector that maps x to a multiple of one unit vector; entries of x before `first` have to be zero.

    Parameters
    ----------
    x : real or complex [B, m]
        The vectors, of any scale that does not overflow.
    first : bool [m]
        True at the entry that is kept, the first that may differ from zero.

    Returns
    -------
    Reflector
        The identity, with beta the entry itself, where nothing is to be removed. Golub and Van Loan, Matrix
        Computations, 4th edition, section 5.1; the sign of beta is opposite to that of the entry's real part, so that
        nothing cancels.
    """
    size = jnp.max(jnp.maximum(jnp.abs(x.real), jnp.abs(x.imag)) if jnp.iscomplexobj(x) else jnp.abs(x), axis=-1)
    scale = jnp.where(size > 0, size, 1)
    scaled = x / scale[:, None].astype(x.dtype)
    alpha = jnp.sum(jnp.where(first, scaled, 0), axis=-1)
    rest = jnp.where(first, 0, scaled)
    beyond = jnp.sum(_square(rest), axis=-1)
    norm = jnp.sqrt(_square(alpha) + beyond)
    beta = jnp.where(alpha.real > 0, -norm, norm)
    needed = (beyond > 0) | (alpha.imag != 0)
    divisor = jnp.where(needed, alpha - beta, 1)
    v = jnp.where(first, 1, rest / divisor[:, None])
    tau = jnp.where(needed, (beta - alpha) / jnp.where(needed, beta, 1), 0)
    return Reflector(v.astype(x.dtype), tau.astype(x.dtype), scale * jnp.where(needed, beta, alpha.real))


def _square(x: Inexact[Array, "*shape"]) -> Float[Array, "*shape"]:
    return jnp.square(x.real) + jnp.square(x.imag) if jnp.iscomplexobj(x) else jnp.square(x)
