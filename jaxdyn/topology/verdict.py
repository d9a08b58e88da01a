"""What a null says of a number: p, interval, the first null that explains a coupling, and max-T over layers (1.8)."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from scipy.stats import t as student

from .settings import NULLS

INTERVAL = (2.5, 97.5)
NOTHING, BEYOND, UNDECIDED, COVARIATES, INITIAL = "no coupling", "none", "undecided", "covariates", "initial"


def against(observed: Float[np.ndarray, "..."], draws: Float[np.ndarray, "draws ..."]) -> dict[str, np.ndarray]:
    """Hold a number against draws of a null.

    p = (1 + #{abs(t_b - m) >= abs(t - m)}) / (1 + draws), m the mean of the draws and the number itself

    Parameters
    ----------
    observed : (...), t.
    draws : (draws, ...), t_b; NaN draws are not counted.

    Returns
    -------
    "mean", "sd", "p", "low", "high" (central 95 %) and "count" of the draws, each (...); NaN without a draw. With m
    taken over both, p is exact for a number that is exchangeable with the draws; it is two-sided about the null's own
    centre, which for a rotated basis need not be 0.
    """
    observed = np.asarray(observed, float)
    valid = np.isfinite(draws)
    count = valid.sum(axis=0)
    both = np.concatenate([draws, observed[None]])
    centre = _mean(both)
    far = np.abs(draws - centre) >= np.abs(observed - centre) * (1 - 1e-12)
    p = (1 + (far & valid).sum(axis=0)) / (1 + count)
    missing = (count == 0) | ~np.isfinite(observed)
    filled = np.where(valid, draws, 0.0)
    mean = np.divide(filled.sum(axis=0), count, out=np.full(observed.shape, np.nan), where=count > 0)
    square = np.where(valid, draws - mean, 0.0) ** 2
    spread = np.divide(square.sum(axis=0), count - 1, out=np.full(observed.shape, np.nan), where=count > 1)
    low, high = (_quantile(draws, q) for q in INTERVAL)
    return {
        "mean": mean, "sd": np.sqrt(spread), "p": np.where(missing, np.nan, p), "low": low, "high": high, "count": count
    }  # fmt: skip


def against_seeds(observed: Float[np.ndarray, "..."], seeds: Float[np.ndarray, "seeds ..."]) -> dict[str, np.ndarray]:
    """Hold a number against a few seeds, as one more of them: Student's t with sd sqrt(1 + 1/n), n - 1 degrees.

    Returns
    -------
    As `against`; `low` and `high` are where one more seed is expected with 95 %. NaN with fewer than 2 seeds.
    """
    count = len(seeds)
    shape = np.shape(observed)
    if count < 2:
        empty = np.full(shape, np.nan)
        mean = seeds[0] if count else empty
        return {"mean": mean, **{name: empty for name in ("sd", "p", "low", "high")}, "count": np.full(shape, count)}
    mean, sd = seeds.mean(axis=0), seeds.std(axis=0, ddof=1)
    wide = sd * np.sqrt(1 + 1 / count)
    half = student.ppf(0.975, count - 1) * wide
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * student.sf(np.abs(observed - mean) / wide, count - 1)
    return {"mean": mean, "sd": sd, "p": p, "low": mean - half, "high": mean + half, "count": np.full(shape, count)}


def explained_by(p: Mapping[str, float], *, alpha: float = 0.05, partial: tuple[float, float] | None = None) -> str:
    """Name the first null of the ladder that explains a coupling.

    Parameters
    ----------
    p : p of the coupling against each null that was drawn, by name.
    alpha : a null explains a coupling whose p is at or above it.
    partial : 95 % interval of the partial correlation given the covariates.

    Returns
    -------
    "no coupling" where the plain permutation explains it, the weakest null of all; else the first of `NULLS` in their
    order, then "initial", then "covariates" (the interval of the partial correlation holds 0); "none" where nothing
    does; "undecided" where a p is missing (NaN) and nothing else explains it, or no null was drawn.
    """
    if p.get("shuffled", 0.0) >= alpha:
        return NOTHING
    for name in (*NULLS, INITIAL):
        if name in p and p[name] >= alpha:
            return name
    if partial is not None and partial[0] <= 0 <= partial[1]:
        return COVARIATES
    if not p or any(np.isnan(value) for value in p.values()):
        return UNDECIDED
    return BEYOND


def max_t(observed: Float[np.ndarray, " L"], draws: Float[np.ndarray, "draws L"]) -> Float[np.ndarray, " L"]:
    """Return p of every layer's number, adjusted for having looked at all layers (Westfall and Young's max-T).

    Each layer's numbers are scaled by mean and sd of its draws and the observed one; the largest abs of a draw over
    the layers is held against each layer's own.

    Parameters
    ----------
    observed : (L,); NaN layers are left out and have NaN.
    draws : (draws, L), draw b of all layers from the same random numbers.

    Returns
    -------
    (L,), never below 1 / (1 + draws); controls the chance of one false layer among all.
    """
    valid = np.isfinite(observed) & np.isfinite(draws).all(axis=0)
    result = np.full(len(observed), np.nan)
    if not valid.any() or not len(draws):
        return result
    both = np.vstack([observed[valid], draws[:, valid]])
    spread = both.std(axis=0)
    scaled = np.abs(np.divide(both - both.mean(axis=0), spread, out=np.zeros_like(both), where=spread > 0))
    largest = scaled[1:].max(axis=1)
    result[valid] = [(1 + np.sum(largest >= one * (1 - 1e-12))) / (1 + len(draws)) for one in scaled[0]]
    return result


def _mean(values):
    valid = np.isfinite(values)
    count = valid.sum(axis=0)
    return np.divide(
        np.where(valid, values, 0.0).sum(axis=0), count, out=np.full(values.shape[1:], np.nan), where=count > 0
    )


def _quantile(draws, percent):
    flat = draws.reshape(len(draws), -1)
    found = [np.percentile(one[np.isfinite(one)], percent) if np.isfinite(one).any() else np.nan for one in flat.T]
    return np.array(found).reshape(draws.shape[1:])
