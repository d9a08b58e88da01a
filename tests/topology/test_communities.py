"""Communities: modularity by hand, by brute force and by leidenalg; agreement; planted communities."""

import builtins
import itertools

import igraph
import leidenalg
import numpy as np
import pytest

from jaxdyn import InputError
from jaxdyn.topology import (
    SignedGraph,
    adjusted_rand,
    consensus,
    correlation,
    find_communities,
    moments,
    signed_modularity,
    top_k_graph,
)
from jaxdyn.topology.communities import by_size, leiden
from tests.topology.planted import dense, signed_graph, states

SQUARE = SignedGraph(4, np.array([0, 2, 1, 0]), np.array([1, 3, 2, 3]), np.array([1.0, 1.0, 1.0, -1.0]))
"""A path 0-1-2-3 of positive edges whose ends repel each other."""


def test_modularity_of_a_hand_computed_case():
    """Within {0,1} and {2,3}: 2m+ = 6, 4 of it inside, expected (3^2 + 3^2)/6 = 3; 2m- = 2, none inside, expected 1."""
    assert signed_modularity(SQUARE, np.array([0, 0, 1, 1])) == pytest.approx(((4 - 3) - (0 - 1)) / 8)
    assert signed_modularity(SQUARE, np.zeros(4, int)) == pytest.approx(0)
    assert signed_modularity(SQUARE, np.array([0, 0, 1, 1]), gamma=2) == pytest.approx(((4 - 6) - (0 - 2)) / 8)


def by_definition(graph, labels):
    """The double sum of T4, term by term."""
    w = dense(graph)
    plus, minus = np.maximum(w, 0), np.maximum(-w, 0)
    total = 0.0
    for i, j in itertools.product(range(len(w)), repeat=2):
        if labels[i] == labels[j]:
            total += plus[i, j] - plus[i].sum() * plus[j].sum() / plus.sum()
            total -= minus[i, j] - minus[i].sum() * minus[j].sum() / minus.sum()
    return total / (plus.sum() + minus.sum())


def partitions(size):
    """All partitions of so many nodes, as labels that grow from 0."""
    if size == 0:
        return [[]]
    return [[*head, last] for head in partitions(size - 1) for last in range(max(head, default=-1) + 2)]


def test_leiden_finds_the_partition_of_highest_modularity(rng):
    for _ in range(3):
        graph = signed_graph(rng)
        every = [np.array(one) for one in partitions(8)]
        values = [signed_modularity(graph, labels) for labels in every]
        at = rng.integers(0, len(every), 5)
        assert [by_definition(graph, every[i]) for i in at] == pytest.approx([values[i] for i in at])
        found = find_communities(graph, seeds=20)
        assert found.modularity == pytest.approx(max(values))
        assert found.modularity == found.qualities.max()


def layers_of(graph):
    made = []
    for part in ("positive", "negative"):
        of = graph.part(part)
        one = igraph.Graph(n=graph.size, edges=np.stack([of.first, of.second], axis=1))
        one.es["weight"] = of.weight
        made.append(one)
    return made


def test_modularity_is_what_leidenalg_maximises(rng):
    graph = signed_graph(rng, 20)
    labels = rng.integers(0, 4, 20)
    partition, total = leidenalg.RBConfigurationVertexPartition, 2 * np.abs(graph.weight).sum()
    quality = [partition(one, list(map(int, labels)), weights="weight").quality() for one in layers_of(graph)]
    assert signed_modularity(graph, labels) == pytest.approx((quality[0] - quality[1]) / total)


def test_the_partition_type_that_divides_each_layer_by_its_weight_reaches_less(rng):
    """Few negative edges: divided by their own weight they would count as much as all positive ones."""
    graph = signed_graph(rng, 24, 0.4)
    rare = np.where((graph.weight > 0) | (rng.random(len(graph)) < 0.15), graph.weight, np.abs(graph.weight))
    graph = SignedGraph(24, graph.first, graph.second, rare)
    other, _ = leidenalg.find_partition_multiplex(
        layers_of(graph), leidenalg.ModularityVertexPartition, layer_weights=[1, -1], weights="weight", seed=0,
        n_iterations=-1,
    )  # fmt: skip
    assert find_communities(graph).modularity > signed_modularity(graph, np.array(other)) + 0.01


def test_planted_signed_communities_are_recovered(rng):
    """Six communities that repel each other, in units of any scale; a node has some 15 friends and 10 foes."""
    x, truth, _ = states(rng, opposed=True)
    graph = top_k_graph(correlation(moments(np.exp(rng.standard_normal(96)) * x)), 25)
    assert (graph.weight < 0).mean() > 0.3
    found = find_communities(graph, seeds=5)
    assert adjusted_rand(found.best, truth) == 1
    assert adjusted_rand(found.consensus, truth) == 1
    assert found.mean_agreement == 1


def test_a_single_sign_of_edges_is_enough(rng):
    graph = signed_graph(rng, 16)
    positive = graph.part("positive")
    assert find_communities(positive, seeds=3).modularity == pytest.approx(
        signed_modularity(positive, leiden(positive, seed=0)), abs=0.05
    )
    negative = SignedGraph(16, positive.first, positive.second, -positive.weight)
    assert signed_modularity(negative, leiden(negative, seed=0)) > 0


def test_seeds_settings_and_repetition(rng):
    noise = top_k_graph(correlation(moments(rng.standard_normal((60, 80)))), 6)
    found, again = (find_communities(noise, seeds=6, seed=3) for _ in range(2))
    assert np.array_equal(found.best, again.best)
    assert np.array_equal(found.qualities, again.qualities)
    assert found.mean_agreement < 0.9
    assert not np.array_equal(found.qualities, find_communities(noise, seeds=6, seed=50).qualities)
    assert find_communities(noise, seeds=2, gamma=4).best.max() > found.best.max()
    assert find_communities(noise, seeds=6, seed=3, iterations=8).modularity >= found.modularity


def test_adjusted_rand_is_the_count_of_pairs(rng):
    a, b = rng.integers(0, 4, 30), rng.integers(0, 3, 30)
    pairs = list(itertools.combinations(range(30), 2))
    in_a, in_b = (np.array([x[i] == x[j] for i, j in pairs]) for x in (a, b))
    chance = in_a.sum() * in_b.sum() / len(pairs)
    expected = ((in_a & in_b).sum() - chance) / ((in_a.sum() + in_b.sum()) / 2 - chance)
    assert adjusted_rand(a, b) == pytest.approx(expected)
    assert adjusted_rand(a, 7 - a) == 1
    drawn = [adjusted_rand(rng.integers(0, 4, 200), rng.integers(0, 4, 200)) for _ in range(200)]
    assert abs(np.mean(drawn)) < 4 * np.std(drawn) / np.sqrt(200)


def test_consensus_is_what_most_agree_on(rng):
    truth = np.repeat([0, 1, 2], 10)
    votes = []
    for _ in range(9):
        one = truth.copy()
        wrong = rng.integers(0, 30, 4)
        one[wrong] = rng.integers(0, 3, 4)
        votes.append(one)
    assert adjusted_rand(consensus(votes), truth) == 1
    assert len(np.unique(consensus([np.arange(6), np.zeros(6, int), np.arange(6)]))) == 6


def test_labels_go_by_size():
    assert by_size(np.array([5, 9, 9, 2, 9, 2])).tolist() == [2, 0, 0, 1, 0, 1]


def test_what_cannot_be_divided_is_refused():
    empty = SignedGraph(3, np.zeros(0, int), np.zeros(0, int), np.zeros(0))
    with pytest.raises(InputError, match="without an edge"):
        find_communities(empty)
    with pytest.raises(InputError, match="seeds, iterations: got 0, 2"):
        find_communities(SQUARE, seeds=0)


def test_without_the_libraries_the_error_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def missing(name, *rest, **more):
        if name in ("igraph", "leidenalg"):
            msg = f"No module named {name!r}"
            raise ImportError(msg)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(InputError, match="pip install igraph leidenalg"):
        find_communities(SQUARE)
