"""Correlation, its shrinkage, and what noise makes of it, against numpy and simulation."""

import numpy as np
import pytest

from jaxdyn import InputError
from jaxdyn.topology import correlation, marchenko_pastur_edge, matched_moments, moments, noise_floor, permuted, shrink
from jaxdyn.topology.correlation import BLOCK, oas_intensity


def test_streaming_correlation_is_numpys(rng):
    x = rng.standard_normal((700, 12)) @ rng.standard_normal((12, 12))
    found = moments(x)
    np.testing.assert_allclose(correlation(found), np.corrcoef(x.T), atol=1e-14)
    np.testing.assert_allclose(found.variance, x.var(axis=0, ddof=1), rtol=1e-13)
    assert found.ratio == 12 / 699


def test_the_bits_do_not_depend_on_the_chunks(rng):
    x = rng.standard_normal((3 * BLOCK + 17, 9)).astype(np.float32)
    cuts = np.sort(rng.integers(0, len(x), 11))
    whole, cut = moments(x), moments(iter(np.split(x, cuts)))
    assert np.array_equal(whole.comoment, cut.comoment)
    assert np.array_equal(whole.mean, cut.mean)


def test_a_mean_far_above_the_spread_costs_no_digits(rng):
    x = rng.standard_normal((1000, 6)) @ rng.standard_normal((6, 6))
    shifted = x + 1e7
    np.testing.assert_allclose(correlation(moments(shifted)), np.corrcoef(x.T), atol=1e-7)
    one_pass = (shifted.T @ shifted) / 1000 - np.outer(shifted.mean(0), shifted.mean(0))
    size = np.sqrt(np.abs(np.diag(one_pass)))
    assert np.abs(one_pass / size[:, None] / size - np.corrcoef(x.T)).max() > 1e-4  # what sums of squares would give


def test_a_coordinate_that_does_not_vary_correlates_with_nothing(rng):
    x = rng.standard_normal((50, 5))
    x[:, 2] = 0.1
    r = correlation(moments(x))
    assert np.array_equal(r[2], [0, 0, 1, 0, 0])
    assert moments(x).constant.tolist() == [False, False, True, False, False]


def test_rotated_moments_are_those_of_rotated_states(rng):
    x = rng.standard_normal((300, 7)) * np.arange(1, 8) + 5
    basis = np.linalg.qr(rng.standard_normal((7, 7)))[0]
    np.testing.assert_allclose(correlation(moments(x).rotated(basis)), np.corrcoef((x @ basis).T), atol=1e-13)


def test_noise_ends_at_the_marchenko_pastur_edge(rng):
    x = rng.standard_normal((1200, 600))
    values = np.linalg.eigvalsh(correlation(moments(x)))
    edge = marchenko_pastur_edge(moments(x).ratio)
    assert edge == pytest.approx((1 + 0.5**0.5) ** 2, rel=1e-3)
    assert values[-1] == pytest.approx(edge, rel=0.02)  # the edge is rounded off by N^(-2/3) = .9 %
    x[:, :30] += rng.standard_normal(1200)[:, None]
    assert np.linalg.eigvalsh(correlation(moments(x)))[-1] > 3 * edge


def test_linear_shrinkage_is_nearly_as_good_as_knowing_the_truth(rng):
    width, count = 40, 30
    truth = 0.4 ** np.abs(np.subtract.outer(np.arange(width), np.arange(width)))
    root = np.linalg.cholesky(truth)
    grid = np.linspace(0, 1, 101)
    errors, ours = np.zeros(101), []
    for _ in range(60):
        r = correlation(moments(rng.standard_normal((count, width)) @ root.T))
        errors += [np.sum(((1 - a) * r + a * np.eye(width) - truth) ** 2) for a in grid]
        ours.append(np.sum((shrink(r, count, "linear")[0] - truth) ** 2))
    assert sum(ours) < 1.05 * errors.min() < 0.5 * errors[0]


def test_linear_shrinkage_vanishes_with_many_samples_and_is_total_for_the_identity(rng):
    x = rng.standard_normal((20000, 8)) @ np.linalg.cholesky(np.eye(8) * 0.4 + 0.6).T
    assert oas_intensity(correlation(moments(x)), 20000) < 1e-3
    assert oas_intensity(np.eye(8), 20) == 1.0


def test_clipping_finds_a_factor_below_the_noise(rng):
    load = rng.choice([-1.0, 1.0], 200) * 0.45
    x = rng.standard_normal((150, 200)) + rng.standard_normal((150, 1)) * load
    truth = (np.outer(load, load) + np.eye(200)) / (1 + load[0] ** 2)
    r = correlation(moments(x))
    clipped, share = shrink(r, 150, "clip")
    assert 0.98 < share < 1
    np.testing.assert_allclose(np.diag(clipped), 1)
    assert np.linalg.norm(clipped - truth) < 0.6 * np.linalg.norm(r - truth)


def test_the_noise_floor_is_that_of_gaussian_correlations(rng):
    """A node of D takes the k largest of D - 1 correlations of variance 1/(N - 1): the quantile of the normal law."""
    from scipy.special import ndtri

    count, width, k = 400, 500, 10
    found = noise_floor(count, width, k, rng, quantile=0.5, draws=2)
    enters = ndtri(1 - k / (2 * (width - 1))) / np.sqrt(count - 1)
    assert found.floor == found.median
    assert 0.8 * enters < found.least < enters < found.median < 1.3 * enters
    assert found.most < ndtri(1 - 1e-3 / width**2) / np.sqrt(count - 1)
    assert noise_floor(count, width, k, rng, quantile=0.95, draws=2).floor > found.floor


def test_heavy_tails_raise_the_floor_of_permuted_states(rng):
    states = rng.standard_t(1.2, (60, 80))
    assert noise_floor(60, 80, 5, rng, states=states).floor > 1.2 * noise_floor(60, 80, 5, rng).floor


def test_permutation_keeps_values_and_loses_correlation(rng):
    x = rng.standard_normal((500, 10)) + 3 * rng.standard_normal((500, 1))
    drawn = permuted(x, rng)
    assert np.array_equal(np.sort(drawn, axis=0), np.sort(x, axis=0))
    assert np.abs(correlation(moments(drawn)) - np.eye(10)).max() < 0.2
    assert np.corrcoef(x.T).min() > 0.8


def test_samples_of_one_article_stay_together(rng):
    """Twenty alike samples an article are one sample: their noise is that of 30, not of 600."""
    articles = np.repeat(np.arange(30), 20)
    x = rng.standard_normal((30, 40))[articles] + 0.1 * rng.standard_normal((600, 40))
    order = rng.permutation(600)
    off = ~np.eye(40, dtype=bool)
    together = correlation(moments(permuted(x[order], rng, articles[order])))[off].std()
    free = correlation(moments(permuted(x, rng)))[off].std()
    assert together == pytest.approx(1 / np.sqrt(29), rel=0.15)
    assert free == pytest.approx(1 / np.sqrt(599), rel=0.15)


def test_matched_moments_have_the_mean_and_variance_of_the_correlations(rng):
    x = rng.standard_normal((100, 150)) + 0.5 * rng.standard_normal((100, 1))
    off = ~np.eye(150, dtype=bool)
    r = correlation(moments(x))
    drawn = np.concatenate([matched_moments(r, rng)[off] for _ in range(8)])
    assert drawn.mean() == pytest.approx(r[off].mean(), rel=0.05)
    assert drawn.std() == pytest.approx(r[off].std(), rel=0.1)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.zeros((2, 3)), "got 2 samples"),
        ([np.zeros((2, 3)), np.zeros((2, 4))], "chunk 1 has shape"),
        (np.full((5, 2), np.nan), "chunk 0 holds NaN"),
    ],
)
def test_states_that_cannot_be_used_are_refused(given, said):
    with pytest.raises(InputError, match=said):
        moments(given)


def test_an_unknown_shrinkage_is_refused():
    with pytest.raises(InputError, match="shrinkage: got 'ridge'"):
        shrink(np.eye(3), 5, "ridge")
