"""Stage 5 of 7: rung N3 - the free-product law: the product's participation ratio from its layers' alone (1.7).

    n / PR(J_l ... J_1) - 1 = sum_k (n / PR(J_k) - 1)

The ratio measured / free is the cross-layer alignment statistic. The law is one of large n for factors whose largest
singular value carries little of the energy. A rank-one outlier that carries a share p of it breaks it: two rank-one
factors have PR = 1 each, the law says n / (2n - 1), about 1/2, and a product cannot fall below 1. `FreeLaw.outlier`
is the largest such share; above `OUTLIER` use N2, which is the same null at finite n.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdyn import propagate, spectra
from jaxdyn.errors import InputError
from jaxdyn.measures import nulls, rank

from .null import Null

OUTLIER = 0.1
"""Share of a layer's energy in one singular value above which the law is not to be used.

Five layers of width 64 with random vectors and a largest share of .1, .2, .3, .5: measured / free is 1.01, 1.23, 1.38
and 2.3 (standard errors .03 to .17). It errs upwards, as if the layers were spreading what they get."""


class FreeLaw(NamedTuple):
    """The law beside the measurement, after the whole product.

    Attributes
    ----------
    measured : (...), participation ratio of J_L ... J_1.
    free : (...), what the law says.
    ratio : (...), measured / free, the alignment statistic: below 1 where layers amplify what earlier ones amplified.
    outlier : (...), largest share sigma_1^2 / sum sigma^2 of any layer.
    holds : (...), whether outlier <= `OUTLIER`.
    """

    measured: np.ndarray
    free: np.ndarray
    ratio: np.ndarray
    outlier: np.ndarray
    holds: np.ndarray


def free_law(factors: Float[Array, "L ... n n"]) -> FreeLaw:
    """Compare a product with the free-product law.

    Parameters
    ----------
    factors : (L, ..., n, n), first layer first, real or complex.

    Returns
    -------
    FreeLaw.

    References
    ----------
    1.7 N3.
    """
    values = spectra.singular_values(factors)
    free = nulls.free_product_participation_ratio(rank.participation_ratio(values), factors.shape[-1])[-1]
    own = rank.participation_ratio(propagate.product_log_singular_values(factors), log=True)
    outlier = jnp.max(1 / rank.stable_rank(values), axis=0)
    return FreeLaw(*(np.asarray(one) for one in (own, free, own / free, outlier, outlier <= OUTLIER)))


def n3(factors: Float[Array, "L ... n n"], measure: str = "product_participation_ratio") -> Null:
    """Rung N3 of the running product's participation ratio, or 1 for the alignment ratio.

    Parameters
    ----------
    factors : (L, ..., n, n), first layer first.
    measure : "product_participation_ratio" or "product_alignment_ratio": the law is one of second moments, and says
        nothing of other measures; N2 does.

    Returns
    -------
    Null, exact, (1, L, ...).

    Raises
    ------
    InputError : another measure.
    """
    single = rank.participation_ratio(spectra.singular_values(factors))
    free = nulls.free_product_participation_ratio(single, factors.shape[-1])
    if measure == "product_alignment_ratio":
        free = jnp.ones_like(free)
    elif measure != "product_participation_ratio":
        msg = (
            f"measure: got {measure!r}; the free law is for 'product_participation_ratio' and "
            "'product_alignment_ratio'; use n2 for others, the same null drawn"
        )
        raise InputError(msg)
    return Null("N3", np.asarray(free)[None], exact=True)
