"""Sums without an order: to the bit in any order and in any pieces, and right."""

import math

import numpy as np

from jaxdyn.dynamics.exact import ExactSum, exact_mean, exact_sum


def test_the_order_and_the_pieces_change_no_bit_and_the_sum_is_right() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3001, 5)) * 10.0 ** rng.integers(-9, 6, (3001, 5))
    bound = np.abs(x).max(axis=0)
    found = exact_sum(x, 0)
    assert found.tolist() == [math.fsum(column) for column in x.T]
    assert any(np.sum(x[rng.permutation(3001)], axis=0).tolist() != np.sum(x, axis=0).tolist() for _ in range(3))
    for _ in range(3):
        shuffled = x[rng.permutation(3001)]
        np.testing.assert_array_equal(exact_sum(shuffled, 0), found)
        total = ExactSum(bound, 3001)
        for piece in np.split(shuffled, [7, 900, 2000]):
            total.add(piece)
        np.testing.assert_array_equal(total.total(), found)


def test_axes_cancellation_zeros_and_what_is_not_finite() -> None:
    x = np.array([[1e16, 1.0, -1e16, 1.0], [0.0, 0.0, 0.0, 0.0]])
    assert exact_sum(x, 1).tolist() == [2.0, 0.0]
    assert exact_sum(x, (0, 1)) == 2.0
    assert exact_mean(x, -1).tolist() == [0.5, 0.0]
    total = ExactSum(np.array([1.0, 1.0]), 3)
    total.add(np.array([[0.5, 0.5], [np.nan, 0.25]]))
    total.add(np.array([[0.5, 2.0]]))  # beyond its bound
    assert np.isnan(total.total()).all()
