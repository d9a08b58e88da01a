"""Stage 5 of 7: rung N7 - surrogates of a series along depth, for trends and for two series side by side (1.7).

Neighbouring layers resemble each other, so a series along depth is like a random walk, and walks have trends. Permuting
the layers destroys that: of random walks of 32 points it finds a trend in 75 %. The surrogates here keep it: the
increments keep their sizes and places and get random signs ("sign-flip", exact where an increment is as likely up as
down), or the series is replaced by Gaussian walks with increments of the same variance ("random-walk").
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from jaxdyn.errors import InputError

from .null import Null

Kind = Literal["sign-flip", "random-walk", "permutation"]
KINDS = ("sign-flip", "random-walk", "permutation")
Statistic = str | Callable[[np.ndarray], np.ndarray]


def spearman(first: Float[np.ndarray, "L ..."], second: Float[np.ndarray, "L ..."]) -> np.ndarray:
    """Spearman's rank correlation along the first axis, (...): Pearson's of the ranks, ties sharing theirs."""
    x, y = (rankdata(one, axis=0) for one in np.broadcast_arrays(first, second))
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    with np.errstate(invalid="ignore"):
        return np.sum(x * y, axis=0) / np.sqrt(np.sum(x**2, axis=0) * np.sum(y**2, axis=0))


def depth_trend(series: Float[np.ndarray, "L ..."]) -> np.ndarray:
    """Spearman's correlation of a series with the layer's number (E8), (...)."""
    series = np.asarray(series)
    return spearman(series, np.arange(len(series)).reshape(-1, *[1] * (series.ndim - 1)))


def monotone_share(series: Float[np.ndarray, "L ..."]) -> np.ndarray:
    """Share of the steps that go up (E8), (...): 1/2 for a walk, 1 or 0 for a monotone series."""
    return np.mean(np.diff(np.asarray(series), axis=0) > 0, axis=0)


STATISTICS = {"spearman": depth_trend, "monotone_share": monotone_share}


def n7(
    series: Float[np.ndarray, " L"],
    statistic: Statistic = "spearman",
    *,
    kind: Kind = "sign-flip",
    draws: int = 999,
    seed: int = 0,
) -> Null:
    """Rung N7 of a trend along depth.

    Parameters
    ----------
    series : (L,), one number a layer, such as the mean over samples of a measure or of its excess over N1.
    statistic : "spearman" (against the layer's number), "monotone_share", or a function of series (L, R) -> (R,). For
        two series hold one: ``lambda x: spearman(x, other[:, None])``.
    kind : "sign-flip", "random-walk"; "permutation" is there to show what is wrong with it.
    draws, seed : how many surrogates, and which.

    Returns
    -------
    Null, draws (R,). Under sign flips a series of L layers has 2^(L - 1) surrogates, so that `trend_test` cannot give
    less than 2^(2 - L): with 5 layers 1/8. No trend over so few layers can be told from a walk.

    Raises
    ------
    InputError : fewer than 3 layers, a NaN, an unknown statistic or kind, fewer than 19 draws.

    References
    ----------
    1.7 N7, E8.
    """
    series = np.asarray(series, dtype=float)
    function = _statistic(statistic)
    if kind not in KINDS or series.ndim != 1 or len(series) < 3 or not np.all(np.isfinite(series)) or draws < 19:
        msg = (
            f"series, kind, draws: got shape {series.shape} with {np.sum(~np.isfinite(series))} not finite, {kind!r}, "
            f"{draws}; allowed at least 3 finite layers, one of {', '.join(KINDS)}, at least 19 draws"
        )
        raise InputError(msg)
    return Null("N7", np.asarray(function(_surrogates(series, kind, draws, np.random.default_rng(seed)))))


def trend_test(
    series: Float[np.ndarray, " L"],
    statistic: Statistic = "spearman",
    *,
    kind: Kind = "sign-flip",
    draws: int = 999,
    seed: int = 0,
) -> tuple[float, float]:
    """Statistic of a series and its two-sided p value against N7, 2 min(upper, lower) with (1 + count) / (1 + R).

    Arguments and errors as in `n7`. The measured series counts as one of the surrogates, so that the test holds its
    level for any number of draws. A series without a statistic, such as a constant one, has NaN for both.
    """
    series = np.asarray(series, dtype=float)
    null = n7(series, statistic, kind=kind, draws=draws, seed=seed).draws
    value = float(np.asarray(_statistic(statistic)(series[:, None]))[0])
    if not np.isfinite(value):
        return value, float("nan")
    close = 1e-9 * max(1.0, abs(value))
    tails = [np.sum(null >= value - close), np.sum(null <= value + close)]
    return value, float(min(1.0, 2 * (1 + min(tails)) / (1 + len(null))))


def _statistic(statistic):
    if callable(statistic):
        return statistic
    if statistic not in STATISTICS:
        msg = f"statistic: got {statistic!r}; allowed a function, or one of {', '.join(STATISTICS)}"
        raise InputError(msg)
    return STATISTICS[statistic]


def _surrogates(series, kind, draws, rng):
    """(L, draws) surrogates of one series."""
    if kind == "permutation":
        return series[np.argsort(rng.random((len(series), draws)), axis=0)]
    steps = np.diff(series)
    if kind == "sign-flip":
        signs = rng.integers(0, 2, (len(steps), draws)) * 2 - 1
        moved = steps[:, None] * signs
    else:
        moved = rng.standard_normal((len(steps), draws)) * np.sqrt(np.mean(steps**2))
    return series[0] + np.concatenate([np.zeros((1, draws)), np.cumsum(moved, axis=0)])
