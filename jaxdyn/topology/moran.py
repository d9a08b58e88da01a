"""Moran spectral randomisation: gains that vary over the graph as the measured ones do, and mean nothing (1.8).

The values of a map over a graph are written in the eigenvectors of its doubly centred weight matrix (Moran's
eigenvector maps); turning the signs of the coefficients at random keeps Moran's index, and with it how alike neighbours
are (Wagner and Dray 2015). A coupling that such maps reach too is a coupling of two smooth maps, whatever they are.

The operator is H W H with H = I - 11^T/D and W the *sizes* of the weights: a gain has no sign, so two coordinates that
are anticorrelated count as close. With negative weights in W, H W H would have no meaning as closeness, Moran's index
no scale, and its leading vectors would tell apart the two ends of a negative edge.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import ndtri
from scipy.stats import rankdata

from .graph import SignedGraph

SAME = 1e-9
"""Eigenvalues closer than this share of the largest are one: within their space no basis is preferred."""


@dataclass(frozen=True)
class MoranBasis:
    """Eigenvectors of H W H.

    Attributes
    ----------
    values : (D,), ascending.
    vectors : (D, D), in columns.
    spaces : (D,), number of the eigenspace of each, equal for equal eigenvalues.
    """

    values: Float[np.ndarray, " D"]
    vectors: Float[np.ndarray, "D D"]
    spaces: np.ndarray


def moran_basis(graph: SignedGraph) -> MoranBasis:
    """Decompose the centred matrix of the sizes of the weights; 9 D^3 flops, half a minute at D = 4096 on two cores."""
    weights = graph.adjacency("absolute").toarray()
    weights -= weights.mean(axis=0)
    weights -= weights.mean(axis=1, keepdims=True)
    values, vectors = np.linalg.eigh((weights + weights.T) / 2)
    apart = np.diff(values) > SAME * max(np.abs(values).max(), 1e-300)
    return MoranBasis(values, vectors, np.concatenate([[0], np.cumsum(apart)]))


def moran_surrogates(
    basis: MoranBasis, maps: Float[np.ndarray, "g D"], draws: int, rng: np.random.Generator
) -> Float[np.ndarray, "draws g D"]:
    """Maps with the same Moran's index and the same variance as each of the given ones.

    x' = sum_i s_i b_i v_i, with b the coefficients of the map's normal scores and s random signs, the same for all maps
    of a draw, so that what the maps share is kept. Where m eigenvalues are equal, as for nodes without an edge, the m
    coefficients are turned by a random rotation, of which a sign is the case m = 1.

    Parameters
    ----------
    basis : from `moran_basis`.
    maps : gains or their logarithms; only their ranks matter, so that massive coordinates do not carry the map.
    draws : how many.
    rng : gives the signs.

    Returns
    -------
    (draws, g, D), standard normal in scale; to be used by their ranks. Cost: g D^2 a draw.
    """
    scores = normal_scores(maps)
    coefficients = scores @ basis.vectors
    width = len(basis.values)
    signs = rng.integers(0, 2, (draws, width)) * 2.0 - 1.0
    turned = coefficients * signs[:, None, :]
    sizes = np.bincount(basis.spaces)
    for space in np.flatnonzero(sizes > 1):
        inside = np.flatnonzero(basis.spaces == space)
        for draw in range(draws):
            rotation = np.linalg.qr(rng.standard_normal((len(inside), len(inside))))[0]
            turned[draw][:, inside] = turned[draw][:, inside] @ rotation
    return turned @ basis.vectors.T


def moran_index(graph: SignedGraph, x: Float[np.ndarray, " D"]) -> float:
    """Moran's index D sum_ij w_ij (x_i - m)(x_j - m) / (sum_ij w_ij sum_i (x_i - m)^2), w the sizes of the weights."""
    centred = x - x.mean()
    total = 2 * np.abs(graph.weight).sum()
    cross = 2 * np.sum(np.abs(graph.weight) * centred[graph.first] * centred[graph.second])
    return float(graph.size * cross / (total * (centred @ centred)))


def normal_scores(maps: Float[np.ndarray, "g D"]) -> Float[np.ndarray, "g D"]:
    """Quantiles of the normal law at the ranks of each map, (rank - 1/2) / D."""
    return ndtri((rankdata(maps, axis=1) - 0.5) / maps.shape[1])
