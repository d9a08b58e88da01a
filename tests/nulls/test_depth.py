"""N7: surrogates of series along depth hold their level on random walks; permuting layers does not."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from jaxdyn import nulls

WALKS, LENGTH = 1000, 32


def false_positives(walks, **options) -> float:
    return float(
        np.mean([nulls.trend_test(walk, draws=199, seed=i, **options)[1] <= 0.05 for i, walk in enumerate(walks)])
    )


@pytest.mark.parametrize(
    ("kind", "low", "high"), [("sign-flip", 0.03, 0.07), ("random-walk", 0.03, 0.07), ("permutation", 0.65, 0.85)]
)
def test_false_positives_on_random_walks(rng, kind, low, high):
    walks = rng.standard_normal((WALKS, LENGTH)).cumsum(axis=1)
    assert low < false_positives(walks, kind=kind) < high


def test_two_walks_beside_each_other(rng):
    walks = rng.standard_normal((2, 300, LENGTH)).cumsum(axis=2)
    plain = np.mean([spearmanr(x, y).pvalue < 0.05 for x, y in zip(*walks, strict=True)])
    held = []
    for x, y in zip(*walks, strict=True):
        held.append(nulls.trend_test(x, lambda s, y=y: nulls.spearman(s, y[:, None]), draws=199)[1] <= 0.05)
    assert plain > 0.45
    assert np.mean(held) < 0.085  # 5 % and 2.8 standard errors of 300


def test_steps_of_other_laws_keep_the_level_of_sign_flips(rng):
    walks = rng.standard_t(2, (WALKS, LENGTH)).cumsum(axis=1)
    assert 0.03 < false_positives(walks) < 0.07


def test_a_drift_is_found_and_too_few_layers_say_so(rng):
    drift = np.cumsum(1 + 0.5 * rng.standard_normal((50, LENGTH)), axis=1)
    assert false_positives(drift) > 0.95
    assert false_positives(drift, statistic="monotone_share") > 0.9
    value, p = nulls.trend_test(np.arange(5.0), draws=4999)
    assert value == pytest.approx(1)
    assert p == pytest.approx(1 / 8, abs=0.02)  # 2 of 16 sign patterns are as monotone
    assert nulls.trend_test(np.arange(5.0), draws=99) == nulls.trend_test(np.arange(5.0), draws=99)
    assert np.isnan(nulls.trend_test(np.ones(5), draws=99)).all()  # a flat line has no rank correlation


def test_spearman_is_scipys_with_ties(rng):
    x, y = rng.integers(0, 6, (2, 20, 3))
    expected = [spearmanr(a, b).statistic for a, b in zip(x.T, y.T, strict=True)]
    np.testing.assert_allclose(nulls.spearman(x, y), expected, rtol=1e-12)
    assert np.isclose(nulls.depth_trend(np.arange(9.0)[::-1]), -1)
    assert nulls.monotone_share(np.array([0.0, 1, 2, 1])) == pytest.approx(2 / 3)


def test_refusals():
    for wrong, options in (
        ([1.0, 2], {}),
        ([1.0, np.nan, 2], {}),
        (range(5), {"kind": "shuffle"}),
        (range(5), {"draws": 3}),
    ):
        with pytest.raises(ValueError, match="allowed at least 3 finite layers"):
            nulls.n7(np.array(wrong), **options)
    with pytest.raises(ValueError, match="statistic: got 'pearson'"):
        nulls.n7(np.arange(5.0), "pearson")
