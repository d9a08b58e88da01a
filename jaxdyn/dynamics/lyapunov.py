"""Stage 5 of 7: finite-time stretching rates of the path that a last token takes through depth, beside their nulls.

log(s_i) / m of the product J_{l+m-1} ... J_l of a sample's own in-context Jacobians, by `propagate`. They are
finite-depth quantities of one path: there is no limit, and a product of unrelated matrices spreads them too. Two nulls
say by how much: N1 draws both singular vectors of each layer's J - tI at random, N2 turns each layer as a whole, and so
keeps its eigenvalues too.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Key

from jaxdyn import propagate
from jaxdyn.errors import InputError
from jaxdyn.measures import nulls

NULLS = ("N1", "N2")
DRAWS = 4
JACOBI_WIDTH = 256
"""Widest matrix whose small singular values are refined by one-sided Jacobi; above, rates beyond 1/eps are NaN."""

HIGHEST = lax.Precision.HIGHEST


class Rates(NamedTuple):
    """Stretching rates of products from several starts to the last layer.

    rate : (start, C, n), nats a layer, descending. digits : (start, C, n), decimal digits kept in each singular value.
    null_mean, null_sd : (null, start, C, n), over the draws; null 0 is N1, 1 is N2.
    """

    rate: Float[np.ndarray, "start C n"]
    digits: Float[np.ndarray, "start C n"]
    null_mean: Float[np.ndarray, "null start C n"]
    null_sd: Float[np.ndarray, "null start C n"]


def stretching(
    factor: Callable[[int], Float[Array, "C n n"]],
    depth: int,
    starts: Sequence[int],
    *,
    draws: int = DRAWS,
    seed: int = 0,
    tick: Callable[[], None] = lambda: None,
) -> Rates:
    """Multiply the layers' Jacobians up from several starts, and random ones beside them.

    Parameters
    ----------
    factor : gives the Jacobians (C, n, n) of a layer; called once for each, from the first start on.
    depth : the number of layers L.
    starts : 0 <= l < L, where products begin; all end at the last layer.
    draws : random products of each null; 0 for none, 2 or more for their standard deviation.
    seed : of the draws; each depends on its layer, context and number alone.
    tick : called after each layer.

    Returns
    -------
    Rates. A matrix that is not finite gives NaN. Cost: 9 n^3 flops a layer, start, context and product; an SVD and a QR
    or two a layer, context and draw.

    Raises
    ------
    InputError : no start or one outside the layers, a negative number of draws.

    References
    ----------
    methods.md 1.4, 1.7 (N1, N2), 1.8.
    """
    if not starts or min(starts) < 0 or max(starts) >= depth:
        msg = f"starts: got {tuple(starts)}; allowed one or more of 0 to {depth - 1}"
        raise InputError(msg)
    if draws < 0:
        msg = f"draws: got {draws}; allowed 0 or more"
        raise InputError(msg)
    products: dict[int, propagate.Product] = {}
    key = jax.random.key(seed)
    for layer in range(min(starts), depth):
        matrices = _with_draws(key, jnp.asarray(factor(layer)), layer, draws)
        for start, product in products.items():
            products[start] = _step(product, matrices)
        if layer in starts:
            products[layer] = _start(matrices)
        tick()
    count, n = len(matrices) // (1 + len(NULLS) * draws), matrices.shape[-1]
    method = "jacobi" if n <= JACOBI_WIDTH else "svd"
    found = [_rates(products[start], method=method) for start in starts]
    rate, digits = (np.stack([np.asarray(one[i], np.float64) for one in found]) for i in (0, 1))
    null = rate[:, count:].reshape(len(starts), len(NULLS), count, draws, n).swapaxes(0, 1)
    missing = np.full((len(NULLS), len(starts), count, n), np.nan)
    mean = null.mean(axis=-2) if draws else missing
    sd = null.std(axis=-2, ddof=1) if draws > 1 else missing
    return Rates(rate[:, :count], digits[:, :count], mean, sd)


_start = jax.jit(propagate.start)
_step = jax.jit(propagate.step)
_rates = jax.jit(propagate.stretching_rates, static_argnames="method")


def _with_draws(key: Key[Array, ""], J: Float[Array, "C n n"], layer: int, draws: int) -> Float[Array, "m n n"]:
    """The matrices of C contexts, then `draws` of N1 for each of them, then as many of N2."""
    if not draws:
        return J
    trace = jnp.trace(J, axis1=1, axis2=2) / J.shape[-1]
    deviation = np.asarray(J - trace[:, None, None] * jnp.eye(J.shape[-1], dtype=J.dtype))
    values = jnp.asarray(np.stack([_singular_values(one) for one in deviation]))
    ids = layer * len(J) + jnp.arange(len(J))
    return _beside(*jax.random.split(key), J, values, trace, ids, draws=draws)


@partial(jax.jit, static_argnames="draws")
def _beside(n1, n2, J, values, trace, ids, *, draws):
    count, n = J.shape[:2]
    random = nulls.n1_matrices(n1, values, trace, ids, draws=draws, full=True).matrix
    fold = jax.vmap(lambda i: jax.vmap(lambda d: jax.random.fold_in(jax.random.fold_in(n2, i), d))(jnp.arange(draws)))
    Q = nulls.haar(fold(ids).reshape(-1), n, J.dtype).reshape(count, draws, n, n)
    turned = jnp.einsum("cdij,cjk,cdlk->cdil", Q, J, Q, precision=HIGHEST)
    return jnp.concatenate([J, random.reshape(-1, n, n), turned.reshape(-1, n, n)])


def _singular_values(matrix):
    if not np.isfinite(matrix).all():
        return np.full(len(matrix), np.nan, matrix.dtype)
    return np.linalg.svd(matrix, compute_uv=False)
