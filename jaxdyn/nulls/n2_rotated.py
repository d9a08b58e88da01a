"""Stage 5 of 7: rung N2 - every layer in a basis of its own: Q M Q^T, Q Haar (1.7).

Eigenvalues, Henrici departure, singular values and norm of each layer stay; what one layer's output has to do with the
next one's input is gone. Of products it is what the single layers give: since V(l+1)^T Q(l+1)^T Q(l) U(l) is Haar and
independent from layer to layer, the singular values of the product have the law of N3 exactly, at finite n too.
"""

import jax.numpy as jnp
from jax import lax
from jaxdyn_kernels.over_cores import over_cores
from jaxtyping import Array, Inexact, Int

from jaxdyn.measures import nulls

from .draw import keys_of, of_draws, places_of
from .named import Measure
from .null import Null

HIGHEST = lax.Precision.HIGHEST


def n2(matrices: Inexact[Array, "*batch n n"], measure: Measure, *, draws: int = nulls.DRAWS, seed: int = 0) -> Null:
    """Rung N2 of a measure: each matrix in a Haar basis of its own.

    Parameters
    ----------
    matrices : (..., n, n), layers first for a measure of a product. Every matrix has its own Q, samples too.
    measure : a name or a function, as in `nulls.measured`. One that does not depend on the basis is unchanged.
    draws, seed : how many, and which.

    Returns
    -------
    Null. Cost a draw: a QR and two products a matrix, and the measure.

    Raises
    ------
    InputError : an unknown name, fewer than 1 draw.

    References
    ----------
    1.7 N2.
    """
    return Null("N2", of_draws(lambda draw: rotated(matrices, seed, draw), measure, draws))


def rotated(
    matrices: Inexact[Array, "*batch n n"], seed, draw=0, places: Int[Array, "*batch"] | None = None
) -> Inexact[Array, "*batch n n"]:
    """Q M Q^T with one Haar Q a matrix; the same Q for the same seed, draw, order n and place.

    `places`: by default those in the array; part of an array is turned as the whole is, given its places there.
    """
    places = places_of(matrices) if places is None else places
    return over_cores(_rotated, matrices, places, common=(seed, draw))


def _rotated(matrices, places, seed, draw):
    basis = nulls.haar(keys_of(matrices, seed, draw, places), matrices.shape[-1], jnp.finfo(matrices.dtype).dtype)
    basis = basis.reshape(matrices.shape)
    turned = jnp.matmul(basis, matrices, precision=HIGHEST)
    return jnp.matmul(turned, jnp.swapaxes(basis, -1, -2), precision=HIGHEST)
