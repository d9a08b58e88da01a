"""D2: Pearson's correlation of every unit between points along depth, over samples that are read a unit at a time.

Three sweeps: the largest values, which fix the grid of the sums; the means; the centred products. So nothing cancels, a
sample's place in the order changes no bit, and memory does not grow with the samples.
"""

from collections.abc import Callable, Iterable

import numpy as np

from .exact import ExactSum

Chunks = Callable[[], Iterable[np.ndarray]]
Pairs = Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]]

CONSTANT = 1e-12
"""A unit whose standard deviation is below this share of its largest value does not vary: rounding does."""


def pair_correlation(pairs: Pairs, count: int) -> np.ndarray:
    """Correlate x with y over samples.

    Parameters
    ----------
    pairs : gives the data anew at each call, pieces (x, y) of shape (s, ...).
    count : number of samples in all.

    Returns
    -------
    (...), float64; NaN where x or y does not vary.
    """
    bound = _largest(pairs())
    mean = []
    for side in (0, 1):
        total = ExactSum(bound[side], count)
        for pair in pairs():
            total.add(pair[side])
        mean.append(total.total() / count)
    reach = [size + np.abs(middle) for size, middle in zip(bound, mean, strict=True)]
    xx, yy, xy = (ExactSum(a * b * 1.01, count) for a, b in
                  ((reach[0], reach[0]), (reach[1], reach[1]), (reach[0], reach[1])))  # fmt: skip
    for before, after in pairs():
        x, y = before - mean[0], after - mean[1]
        xx.add(x * x)
        yy.add(y * y)
        xy.add(x * y)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = xy.total() / np.sqrt(xx.total() * yy.total())
    spread = [np.sqrt(total.total() / count) for total in (xx, yy)]
    varies = (spread[0] > CONSTANT * bound[0]) & (spread[1] > CONSTANT * bound[1])
    return np.where(varies, np.clip(found, -1.0, 1.0), np.nan)


def correlation_matrix(chunks: Chunks, count: int) -> np.ndarray:
    """Correlate every point with every other, unit by unit, and average over the units.

    Parameters
    ----------
    chunks : gives the trajectories anew at each call, pieces (s, P, D).
    count : number of samples in all.

    Returns
    -------
    (P, P), float64: the mean of Pearson's r over the units that vary at both points, NaN where none does.
    """
    (bound,) = _largest((chunk,) for chunk in chunks())
    points, width = bound.shape
    total = ExactSum(bound, count)
    for chunk in chunks():
        total.add(chunk)
    mean = total.total() / count
    reach = bound + np.abs(mean)
    square = ExactSum(reach**2 * 1.01, count)
    for chunk in chunks():
        square.add((chunk - mean) ** 2)
    sd = np.sqrt(square.total() / count)
    varies = sd > CONSTANT * bound
    sd = np.where(varies, sd, np.inf)  # a unit that does not vary adds 0
    far = np.max(reach / sd, axis=1)
    rows = [ExactSum(far[point] * far[point:] * 1.01, count * width) for point in range(points)]
    for chunk in chunks():
        z = (chunk - mean) / sd
        for point in range(points):
            product = z[:, point, None] * z[:, point:]
            rows[point].add(np.moveaxis(product, -1, 1).reshape(-1, points - point))
    upper = np.zeros((points, points))
    for point in range(points):
        both = (varies[point] & varies[point:]).sum(axis=1)
        with np.errstate(invalid="ignore"):
            upper[point, point:] = rows[point].total() / (count * both)
    return np.triu(upper) + np.triu(upper, 1).T


def _largest(pieces: Iterable[tuple[np.ndarray, ...]]) -> list[np.ndarray]:
    """Return the largest abs(x) over samples of each of the arrays (s, ...) that the pieces hold."""
    found: list[np.ndarray] = []
    for piece in pieces:
        sizes = [np.max(np.abs(side), axis=0) for side in piece]
        found = [np.maximum(a, b) for a, b in zip(found, sizes, strict=True)] if found else sizes
    return found
