"""Max-T over layers: its error rate for all layers together, its power, and what it refuses."""

import numpy as np
import pytest

from jaxdyn.errors import InputError
from jaxdyn.nulls import sign_flip_test


def correlated(rng, layers, articles, each=2):
    """Excess without a mean: layers that share half of their noise, samples of an article three quarters of theirs."""
    shared = rng.normal(size=(1, articles, 1)) + rng.normal(size=(layers, articles, 1))
    noise = shared + 0.5 * rng.normal(size=(layers, articles, each))
    return noise.reshape(layers, -1), np.repeat(np.arange(articles), each)


def test_any_layer_is_found_by_chance_in_five_of_a_hundred_runs(rng):
    found = [sign_flip_test(*correlated(rng, 12, 16), draws=199, seed=number)[1].min() <= 0.05 for number in range(300)]
    assert 0.02 < np.mean(found) < 0.085
    # Samples taken for articles, or each layer by itself, find several times as many.
    runs = [correlated(rng, 12, 16) for _ in range(60)]
    alone = [
        min(sign_flip_test(row[None], articles, draws=199)[1][0] for row in excess) <= 0.05 for excess, articles in runs
    ]
    apart = [sign_flip_test(excess, np.arange(32), draws=199)[1].min() <= 0.05 for excess, _ in runs]
    assert np.mean(alone) > 0.15
    assert np.mean(apart) > 0.15


def test_a_layer_with_an_excess_is_found_and_the_others_are_not(rng):
    excess, articles = correlated(rng, 8, 24)
    excess[3] += 2.5
    value, p = sign_flip_test(excess, articles)
    assert p[3] <= 0.01
    assert value[3] > 4
    assert np.all(np.delete(p, 3) > 0.05)
    single = sign_flip_test(excess[5:6], articles)[1][0]
    assert p[5] > single  # one of eight has to pass more than one alone


def test_the_same_in_any_unit_and_for_either_sign(rng):
    excess, articles = correlated(rng, 4, 10)
    value, p = sign_flip_test(excess + 0.7, articles)
    again = sign_flip_test(-1e-3 * (excess + 0.7), articles)
    np.testing.assert_allclose(again[0], -value, rtol=1e-9)
    np.testing.assert_array_equal(again[1], p)


def test_every_flip_of_few_articles_is_as_likely():
    """Three articles, all up by the same: 2 of the 8 flips reach it, so p is near 1/4 however large the excess."""
    value, p = sign_flip_test(np.array([[9.0, 9.1, 8.9]]), np.arange(3), draws=3999)
    assert value[0] > 100
    assert 0.22 < p[0] < 0.28


def test_a_layer_that_failed_is_without_a_number_and_does_not_touch_the_others(rng):
    excess, articles = correlated(rng, 3, 12)
    value, p = sign_flip_test(np.concatenate([excess, [np.full(24, np.nan)]]), articles)
    assert np.isnan([value[3], p[3]]).all()
    np.testing.assert_array_equal(p[:3], sign_flip_test(excess, articles)[1])
    zero = sign_flip_test(np.zeros((2, 4)), np.arange(4))
    assert (zero[0] == 0).all()
    assert (zero[1] == 1).all()


def test_what_cannot_be_tested_is_refused():
    for excess, articles, draws in (
        (np.ones((2, 3)), [0, 0, 0], 99),
        (np.ones((2, 3)), [0, 1], 99),
        (np.ones(3), [0, 1, 2], 99),
        (np.ones((2, 3)), [0, 1, 2], 5),
    ):
        with pytest.raises(InputError, match="articles"):
            sign_flip_test(excess, articles, draws=draws)
