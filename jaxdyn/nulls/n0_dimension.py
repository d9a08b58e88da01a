"""Stage 5 of 7: rung N0 - what dimension, shift and norm alone give: closed forms, or c I plus a Ginibre matrix.

A measure of `MEASURES` with a closed form takes it (no draws); anything else, products among it, is drawn: each matrix
M becomes c I + G with independent Gaussian entries of the norm of M - cI. For blocks J = I + A take c = 1, for updates
c = 0. A product of such factors is the null of matched norms that methods 1.4 asks for beside a bottleneck.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdyn.measures import nulls
from jaxdyn.measures.arrays import frobenius

from .draw import keys_of, of_draws
from .named import Measure
from .null import Null


def n0(
    matrices: Float[Array, "*batch n n"],
    measure: Measure,
    *,
    shift: float = 1.0,
    draws: int = nulls.DRAWS,
    seed: int = 0,
) -> Null:
    """Rung N0 of a measure.

    Parameters
    ----------
    matrices : (..., n, n), layers first for a measure of a product.
    measure : a name or a function, as in `nulls.measured`.
    shift : c, 1 for blocks and 0 for updates.
    draws, seed : of the Monte Carlo, where there is no closed form.

    Returns
    -------
    Null, `exact` with one row for a closed form.

    Raises
    ------
    InputError : an unknown name, fewer than 1 draw.

    References
    ----------
    1.7 N0, 1.4 (factors of matched norm).
    """
    n, eye = matrices.shape[-1], jnp.eye(matrices.shape[-1], dtype=matrices.dtype)
    size = frobenius(matrices - shift * eye)
    if isinstance(measure, str):
        closed = nulls.closed_form(jnp.full_like(size, shift), size, n)
        if measure in closed and measure not in nulls.UNAVAILABLE:
            return Null("N0", np.asarray(closed[measure])[None], exact=True)
    return Null("N0", of_draws(lambda draw: _ginibre(matrices, size, shift, seed, draw), measure, draws))


@jax.jit
def _ginibre(matrices, size, shift, seed, draw):
    shape, dtype = matrices.shape[-2:], matrices.dtype
    keys = keys_of(matrices, seed, draw)
    entries = jax.vmap(lambda key: jax.random.normal(key, shape, dtype))(keys).reshape(matrices.shape)
    scaled = entries * (size / frobenius(entries))[..., None, None]
    return scaled + jnp.asarray(shift, dtype) * jnp.eye(shape[0], dtype=dtype)
