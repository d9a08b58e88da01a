"""Data with known answers: signed communities planted in the states, and a gain planted in the Jacobian."""

import numpy as np

from jaxdyn.topology import SignedGraph, correlation, moments, top_k_graph


def states(rng, *, width=96, communities=6, count=400, bridging=0.0, load=1.0, opposed=False):
    """Samples of coordinates that share a factor with their community, half of them with its sign turned round.

    With `opposed`, the communities are anticorrelated with one another and no sign is turned.

    Returns the states, the community of each coordinate, and for each the share of a second community's factor.
    """
    labels = np.sort(rng.integers(0, communities, width))
    other = (labels + rng.integers(1, communities, width)) % communities
    share = rng.uniform(0, bridging, width)
    factors = rng.standard_normal((count, communities))
    sign = np.ones(width) if opposed else rng.choice([-1.0, 1.0], width)
    if opposed:
        factors -= factors.mean(axis=1, keepdims=True)
    mixed = factors[:, labels] * (1 - share) + factors[:, other] * share
    return rng.standard_normal((count, width)) + 3 * load * sign * mixed, labels, share


def graph(rng, **of_states) -> SignedGraph:
    """The top-8 graph of such states."""
    return top_k_graph(correlation(moments(states(rng, **of_states)[0])), 8)


def signed_graph(rng, width=8, density=0.6) -> SignedGraph:
    """A small random graph with weights of both signs."""
    first, second = np.triu_indices(width, 1)
    kept = rng.random(len(first)) < density
    weight = rng.uniform(0.1, 1, kept.sum()) * rng.choice([-1.0, 1.0], kept.sum())
    return SignedGraph(width, first[kept], second[kept], weight)


def dense(graph: SignedGraph) -> np.ndarray:
    """Adjacency as a full matrix, written edge by edge."""
    found = np.zeros((graph.size, graph.size))
    for a, b, w in zip(graph.first, graph.second, graph.weight, strict=True):
        found[a, b] = found[b, a] = w
    return found


def jacobian(gain, rng, noise=0.02):
    """A matrix I + A whose columns have about this norm of A."""
    A = rng.standard_normal((len(gain), len(gain))) * gain / np.sqrt(len(gain))
    return np.eye(len(gain)) + A + noise * rng.standard_normal(A.shape)
