"""The front of generalisation and identification: p_S and p_I of n items at resolution b, in closed form or quadrature.

Items x_1..x_n and a probe p are independent points of a homogeneous space; similarity g falls with distance inside a
ball of measure b around the probe and is a floor outside; the response is Luce's choice g_i / sum_k g_k. p_S is the
probability to choose the item nearest to the probe, p_I that to choose the item equal to it. With t integrated over
(0, inf) and phi the Laplace transform of one item's similarity,

    p_I = int e^-t phi(t)^(n-1) dt,
    p_S = (1 - b')^n / n + int_ball n dq int e^-t psi(q, t)^(n-1) dt,

b' the measure in which g is above the floor, psi the part of phi from items farther than the nearest one, in units of
its similarity. Source: Nurisso, Fernando, Deshpande et al. (arXiv 2506.14797); methods.md 3.2, items 1-5.
"""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.core import Tracer
from jax.typing import ArrayLike

from jaxdyn.errors import InputError

from .quadrature import half_line, unit_interval

Kernel = Literal["constant", "linear"]
KERNELS = ("constant", "linear")
BISECTIONS = 60


def front(b: ArrayLike, n: ArrayLike = 2, kernel: Kernel = "constant", noise: ArrayLike = 0.0) -> tuple[Array, Array]:
    """Return (p_S, p_I) of n items at resolution b in a homogeneous space.

    Constant kernel with noise Delta: g = 1 in the ball, else Delta;
    p_I = E 1/(1 + K + Delta (n-1-K)), K ~ Bin(n-1, b);
    p_S = (1-b)^n / n + sum_{k>=1} C(n,k) b^k (1-b)^(n-k) / (k + Delta (n-k)).
    For n = 2: p_S = 1/2 + kappa (b - b^2), p_I = 1/2 + kappa (1-b)/2, kappa = (1-Delta)/(1+Delta).

    Linear kernel: g = max(Delta, 1 - d/eps) with d/eps uniform in the ball, as on the circle (b = 2 eps); for n = 2
    and Delta = 0: p_S = 1/2 + b - (3/2 - ln 2) b^2, p_I = 1 - (1 - ln 2) b.

    Parameters
    ----------
    b : measure of the ball of radius eps, 0 to 1.
    n : number of items, 1 or more; integers are meant, real values interpolate.
    kernel : "constant" or "linear".
    noise : the floor Delta, 0 to 1. b, n and noise broadcast.

    Returns
    -------
    (p_S, p_I), probabilities of the broadcast shape, NaN where an argument is outside its range. Differentiable in b
    and noise, once and again, ends included.

    Raises
    ------
    InputError : an unknown kernel.

    Notes
    -----
    Cost: 97 evaluations an element, 18333 for p_S of the linear kernel with noise. Accuracy for n up to 10^4: 1e-12 in
    float64, 1e-5 in float32. At Delta = 0 an all-zero row is a guess, 1/n, the limit of Delta -> 0.
    Source: methods.md 3.2, items 1-4; the noisy linear kernel is derived here.
    """
    noiseless = _checked(kernel, noise)
    return _front(*_arrays(b, n, noise), kernel, noiseless)


def front_from_moments(mean: ArrayLike, variance: ArrayLike, noise: ArrayLike = 0.0) -> tuple[Array, Array]:
    """Return (p_S, p_I) of two items and the constant kernel in any space, from mean and variance of b_p over probes.

    p_S = 1/2 + kappa (<b> - <b>^2 - Var b), p_I = 1/2 + kappa (1 - <b>)/2, kappa = (1-Delta)/(1+Delta): exact.
    A spread of b_p costs p_S its variance and p_I nothing. Source: methods.md 3.2, items 1 and 2.
    """
    mean, variance, noise = _arrays(mean, variance, noise)
    kappa = (1 - noise) / (1 + noise)
    return 0.5 + kappa * (mean - mean**2 - variance), 0.5 + kappa * (1 - mean) / 2


def resolution_at(p_i: ArrayLike, n: ArrayLike = 2, kernel: Kernel = "constant", noise: ArrayLike = 0.0) -> Array:
    """Return the resolution b at which identification is p_I: the inverse of `front`, which falls with b.

    NaN where no b in [0, 1] gives p_I. Differentiable in p_I and noise (one Newton step after the bisection).
    """
    noiseless = _checked(kernel, noise)
    return _resolution_at(*_arrays(p_i, n, noise), kernel, noiseless)


def similarity_at(p_i: ArrayLike, n: ArrayLike = 2, kernel: Kernel = "constant", noise: ArrayLike = 0.0) -> Array:
    """Return p_S of the front at identification p_I: the front as a curve; NaN where p_I is not on it.

    Constant kernel, n = 2, no noise: p_S = 1/2 + 2 (1 - p_I) - 4 (1 - p_I)^2, with its peak 3/4 at p_I = 3/4.
    """
    return front(resolution_at(p_i, n, kernel, noise), n, kernel, noise)[0]


def optimum(n: ArrayLike = 2, kernel: Kernel = "constant", noise: ArrayLike = 0.0) -> tuple[Array, Array]:
    """Return (b*, p_S(b*)): the resolution that generalises best, and how well.

    p_S has one stationary point in b, a maximum, which bisection of its derivative finds. At noise 1 every b is as
    good as any other. Two items: b* = 1/2 and 3/4 (constant, without noise), 1/(3 - 2 ln 2) = .6197 and .8098 (linear).
    """
    noiseless = _checked(kernel, noise)
    return _optimum(*_arrays(n, noise), kernel, noiseless)


@partial(jax.jit, static_argnames=("kernel", "noiseless"))
def _resolution_at(p_i, n, noise, kernel, noiseless):
    p_i, n, noise = jnp.broadcast_arrays(p_i, n, noise)

    def identification(b):
        return _front(b, n, noise, kernel, noiseless)[1]

    b = lax.stop_gradient(_bisect(lambda b: identification(b) > p_i, p_i))
    value, slope = jax.jvp(identification, (b,), (jnp.ones_like(b),))
    step = (p_i - value) / lax.stop_gradient(slope)
    slack = 64 * jnp.finfo(p_i.dtype).eps
    ends = identification(jnp.zeros_like(b)), identification(jnp.ones_like(b))
    inside = (p_i <= ends[0] + slack) & (p_i >= ends[1] - slack)
    found = b + step
    beyond = lax.stop_gradient(found - jnp.clip(found, 0, 1))  # of rounding: its slope is that of what is inside
    return jnp.where(inside, found - beyond, jnp.nan)


@partial(jax.jit, static_argnames=("kernel", "noiseless"))
def _optimum(n, noise, kernel, noiseless):
    n, noise = jnp.broadcast_arrays(n, noise)

    def p_s(b):
        return _front(b, n, noise, kernel, noiseless)[0]

    b = _bisect(lambda b: jax.jvp(p_s, (b,), (jnp.ones_like(b),))[1] > 0, n)
    return b, p_s(b)


def _bisect(go_up, like):
    """Return the b in [0, 1] up to which `go_up` holds, of the shape of `like`."""

    def halve(_, ends):
        low, high = ends
        middle = (low + high) / 2
        up = go_up(middle)
        return jnp.where(up, middle, low), jnp.where(up, high, middle)

    low, high = lax.fori_loop(0, BISECTIONS, halve, (jnp.zeros_like(like), jnp.ones_like(like)))
    return (low + high) / 2


@partial(jax.jit, static_argnames=("kernel", "noiseless"))
def _front(b, n, noise, kernel, noiseless):
    b, n, noise = jnp.broadcast_arrays(b, n, noise)
    valid = (b >= 0) & (b <= 1) & (noise >= 0) & (noise <= 1) & (n >= 1)
    arguments = tuple(
        jnp.where(valid, value, 0.5 if i != 1 else 2.0)[..., None] for i, value in enumerate((b, n, noise))
    )
    if kernel == "constant":
        p_s, p_i = _constant(*arguments)
    elif noiseless:
        p_s, p_i = _linear(*arguments)
    else:
        p_s, p_i = _noisy_linear(*arguments)
    return jnp.where(valid, p_s, jnp.nan), jnp.where(valid, p_i, jnp.nan)


def _constant(b, n, noise):
    t, weight = _nodes(1 + (n - 1) * (b + noise * (1 - b)))
    near, far = jnp.exp(-t), jnp.exp(-noise * t)
    transform = b * near + (1 - b) * far
    one_item = _log(transform, -b * jnp.expm1(-t) - (1 - b) * jnp.expm1(-noise * t))
    p_i = _sum(weight * jnp.exp(-t + (n - 1) * one_item))
    some = jnp.exp(n * one_item) * _any(b * near / transform, n)  # of Bin(n, b), all but none
    return (_none(b, n) / n)[..., 0] + _sum(weight * some), p_i


def _linear(b, n, noise):
    t, weight = _nodes(1 + (n - 1) * b / 2)
    gap = _gap(t, jnp.zeros_like(t))
    one_item = _log(1 - b * gap, b * gap)
    p_i = _sum(weight * jnp.exp(-t + (n - 1) * one_item))
    within = 1 - gap  # (1 - e^-t)/t
    some = jnp.exp(n * one_item) * _any(b * within / (1 - b * gap), n) / within
    return (_none(b, n) / n)[..., 0] + _sum(weight * jnp.exp(-t) * some), p_i


def _noisy_linear(b, n, noise):
    above = b * (1 - noise)  # where g is above its floor
    t, weight = _nodes(1 + (n - 1) * (b / 2 + noise))
    gap = (1 - above) * -jnp.expm1(-noise * t) + b * _gap(t, noise)
    p_i = _sum(weight * jnp.exp(-t + (n - 1) * _log(1 - gap, gap)))

    node, rest, node_weight = (jnp.asarray(column, t.dtype) for column in unit_interval())
    v = (noise + (1 - noise) * node)[..., None]  # similarity of the nearest item, if it is above the floor
    t, b, n, floor = t[..., None, :], b[..., None], n[..., None], noise[..., None] / v
    within = above[..., None]
    missing = within * rest[:, None]  # what is nearer than the nearest item
    gap = missing + (1 - within) * -jnp.expm1(-floor * t) + b * v * _gap(t, floor)
    inner = jnp.sum(weight[..., None, :] * jnp.exp(-t + (n - 1) * _log(1 - gap, gap)), axis=-1)
    none = _none(above, n[..., 0])
    nearest = n[..., 0] * above * jnp.sum(node_weight * inner, axis=-1, keepdims=True)
    return (none / n[..., 0] + nearest)[..., 0], p_i


def _gap(t, floor):
    """Return int_floor^1 (1 - e^(-t v)) dv = (1 - floor) - (e^(-floor t) - e^(-t))/t, without its cancellation."""
    node, weight = (jnp.asarray(column, t.dtype) for column in np.polynomial.legendre.leggauss(10))
    near, shape = jnp.minimum(t, 2.0)[..., None], jnp.broadcast_shapes(t.shape, floor.shape)
    v = floor[..., None] + (1 - floor[..., None]) * (1 + node) / 2
    small = jnp.broadcast_to((1 - floor) / 2 * jnp.sum(weight * -jnp.expm1(-near * v), axis=-1), shape)
    far = jnp.maximum(t, 2.0)
    return jnp.where(t < 2, small, (1 - floor) - (jnp.exp(-floor * far) - jnp.exp(-far)) / far)


def _nodes(rate):
    """Nodes t and weights, scaled to a mean rate of decay; the integral does not depend on the scale, nor its slope."""
    node, weight = (jnp.asarray(column, rate.dtype) for column in half_line())
    rate = lax.stop_gradient(rate)
    last = float(
        0.45 * np.log(float(jnp.finfo(rate.dtype).max))
    )  # beyond, e^-t squared is 0 and slopes are not numbers
    return jnp.minimum(node / rate, last), weight / rate


def _log(value, gap):
    """Return log(value), value = 1 - gap, from whichever of the two is exact; slopes are finite at both ends."""
    near, least = gap < 0.5, float(jnp.finfo(value.dtype).tiny)
    far = jnp.log(jnp.where(near, 1.0, jnp.maximum(value, least)))
    return jnp.where(near, jnp.log1p(-jnp.where(near, gap, 0.0)), far)


def _none(b, n):
    """Return (1 - b)^n, exact for small b and differentiable at b = 1."""
    near = b < 0.5
    return jnp.where(near, jnp.exp(n * jnp.log1p(-jnp.where(near, b, 0.0))), jnp.where(near, 0.0, 1 - b) ** n)


def _any(b, n):
    """Return 1 - (1 - b)^n, exact for small b and differentiable at b = 1."""
    near = b < 0.5
    return jnp.where(near, -jnp.expm1(n * jnp.log1p(-jnp.where(near, b, 0.0))), 1 - jnp.where(near, 0.0, 1 - b) ** n)


def _sum(terms):
    return jnp.sum(terms, axis=-1)


def _checked(kernel: str, noise: ArrayLike) -> bool:
    """Refuse an unknown kernel; return whether the noise is known to be 0 everywhere."""
    if kernel not in KERNELS:
        msg = f"kernel: got {kernel!r}; allowed 'constant' or 'linear'; others go through `kernel_constants`"
        raise InputError(msg)
    return not isinstance(noise, Tracer) and not np.any(np.asarray(noise))


def _arrays(*values: ArrayLike) -> tuple[Array, ...]:
    """Arrays of their common floating dtype."""
    dtype = jnp.result_type(*values)
    dtype = dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.result_type(float)
    return tuple(jnp.asarray(value, dtype) for value in values)
