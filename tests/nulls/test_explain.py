"""Excess with interval, and the first rung that explains a number."""

import numpy as np
import pytest

from jaxdyn import nulls
from jaxdyn.nulls import Null


def around(rung, centre, sd, shape=(), draws=8, *, rng, **options):
    noise = rng.standard_normal((draws, *shape))
    noise = (noise - noise.mean(axis=0)) / noise.std(axis=0, ddof=1)
    return Null(rung, centre + sd * noise, **options)


def test_interval_of_a_number_alone_is_that_of_one_more_draw(rng):
    hits = []
    for _ in range(2000):
        draws = rng.standard_normal(9)
        found = nulls.excess(draws[0], Null("N1", draws[1:]))
        hits.append(found.low <= 0 <= found.high)
    assert abs(np.mean(hits) - 0.95) < 0.015


def test_interval_over_samples_has_articles_as_replicates_and_the_draws_error(rng):
    articles, hits, shared = np.repeat(np.arange(8), 3), [], []
    for _ in range(1500):
        each = rng.standard_normal(8)[articles] + 0.2 * rng.standard_normal(24)
        null = Null("N1", rng.standard_normal((6, 1)) + 0.2 * rng.standard_normal((6, 24)))
        found = nulls.excess(each, null, replicates=articles)
        hits.append(found.low <= 0 <= found.high)
        seeds = rng.standard_normal((7, 1)) * 3 + rng.standard_normal((7, 24))
        found = nulls.excess(seeds[0], Null("N5", seeds[1:], shared=True), replicates=np.arange(24))
        shared.append(found.low <= 0 <= found.high)
    assert abs(np.mean(hits) - 0.95) < 0.025
    assert abs(np.mean(shared) - 0.95) < 0.025


def test_first_rung_that_explains(rng):
    measured = np.array([1.0, 1.0, 1.0, 1.0, np.nan])
    centres = {"N0": [3, 3, 3, 1.2, 1], "N1": [2, 1.001, 2, 1.2, 1], "N2": [1, 1, 2, 1.2, 1]}
    sd = np.array([0.001, 0.001, 0.001, 0.1, 0.001])
    ladder = [around(rung, np.array(centre), sd, (5,), rng=rng) for rung, centre in centres.items()]
    table = nulls.explain(measured, ladder, margin=0.05, dims=["layer"])
    assert table["verdict"].values.tolist() == [
        "explained by N2",
        "explained by N1",
        "above every null",
        "undecided",
        "undecided",
    ]
    assert table["state"].sel(rung="N0").values.tolist() == ["beyond", "beyond", "beyond", "undecided", "undecided"]
    np.testing.assert_allclose(table["excess"].sel(rung="N1")[:3], [-1, -0.001, -1], atol=1e-12)
    assert table["seeds"].values.tolist() == [8, 8, 8]
    tight = nulls.explain(measured, ladder, margin=1e-4)
    assert tight["verdict"].values[1] == "undecided"  # equivalence is to be shown, not assumed
    wide = nulls.explain(measured, ladder, margin=np.array([5.0, 0.05, 0.05, 0.05, 0.05]))
    assert wide["verdict"].values[0] == "explained by N0"


def test_the_floor_and_the_interval_matter(rng):
    values = 1 + 0.01 * rng.standard_normal((2, 40))
    null = Null("N1", np.full((1, 2, 40), 0.9), exact=True)
    options = {"margin": 0.02, "replicates": np.arange(40)}
    assert set(nulls.explain(values, [null], **options)["verdict"].values) == {"above every null"}
    noisy = Null("N6", np.array([[0.1, 0.1], [-0.1, -0.1]]))
    assert set(nulls.explain(values, [null], floor=noisy, **options)["verdict"].values) == {"undecided"}
    exact = nulls.explain(1.0, [Null("N3", np.array([1.01]), exact=True)], margin=0.02)
    assert str(exact["verdict"].values) == "explained by N3"
    assert float(exact["null_sd"][0]) == 0


def test_refusals():
    null = Null("N1", np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"measured: got shape \(3,\); allowed \(2,\)"):
        nulls.excess(np.zeros(3), null)
    with pytest.raises(ValueError, match="replicates: got 3"):
        nulls.excess(np.zeros(2), null, replicates=[0, 1, 2])
    with pytest.raises(ValueError, match="level: got 95"):
        nulls.excess(np.zeros(2), null, level=95)
    with pytest.raises(ValueError, match="margin 0"):
        nulls.explain(np.zeros(2), [null], margin=0)
    with pytest.raises(ValueError, match="dims"):
        nulls.explain(np.zeros(2), [null], margin=1, dims=["a", "b"])
    assert np.isnan(nulls.excess(np.zeros(2), Null("N1", np.zeros((1, 2)))).low).all()
