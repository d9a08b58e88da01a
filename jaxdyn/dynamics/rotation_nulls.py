"""Nulls of rotation counts made of a trajectory's own increments, and the tests against them (methods.md 2.3).

A null trajectory keeps the increments' sizes, depth by depth and unit by unit, and takes away how they follow on one
another: every increment is multiplied by a number drawn for its depth.

- *walk*: Gaussian numbers: a random walk whose steps have the unit's own standard deviation at every depth.
- *flip*: signs: the unit's own increments, forwards or backwards.
- *shuffle*: the points in random order. It turns a walk into white noise, so nearly everything smooth differs from it:
  shown because it was used, not tested against.

One number a depth serves all units, so a draw keeps how the units depend on one another: that makes the largest of all
units' statistics a valid null (max-T), and the order of the units irrelevant, to the bit.
"""

import numpy as np

from .exact import ExactSum
from .rotation import rotation_count

NULLS = ("walk", "flip", "shuffle")
BLOCK = 2**19
"""Most numbers of a block of null trajectories."""


def draw_numbers(null: str, draws: int, depth: int, rng: np.random.Generator) -> np.ndarray:
    """Draw what makes null trajectories: multipliers (B, P-1) of "walk" and "flip", orders (B, P) of "shuffle"."""
    if null == "shuffle":
        return rng.permuted(np.tile(np.arange(depth), (draws, 1)), axis=1)
    if null == "walk":
        return rng.standard_normal((draws, depth - 1))
    return rng.integers(0, 2, (draws, depth - 1)) * 2.0 - 1.0


def null_trajectories(trajectory: np.ndarray, null: str, numbers: np.ndarray) -> np.ndarray:
    """Make null trajectories.

    Parameters
    ----------
    trajectory : (..., P), depth last.
    null : "walk", "flip" or "shuffle".
    numbers : of `draw_numbers`, B of them.

    Returns
    -------
    (B, ..., P).
    """
    if null == "shuffle":
        return np.moveaxis(trajectory[..., numbers], -2, 0)
    steps = np.diff(trajectory, axis=-1) * numbers.reshape(len(numbers), *([1] * (trajectory.ndim - 1)), -1)
    start = np.broadcast_to(trajectory[..., :1], (len(numbers), *trajectory.shape[:-1], 1))
    return np.concatenate([start, trajectory[..., :1] + np.cumsum(steps, axis=-1)], axis=-1)


def null_counts(trajectory: np.ndarray, null: str, draws: int, seed: int) -> np.ndarray:
    """Count the turns of null trajectories of every unit.

    Parameters
    ----------
    trajectory : (D, P), or (S, D, P), whose counts are averaged over the S samples; a draw's numbers are the same for
        all samples, which depend on one another too.
    null, draws : as in `draw_numbers`.
    seed : of the draws.

    Returns
    -------
    (B, D), float64.

    Notes
    -----
    Cost: B arctangents for every number of the trajectory; memory: a few blocks of 4 MB beyond the result.
    """
    numbers = draw_numbers(null, draws, trajectory.shape[-1], np.random.default_rng([seed, 6, NULLS.index(null)]))
    samples = trajectory if trajectory.ndim == 3 else trajectory[None]
    some = max(1, BLOCK // samples[0].size)
    size = max(1, BLOCK // samples[:some].size)
    found = []
    for start in range(0, draws, size):
        block = numbers[start : start + size]
        total = ExactSum(np.full((len(block), samples.shape[1]), float(samples.shape[-1])), len(samples))
        for first in range(0, len(samples), some):
            counts = rotation_count(null_trajectories(samples[first : first + some], null, block))
            total.add(np.moveaxis(counts, 1, 0))
        found.append(total.total() / len(samples))
    return np.concatenate(found)


def p_values(measured: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Two-sided p of every unit: twice the smaller tail, (1 + draws at least as far) / (1 + B), at most 1.

    `measured` is (D,), `null` (B, D); NaN where a unit's count is NaN. Never 0: the smallest value is 2 / (1 + B).
    """
    slack = 1e-9  # a draw that repeats the measured increments counts as equal
    above = (null >= measured - slack).sum(axis=0)
    below = (null <= measured + slack).sum(axis=0)
    p = np.minimum(1.0, 2 * (1 + np.minimum(above, below)) / (1 + len(null)))
    return np.where(np.isfinite(measured), p, np.nan)


def benjamini_hochberg(p: np.ndarray, *, rate: float = 0.05) -> np.ndarray:
    """Return which hypotheses are rejected at a false discovery rate, bool (..., D), each row of p by itself.

    Source: Benjamini and Hochberg (1995): the k smallest with p_(k) <= rate k / D, for the largest such k.
    """
    p = np.nan_to_num(np.asarray(p, np.float64), nan=1.0)
    ordered = np.sort(p, axis=-1)
    line = rate * np.arange(1, p.shape[-1] + 1) / p.shape[-1]
    passing = ordered <= line
    last = p.shape[-1] - np.argmax(passing[..., ::-1], axis=-1) - 1
    limit = np.where(passing.any(axis=-1), np.take_along_axis(ordered, last[..., None], axis=-1)[..., 0], -1.0)
    return p <= limit[..., None]


def max_t(measured: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Return p of every unit corrected for all of them by the largest statistic, (D,).

    t = (R - mean) / sd with the null's own mean and sd, p_u = (1 + draws with max abs(t) >= abs(t_u)) / (1 + B). A unit
    whose null does not vary gives NaN. Source: Westfall and Young (1993).
    """
    mean, sd = null.mean(axis=0), null.std(axis=0)
    varies = (sd > 1e-9) & np.isfinite(measured)
    scale = np.where(varies, sd, 1.0)
    largest = np.max(np.where(varies, np.abs(null - mean) / scale, 0.0), axis=1, initial=0.0)
    t = np.abs(measured - mean) / scale
    p = (1 + (largest[:, None] >= t - 1e-9).sum(axis=0)) / (1 + len(null))
    return np.where(varies, p, np.nan)


def found_by_chance(null: np.ndarray, *, rate: float = 0.05, trials: int = 200) -> float:
    """Return how many units Benjamini and Hochberg find, on average, in draws of the null itself.

    Each of `trials` draws is put in the place of the measured counts, the other draws are its null.
    """
    trials = min(trials, len(null))
    # The rank of each draw within its unit gives the p that it would have against the others.
    below = np.empty(null.shape)
    above = np.empty(null.shape)
    order = np.sort(null, axis=0)
    for unit in range(null.shape[1]):
        below[:, unit] = np.searchsorted(order[:, unit], null[:, unit] + 1e-9, "right")
        above[:, unit] = len(null) - np.searchsorted(order[:, unit], null[:, unit] - 1e-9, "left")
    p = np.minimum(1.0, 2 * np.minimum(below, above) / len(null))[:trials]
    return float(benjamini_hochberg(p, rate=rate).sum(axis=1).mean())
