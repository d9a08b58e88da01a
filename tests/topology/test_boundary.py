"""Boundary positions against hand-computed values and brute force, and gains against the definitions."""

import numpy as np
import pytest

from jaxdyn import InputError
from jaxdyn.topology import (
    AMPLIFICATIONS,
    SignedGraph,
    amplifications,
    block_gains,
    community_amplifications,
    conductance,
    external_share,
    participation,
    participation_signed,
    participation_z,
    rewire,
)
from jaxdyn.topology.boundary import boundaries
from tests.topology.planted import dense, graph, jacobian, signed_graph

# Node 0 has positive edges of .5 to community 0 and .5 to community 1, negative ones of .3 to 1 and .1 to 2; node 5 has
# a positive edge alone.
STAR = SignedGraph(
    6, np.array([0, 0, 0, 0, 1]), np.array([1, 2, 3, 4, 5]), np.array([0.5, 0.5, -0.3, -0.1, 0.2])
)  # fmt: skip
LABELS = np.array([0, 0, 1, 1, 2, 0])


def test_hand_computed_participation():
    """P+ = 1 - (1/4 + 1/4); P- = 1 - (9/16 + 1/16), of its own strength .4; all: 1 - (.5^2 + .8^2 + .1^2) / 1.4^2."""
    assert participation(STAR, LABELS, "positive")[0] == pytest.approx(1 / 2)
    assert participation(STAR, LABELS, "negative")[0] == pytest.approx(3 / 8)
    assert participation(STAR, LABELS)[0] == pytest.approx(1 - 0.90 / 1.96)
    assert participation_signed(STAR, LABELS)[0] == pytest.approx(1 / 2 - (0.4 / 1.4) * 3 / 8)


def test_the_negative_part_is_none_of_the_wrong_ones():
    """Over all strength .949, over the net one .722, with the communities of those that are not neighbours 1."""
    found = participation(STAR, LABELS, "negative")[0]
    shares = np.array([0.0, 0.3, 0.1])
    for wrong in (1 - (shares**2).sum() / 1.4**2, 1 - (shares**2).sum() / 0.6**2, 1.0):
        assert abs(found - wrong) > 0.3


def test_a_node_without_a_negative_edge_has_no_negative_participation():
    negative = participation(STAR, LABELS, "negative")
    assert np.isnan(negative[[1, 2, 5]]).all()
    assert negative[3] == 0  # one edge, to one community
    assert participation_signed(STAR, LABELS)[5] == participation(STAR, LABELS)[5] == 0
    assert participation_signed(STAR, LABELS)[3] == 0
    alone = SignedGraph(3, np.array([0]), np.array([1]), np.array([0.4]))
    assert np.isnan(participation_signed(alone, np.zeros(3, int))[2])
    assert np.isnan(external_share(alone, np.zeros(3, int))[2])


@pytest.mark.parametrize("part", ["absolute", "positive", "negative"])
def test_participation_and_external_share_by_brute_force(rng, part):
    found, labels = signed_graph(rng, 30, 0.3), rng.integers(0, 5, 30)
    w = dense(found)
    w = {"absolute": np.abs(w), "positive": np.maximum(w, 0), "negative": np.maximum(-w, 0)}[part]
    for i in range(30):
        k = w[i].sum()
        expected = 1 - sum((w[i, labels == c].sum() / k) ** 2 for c in range(5)) if k else np.nan
        assert participation(found, labels, part)[i] == pytest.approx(expected, nan_ok=True)
        if part == "absolute":
            share = w[i, labels != labels[i]].sum() / k if k else np.nan
            assert external_share(found, labels)[i] == pytest.approx(share, nan_ok=True)


def test_conductance_by_brute_force(rng):
    found, labels = signed_graph(rng, 20, 0.4), np.arange(20) % 4
    w = np.abs(dense(found))
    for c in range(4):
        inside = labels == c
        cut = w[np.ix_(inside, ~inside)].sum()
        expected = cut / min(w[inside].sum(), w[~inside].sum())
        assert conductance(found, labels)[c] == pytest.approx(expected)
    assert np.isnan(conductance(found, np.zeros(20, int))[0])


def test_participation_z_is_about_zero_in_a_rewired_graph_and_low_inside_communities(rng):
    planted = graph(rng)
    labels = np.arange(96) // 16
    drawn = [rewire(planted, rng) for _ in range(20)]
    null = participation_z(rewire(planted, rng), labels, drawn)
    assert abs(np.nanmean(null)) < 0.5
    assert 0.7 < np.nanstd(null) < 1.5
    planted_labels = np.sort(rng.integers(0, 6, 96))
    w = dense(planted)
    planted_labels = np.array([np.bincount(np.flatnonzero(row) // 16).argmax() for row in w]) if w.any() else labels
    assert np.nanmedian(participation_z(planted, planted_labels, drawn)) < -3
    assert np.isnan(participation_z(planted, labels, drawn[:1])).all()
    rows = boundaries(planted, labels, drawn)
    np.testing.assert_array_equal(rows[4], participation_z(planted, labels, drawn))
    np.testing.assert_array_equal(rows[3], participation_signed(planted, labels))
    np.testing.assert_array_equal(rows[5], external_share(planted, labels))


def test_gains_by_definition(rng):
    J = rng.standard_normal((9, 9))
    A = J - np.eye(9)
    found = dict(zip(AMPLIFICATIONS, amplifications(J), strict=True))
    for i in range(9):
        unit = np.eye(9)[i]
        assert found["gain"][i] == pytest.approx(np.linalg.norm(J @ unit))
        assert found["row_gain"][i] == pytest.approx(np.linalg.norm(unit @ J))
        assert found["update_gain"][i] == pytest.approx(np.linalg.norm(A @ unit))
        assert found["update_row_gain"][i] == pytest.approx(np.linalg.norm(unit @ A))
        assert found["self_gain"][i] == pytest.approx(abs(A[i, i]))
        assert found["export"][i] == pytest.approx(np.linalg.norm(np.delete(A[:, i], i)))
        assert found["import"][i] == pytest.approx(np.linalg.norm(np.delete(A[i], i)))


def test_a_symmetric_jacobian_gains_alike_in_columns_and_rows(rng):
    J = rng.standard_normal((8, 8))
    found = dict(zip(AMPLIFICATIONS, amplifications(J + J.T), strict=True))
    for one, other in (("gain", "row_gain"), ("update_gain", "update_row_gain"), ("export", "import")):
        np.testing.assert_allclose(found[one], found[other])
    assert not np.allclose(*amplifications(J)[:2])


def test_community_gains_are_those_of_the_projection(rng):
    J, labels = jacobian(np.linspace(0.1, 2, 12), rng), np.arange(12) % 3
    gains = community_amplifications(amplifications(J), labels)
    blocks = block_gains(J, labels)
    for c in range(3):
        P = np.diag((labels == c).astype(float))
        assert gains[0, c] == pytest.approx(np.linalg.norm(J @ P) / 2)
        assert gains[1, c] == pytest.approx(np.linalg.norm(P @ J) / 2)
        for b in range(3):
            Q = np.diag((labels == b).astype(float))
            assert blocks[b, c] == pytest.approx(np.linalg.norm(Q @ J @ P) / 2)
    np.testing.assert_allclose(np.linalg.norm(blocks, axis=0), gains[0])


def test_a_jacobian_with_nan_is_refused():
    with pytest.raises(InputError, match=r"jacobian: got shape \(2, 2\) with NaN"):
        amplifications(np.full((2, 2), np.nan))
