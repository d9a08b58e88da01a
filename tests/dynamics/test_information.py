"""Mutual information of Gaussians that is known, and of their bins; orders that must not matter; what is refused."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import binom, hypergeom, norm

from jaxdyn.dynamics.information import binned_information, gaussian_information, ksg_information
from jaxdyn.dynamics.information_stage import chosen_units
from jaxdyn.errors import InputError

COUNT, DRAWS, BINS = 4000, 20, 32


def gaussian_pairs(rho: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(int(100 * rho))
    x, e = rng.standard_normal((2, COUNT, DRAWS))
    return x, rho * x + np.sqrt(1 - rho**2) * e


def cells(rho: float) -> np.ndarray:
    """Probabilities (32, 32) of equal-probability bins of a Gaussian pair, by Gauss-Legendre quadrature."""
    edge = norm.ppf(np.linspace(0, 1, BINS + 1))
    edge[0], edge[-1] = -9, 9
    node, weight = np.polynomial.legendre.leggauss(48)
    table = np.zeros((BINS, BINS))
    for row in range(BINS):
        cut = np.linspace(edge[row], edge[row + 1], 9)
        for low, high in pairwise(cut):
            x = (low + high) / 2 + (high - low) / 2 * node
            upto = norm.cdf((edge[None] - rho * x[:, None]) / np.sqrt(1 - rho**2))
            table[row] += (high - low) / 2 * (weight * norm.pdf(x)) @ np.diff(upto, axis=1)
    assert abs(table.sum() - 1) < 1e-9
    return table / table.sum()


def expected(rho: float) -> float:
    """Mean of the corrected estimate at this N: the truth of the binned pair and the bias that the correction leaves.

    At rho = 0 a cell's count is hypergeometric, as the bins' own counts are fixed: exact. Else it is taken as binomial,
    less the 2 (32 - 1) / 2N by which free margins would raise the joint entropy's bias.
    """
    entropy, number = 0.0, np.arange(COUNT + 1)
    share = number / COUNT
    value = np.where(number > 0, -share * np.log(np.where(number > 0, share, 1)) + 1 / (2 * COUNT), 0)
    if rho == 0:
        each = COUNT // BINS
        entropy = BINS**2 * float(hypergeom.pmf(number[: each + 1], COUNT, each, each) @ value[: each + 1])
    else:
        few = number[:400]  # far above the largest cell
        entropy = float((binom.pmf(few[None], COUNT, cells(rho).reshape(-1, 1)) @ value[:400]).sum())
        entropy += (BINS - 1) / COUNT
    return 2 * (np.log(BINS) + (BINS - 1) / (2 * COUNT)) - (entropy - 1 / (2 * COUNT))


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.6, 0.9, 0.99])
def test_gaussians_have_the_information_they_have(rho: float) -> None:
    x, y = gaussian_pairs(rho)
    truth = -0.5 * np.log(1 - rho**2)
    nearest = ksg_information(x, y)
    assert abs(nearest.mean() - truth) < 0.02
    assert nearest.std() < 0.03
    np.testing.assert_allclose(gaussian_information(np.array(rho)), truth, atol=1e-12)
    binned = binned_information(x, y)
    error = binned.std() / np.sqrt(DRAWS)
    assert abs(binned.mean() - expected(rho)) < 3 * error + (0 if rho == 0 else 0.003)  # the binomial is not exact
    table = cells(rho)
    own = float((table * np.log(table * BINS**2 + 1e-300)).sum())
    assert own <= truth + 1e-9
    assert abs(binned.mean() - own) < 0.03  # the binned pair's own information, within the bias that is left
    if rho == 0.99:
        assert abs(own - truth + 0.12) < 0.01  # less than the pair's: what binning loses
    shuffled = x[np.random.default_rng(0).permutation(COUNT)]
    assert abs(ksg_information(shuffled, y).mean()) < 0.01


def test_order_scale_and_other_pairs_change_no_bit() -> None:
    rng = np.random.default_rng(1)
    x, e = rng.standard_normal((2, 300, 4))
    y = x**2 + 0.1 * e
    order, pairs = rng.permutation(300), np.array([2, 0, 3, 1])
    for estimate in (binned_information, ksg_information):
        found = estimate(x, y)
        np.testing.assert_array_equal(estimate(x[order], y[order]), found)
        np.testing.assert_array_equal(estimate(x[:, pairs], y[:, pairs]), found[pairs])
        np.testing.assert_array_equal(estimate(4 * x, 2 * y), found)
        assert (found > 0.5).all()  # no linear dependence, much information
    r = np.array([np.corrcoef(a, b)[0, 1] for a, b in zip(x.T, y.T, strict=True)])
    assert (gaussian_information(r) < 0.05).all()
    assert (ksg_information(x, y, k=6) != ksg_information(x, y)).all()
    assert (binned_information(x, y, bins=8) != binned_information(x, y)).all()


def test_neighbours_by_hand() -> None:
    x = np.array([[0.0], [1.0], [3.0], [7.0]])
    y = np.array([[0.0], [3.0], [1.0], [7.0]])
    psi = np.array([-0.5772156649015329, 0.42278433509846713, 0.9227843350984671, 1.2561176684318004])
    # both are divided by one sd; nearest at 3, 2, 2, 6: strictly nearer in x 1, 1, 1, 2, in y 1, 1, 1, 2
    counted = [[sum(abs(a - b) < r for b in side) - 1 for a, r in zip(side, (3, 2, 2, 6), strict=True)] for side in
               (x[:, 0], y[:, 0])]  # fmt: skip
    assert counted == [[1, 1, 0, 1], [1, 0, 1, 1]]
    expected_value = psi[0] + psi[3] - np.mean(psi[counted[0]] + psi[counted[1]])
    np.testing.assert_allclose(ksg_information(x, y, k=1), [expected_value], atol=1e-12)


def test_ties_constants_and_what_is_refused() -> None:
    rng = np.random.default_rng(2)
    letter = rng.integers(0, 4, (400, 1)).astype(float)
    assert binned_information(letter, letter, bins=4)[0] == pytest.approx(np.log(4), abs=0.03)
    assert np.isnan(ksg_information(np.ones((20, 1)), rng.standard_normal((20, 1))))
    assert np.isnan(binned_information(np.full((20, 1), np.inf), rng.standard_normal((20, 1))))
    with pytest.raises(InputError, match=r"k: got 20; allowed 1 to 19"):
        ksg_information(letter[:20], letter[:20], k=20)
    with pytest.raises(InputError, match=r"x, y: got shapes \(20, 1\) and \(19, 1\)"):
        binned_information(letter[:20], letter[:19])
    assert chosen_units(10, 0, 0).tolist() == list(range(10))
    assert len(np.unique(chosen_units(100, 30, 0))) == 30
