"""One split of many diagonal blocks: an invariant subspace each, from the sign function of a shifted or mapped block.

A line or a circle in the plane parts the eigenvalues. A vertical line Re z = s needs sign(D - s I). A circle of radius
r about c on the real axis is brought to the imaginary axis by the map (z - c + r) / (z - c - r), so it needs the sign
of (D - (c - r) I)(D - (c + r) I)^-1. Both are symmetric about the real axis: real blocks stay real, and the two
eigenvalues of a conjugate pair stay together. For complex blocks the line turns by a random angle.

The projector P = (I + sign) / 2 has the number of eigenvalues on its side for its trace. Q of P times a Gaussian matrix
starts with an orthonormal basis of its range (randomised rank-revealing QR: Demmel, Dumitriu and Holtz, Numerische
Mathematik 108, 2007), applying P once more to that basis takes away what the Gaussian matrix did badly, and Q^H D Q is
block upper triangular up to a lower left block E. What decides is the size of E, so nothing before it has to be
trusted. Spectral divide and conquer: Bai, Demmel and Gu, Numerische Mathematik 76, 1997; Banks, Garza-Vargas, Kulkarni
and Srivastava, Foundations of Computational Mathematics 23, 2023, who show why a tiny random perturbation and random
lines make the gaps that it needs.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Inexact, Int, Key

from .. import blocked
from ..product import matmul
from ..scaling import adjoint
from ..threads import one_at_a_time_on_the_host
from .sign import sign

RADII = (0.7, 1.0, 0.35, 1.4)
"""Radii of circles, in turn, over the root mean square distance of the eigenvalues from their mean."""

NOISE = 1.0
"""Perturbation of the block whose sign is taken, in eps norm(A): the block itself keeps its digits."""


class Split(NamedTuple):
    """What came of it, for each block."""

    D: Inexact[Array, "K N N"]
    """Q^H D Q, block upper triangular up to E where it was accepted."""
    Q: Inexact[Array, "K N N"]
    """Unitary, the identity beyond the block's own rows."""
    rank: Int[Array, " K"]
    """Rows of the first block."""
    accepted: Bool[Array, " K"]
    """Whether both blocks have rows and E is small."""
    steps: Int[Array, ""]
    """Newton steps, one after another."""


def split(
    D: Inexact[Array, "K N N"],
    size: Int[Array, " K"],
    tries: Int[Array, " K"],
    tolerance: Float[Array, " K"],
    noise: Float[Array, " K"],
    keys: Key[Array, " K"],
) -> Split:
    """Split each block once.

    Parameters
    ----------
    D : real or complex [K, N, N]
        Blocks in the upper left corners, zero elsewhere.
    size : int32 [K]
        Rows of each, 0 for none.
    tries : int32 [K]
        How often this block was tried before: an even number takes a line, an odd one a circle.
    tolerance : real [K]
        Largest norm of E.
    noise : real [K]
        Norm of the perturbation.
    keys : random keys [K]
        Others for each call.
    """
    N = D.shape[-1]
    inside = jnp.arange(N) < size[:, None]
    both = inside[:, :, None] & inside[:, None, :]
    eye = jnp.eye(N, dtype=D.dtype)
    line_keys, noise_keys, basis_keys = (jax.vmap(partial(jax.random.fold_in, data=k))(keys) for k in range(3))
    gaussian = jax.vmap(lambda key: jax.random.normal(key, (N, N), D.dtype))
    shaken = gaussian(noise_keys) * (noise / jnp.maximum(size, 1))[:, None, None]
    left, right, circle = _mapped(jnp.where(both, D + shaken, 0), inside, tries, line_keys)
    found, steps = sign(jnp.where(both, left, eye), jnp.where(both, right, eye), circle)
    P = jnp.where(both, (found + eye) / 2, 0)
    rank = jnp.round(jnp.trace(P, axis1=1, axis2=2).real)
    usable = jnp.isfinite(rank) & (rank > 0) & (rank < size)
    rank = jnp.where(usable, rank, 0).astype(jnp.int32)
    P = jnp.where(usable[:, None, None], P, 0)
    first = (jnp.arange(N) < rank[:, None])[:, None, :]

    def orthonormal(k, Q):
        # Then the basis of the range once more through P; the other vectors are what is left.
        image = jnp.where(first | (k == 0), matmul(P, jnp.where(both, Q, 0)), Q)
        return jnp.where(both, _orthonormal(jnp.where(both, image, eye)), eye)

    Q = jax.lax.fori_loop(0, 2, orthonormal, gaussian(basis_keys))
    turned = jnp.where(both, matmul(adjoint(Q), matmul(D, Q)), 0)
    low = jnp.where((jnp.arange(N) >= rank[:, None])[:, :, None] & first, turned, 0)
    error = jnp.sqrt(jnp.sum(jnp.square(low.real) + jnp.square(low.imag), axis=(1, 2)))
    accepted = usable & (error <= tolerance)
    return Split(jnp.where(accepted[:, None, None], turned - low, D), Q, rank, accepted, steps)


def _mapped(
    D: Inexact[Array, "K N N"], inside: Bool[Array, "K N"], tries: Int[Array, " K"], keys: Key[Array, " K"]
) -> tuple[Inexact[Array, "K N N"], Inexact[Array, "K N N"], Bool[Array, " K"]]:
    """X, Y and whether a circle: eigenvalues of X, or of Y X^-1 for a circle, lie about the imaginary axis."""
    real = jnp.finfo(D.dtype).dtype
    N = inside.shape[1]
    count = jnp.maximum(jnp.sum(inside, axis=1), 1)
    eye = jnp.eye(N, dtype=D.dtype)
    mean = jnp.trace(D, axis1=1, axis2=2) / count
    centred = jnp.where(inside[:, :, None] & inside[:, None, :], D - mean[:, None, None] * eye, 0)
    spread = jnp.sqrt(jnp.sum(jnp.square(centred.real) + jnp.square(centred.imag), axis=(1, 2)) / count)
    unit = jnp.where(spread > 0, spread, 1)
    centred = centred / unit[:, None, None].astype(D.dtype)
    draws = jax.vmap(lambda key: jax.random.normal(key, (3,), real))(keys)
    if jnp.iscomplexobj(D):
        turn = 10 * draws[:, 0]
        centred = centred * jax.lax.complex(jnp.cos(turn), jnp.sin(turn))[:, None, None]
    # The line goes near the median of the diagonal, which outliers do not move, and elsewhere when that failed.
    places = jnp.where(inside, jnp.diagonal(centred, axis1=1, axis2=2).real, jnp.inf)
    median = _median(places, count)
    width = jnp.where(tries == 0, 2 / count.astype(real), 0.3)
    line = median + width * draws[:, 1]
    radius = jnp.asarray(RADII, real)[(tries // 2) % len(RADII)]
    radius = radius * (1 + 0.05 * draws[:, 2])
    circle = tries % 2 == 1
    shift = jnp.where(circle, radius, line)[:, None, None].astype(D.dtype) * eye
    return centred - shift, centred + shift, circle


def _median(values: Float[Array, "K N"], count: Int[Array, " K"]) -> Float[Array, " K"]:
    """Lower median of the `count` smallest, by counting: a TPU's compiler takes seconds for every sort."""
    at = jnp.arange(values.shape[1])
    one, other = values[:, :, None], values[:, None, :]
    before = jnp.sum((other < one) | ((other == one) & (at < at[:, None])), axis=2)
    return jnp.sum(jnp.where(before == (count[:, None] - 1) // 2, values, 0), axis=1)


def _qr(X: Inexact[Array, "*batch n n"]) -> Inexact[Array, "*batch n n"]:
    return jnp.linalg.qr(X)[0]


_orthonormal = one_at_a_time_on_the_host(_qr, tpu=blocked.orthonormal)
