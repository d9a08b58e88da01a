"""Any kernel: two numbers for two items, and the exact front of n items for a kernel known as a table.

For two items and a decreasing g with support eps in a homogeneous space, p_I and p_S need of g only
A = E[g(0)/(g(0) + g(d))] and B = E[max(g, g')/(g + g')] in the ball: the constant kernel has A = B = 1/2, the linear
one in one dimension A = B = ln 2. So the front is free of geometry for the constant kernel alone: another shape, or
the same shape in another dimension, has another front, and a sharper g inside the ball lies above.
Source: methods.md 3.2, item 5; the table is derived here.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxdyn.errors import InputError

from .quadrature import half_line

ORDER = 48


def front_from_constants(b: ArrayLike, a: ArrayLike, big_b: ArrayLike) -> tuple[Array, Array]:
    """Return (p_S, p_I) of two items: p_S = 1/2 + b - (3/2 - B) b^2, p_I = 1 - (1 - A) b. Exact.

    Parameters
    ----------
    b : measure of the ball, 0 to 1.
    a, big_b : A and B of the kernel (`kernel_constants`), each from 1/2 to 1. All broadcast.
    """
    b, a, big_b = jnp.asarray(b), jnp.asarray(a), jnp.asarray(big_b)
    return 0.5 + b - (1.5 - big_b) * b**2, 1 - (1 - a) * b


def kernel_constants(kernel: Callable[[np.ndarray], ArrayLike], dimension: int = 1) -> tuple[float, float]:
    """Return (A, B) of a kernel in a flat space of some dimension.

    Parameters
    ----------
    kernel : g as a function of d/eps in (0, 1), vectorised, not increasing, positive inside; g(0) is its largest value.
    dimension : of the space, 1 or more; d/eps of a point of the ball has density D r^(D-1).

    Returns
    -------
    (A, B), floats in [1/2, 1]. Gauss-Legendre with 48 nodes a side, exact to rounding for a smooth kernel (g may
    vanish at the edge like a power of 1 - r).

    Raises
    ------
    InputError : a dimension below 1, or a kernel that increases or is not positive inside the ball.
    """
    if dimension < 1:
        msg = f"dimension: got {dimension}; allowed 1 or more"
        raise InputError(msg)
    node, weight = np.polynomial.legendre.leggauss(ORDER)
    node, weight = (1 + node) / 2, weight / 2
    values = np.asarray(kernel(np.concatenate([[0.0], node])), np.float64)
    if values.shape != (ORDER + 1,) or not (values > 0).all() or (np.diff(values) > 0).any():
        msg = "kernel: it must give one positive number for each d/eps in [0, 1), none above the one before"
        raise InputError(msg)
    top = values[0]
    a = float(np.sum(weight * dimension * node ** (dimension - 1) * top / (top + values[1:])))
    edge, ratio = np.meshgrid(node, node, indexing="ij")  # 1 - r of the nearer item; of the farther, as a share of it
    near, far = 1 - edge, 1 - edge * ratio
    g_near, g_far = (np.asarray(kernel(r), np.float64) for r in (near, far))
    density = 2 * edge * dimension**2 * (near * far) ** (dimension - 1)
    return a, float(np.einsum("i,j,ij->", weight, weight, density * g_near / (g_near + g_far)))


def front_of_table(
    similarity: ArrayLike | Sequence[float],
    measure: ArrayLike | Sequence[float],
    n: ArrayLike = 2,
    *,
    top: ArrayLike = 1.0,
) -> tuple[Array, Array]:
    """Return (p_S, p_I) of n items for a kernel given as a step function of distance, exactly.

    With shares r_ij = g_i/g_j and psi_ij(t) = sum_{k >= i} w_k e^(-r_kj t) over the shells from i on,
    p_S = sum_j int psi_jj^n - psi_{j+1,j}^n dt and p_I = int e^-t (sum_k w_k e^(-t g_k/g(0)))^(n-1) dt.
    Where all similarities are 0 the answer is a guess.

    Parameters
    ----------
    similarity : (m,), g >= 0 on m shells around the probe, nearest first; it need not fall.
    measure : (m,), measure of each shell, 0 or more; they sum to 1.
    n : number of items, a scalar of 1 or more.
    top : g(0), similarity of a point to itself, above 0.

    Returns
    -------
    (p_S, p_I), scalars. Differentiable in similarity (where positive), measure and top; `jax.vmap` maps over more.
    Cost: 97 m^2 evaluations.
    """
    given = [jnp.asarray(value) for value in (similarity, measure, n, top)]
    dtype = jnp.result_type(*given, float)
    return _table(*(value.astype(dtype) for value in given))


@jax.jit
def _table(similarity, measure, n, top):
    node, weight = (jnp.asarray(column, similarity.dtype) for column in half_line())
    last = float(0.45 * np.log(float(jnp.finfo(similarity.dtype).max)))

    def integral(own, weights, integrand):
        rate = jax.lax.stop_gradient(1 + (n - 1) * jnp.sum(weights * similarity / own))
        t = jnp.minimum(node / rate, last)
        return jnp.sum(weight / rate * integrand(t, jnp.exp(-t[:, None] * similarity / own)))

    def shell(j):
        own = jnp.where(similarity[j] > 0, similarity[j], 1.0)
        later = jnp.arange(similarity.size) > j
        weights = jnp.where(later, measure, 0.0)

        def integrand(t, decay):
            beyond = jnp.sum(weights * decay, -1)
            here = beyond + measure[j] * jnp.exp(-t)
            return here**n - beyond**n

        return jnp.where(similarity[j] > 0, integral(own, weights, integrand), 0.0)

    p_s = jnp.sum(jax.lax.map(shell, jnp.arange(similarity.size)))
    p_i = integral(top, measure, lambda t, decay: jnp.exp(-t) * jnp.sum(measure * decay, -1) ** (n - 1))
    zero = jnp.sum(jnp.where(similarity == 0, measure, 0.0))  # nothing but these: all similarities are 0
    return p_s + zero**n / n, p_i
