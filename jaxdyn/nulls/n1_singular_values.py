"""Stage 5 of 7: rung N1 - trace and singular values kept, singular vectors Haar: tI + U S V^T (1.7).

`measures.nulls.n1_matrices` draws them from singular values that a pipeline has at hand; here they are drawn from any
array of matrices, and any measure is taken of them. U and V are both drawn, so that products are right too.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdyn import spectra
from jaxdyn.measures import arrays, nulls

from .draw import of_draws
from .named import Measure
from .null import Null


def n1(matrices: Float[Array, "*batch n n"], measure: Measure, *, draws: int = nulls.DRAWS, seed: int = 0) -> Null:
    """Rung N1 of a measure: t = tr M / n and the singular values of M - tI kept, their vectors random.

    Parameters
    ----------
    matrices : (..., n, n) real, layers first for a measure of a product.
    measure : a name or a function, as in `nulls.measured`.
    draws, seed : how many, and which.

    Returns
    -------
    Null. Cost a draw: two QR a matrix, and the measure.

    Raises
    ------
    InputError : an unknown name, fewer than 1 draw.

    References
    ----------
    1.7 N1.
    """
    trace = arrays.mean_trace(matrices)
    values = spectra.singular_values(arrays.deviator(matrices))
    ids = jnp.arange(trace.size).reshape(trace.shape)
    return Null("N1", of_draws(lambda draw: _draw(values, trace, ids, seed, np.int32(draw)), measure, draws))


@jax.jit
def _draw(values, trace, ids, seed, draw):
    key = jax.random.key(seed)
    return nulls.n1_matrices(key, values, trace, ids, draws=1, first_draw=draw, full=True).matrix[..., 0, :, :]
