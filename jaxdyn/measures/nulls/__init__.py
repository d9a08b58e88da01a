"""Stage 5 of 7: the first rungs of the null ladder - N0 (closed forms), N1 (Haar vectors), free products (1.7).

A measure m is stored with the mean and the standard deviation of its null and with the excess m - mean(null): the first
rung whose excess vanishes explains the number.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .n0 import UNAVAILABLE, closed_form, participation_ratio_null
from .n1 import DRAWS, NullDraws, haar, n1_matrices
from .products import (
    cross_layer_alignment,
    expansion_henrici,
    free_product_participation_ratio,
    ginibre_product_complex_fraction,
    ginibre_product_effective_rank,
    ginibre_product_henrici,
    ginibre_product_participation_ratio,
    shifted_product_participation_ratio,
)

RUNGS = ("N0", "N1")
"""The rungs computed here, the coordinate of dimension `rung` in the store."""

__all__ = [
    "DRAWS",
    "RUNGS",
    "UNAVAILABLE",
    "NullDraws",
    "closed_form",
    "cross_layer_alignment",
    "excess",
    "expansion_henrici",
    "free_product_participation_ratio",
    "ginibre_product_complex_fraction",
    "ginibre_product_effective_rank",
    "ginibre_product_henrici",
    "ginibre_product_participation_ratio",
    "haar",
    "n1_matrices",
    "participation_ratio_null",
    "shifted_product_participation_ratio",
    "summarise",
]


def summarise(draws: Float[Array, "*batch draws"]) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
    """Mean and standard deviation of a measure over the draws of its null.

    Parameters
    ----------
    draws : (..., draws), the measure of each null matrix, at least 2.

    Returns
    -------
    mean (...), sd (...) with draws - 1 in the denominator. A failed draw (NaN) makes both NaN: none is left out.
    """
    return jnp.mean(draws, axis=-1), jnp.std(draws, axis=-1, ddof=1)


def excess(measured: Float[Array, "*batch"], null_mean: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """Return what the null does not explain, m - mean(null), in the unit of the measure."""
    return measured - null_mean
