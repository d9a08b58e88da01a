"""Stage 5 of 7: what a product of L independent random matrices gives - the nulls of the bottleneck (1.4, 1.7).

A product loses rank with depth without any structure. These laws say how much: for Ginibre factors in closed form, and
for any factors whose singular vectors are unrelated from layer to layer (free independence) through their single-layer
participation ratios alone. A measured product beside the free law shows what cross-layer alignment adds.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdyn.errors import InputError
from jaxdyn.measures.rank import participation_ratio

from .n0 import participation_ratio_null


def ginibre_product_effective_rank(width: int, factors: int) -> float:
    """Entropy rank of the squared singular values of a product of L square Ginibre matrices, n exp(1 - H_{L+1}).

    H is the harmonic number, H_{L+1} = 1 + 1/2 + ... + 1/(L+1). At n = 512: 310, 222, 142, 82, 45 for L = 1, 2, 4, 8,
    16.

    Parameters
    ----------
    width : n.
    factors : L, at least 1.

    Returns
    -------
    Dimensionless, in the limit of large n.

    Raises
    ------
    InputError : no factors.

    References
    ----------
    1.7, N0. The squared singular values follow the Fuss-Catalan law (Penson and Zyczkowski, 2011).
    """
    _check_factors(factors)
    return width * math.exp(1 - sum(1 / k for k in range(1, factors + 2)))


def ginibre_product_participation_ratio(width: int, factors: int) -> float:
    """Participation ratio of the squared singular values of a product of L square Ginibre matrices, n / (L + 1).

    Parameters, returns and failures as in `ginibre_product_effective_rank`; 102.4, 56.9, 15.5 at n = 512 and L = 4, 8,
    32, where finite n gives 102.1, 56.6, 15.1 (1.4).
    """
    _check_factors(factors)
    return width / (factors + 1)


def ginibre_product_henrici(factors: int) -> float:
    """Normalised Henrici departure of a product of m square Ginibre matrices, sqrt(m / (m + 1)) (1.7, N0)."""
    _check_factors(factors)
    return math.sqrt(factors / (factors + 1))


def ginibre_product_complex_fraction(width: int, factors: int) -> float:
    """Share of complex eigenvalues of a product of m square Ginibre matrices, 1 - sqrt(2 m / (pi n)) (1.7, N0).

    The leading order in n; never below 0.
    """
    _check_factors(factors)
    return max(0.0, 1 - math.sqrt(2 * factors / (math.pi * width)))


def expansion_henrici(ratio: float) -> float:
    """Normalised Henrici departure of W_down W_up with independent Gaussian entries and d_ff = ratio * d.

    h^2 = 1 - [(1 - 1/a)/2 + 1/(3 a)],  a = d_ff / d

    Parameters
    ----------
    ratio : a, at least 1: sqrt(2/3) at a = 1 (a product of two square factors), 1/sqrt 2 for a wide MLP.

    Returns
    -------
    Dimensionless, in the limit of large d.

    Raises
    ------
    InputError : ratio below 1.

    References
    ----------
    1.7, N0.
    """
    if ratio < 1:
        msg = f"ratio: got {ratio}; allowed: d_ff / d of at least 1"
        raise InputError(msg)
    return math.sqrt(1 - ((1 - 1 / ratio) / 2 + 1 / (3 * ratio)))


def free_product_participation_ratio(participation_ratios: Float[Array, "L ..."], width: int) -> Float[Array, "L ..."]:
    """Participation ratio of the running product if the factors were free of each other (N3).

    n / PR(J_l ... J_1) - 1 = sum_{k <= l} (n / PR(J_k) - 1)

    Parameters
    ----------
    participation_ratios : (L, ...), that of each factor's squared singular values.
    width : n.

    Returns
    -------
    (L, ...), dimensionless, after each factor. The ratio measured / free is the cross-layer alignment statistic: 1 for
    singular vectors unrelated from layer to layer. The law fails where a factor has rank-one outliers.

    References
    ----------
    1.7, N3: the second moment of a free multiplicative convolution.
    """
    return width / (1 + jnp.cumsum(width / participation_ratios - 1, axis=0))


def shifted_product_participation_ratio(
    shift: Float[Array, "L ..."], deviation_norm: Float[Array, "L ..."], width: int
) -> Float[Array, "L ..."]:
    """Participation ratio of the running product of factors c_l I + Ginibre of norm norm(A_l)_F (N0 of the product).

    Parameters
    ----------
    shift : (L, ...), c_l; 1 for blocks J_l = I + A_l.
    deviation_norm : (L, ...), norm(A_l)_F.
    width : n.

    Returns
    -------
    (L, ...): with c = 1 and L = 32, .862 n for scale .05 and .29 n for scale .2 (scale = norm / sqrt n).

    References
    ----------
    1.4 (factors of matched norm), by the free-product law of 1.7 with each factor's closed form.
    """
    single = participation_ratio_null(shift, deviation_norm, width)
    return free_product_participation_ratio(single, width)


def cross_layer_alignment(
    product_log_singular_values: Float[Array, "L ... n"], factor_participation_ratios: Float[Array, "L ..."]
) -> Float[Array, "L ..."]:
    """Measured over free participation ratio of the running product (N3).

    Parameters
    ----------
    product_log_singular_values : (L, ..., n), after each factor.
    factor_participation_ratios : (L, ...), of each factor alone.

    Returns
    -------
    (L, ...), dimensionless: 1 for free factors, below 1 where layers amplify what earlier layers amplified.
    """
    measured = participation_ratio(product_log_singular_values, log=True)
    width = product_log_singular_values.shape[-1]
    return measured / free_product_participation_ratio(factor_participation_ratios, width)


def _check_factors(factors):
    if factors < 1:
        msg = f"factors: got {factors}; allowed: at least 1 matrix in the product"
        raise InputError(msg)
