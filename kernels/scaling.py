"""Scaling by powers of two: exact, so that norms neither overflow nor vanish and no digit is lost."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact


def scale_of(A: Inexact[Array, "*batch n n"]) -> Float[Array, "*batch"]:
    """Power of two just above the largest modulus of each matrix (1 for a zero or empty matrix).

    The exponent is kept six short of the type's range, so that the scale and its inverse are both normal numbers;
    matrices beyond that are scaled to within a factor 2^8 of one.
    """
    return power_of_two_above(largest_modulus(A))


def to_order_one(A: Inexact[Array, "*batch n n"]) -> tuple[Inexact[Array, "*batch n n"], Float[Array, "*batch"]]:
    """Each matrix over its `scale_of`, and that scale.

    The product with the inverse is exact and safe; a complex division would square the scale.
    """
    scale = scale_of(A)
    return A * (1 / scale)[..., None, None], scale


def largest_modulus(A: Inexact[Array, "*batch n n"]) -> Float[Array, "*batch"]:
    """Largest of the moduli of the real and imaginary parts of each matrix, 0 for an empty one."""
    parts = jnp.maximum(jnp.abs(A.real), jnp.abs(A.imag)) if jnp.iscomplexobj(A) else jnp.abs(A)
    return jnp.max(parts, axis=(-2, -1), initial=0)


def size(x: Inexact[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Modulus of real numbers, sum of the moduli of both parts of complex ones: what LAPACK compares."""
    return jnp.abs(x.real) + jnp.abs(x.imag) if jnp.iscomplexobj(x) else jnp.abs(x)


def power_of_two_above(x: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """Round up to a power of two in (x, 2x] for x > 0, six short of the ends of the type's range; 1 for x = 0."""
    info = jnp.finfo(x.dtype)
    integer = jnp.int32 if info.bits == 32 else jnp.int64
    without_mantissa = integer(-(2**info.nmant))
    below = jax.lax.bitcast_convert_type(jax.lax.bitcast_convert_type(x, integer) & without_mantissa, x.dtype)
    limit = jnp.asarray(2.0 ** (-info.minexp - 6), x.dtype)
    return jnp.where(x > 0, jnp.clip(2 * below, 1 / limit, limit), 1)


def frobenius_norm(A: Inexact[Array, "*batch m n"]) -> Float[Array, "*batch"]:
    """Frobenius norm without overflow or underflow in the squares."""
    scaled, scale = to_order_one(A)
    return scale * jnp.sqrt(jnp.sum(jnp.square(scaled.real) + jnp.square(scaled.imag), axis=(-2, -1)))


def adjoint(A: Inexact[Array, "*batch m n"]) -> Inexact[Array, "*batch n m"]:
    """Conjugate transpose of each matrix."""
    return jnp.conj(jnp.swapaxes(A, -1, -2))
