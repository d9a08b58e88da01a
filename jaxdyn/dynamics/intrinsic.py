"""Intrinsic dimension from the ratio of the second to the first neighbour's distance (two-NN), point by point.

On a manifold of dimension d with a density that hardly changes over two neighbours, mu = r_2 / r_1 has the distribution
F(mu) = 1 - mu^-d whatever the density. The estimate falls below d where there are few samples in many dimensions: so a
Gaussian cloud of the same covariance and number stands beside it.

Source: Facco, d'Errico, Rodriguez, Laio, "Estimating the intrinsic dimension of datasets by a minimal neighborhood
information" (2017).
"""

import numpy as np
import xarray as xr

from .exact import exact_sum
from .stages import Inputs, labelled

DISCARD = 0.1
"""Share of the largest ratios that the fit leaves out, as in the paper."""

LEAST = 10
"""Distinct states below which no dimension is estimated."""

ROWS_AT_ONCE = 2**22
MOST_BYTES = 128 * 2**20
"""Of the states of a point: of more samples, evenly spaced ones are taken."""


def two_nn(states: np.ndarray, *, discard: float = DISCARD) -> tuple[float, float, int]:
    """Estimate the dimension of a cloud of points.

    Parameters
    ----------
    states : (N, D), finite. Equal states count once.
    discard : share of the largest ratios left out of the fit.

    Returns
    -------
    (dimension, standard error, distinct states): the slope through the origin of -log(1 - F(mu)) against log(mu), its
    error d / sqrt(kept); NaN below 10 distinct states.

    Notes
    -----
    Cost: N^2 D multiplications; memory: 32 MB beyond the states. The order of states changes no more than rounding.
    """
    distinct = np.unique(np.asarray(states, np.float64), axis=0)
    count = len(distinct)
    if count < LEAST:
        return float("nan"), float("nan"), count
    first, second = _two_nearest(distinct)
    ratio = np.sort(np.log(second / first))
    kept = int(count * (1 - discard))
    x = ratio[:kept]
    y = -np.log1p(-np.arange(1, kept + 1) / count)
    square = float(x @ x)
    if square == 0:
        return float("nan"), float("nan"), count
    slope = float(x @ y) / square
    return slope, slope / np.sqrt(kept), count


def matched_gaussian(states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw as many Gaussian states (N, D) of the same mean and covariance."""
    mean = states.mean(axis=0)
    root = np.linalg.qr(states - mean, mode="r")
    return mean + rng.standard_normal((len(states), len(root))) @ root / np.sqrt(len(states))


def stage(inputs: Inputs) -> xr.Dataset:
    """Estimate the dimension at every point, of the model, the random model, and a matched Gaussian of each."""
    states, settings = inputs.states, inputs.settings
    rows = [row for row in inputs.rows() if row in ("trained", "random")]
    words = {
        "dimension": "two-NN intrinsic dimension of the states",
        "dimension_error": "its standard error",
        "gaussian_dimension": "null: two-NN dimension of a Gaussian of the same covariance and number",
        "distinct": "distinct states: texts that end in one token have one embedding",
    }
    most = max(LEAST, MOST_BYTES // (8 * states.width))
    found = {name: {row: np.full(states.points, np.nan) for row in rows} for name in words}
    for number, row in enumerate(rows):
        for point in range(states.points):
            here = states.at_point(point, row, most=most)
            dimension, error, distinct = two_nn(here)
            found["dimension"][row][point], found["dimension_error"][row][point] = dimension, error
            found["distinct"][row][point] = distinct
            if distinct >= LEAST:
                unique = np.unique(here, axis=0)
                drawn = matched_gaussian(unique, np.random.default_rng([settings.seed, 8, point]))
                found["gaussian_dimension"][row][point] = two_nn(drawn)[0]
            inputs.tick("intrinsic dimension", number * states.points + point + 1, len(rows) * states.points)
    dims = ("control", "point")
    data = {name: labelled(text, dims, inputs.by_control(found[name])) for name, text in words.items()}
    return xr.Dataset(data).assign_attrs(samples=min(most, states.samples))


def _two_nearest(states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances (N,) to the first and second neighbour; candidates by products, their distances by differences."""
    centred = states - states.mean(axis=0)
    square = (centred**2).sum(axis=1)
    nearest = np.empty((len(states), 2))
    size = max(1, ROWS_AT_ONCE // max(len(states), 5 * states.shape[1]))
    for start in range(0, len(states), size):
        rows = slice(start, min(start + size, len(states)))
        rough = square[None] - 2 * centred[rows] @ centred.T
        rough[np.arange(rows.stop - start), np.arange(start, rows.stop)] = np.inf
        few = np.argpartition(rough, 4, axis=1)[:, :5]
        exact = np.sort(exact_sum((states[few] - states[rows, None]) ** 2, -1), axis=1)
        nearest[rows] = np.sqrt(exact[:, :2])
    return nearest[:, 0], nearest[:, 1]
