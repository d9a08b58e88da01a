"""Stage 5 of 7: what a rung of the ladder returns - draws of a measure - and the excess of a measurement over it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import stdtrit

from jaxdyn.errors import InputError

LEVEL = 0.95


@dataclass(frozen=True)
class Null:
    """Draws of one measure under one rung.

    Attributes
    ----------
    rung : "N0" to "N7".
    draws : (R, ...), the measure of each draw, in the shape of the measurement. A closed form has R = 1.
    exact : whether it is a closed form or law: no spread.
    shared : whether one draw serves all samples (N4 and N5: one set of weights), so that its spread does not fall with
        the number of samples.
    """

    rung: str
    draws: np.ndarray
    exact: bool = False
    shared: bool = False

    @property
    def seeds(self) -> int:
        """Number of draws."""
        return len(self.draws)

    @property
    def mean(self) -> np.ndarray:
        """Mean over the draws; NaN where one failed."""
        return np.mean(self.draws, axis=0)

    @property
    def sd(self) -> np.ndarray:
        """Standard deviation over the draws (R - 1 in the denominator); 0 for a law, NaN for a single draw."""
        if self.exact:
            return np.zeros_like(self.mean)
        return np.std(self.draws, axis=0, ddof=1) if self.seeds > 1 else np.full_like(self.mean, np.nan)


class Excess(NamedTuple):
    """What a rung leaves unexplained, with its interval: arrays without the sample axis where that was averaged."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


def excess(
    measured: Float[np.ndarray, "..."],
    null: Null,
    *,
    replicates: Sequence[int] | np.ndarray | None = None,
    level: float = LEVEL,
) -> Excess:
    """Excess of a measurement over a null, m - mean(null), and its t interval.

    Without replicates each number stands alone. The interval is then that of one more draw of the null,
    m - mean +- t sd sqrt(1 + 1/R): it leaves out 0 where the number is not what the null gives.

    With replicates the last axis holds samples: the excess is averaged over them, and the interval has the
    article-clustered variance of that average (samples of one article are one replicate) plus the variance that the
    finite number of draws leaves in the null's mean, var / R; for a `shared` null, whose draw serves all samples,
    var (1 + 1/R). Degrees of freedom by Welch and Satterthwaite.

    Parameters
    ----------
    measured : (...), as one draw of the null; samples last where replicates are given.
    null : the draws.
    replicates : (S,), the article of each sample, or None.
    level : of the interval.

    Returns
    -------
    Excess in the unit of the measure. NaN where a number or a draw is NaN, for the interval also with a single draw
    that is no law, or with fewer than two articles.

    Raises
    ------
    InputError : shapes that do not agree, a level outside 0 to 1.

    References
    ----------
    1.7; 1.8 (effect size with interval).
    """
    measured = np.asarray(measured, dtype=float)
    _check(measured, null, replicates, level)
    draws = null.draws.astype(float)
    count = null.seeds
    if replicates is None:
        spread = np.zeros_like(measured) if null.exact else null.sd * np.sqrt(1 + 1 / count)
        half = np.abs(stdtrit(max(count - 1, 1), (1 + level) / 2)) * spread
        value = measured - null.mean
        return Excess(value, value - half, value + half)
    each = measured - null.mean
    value, variance, clusters = clustered(each, np.asarray(replicates))
    rest = np.zeros_like(variance)
    if not null.exact:
        over_samples = np.mean(draws, axis=-1)
        rest = np.var(over_samples, axis=0, ddof=1) if count > 1 else np.full_like(variance, np.nan)
        rest = rest * (1 + 1 / count if null.shared else 1 / count)
    total = variance + rest
    freedom = total**2 / np.maximum(variance**2 / (clusters - 1) + rest**2 / max(count - 1, 1), np.finfo(float).tiny)
    half = stdtrit(np.maximum(freedom, 1), (1 + level) / 2) * np.sqrt(total)
    return Excess(value, value - half, value + half)


def clustered(
    values: Float[np.ndarray, "... S"], article: np.ndarray
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."], int]:
    """Mean over the last axis, the article-clustered variance of that mean, and the number of articles.

    var(mean) = A / (A - 1) sum_a (sum_{i in a} (x_i - mean))^2 / S^2

    Returns
    -------
    mean, variance (...), A; the variance is NaN with a single article.
    """
    mean = np.mean(values, axis=-1)
    names, place = np.unique(article, return_inverse=True)
    count = len(names)
    sums = np.zeros((*values.shape[:-1], count))
    np.add.at(np.moveaxis(sums, -1, 0), place, np.moveaxis(values - mean[..., None], -1, 0))
    if count < 2:
        return mean, np.full_like(mean, np.nan), 2
    return mean, np.sum(sums**2, axis=-1) * count / (count - 1) / values.shape[-1] ** 2, count


def _check(measured, null, replicates, level):
    if null.draws.shape[1:] != measured.shape:
        msg = f"measured: got shape {measured.shape}; allowed {null.draws.shape[1:]}, that of one draw of {null.rung}"
        raise InputError(msg)
    if not 0 < level < 1:
        msg = f"level: got {level}; allowed between 0 and 1, such as 0.95"
        raise InputError(msg)
    if replicates is not None and (measured.ndim == 0 or len(replicates) != measured.shape[-1]):
        msg = f"replicates: got {len(replicates)} for an array {measured.shape}; allowed one label a sample, last axis"
        raise InputError(msg)
