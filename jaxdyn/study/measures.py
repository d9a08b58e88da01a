"""Every measure of every block, and of the product at every depth, beside every rung of the ladder (1.7).

The claims have margins of their own, fixed beforehand. Here one rule serves all: a rung *accounts for* a number when
the whole 95 % interval of the excess lies within `TOLERANCE` of the number itself. It describes; it is no verdict on a
claim.
"""

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr
from jaxtyping import Array, Float

from jaxdyn import nulls
from jaxdyn.activations import Activations
from jaxdyn.models import Model
from jaxdyn.nulls import Null
from jaxdyn.nulls.named import EVERY, EVERY_SINGLE, PRODUCT, every_measure, every_product, unit_of

from .settings import StudySettings

TOLERANCE = 0.05
"""Share of a number within which a difference does not matter."""

DRAWS = 4
"""Of N0 to N2, at most: a portrait of every block costs more than the claims' numbers."""

OF_LAW = ("product_participation_ratio", "product_alignment_ratio")
"""What the free-product law N3 says something of."""

Tick = Callable[[str], None]


def measures_ladder(
    model: Model,
    acts: Activations,
    blocks: Float[Array, "L S n n"],
    settings: StudySettings,
    *,
    tick: Tick = lambda rung: None,
) -> xr.Dataset:
    """Measure every block and every running product, beside every rung asked for.

    Parameters
    ----------
    model, acts : the trained model and its residual stream.
    blocks : (L, S, n, n), the Jacobians of all blocks, in the operator of the settings.
    settings : operator, rungs, draws, seeds.
    tick : called with each rung's name when it is done.

    Returns
    -------
    Dataset over (rung, measure, layer): null, null_sd (means over samples), excess with excess_low and excess_high
    (articles as replicates), state ("explained", "beyond", "undecided", "" where the rung says nothing of the measure:
    N2 of one matrix, N3 of all but `OF_LAW`); over (measure, layer): measured, floor (sd of N6), verdict; over measure:
    trend and trend_p (Spearman of the mean along depth, against N7; NaN below three layers), unit. `seeds` (rung).

    Notes
    -----
    Cost: a portrait of every matrix, and one for each draw of N0, N1, N4 and N5; running products for N2.

    References
    ----------
    1.7; 1.4.
    """
    measured = every_measure(blocks)
    tick("measured")
    ladder = {rung: draw() for rung, draw in _rungs(model, acts, blocks, settings, tick)}
    floor = nulls.n6(measured, np.arange(measured.shape[-1]), seed=settings.seed)
    parts = []
    for some, rungs in _who_speaks_of_what(ladder):
        rows = [EVERY.index(name) for name in some]
        one = [Null(rung, ladder[rung].draws[:, _within(rung, some)], ladder[rung].exact, ladder[rung].shared)
               for rung in rungs]  # fmt: skip
        parts.append(_explained(measured[rows], one, Null("N6", floor.draws[:, rows]), some))
    found = xr.concat(parts, "measure", join="outer", fill_value={"state": ""}).sel(measure=list(EVERY))
    found = found.reindex(rung=list(ladder), fill_value={"state": ""})
    trends = np.array([_trend(row.mean(axis=-1), settings.seed) for row in measured]).T
    return found.assign(
        floor=(("measure", "layer"), floor.sd),
        seeds=("rung", [one.seeds for one in ladder.values()]),
        trend=("measure", trends[0]),
        trend_p=("measure", trends[1]),
        unit=("measure", [unit_of(name) for name in EVERY]),
    ).assign_attrs(operator=settings.operator, samples=blocks.shape[1], seed=settings.seed, tolerance=TOLERANCE)


def _rungs(model, acts, blocks, settings: StudySettings, tick: Tick):
    """Give (rung, how to draw it) from the lowest on; the law is always there, and costs nothing."""
    given = {"draws": min(settings.draws, DRAWS), "seed": settings.seed}
    same = {"operator": settings.operator, "seed": settings.seed}
    every = {
        "N0": lambda: nulls.n0(blocks, every_measure, **given),
        "N1": lambda: nulls.n1(blocks, every_measure, **given),
        "N2": lambda: nulls.n2(blocks, every_product, **given),
        "N3": lambda: Null("N3", np.stack([nulls.n3(blocks, name).draws[0] for name in OF_LAW])[None], exact=True),
        "N4": lambda: nulls.n4(model, acts, every_measure, draws=settings.weight_draws, **same),
        "N5": lambda: nulls.n5(model, acts.prompts, every_measure, tokens=acts.rule, seeds=settings.init_seeds, **same),
    }
    for rung, draw in every.items():
        if rung == "N3" or rung in settings.rungs:
            yield rung, draw
            tick(rung)


def _who_speaks_of_what(ladder: Sequence[str] | dict) -> list[tuple[tuple[str, ...], list[str]]]:
    """Group the measures by the rungs that say something of them: turning one matrix changes no measure of it."""
    rest = tuple(name for name in PRODUCT if name not in OF_LAW)
    groups = ((EVERY_SINGLE, {"N2", "N3"}), (rest, {"N3"}), (OF_LAW, set()))
    kept = [(some, [rung for rung in ladder if rung not in silent]) for some, silent in groups]
    return [(some, rungs) for some, rungs in kept if rungs]


def _within(rung: str, some: Sequence[str]) -> list[int]:
    """Places of these measures in a draw of this rung."""
    held = {"N2": tuple(PRODUCT), "N3": OF_LAW}.get(rung, EVERY)
    return [held.index(name) for name in some]


def _explained(measured, ladder, floor, names) -> xr.Dataset:
    size = np.abs(measured.mean(axis=-1))
    margin = np.maximum(np.nan_to_num(TOLERANCE * size), np.finfo(float).tiny)
    found = nulls.explain(
        measured, ladder, margin=margin, replicates=np.arange(measured.shape[-1]), floor=floor,
        dims=("measure", "layer"),
    )  # fmt: skip
    return found.drop_vars("seeds").assign_coords(measure=list(names)).drop_attrs()


def _trend(series, seed):
    """Return Spearman and p of the finite layers; the overlap has none for the first layer."""
    finite = series[np.isfinite(series)]
    if len(finite) < 3 or len(finite) < len(series) - 1:
        return np.nan, np.nan
    return nulls.trend_test(finite, seed=seed)
