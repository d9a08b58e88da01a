"""Coupling of boundary position and amplification: Spearman correlation over nodes and over communities (T7).

Gains enter by their ranks, so their logarithms give the same number. Nodes are not independent replicates: neighbours
in the graph share their gain as well as their communities, so an interval over nodes is too narrow, and a plain
permutation finds couplings where there are none. The nulls of `ladder.py` are what a coupling must stand against.
"""

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import rankdata

from .amplification import community_amplifications
from .boundary import conductance
from .graph import SignedGraph

SMALLEST = 5
"""Members from which a community counts in the coupling over communities."""

FEWEST = 5
"""Nodes, or communities, below which no correlation is given."""

RESAMPLES = 1000
INTERVAL = (2.5, 97.5)


def coupling(
    boundaries: Float[np.ndarray, "b D"],
    gains: Float[np.ndarray, "g D"],
    covariates: Float[np.ndarray, "c D"] | None = None,
) -> Float[np.ndarray, "b g"]:
    """Spearman correlation of every boundary position with every gain, over nodes.

    Parameters
    ----------
    boundaries : (b, D); nodes with NaN are left out of their row.
    gains : (g, D), or their logarithms.
    covariates : (c, D), without NaN: given them, the correlation of what is left of the ranks after linear regression
        on the covariates' ranks (partial Spearman); a constant covariate changes nothing.

    Returns
    -------
    (b, g), -1 to 1; NaN with fewer than 5 nodes (more with covariates), or where one side does not vary.
    """
    result = np.full((len(boundaries), len(gains)), np.nan)
    extra = 0 if covariates is None else len(covariates)
    whole = _ranks(gains) if np.isfinite(gains).all() else None
    for row, boundary in enumerate(boundaries):
        valid = np.isfinite(boundary) & np.isfinite(gains).all(axis=0)
        if valid.sum() < FEWEST + extra:
            continue
        y = whole if whole is not None and valid.all() else _ranks(gains[:, valid])
        x = _ranks(boundary[None, valid])
        if covariates is not None:
            x, y = _without(covariates[:, valid], x, y)
        result[row] = _pearson(x, y)[0]
    return result


def community_coupling(
    graph: SignedGraph,
    labels: Int[np.ndarray, " D"],
    boundaries: Float[np.ndarray, "b D"],
    gains: Float[np.ndarray, "g D"],
) -> Float[np.ndarray, "b+1 g"]:
    """Spearman correlation over communities of 5 nodes or more: mean boundary of the members, gain of the community.

    Returns
    -------
    (b + 1, g), conductance in the last row; NaN with fewer than 5 such communities.
    """
    return coupling(*large_communities(graph, labels, boundaries, gains))


def large_communities(
    graph: SignedGraph,
    labels: Int[np.ndarray, " D"],
    boundaries: Float[np.ndarray, "b D"],
    gains: Float[np.ndarray, "g D"],
) -> tuple[Float[np.ndarray, "b+1 C"], Float[np.ndarray, "g C"]]:
    """Boundary position and gain of each community of 5 nodes or more; see `community_coupling`."""
    large = np.bincount(labels) >= SMALLEST
    means = np.vstack([community_means(boundaries, labels), conductance(graph, labels)])
    return means[:, large], community_amplifications(gains, labels)[:, large]


def community_means(boundaries: Float[np.ndarray, "b D"], labels: Int[np.ndarray, " D"]) -> Float[np.ndarray, "b C"]:
    """Mean of each boundary position over a community's members that have it; NaN where none has."""
    found = []
    for row in boundaries:
        valid = np.isfinite(row)
        count = np.bincount(labels[valid], minlength=int(labels.max()) + 1)
        total = np.bincount(labels[valid], row[valid], len(count))
        found.append(np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0))
    return np.stack(found)


def bootstrap(
    boundaries: Float[np.ndarray, "b D"], gains: Float[np.ndarray, "g D"], rng: np.random.Generator,
    covariates: Float[np.ndarray, "c D"] | None = None,
) -> tuple[Float[np.ndarray, "b g"], Float[np.ndarray, "b g"]]:  # fmt: skip
    """95 % percentile interval of each coupling over 1000 resamples of the nodes (or communities).

    Ranks are taken once, in the whole sample, and so is the regression on covariates; what is resampled is the
    correlation of the ranks. Nodes are taken as independent, which they are not: see the top of the file.

    Returns
    -------
    (low, high), each (b, g), NaN where the coupling is.
    """
    low, high = np.full((2, len(boundaries), len(gains)), np.nan)
    extra = 0 if covariates is None else len(covariates)
    for row, boundary in enumerate(boundaries):
        valid = np.isfinite(boundary) & np.isfinite(gains).all(axis=0)
        count = int(valid.sum())
        if count < FEWEST + extra:
            continue
        x, y = _ranks(boundary[None, valid]), _ranks(gains[:, valid])
        if covariates is not None:
            x, y = _without(covariates[:, valid], x, y)
        if np.ptp(x) == 0:
            continue
        weights = rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES) / count
        drawn = _weighted_pearson(weights, x[0], y)
        varies = np.isfinite(drawn).any(axis=0)
        if varies.any():
            low[row, varies], high[row, varies] = np.nanpercentile(drawn[:, varies], INTERVAL, axis=0)
    return low, high


def _ranks(values):
    return rankdata(values, axis=1)


def _pearson(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
    size = np.linalg.norm(x, axis=1)[:, None] * np.linalg.norm(y, axis=1)
    # Ranks are of order D, so a residue of 1e-9 D is rounding: there is nothing left to correlate.
    floor = 1e-9 * x.shape[1] ** 3
    return np.divide(x @ y.T, size, out=np.full(size.shape, np.nan), where=size > floor)


def _without(covariates, x, y):
    """Residues of ranks after regression on a constant and the covariates' ranks."""
    design = _ranks(covariates).T
    design = design - design.mean(axis=0)
    design = design[:, np.ptp(design, axis=0) > 0]
    both = np.vstack([x, y])
    both = both - both.mean(axis=1, keepdims=True)
    if design.shape[1]:
        left, size, _ = np.linalg.svd(design, full_matrices=False)
        left = left[:, size > 1e-10 * size[0]]
        both = both - (both @ left) @ left.T
    return both[: len(x)], both[len(x) :]


def _weighted_pearson(weights, x, y):
    """Correlation of x (D,) with each row of y (g, D) under each row of weights (B, D) that adds up to 1: (B, g)."""
    x, y = x - x.mean(), y - y.mean(axis=1, keepdims=True)
    mx, my = weights @ x, weights @ y.T
    cross = weights @ (x * y).T - mx[:, None] * my
    size = np.sqrt(np.maximum(0, weights @ x**2 - mx**2))[:, None] * np.sqrt(np.maximum(0, weights @ (y**2).T - my**2))
    return np.divide(cross, size, out=np.full(cross.shape, np.nan), where=size > 1e-9 * len(x) ** 2)
