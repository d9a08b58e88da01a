"""Stage 5 of 7: what an intervention does to the product, split into single layers and alignment between them (1.8).

Deleting N flattens each layer's singular values, so the rank of the product must rise, whatever the directions. How
much of a rise is that, and how much is alignment between layers that was there and is gone?

    log r' / r = [log r'_rot / r_rot] + [log (r' / r'_rot) / (r / r_rot)]

where r_rot is the rank of the product with every layer in a Haar basis of its own (N2): its singular values depend on
the single layers' alone. Both products are turned by the same bases. The participation ratio is split by the
free-product law too, PR = free * ratio, which needs no draws but fails with rank-one outliers (`nulls.free_law`).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact, Int

from jaxdyn import nulls, propagate, spectra
from jaxdyn.measures import nulls as laws
from jaxdyn.measures import rank


class ProductRanks(NamedTuple):
    """Ranks of a product of layers, in its own bases and with every layer rotated.

    Attributes
    ----------
    effective_rank, participation_ratio : (...), of J_L ... J_1.
    rotated_effective_rank, rotated_participation_ratio : (draws, ...), under N2.
    free : (...), participation ratio by the free-product law.
    outlier : (...), the largest share of a layer's energy in one singular value; above `nulls.n3_free.OUTLIER` the
        free law does not hold.
    """

    effective_rank: Float[Array, "*batch"]
    participation_ratio: Float[Array, "*batch"]
    rotated_effective_rank: Float[Array, "R ..."]
    rotated_participation_ratio: Float[Array, "R ..."]
    free: Float[Array, "*batch"]
    outlier: Float[Array, "*batch"]


def product_ranks(
    factors: Inexact[Array, "L ... n n"], *, draws: int = 4, seed: int = 0, places: Int[Array, "L ..."] | None = None
) -> ProductRanks:
    """Measure a product and its rotations.

    Parameters
    ----------
    factors : (L, ..., n, n), first layer first; real or complex.
    draws, seed : of the Haar bases; the same for the same places, so that two sets of factors are turned alike.
    places : (L, ...), default those in the array; see `nulls.rotated`.

    Returns
    -------
    ProductRanks. Cost: 1 + draws products and the singular values of every layer.
    """
    own = propagate.product_log_singular_values(factors)
    turned = []
    for draw in range(draws):
        turned.append(propagate.product_log_singular_values(nulls.rotated(factors, seed, draw, places)))
    logs = jnp.stack(turned)
    values = spectra.singular_values(factors)
    free = laws.free_product_participation_ratio(rank.participation_ratio(values), factors.shape[-1])[-1]
    (effective, participation), (turned_effective, turned_participation) = _measure(own), _measure(logs)
    outlier = jnp.max(1 / rank.stable_rank(values), axis=0)
    return ProductRanks(effective, participation, turned_effective, turned_participation, free, outlier)


class Effect(NamedTuple):
    """An effect on a rank, in natural logarithms: total = single + alignment."""

    total: Array
    single: Array
    alignment: Array


def effect_on_effective_rank(before: ProductRanks, after: ProductRanks) -> Effect:
    """Effect on the entropy rank, split by rotation (N2): exact at finite n up to the draws, (...)."""
    total = jnp.log(after.effective_rank / before.effective_rank)
    single = jnp.mean(jnp.log(after.rotated_effective_rank / before.rotated_effective_rank), axis=0)
    return Effect(total, single, total - single)


def effect_on_participation_ratio(before: ProductRanks, after: ProductRanks) -> Effect:
    """Effect on the participation ratio, split by the free-product law (N3): log of free and of measured / free."""
    total = jnp.log(after.participation_ratio / before.participation_ratio)
    single = jnp.log(after.free / before.free)
    return Effect(total, single, total - single)


@jax.jit
def _measure(logs):
    return rank.effective_rank(logs, log=True), rank.participation_ratio(logs, log=True)
