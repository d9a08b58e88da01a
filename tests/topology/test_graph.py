"""Top-k graph and rewiring, against the definitions, edge by edge."""

import numpy as np
import pytest

from jaxdyn import InputError
from jaxdyn.topology import correlation, moments, rewire, shrink, top_k_graph
from tests.topology.planted import dense, graph, signed_graph, states


def test_every_edge_is_among_the_k_largest_of_an_end(rng):
    r = correlation(moments(rng.standard_normal((40, 25))))
    found, k = top_k_graph(r, 4), 4
    chosen = set()
    for i in range(25):
        others = sorted((j for j in range(25) if j != i), key=lambda j: -abs(r[i, j]))
        chosen |= {(min(i, j), max(i, j)) for j in others[:k]}
    assert set(zip(found.first.tolist(), found.second.tolist(), strict=True)) == chosen
    assert np.array_equal(found.weight, r[found.first, found.second])
    assert (found.weight < 0).any()
    assert found.degree().min() >= k


def test_edges_below_the_floor_are_dropped(rng):
    r = correlation(moments(rng.standard_normal((40, 25))))
    kept = top_k_graph(r, 4, floor=0.3)
    every = top_k_graph(r, 4)
    assert 0 < len(kept) == (np.abs(every.weight) >= 0.3).sum() < len(every)
    assert len(top_k_graph(0.5 * r, 4, floor=0.3, raw=r)) == len(kept)


def test_linear_shrinkage_leaves_the_graph_and_clipping_does_not(rng):
    r = correlation(moments(states(rng, width=40, count=30, load=0.3)[0]))
    plain, linear, clipped = (top_k_graph(shrink(r, 30, how)[0], 4) for how in ("none", "linear", "clip"))
    assert np.array_equal(plain.first, linear.first)
    assert not np.allclose(plain.weight, linear.weight)
    assert set(zip(plain.first, plain.second, strict=True)) != set(zip(clipped.first, clipped.second, strict=True))


def test_parts_have_sizes_and_add_up(rng):
    found = signed_graph(rng, 12)
    full = dense(found)
    np.testing.assert_array_equal(found.adjacency().toarray(), full)
    np.testing.assert_array_equal(found.adjacency("negative").toarray(), np.maximum(-full, 0))
    np.testing.assert_allclose(found.strength("positive"), np.maximum(full, 0).sum(axis=0))
    np.testing.assert_allclose(found.strength(), np.abs(full).sum(axis=0))
    assert np.array_equal(found.degree("negative"), (full < 0).sum(axis=0))


@pytest.mark.parametrize("k", [0, 25])
def test_a_k_out_of_range_is_refused(rng, k):
    with pytest.raises(InputError, match=f"k: got {k}; allowed 1 to 24"):
        top_k_graph(np.eye(25), k)


def test_rewiring_keeps_signed_degrees_and_weights_and_makes_no_loop_or_double_edge(rng):
    found = graph(rng)
    drawn = rewire(found, rng)
    for part in ("positive", "negative"):
        assert np.array_equal(drawn.degree(part), found.degree(part))
    np.testing.assert_array_equal(np.sort(drawn.weight), np.sort(found.weight))
    assert (drawn.first < drawn.second).all()
    keys = drawn.first * drawn.size + drawn.second
    assert len(np.unique(keys)) == len(found)
    shared = np.isin(keys, found.first * found.size + found.second).mean()
    assert shared < 0.3  # a graph of this density shares a sixth by chance


def test_rewiring_reaches_every_graph_of_the_degrees_alike(rng):
    """Two edges of four nodes can be joined in three ways: each should come in a third of the draws."""
    from jaxdyn.topology import SignedGraph

    pair = SignedGraph(4, np.array([0, 2]), np.array([1, 3]), np.ones(2))
    seen = np.array([rewire(pair, rng).second[0] for _ in range(1200)])
    counts = np.bincount(seen, minlength=4)[1:]
    assert counts.sum() == 1200
    assert np.abs(counts - 400).max() < 4 * np.sqrt(1200 * 2 / 9)


def test_a_full_graph_comes_back(rng):
    full = signed_graph(rng, 6, density=2)
    drawn = rewire(full, rng)
    assert np.array_equal(dense(drawn) > 0, dense(full) > 0)
