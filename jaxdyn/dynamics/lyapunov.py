"""Stage 5 of 7: finite-time stretching rates of the path that a last token takes through depth, beside their nulls.

log(s_i) / m of the product J_{l+m-1} ... J_l of a sample's own in-context Jacobians, by `propagate`. They are
finite-depth quantities of one path: there is no limit, and a product of unrelated matrices spreads them too. Two nulls
say by how much: N1 draws both singular vectors of each layer's J - tI at random, N2 turns each layer as a whole, and so
keeps its eigenvalues too.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxdyn_kernels.threads import cores, single_threaded_blas
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
    """Stretching rates of the products of C paths.

    rate : (C, n), nats a layer, descending. digits : (C, n), decimal digits kept in each singular value.
    null_mean, null_sd : (null, C, n), over the draws; null 0 is N1, 1 is N2.
    """

    rate: Float[np.ndarray, "C n"]
    digits: Float[np.ndarray, "C n"]
    null_mean: Float[np.ndarray, "null C n"]
    null_sd: Float[np.ndarray, "null C n"]


def stretching(
    factor: Callable[[int], Float[Array, "C n n"]],
    layers: Sequence[int],
    *,
    draws: int = DRAWS,
    seed: int = 0,
    tick: Callable[[], None] = lambda: None,
) -> Rates:
    """Multiply the layers' Jacobians up, and random ones beside them.

    Parameters
    ----------
    factor : gives the Jacobians (C, n, n) of a layer; called once for each, in order.
    layers : the layers of the product, the first one rightmost; one or more.
    draws : random products of each null; 0 for none, 2 or more for their standard deviation.
    seed : of the draws; each depends on its layer, context and number alone.
    tick : called after each layer.

    Returns
    -------
    Rates. A matrix that is not finite gives NaN, and so does a rate of which no digit is kept, in a draw too. Cost:
    9 n^3 flops a layer and product; an SVD and three QRs a layer, context and draw. The cores share the contexts.

    Raises
    ------
    InputError : no layer, a negative number of draws.

    References
    ----------
    methods.md 1.4, 1.7 (N1, N2), 1.8.
    """
    if not layers:
        msg = "layers: got none; give one or more"
        raise InputError(msg)
    if draws < 0:
        msg = f"draws: got {draws}; allowed 0 or more"
        raise InputError(msg)
    key, products = jax.random.key(seed), []
    with single_threaded_blas(), ThreadPoolExecutor(cores()) as pool:
        for number, layer in enumerate(layers):
            jacobians = np.asarray(factor(layer))

            ids = [layer * len(jacobians) + c for c in range(len(jacobians))]
            before = products if number else [None] * len(ids)
            products = list(pool.map(partial(_multiply, key, draws), before, jacobians, ids))
            tick()
        method = "jacobi" if jacobians.shape[-1] <= JACOBI_WIDTH else "svd"
        found = list(pool.map(lambda product: jax.block_until_ready(_rates(product, method=method)), products))
    rate, digits = (np.stack([np.asarray(one[i], np.float64) for one in found]) for i in (0, 1))
    count, _, n = rate.shape
    null = rate[:, 1:].reshape(count, len(NULLS), draws, n).swapaxes(0, 1)
    missing = np.full((len(NULLS), count, n), np.nan)
    mean = null.mean(axis=-2) if draws else missing
    sd = null.std(axis=-2, ddof=1) if draws > 1 else missing
    return Rates(rate[:, 0], digits[:, 0], mean, sd)


_start = jax.jit(propagate.start)
_step = jax.jit(propagate.step)
_rates = jax.jit(propagate.stretching_rates, static_argnames="method")


def _multiply(key, draws, product, J, number):
    """Carry a path's product and those of its draws through one layer, and wait: the limit of threads must hold."""
    matrices = _with_draws(key, J, number, draws)
    return jax.block_until_ready(_start(matrices) if product is None else _step(product, matrices))


def _with_draws(key: Key[Array, ""], J: Float[np.ndarray, "n n"], number: int, draws: int) -> Float[Array, "m n n"]:
    """A matrix, then `draws` of N1, then as many of N2."""
    if not draws:
        return jnp.asarray(J)[None]
    t = np.trace(J) / len(J)
    deviation = J - t * np.eye(len(J), dtype=J.dtype)
    values = np.full(len(J), np.nan, J.dtype)
    if np.isfinite(J).all():
        values = np.linalg.svd(deviation, compute_uv=False)
    return _beside(*jax.random.split(key), J, values, np.asarray(t, J.dtype), number, draws=draws)


@partial(jax.jit, static_argnames="draws")
def _beside(n1, n2, J, values, trace, number, *, draws):
    random = nulls.n1_matrices(n1, values, trace, number, draws=draws, full=True).matrix
    keys = jax.vmap(lambda draw: jax.random.fold_in(jax.random.fold_in(n2, number), draw))(jnp.arange(draws))
    Q = nulls.haar(keys, len(J), J.dtype)
    turned = jnp.einsum("dij,jk,dlk->dil", Q, J, Q, precision=HIGHEST)
    return jnp.concatenate([J[None], random, turned])
