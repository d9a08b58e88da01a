"""Stage 5 of 7: rung N1 - trace and singular values kept, singular vectors Haar: tI + U S V^T (1.7).

`measures.nulls.n1_matrices` draws them from singular values that a pipeline has at hand; here they are drawn from any
array of matrices, and any measure is taken of them. U and V are both drawn, so that products are right too.
"""

import jax
from jaxdyn_kernels.over_cores import over_cores
from jaxtyping import Array, Float

from jaxdyn import spectra
from jaxdyn.measures import arrays, nulls

from .draw import of_draws, places_of
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
    given = values, trace, places_of(matrices)

    def draw(number: int) -> Array:
        return over_cores(_draw, *given, axes=trace.ndim, common=(seed, number))

    return Null("N1", of_draws(draw, measure, draws))


def _draw(values, trace, ids, seed, draw):
    key = jax.random.key(seed)
    return nulls.n1_matrices(key, values, trace, ids, draws=1, first_draw=draw, full=True).matrix[..., 0, :, :]
