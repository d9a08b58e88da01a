"""Correlation matrices without structure: what a graph of this many samples and coordinates gets from noise (1.8)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from jaxdyn.errors import InputError

from .correlation import correlation, moments
from .graph import top_k_graph

FLOORS = ("permutation", "gaussian", "none")
QUANTILE = 0.95


@dataclass(frozen=True)
class NoiseFloor:
    """Sizes abs(r) of the edges that noise puts into a top-k graph.

    Attributes
    ----------
    least, median, most : over the edges of all draws.
    floor : their `quantile`: of the edges that noise makes, 1 - quantile are this large.
    quantile : which.
    """

    least: float
    median: float
    most: float
    floor: float
    quantile: float


def noise_floor(
    count: int,
    width: int,
    k: int,
    rng: np.random.Generator,
    *,
    states: Float[np.ndarray, "N D"] | None = None,
    articles: ArrayLike | None = None,
    quantile: float = QUANTILE,
    draws: int = 4,
) -> NoiseFloor:
    """Measure what the top-k graph of pure noise holds.

    Parameters
    ----------
    count, width, k : N, D and the graph's k.
    rng : of the draws.
    states : where given, noise is these states with the samples of every coordinate permuted on their own, which keeps
        heavy tails; else it is Gaussian.
    articles : labels of the samples, for the permutation; see `permuted`.
    quantile : of the floor.
    draws : matrices; more where D is small.

    Returns
    -------
    NoiseFloor. At N = 1000, D = 4096, k = 20 Gaussian noise has edges from .08 to .17. Cost: N D^2 a draw.
    """
    if not 0 <= quantile <= 1:
        msg = f"floor_quantile: got {quantile}; allowed 0 to 1"
        raise InputError(msg, page="docs/topology.md")
    sizes = []
    for _ in range(draws):
        noise = rng.standard_normal((count, width)) if states is None else permuted(states, rng, articles)
        sizes.append(np.abs(top_k_graph(correlation(moments(noise)), k).weight))
    edges = np.concatenate(sizes)
    if not len(edges):
        return NoiseFloor(0.0, 0.0, 0.0, 0.0, quantile)
    return NoiseFloor(
        float(edges.min()), float(np.median(edges)), float(edges.max()), float(np.quantile(edges, quantile)), quantile
    )


def permuted(
    states: Float[np.ndarray, "N D"], rng: np.random.Generator, articles: ArrayLike | None = None
) -> Float[np.ndarray, "N D"]:
    """Permute the samples of every coordinate on its own: marginals kept, correlations gone.

    Parameters
    ----------
    states : samples.
    rng : of the permutations.
    articles : label of each sample. Where an article has several, its samples are alike, and a free permutation would
        make noise look smaller than it is: then every coordinate gets the articles in an order of its own, their
        samples together. Articles of one length stay aligned; others overlap in part, and noise comes out up to a
        fifth smaller.
    """
    states = np.asarray(states)
    count, width = states.shape
    if articles is None or len(np.unique(np.asarray(articles))) == count:
        return rng.permuted(states, axis=0)
    labels = np.unique(np.asarray(articles), return_inverse=True)[1]
    members = np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels))[:-1])
    drawn = np.empty_like(states)
    for coordinate in range(width):
        order = rng.permutation(len(members))
        drawn[:, coordinate] = states[np.concatenate([members[one] for one in order]), coordinate]
    return drawn


def matched_moments(r: Float[np.ndarray, "D D"], rng: np.random.Generator) -> Float[np.ndarray, "D D"]:
    """Draw a random correlation matrix with the mean and the variance of the correlations of another.

    F F^T with F (D, m) of independent normal entries of mean mu and variance s^2: off the diagonal its entries have
    mean e = m mu^2 and variance v = m (s^4 + 2 mu^2 s^2), on it the mean m (mu^2 + s^2); m = floor((1 - e^2) / v) makes
    that 1. The result is divided to a diagonal of 1.

    Parameters
    ----------
    r : correlation matrix; a negative mean of its entries is taken as 0, which is the nearest that the form can give.
    rng : of F.

    Returns
    -------
    (D, D). Source: Hirschberger, Qi and Steuer 2007. Cost: D^2 m.
    """
    width = len(r)
    off = r[~np.eye(width, dtype=bool)]
    mean, variance = max(0.0, float(off.mean())), float(off.var())
    if variance <= 0:
        return np.eye(width) + mean * (1 - np.eye(width))
    factors = max(2, int((1 - mean**2) / variance))
    mu2 = mean / factors
    spread = -mu2 + np.sqrt(mu2**2 + variance / factors)
    loadings = np.sqrt(mu2) + np.sqrt(spread) * rng.standard_normal((width, factors))
    drawn = loadings @ loadings.T
    size = np.sqrt(np.diag(drawn))
    drawn /= size[:, None] * size
    np.fill_diagonal(drawn, 1.0)
    return np.clip(drawn, -1.0, 1.0)
