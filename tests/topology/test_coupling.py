"""Coupling, its interval, the Moran surrogates, and what permutation tests do where gain is smooth over the graph."""

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr
from threadpoolctl import threadpool_limits

from jaxdyn.topology import (
    SignedGraph,
    against,
    amplifications,
    community_amplifications,
    conductance,
    coupling,
    explained_by,
    max_t,
    moran_basis,
    moran_index,
    moran_surrogates,
    participation,
)
from jaxdyn.topology.communities import leiden
from jaxdyn.topology.coupling import bootstrap, community_coupling
from jaxdyn.topology.verdict import against_seeds
from tests.topology.planted import graph, jacobian


def test_coupling_is_spearmans_over_the_nodes_that_have_a_position(rng):
    x, y = rng.integers(0, 6, (3, 40)).astype(float), rng.standard_normal((2, 40))
    x[1, :7] = np.nan
    found = coupling(x, y)
    for i, j in np.ndindex(3, 2):
        assert found[i, j] == pytest.approx(spearmanr(x[i], y[j], nan_policy="omit").statistic)
    np.testing.assert_allclose(coupling(x, np.exp(y)), found)  # a gain or its logarithm
    assert np.isnan(coupling(np.ones((1, 40)), y)).all()
    assert np.isnan(coupling(x[:, :4], y[:, :4])).all()


def test_partial_coupling_is_that_of_the_residues_of_ranks(rng):
    given = rng.standard_normal((2, 60))
    x, y = given[0] + 0.5 * rng.standard_normal(60), np.exp(given[0] - given[1] + 0.5 * rng.standard_normal(60))
    design = np.column_stack([np.ones(60), *(rankdata(one) for one in given)])
    left = [r - design @ np.linalg.lstsq(design, r, rcond=None)[0] for r in (rankdata(x), rankdata(y))]
    expected = np.corrcoef(left)[0, 1]
    assert coupling(x[None], y[None], given)[0, 0] == pytest.approx(expected)
    assert abs(expected) < 0.5 < coupling(x[None], y[None])[0, 0]
    with_constant = np.vstack([given, np.ones(60), given[0]])
    assert coupling(x[None], y[None], with_constant)[0, 0] == pytest.approx(expected)
    assert np.isnan(coupling(x[None], y[None], x[None])).all()  # nothing is left


def test_the_bootstrap_holds_the_truth_as_often_as_it_says(rng):
    inside = 0
    for _ in range(120):
        x = rng.standard_normal(80)
        y = 0.5 * x + np.sqrt(0.75) * rng.standard_normal(80)
        low, high = bootstrap(x[None], y[None], rng)
        inside += low[0, 0] < 6 / np.pi * np.arcsin(0.25) < high[0, 0]  # Spearman's of a correlation of .5
    assert 105 <= inside <= 119
    assert np.isnan(bootstrap(np.ones((1, 80)), y[None], rng)[0])
    low, high = bootstrap(x[None], np.stack([np.ones(80), y]), rng)
    assert np.isnan([low[0, 0], high[0, 0]]).all()
    assert low[0, 1] < high[0, 1]


def test_coupling_over_communities_by_hand(rng):
    found, labels = graph(rng, bridging=0.6), np.sort(np.arange(96) % 7)
    labels[-3:] = 7  # three nodes are no community
    gains = amplifications(jacobian(rng.uniform(0.5, 2, 96), rng))
    at = participation(found, labels)[None]
    ours = community_coupling(found, labels, at, gains)
    means = [at[0, labels == c].mean() for c in range(7)]
    assert ours[0, 0] == pytest.approx(spearmanr(means, community_amplifications(gains, labels)[0, :7]).statistic)
    last = spearmanr(conductance(found, labels)[:7], community_amplifications(gains, labels)[5, :7]).statistic
    assert ours[1, 5] == pytest.approx(last)


def test_moran_surrogates_keep_the_index_and_lose_the_map(rng):
    planted = graph(rng, bridging=0.4)
    basis = moran_basis(planted)
    smooth = (basis.vectors[:, -12:] @ rng.standard_normal(12))[None]
    drawn = moran_surrogates(basis, smooth, 50, rng)[:, 0]
    score = moran_index(planted, moran_surrogates(basis, smooth, 1, rng)[0, 0])
    np.testing.assert_allclose([moran_index(planted, one) for one in drawn], score, rtol=1e-9)
    np.testing.assert_allclose(drawn.std(axis=1), drawn[0].std())
    assert score > 0.3
    shuffled = [moran_index(planted, rng.permutation(smooth[0])) for _ in range(50)]
    assert max(shuffled) < score / 2
    assert abs(np.mean([spearmanr(one, smooth[0]).statistic for one in drawn])) < 0.2


def test_two_maps_keep_what_they_share(rng):
    planted = graph(rng)
    one = rng.standard_normal(96)
    maps = np.stack([one, one + 0.3 * rng.standard_normal(96)])
    drawn = moran_surrogates(moran_basis(planted), maps, 20, rng)
    assert min(np.corrcoef(pair)[0, 1] for pair in drawn) > 0.8


def test_nodes_that_the_graph_does_not_tell_apart_are_exchanged(rng):
    """Two pairs of joined nodes and four single ones: the single ones share an eigenspace, in which all is turned."""
    graph_ = SignedGraph(8, np.array([0, 2]), np.array([1, 3]), np.array([0.5, -0.5]))
    x = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 80.0])
    drawn = moran_surrogates(moran_basis(graph_), x[None], 4000, rng)[:, 0]
    spread = drawn[:, 4:].std(axis=0)
    assert spread.max() < 1.1 * spread.min()


def smooth_gains(found, rng, count):
    """White noise after five lazy steps of a walk over the graph: smooth over it, and nothing to do with the rest."""
    weights = found.adjacency("absolute").toarray()
    step = 0.5 * np.eye(found.size) + 0.5 * weights / weights.sum(axis=1, keepdims=True)
    return rng.standard_normal((count, found.size)) @ np.linalg.matrix_power(step, 5).T


def test_moran_holds_its_level_on_smooth_unrelated_gain_where_the_plain_permutation_does_not(rng):
    """500 unrelated gains on 100 graphs, tested at 5 %: two standard errors are 2 %."""
    rejected = {"moran": 0, "plain": 0}
    with threadpool_limits(1, "blas"):
        for number in range(100):
            found = graph(rng, width=64, communities=8, count=60, bridging=0.8, load=0.5)
            at, basis = participation(found, leiden(found, seed=number))[None], moran_basis(found)
            for gain in smooth_gains(found, rng, 5):
                measured = coupling(at, gain[None])[0, 0]
                drawn = {
                    "moran": moran_surrogates(basis, gain[None], 99, rng)[:, 0],
                    "plain": rng.permuted(np.tile(gain, (99, 1)), axis=1),
                }
                for name, maps in drawn.items():
                    rejected[name] += against(measured, coupling(at, maps)[0])["p"] <= 0.05
    assert 0.03 <= rejected["moran"] / 500 <= 0.07
    assert rejected["plain"] / 500 > 0.12


def test_p_is_exact_for_a_number_that_is_exchangeable_with_the_draws(rng):
    """On draws with a centre far from 0 too: each of the 20 values is equally likely."""
    drawn = 3 + rng.standard_exponential((4000, 20))
    found = np.array([against(row[0], row[1:])["p"] for row in drawn])
    assert np.mean(found <= 0.05) == pytest.approx(0.05, abs=0.012)
    assert np.mean(found <= 0.5) == pytest.approx(0.5, abs=0.025)
    assert found.min() == 1 / 20
    said = against(np.array(9.0), np.array([1.0, 2.0, 3.0, np.nan]))
    assert (said["mean"], said["sd"], said["count"], said["p"]) == (2.0, 1.0, 3, 0.25)
    assert np.isnan(against(np.array(1.0), np.full(3, np.nan))["p"])


def test_a_number_is_held_against_seeds_as_one_more_of_them(rng):
    drawn = rng.standard_normal((4000, 6))
    found = np.array([against_seeds(row[0], row[1:])["p"] for row in drawn])
    assert np.mean(found <= 0.05) == pytest.approx(0.05, abs=0.012)
    said = against_seeds(np.array(0.0), np.array([[1.0], [3.0]]).ravel())
    assert said["low"] < 0 < 2 == said["mean"] < said["high"]
    assert np.isnan(against_seeds(np.array(0.0), np.array([1.0]))["p"])


def test_max_t_controls_the_chance_of_one_false_layer(rng):
    once = [(max_t(row[0], row[1:]) <= 0.05).any() for row in rng.standard_normal((1000, 40, 8))]
    each = [(against(row[0], row[1:])["p"] <= 0.05).any() for row in rng.standard_normal((1000, 40, 8))]
    assert np.mean(once) == pytest.approx(0.05, abs=0.02)
    assert np.mean(each) > 0.2
    drawn = rng.standard_normal((199, 4))
    found = max_t(np.array([6.0, 0.0, np.nan, -6.0]), drawn)
    assert found[0] == found[3] == 1 / 200
    assert found[1] > 0.5
    assert np.isnan(found[2])


@pytest.mark.parametrize(
    ("p", "partial", "said"),
    [
        ({"rotated": 0.01, "shuffled": 0.3}, None, "no coupling"),
        ({"rotated": 0.01, "labels": 0.2, "moran": 0.5, "shuffled": 0.01}, None, "labels"),
        ({"rotated": 0.4, "labels": 0.2, "shuffled": 0.01}, None, "rotated"),
        ({"rotated": 0.01, "shuffled": 0.01, "initial": 0.3}, None, "initial"),
        ({"rotated": 0.01, "shuffled": 0.01}, (-0.1, 0.2), "covariates"),
        ({"rotated": 0.01, "shuffled": 0.01}, (0.1, 0.2), "none"),
        ({"rotated": np.nan, "shuffled": 0.01}, (0.1, 0.2), "undecided"),
        ({}, None, "undecided"),
    ],
)
def test_the_first_null_that_explains_is_named(p, partial, said):
    assert explained_by(p, partial=partial) == said
