"""Communities of a signed graph: Leiden on signed modularity, over many seeds, with their agreement (T4).

Positive and negative edges are two layers of a multiplex with weights +1 and -1, each with its own configuration null.
In leidenalg that is `RBConfigurationVertexPartition`, which is not normalised; `ModularityVertexPartition` would divide
each layer by its own weight and maximise another quantity.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse
from scipy.optimize import linear_sum_assignment
from scipy.special import comb

from jaxdyn.errors import InputError

from .graph import SignedGraph

SEEDS = 20


@dataclass(frozen=True)
class Communities:
    """Partitions of one graph by several seeds.

    Attributes
    ----------
    best : (D,), community of each node in the partition of highest modularity; 0 is the largest community.
    consensus : (D,), likewise, of what the seeds agree on; see `consensus`.
    modularity : signed modularity of `best`.
    consensus_modularity : that of `consensus`.
    qualities : (seeds,), signed modularity of each seed's partition.
    agreement : (seeds, seeds), adjusted Rand index of every two seeds.
    """

    best: Int[np.ndarray, " D"]
    consensus: Int[np.ndarray, " D"]
    modularity: float
    consensus_modularity: float
    qualities: Float[np.ndarray, " seeds"]
    agreement: Float[np.ndarray, "seeds seeds"]

    @property
    def mean_agreement(self) -> float:
        """Mean adjusted Rand index of two different seeds; 1 for a single seed."""
        count = len(self.agreement)
        return float((self.agreement.sum() - count) / (count * (count - 1))) if count > 1 else 1.0


def find_communities(
    graph: SignedGraph, *, seeds: int = SEEDS, iterations: int = 2, gamma: float = 1.0, seed: int = 0
) -> Communities:
    """Run Leiden with several seeds.

    Parameters
    ----------
    graph : with an edge at least.
    seeds : how many partitions.
    iterations : rounds of Leiden's three phases each (leidenalg's n_iterations).
    gamma : resolution; larger gives smaller communities.
    seed : of the first partition; the others follow. leidenalg takes 31 bits of it.

    Returns
    -------
    Communities. The same seed gives the same partitions.

    Raises
    ------
    InputError : igraph or leidenalg are missing, a graph without an edge, no seed.

    Notes
    -----
    Cost at D = 4096, k = 20: .4 to .8 s a seed with communities, 1.2 to 1.6 s on pure noise. leidenalg holds Python's
    lock, so threads do not help.
    """
    if seeds < 1 or iterations < 1:
        msg = f"seeds, iterations: got {seeds}, {iterations}; allowed 1 or more"
        raise InputError(msg)
    found = [leiden(graph, seed=seed + i, iterations=iterations, gamma=gamma) for i in range(seeds)]
    qualities = np.array([signed_modularity(graph, labels, gamma=gamma) for labels in found])
    agreement = np.array([[adjusted_rand(a, b) for b in found] for a in found])
    best = found[int(np.argmax(qualities))]
    agreed = consensus(found)
    return Communities(
        best, agreed, float(qualities.max()), signed_modularity(graph, agreed, gamma=gamma), qualities, agreement
    )


def leiden(graph: SignedGraph, *, seed: int, iterations: int = 2, gamma: float = 1.0) -> Int[np.ndarray, " D"]:
    """One partition by Leiden on signed modularity; communities numbered by falling size, 0 the largest.

    First as `leidenalg.find_partition_multiplex` does, where a node may only move to the communities of its neighbours;
    then one round in which it may move to any. Two nodes that repel the same others gain by being together without an
    edge between them, which the first part cannot see: on small graphs it stops well short of the best partition.
    """
    igraph, leidenalg = _libraries()
    if not len(graph):
        msg = "graph: got one without an edge, where nothing can be divided; lower the floor or take more samples"
        raise InputError(msg, page="docs/topology.md")
    layers, weights = [], []
    for part, sign in (("positive", 1), ("negative", -1)):
        of = graph.part(part)
        if len(of):  # a layer without an edge would divide by its weight
            one = igraph.Graph(n=graph.size, edges=np.stack([of.first, of.second], axis=1))
            kind = leidenalg.RBConfigurationVertexPartition
            layers.append(kind(one, weights=of.weight.tolist(), resolution_parameter=gamma))
            weights.append(sign)
    optimiser = leidenalg.Optimiser()
    optimiser.set_rng_seed(seed % 2**31)
    optimiser.optimise_partition_multiplex(layers, layer_weights=weights, n_iterations=iterations)
    optimiser.consider_comms = leidenalg.ALL_COMMS  # few by now, so this costs a seventh of the whole
    optimiser.optimise_partition_multiplex(layers, layer_weights=weights, n_iterations=1)
    return by_size(np.asarray(layers[0].membership))


def signed_modularity(graph: SignedGraph, labels: Int[np.ndarray, " D"], *, gamma: float = 1.0) -> float:
    """Signed modularity of a partition.

    Q = sum_ij [(w+_ij - g k+_i k+_j / 2m+) - (w-_ij - g k-_i k-_j / 2m-)] delta(c_i, c_j) / (2m+ + 2m-)

    Parameters
    ----------
    graph, labels : the partition, any integers.
    gamma : g.

    Returns
    -------
    Dimensionless, unchanged by a common factor of the weights; NaN for a graph without an edge. Source: Gomez, Jensen
    and Arenas 2009; T4.
    """
    total = 2 * np.abs(graph.weight).sum()
    if total == 0:
        return float("nan")
    quality = 0.0
    for part, sign in (("positive", 1.0), ("negative", -1.0)):
        of = graph.part(part)
        twice = 2 * of.weight.sum()
        if twice == 0:
            continue
        within = 2 * of.weight[labels[of.first] == labels[of.second]].sum()
        _, place = np.unique(labels, return_inverse=True)
        strengths = np.bincount(place, graph.strength(part))
        quality += sign * (within - gamma * float(strengths @ strengths) / twice)
    return float(quality / total)


def adjusted_rand(one: Int[np.ndarray, " D"], other: Int[np.ndarray, " D"]) -> float:
    """Adjusted Rand index of two partitions: 1 for the same, 0 on average for unrelated ones (Hubert and Arabie 1985).

    Two partitions that both put all nodes together, or both keep all apart, have 1.
    """
    _, a = np.unique(one, return_inverse=True)
    _, b = np.unique(other, return_inverse=True)
    shared = sparse.coo_array((np.ones(len(a)), (a, b))).tocsr().data
    both, first, second = (float(comb(count, 2).sum()) for count in (shared, np.bincount(a), np.bincount(b)))
    expected = first * second / comb(len(a), 2)
    most = (first + second) / 2
    return 1.0 if most == expected else float((both - expected) / (most - expected))


def consensus(partitions: list[Int[np.ndarray, " D"]]) -> Int[np.ndarray, " D"]:
    """Partition on which several partitions agree, by a vote of each node.

    The partition that agrees most with all others (mean adjusted Rand index) names the communities. Those of every
    other one are matched to them, one to one, so that most nodes agree; each node then goes where most partitions put
    it. What has no match casts no vote. Cost: D a pair of partitions.
    Source: voting of Dimitriadou, Weingessel and Hornik 2002.
    """
    agreement = np.array([[adjusted_rand(a, b) for b in partitions] for a in partitions])
    reference = by_size(partitions[int(np.argmax(agreement.sum(axis=0)))])
    size, count = len(reference), int(reference.max()) + 1
    votes = np.zeros((size, count))
    for labels in partitions:
        _, own = np.unique(labels, return_inverse=True)
        shared = np.zeros((own.max() + 1, count))
        np.add.at(shared, (own, reference), 1)
        matched = np.full(len(shared), -1)
        rows, columns = linear_sum_assignment(shared, maximize=True)
        matched[rows] = columns
        voting = np.flatnonzero(matched[own] >= 0)
        votes[voting, matched[own[voting]]] += 1
    return by_size(np.argmax(votes, axis=1))


def by_size(labels: Int[np.ndarray, " D"]) -> Int[np.ndarray, " D"]:
    """Number communities by falling size; of equal ones the one with the smaller node comes first."""
    _, first, place, count = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    rank = np.empty(len(count), int)
    rank[np.lexsort((first, -count))] = np.arange(len(count))
    return rank[place]


def _libraries() -> tuple[Any, Any]:
    """Import what finds communities when it is needed: the rest of the package works without."""
    try:
        import igraph
        import leidenalg
    except ImportError as error:
        msg = f"communities need igraph and leidenalg ({error}); install them: pip install igraph leidenalg"
        raise InputError(msg, page="docs/topology.md") from error
    return igraph, leidenalg
