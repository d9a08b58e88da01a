"""The statistics of one convention beside the rungs of the ladder."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Array, Float

from jaxdyn import nulls
from jaxdyn.activations import Activations
from jaxdyn.models import Model
from jaxdyn.nulls import Null

from .conventions import Convention
from .settings import StudySettings
from .statistics import STATISTICS, closed_form, log_product_rank, numbers, profiles, summarise

SERIES = ("henrici", "alignment")
"""Profiles along depth whose trend is tested."""


def primary_ladder(
    model: Model,
    acts: Activations,
    blocks: Float[Array, "L S n n"],
    ratio: Float[Array, "L S"],
    settings: StudySettings,
    *,
    tick: Callable[[str], None] = lambda rung: None,
) -> xr.Dataset:
    """Measure the primary convention, in context or as the settings say, beside every rung asked for.

    Parameters
    ----------
    model, acts : the trained model and its residual stream.
    blocks, ratio : the Jacobians of all blocks and norm(input) / norm(output), as in `Convention.matrices`.
    settings : rungs, draws, seeds.
    tick : called with each rung's name when it is done.

    Returns
    -------
    Dataset: `number` (statistic, sample); `null_draws` (rung, draw, statistic, sample), NaN where a rung has fewer
    draws; `null_exact` (rung); `floor` (statistic), sd of N6; `trend`, `trend_p` (series), Spearman of the mean profile
    against depth and its p against N7; `profile` and `profile_n1` (series, layer), means over samples, of N1 from
    one draw a matrix; `profile_p` (series, layer), of their difference, by max-T over the layers.
    """
    convention = Convention(settings.operator)
    matrices = convention.matrices(blocks, ratio)
    found = profiles(matrices)
    measured = summarise(found, log_product_rank(matrices))
    ladder = beside(convention, blocks, ratio, measured, settings)
    tick("N0 and N1")
    given: dict[str, Any] = {"operator": settings.operator}
    if "N2" in settings.rungs:
        ladder.append(_turned(matrices, measured, settings))
        tick("N2")
    if "N4" in settings.rungs:
        ladder.append(nulls.n4(model, acts, numbers, draws=settings.weight_draws, seed=settings.seed, **given))
        tick("N4")
    if "N5" in settings.rungs:
        seeds: dict[str, Any] = {"seeds": settings.init_seeds, "seed": settings.seed, "tokens": acts.rule}
        ladder.append(nulls.n5(model, acts.prompts, numbers, **seeds, **given))
        tick("N5")
    floor = _floor(measured, settings)
    trends = [_trend(found[name].mean(axis=1), settings) for name in SERIES]
    drawn = nulls.n1(matrices, _series, draws=1, seed=settings.seed).draws[0]
    tested = [_by_layer(found[name] - null, settings) for name, null in zip(SERIES, drawn, strict=True)]
    data = {
        "number": (("statistic", "sample"), measured),
        "floor": (("statistic",), floor),
        "trend": (("series",), [one for one, _ in trends]),
        "trend_p": (("series",), [p for _, p in trends]),
        "profile": (("series", "layer"), np.stack([found[name].mean(axis=1) for name in SERIES])),
        "profile_n1": (("series", "layer"), drawn.mean(axis=-1)),
        "profile_p": (("series", "layer"), np.stack(tested)),
    }
    coordinates = {"statistic": list(STATISTICS), "series": list(SERIES)}
    return xr.Dataset({**data, **as_arrays(ladder)}, coordinates | {"rung": [one.rung for one in ladder]})


def beside(
    convention: Convention,
    blocks: Float[Array, "L S n n"],
    ratio: Float[Array, "L S"],
    measured: Float[np.ndarray, "K s"],
    settings: StudySettings,
) -> list[Null]:
    """N0 and N1 of one convention, those of them that were asked for; N0 of a product of updates is left out (NaN)."""
    matrices, ladder = convention.matrices(blocks, ratio), []
    if "N0" in settings.rungs:
        known = closed_form(matrices, convention.shift(ratio))
        draws = [summarise(known, product) for product in _noise_products(convention, matrices, settings)]
        ladder.append(Null("N0", np.stack(draws)))
    if "N1" in settings.rungs:
        ladder.append(nulls.n1(matrices, numbers, draws=settings.draws, seed=settings.seed))
    assert all(one.draws.shape[1:] == measured.shape for one in ladder)
    return ladder


def measure(convention: Convention, blocks: Float[Array, "L S n n"], ratio: Float[Array, "L S"]) -> np.ndarray:
    """All statistics of one convention, (K, s)."""
    return numbers(convention.matrices(blocks, ratio))


def as_arrays(ladder: Sequence[Null]) -> dict[str, tuple]:
    """Draws of all rungs in one array (rung, draw, statistic, sample), padded with NaN, and what they are."""
    most = max(len(one.draws) for one in ladder)
    padded = np.full((len(ladder), most, *ladder[0].draws.shape[1:]), np.nan)
    for row, one in zip(padded, ladder, strict=True):
        row[: len(one.draws)] = one.draws
    return {
        "null_draws": (("rung", "draw", "statistic", "sample"), padded),
        "null_count": (("rung",), [len(one.draws) for one in ladder]),
        "null_shared": (("rung",), [one.shared for one in ladder]),
    }


def from_arrays(found: xr.Dataset, statistic: str) -> list[Null]:
    """Take one statistic's rungs out of a dataset again, draws (R, samples)."""
    one = found.sel(statistic=statistic)
    counts, shared = one["null_count"].values, one["null_shared"].values
    return [
        Null(str(rung), one["null_draws"].values[row, : counts[row]], shared=bool(shared[row]))
        for row, rung in enumerate(found["rung"].values)
    ]


def _noise_products(convention, matrices, settings):
    """Draws of log_product_rank for c I plus Ginibre factors; NaN for updates, whose product nobody takes."""
    if convention.target == "A":
        return np.full((settings.draws, matrices.shape[1]), np.nan)
    return nulls.n0(matrices, log_product_rank, draws=settings.draws, seed=settings.seed).draws


def _turned(matrices, measured, settings) -> Null:
    """N2: turning a layer changes no number of that layer, so only the product is drawn."""
    products = nulls.n2(matrices, log_product_rank, draws=settings.draws, seed=settings.seed).draws
    draws = np.repeat(measured[None], len(products), axis=0)
    draws[:, STATISTICS.index("log_product_rank")] = products
    return Null("N2", draws)


def _series(matrices):
    """Profiles that are drawn along depth, (series, L, S)."""
    found = profiles(matrices)
    return np.stack([found[name] for name in SERIES])


def _floor(measured, settings):
    """Return the sampling floor of each statistic, NaN with a single text."""
    if measured.shape[-1] < 2:
        return np.full(len(measured), np.nan)
    return nulls.n6(measured, np.arange(measured.shape[-1]), seed=settings.seed).sd


def _by_layer(excess, settings):
    """Return p of each layer's excess, NaN with a single text."""
    if excess.shape[-1] < 2:
        return np.full(len(excess), np.nan)
    return nulls.sign_flip_test(excess, np.arange(excess.shape[-1]), seed=settings.seed)[1]


def _trend(series, settings):
    if len(series) < 3:
        return np.nan, np.nan
    return nulls.trend_test(series, seed=settings.seed)
