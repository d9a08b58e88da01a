"""A kernel from representations: relu-cosine after centring and standardising, and what of it a law can be fed with.

Raw relu-cosine of a residual stream is nearly constant, because a few coordinates and the common mean carry its norm:
so each coordinate is centred and scaled to unit spread first, with the mean and spread of the stimuli that fit the
kernel, never of those that are tested. Source: methods.md 3.4.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

KERNELS = ("constant", "linear")
SHELLS = 40
FLOORS = np.linspace(0.0, 0.9, 37)
RESOLUTIONS = 80


@dataclass(frozen=True)
class FittedKernel:
    """A parametric kernel fitted to measured similarities by least squares.

    Attributes
    ----------
    kernel : "constant" or "linear".
    eps, noise : resolution in units of the distance, and floor.
    residual : root mean square of measured less fitted similarity.
    """

    kernel: str
    eps: float
    noise: float
    residual: float

    def __call__(self, distance: np.ndarray) -> np.ndarray:
        """Return g at distances."""
        return shape(self.kernel, distance, self.eps, self.noise)


def standardise(
    fit: Float[np.ndarray, "F D"], test: Float[np.ndarray, "T D"]
) -> tuple[Float[np.ndarray, "F D"], Float[np.ndarray, "T D"]]:
    """Centre and scale both by mean and standard deviation of `fit`; a coordinate without spread there becomes 0."""
    mean, spread = fit.mean(axis=0), fit.std(axis=0)
    scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 1e-12 * np.abs(fit).max())
    return (fit - mean) * scale, (test - mean) * scale


def relu_cosine(x: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N N"]:
    """Return g(i, j) = max(0, cos(x_i, x_j)), exactly 1 on the diagonal; 0 for a vector of zeros."""
    size = np.linalg.norm(x, axis=1, keepdims=True)
    unit = np.divide(x, size, out=np.zeros_like(x), where=size > 0)
    g = np.clip(unit @ unit.T, 0.0, 1.0)
    np.fill_diagonal(g, (size[:, 0] > 0).astype(g.dtype))
    return g


def shape(kernel: str, distance: np.ndarray, eps: float | np.ndarray, noise: float | np.ndarray) -> np.ndarray:
    """Return g of a parametric kernel: 1 for d <= eps, else the floor; or max(floor, 1 - d/eps)."""
    if kernel == "constant":
        return np.where(distance <= eps, 1.0, noise)
    return np.maximum(noise, 1 - distance / eps)


def fit_kernel(similarity: Float[np.ndarray, "F F"], distance: Float[np.ndarray, "F F"], kernel: str) -> FittedKernel:
    """Fit eps and noise of one family to the similarities of different stimuli, by least squares over a grid.

    Parameters
    ----------
    similarity : g with g(i, i) = 1.
    distance : of the same stimuli.
    kernel : "constant" or "linear".

    Returns
    -------
    The best of at most 80 resolutions, distances that occur and evenly spread among these, by 37 floors from 0 to .9.
    Cost: 2960 passes over the pairs.
    """
    pairs = np.triu_indices(len(distance), 1)
    d, g = distance[pairs], similarity[pairs]
    values = np.unique(d)
    chosen = values[np.unique(np.linspace(0, len(values) - 1, RESOLUTIONS).astype(int))]
    best = FittedKernel(kernel, float(chosen[0]), 0.0, np.inf)
    for eps in chosen:
        fitted = shape(kernel, d[None, :], eps, FLOORS[:, None])
        error = np.sqrt(np.mean((fitted - g) ** 2, axis=1))
        at = int(error.argmin())
        if error[at] < best.residual:
            best = FittedKernel(kernel, float(eps), float(FLOORS[at]), float(error[at]))
    return best


def profile(
    similarity: Float[np.ndarray, "F F"], distance: Float[np.ndarray, "F F"], edges: Float[np.ndarray, " m"]
) -> Float[np.ndarray, " m"]:
    """Return the mean similarity of different stimuli on shells of distance, nearest first.

    Parameters
    ----------
    edges : upper edges of the shells (`shell_edges`), ascending; a shell without a pair takes its nearer neighbour's.
    """
    pairs = np.triu_indices(len(distance), 1)
    shell = np.searchsorted(edges, distance[pairs], side="left").clip(max=len(edges) - 1)
    count = np.bincount(shell, minlength=len(edges))
    total = np.bincount(shell, similarity[pairs], minlength=len(edges))
    mean = np.divide(total, count, out=np.full(len(edges), np.nan), where=count > 0)
    for j in range(len(mean)):
        if np.isnan(mean[j]):
            mean[j] = mean[j - 1] if j else mean[np.isfinite(mean)][0]
    return mean


def shell_edges(distance: Float[np.ndarray, "N N"]) -> Float[np.ndarray, " m"]:
    """Return upper edges of at most 40 shells with about as many pairs each; the last is the largest distance."""
    d = distance[np.triu_indices(len(distance), 1)]
    return np.unique(np.quantile(d, np.arange(1, SHELLS + 1) / SHELLS, method="higher"))


def shell_measures(distance: Float[np.ndarray, "N N"], edges: Float[np.ndarray, " m"]) -> Float[np.ndarray, "N m"]:
    """Return for each probe the share of the other stimuli on each shell; rows sum to 1."""
    count = len(distance)
    shell = np.searchsorted(edges, distance, side="left").clip(max=len(edges) - 1)
    measures = np.zeros((count, len(edges)))
    for p in range(count):
        measures[p] = np.bincount(np.delete(shell[p], p), minlength=len(edges)) / (count - 1)
    return measures
