"""Sums that do not depend on the order of their terms, to the bit: of samples in any order, of units in any order.

Every term is cut on a fixed grid of powers of two into a few pieces; the pieces of one level are whole multiples of the
grid's step, few and small enough that float64 adds them without rounding. The grid follows from a bound on the terms,
which a maximum gives, and a maximum has no order either. What is cut off below the last level is cut term by term.

Source: Demmel and Nguyen, "Parallel reproducible summation" (2015), with a bound known beforehand.
"""

import math

import numpy as np

LEVELS = 3


class ExactSum:
    """A sum over the leading axis of many pieces of data.

    Parameters
    ----------
    bound : array (...) of the sum's shape, at least abs(x) of every term.
    count : most terms that are ever added; 2^38 at most.

    Notes
    -----
    Error: below count * bound * 2^-(3 (51 - log2 count)), far below float64's own. Memory: 3 arrays of the sum's
    shape. Cost: 10 operations a term. A term that is not finite, or above its bound, makes the sum NaN.
    """

    def __init__(self, bound: np.ndarray, count: int) -> None:
        self._bound = np.asarray(bound, np.float64)
        bits = 51 - max(1, math.ceil(math.log2(max(2, count))))
        assert bits > 12, count
        top = np.frexp(np.where(np.isfinite(self._bound), self._bound, 1.0))[1]
        self._grids = [np.ldexp(1.5, top - bits * (level + 1) + 52) for level in range(LEVELS)]
        self._sums = [np.zeros(self._bound.shape) for _ in range(LEVELS)]

    def add(self, terms: np.ndarray) -> None:
        """Add terms (n, ...), float64."""
        rest = np.asarray(terms, np.float64)
        bad = ~(np.abs(rest) <= self._bound)
        if bad.any():
            rest = np.where(bad, np.nan, rest)
        for level, grid in enumerate(self._grids):
            piece = (rest + grid) - grid
            rest = rest - piece
            self._sums[level] += piece.sum(axis=0)

    def total(self) -> np.ndarray:
        """Return the sum so far, (...), float64."""
        return self._sums[0] + (self._sums[1] + self._sums[2])


def exact_sum(terms: np.ndarray, axis: int | tuple[int, ...]) -> np.ndarray:
    """Sum an array over axes, to the same bits in any order of the terms.

    Parameters
    ----------
    terms : (...), finite.
    axis : one axis or several.
    """
    terms = np.asarray(terms, np.float64)
    axes = tuple(a % terms.ndim for a in ((axis,) if isinstance(axis, int) else axis))
    rest = [a for a in range(terms.ndim) if a not in axes]
    shape = [terms.shape[a] for a in rest]
    flat = np.transpose(terms, (*axes, *rest)).reshape(-1, *shape)
    total = ExactSum(np.max(np.abs(flat), axis=0, initial=0.0), len(flat))
    total.add(flat)
    return total.total()


def exact_mean(terms: np.ndarray, axis: int | tuple[int, ...]) -> np.ndarray:
    """Mean over axes, to the same bits in any order of the terms."""
    terms = np.asarray(terms, np.float64)
    total = exact_sum(terms, axis)
    return total / (terms.size // max(1, total.size))


def finite_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is finite, to the same bits in any order; NaN where nothing is."""
    finite = np.isfinite(values)
    total = exact_sum(np.where(finite, values, 0.0), -1)
    with np.errstate(invalid="ignore"):
        return total / finite.sum(axis=-1)
