"""Quadrature over (0, inf) and (0, 1) with exponentially spaced nodes: what the laws of n items are computed with.

A Luce response is 1/(g_1 + ... + g_n) = int_0^inf exp(-t (g_1 + ... + g_n)) dt, and items are independent, so an
expectation over n items is one integral of the n-th power of a Laplace transform: no sum over n, no factorial, and
smooth in the resolution. The integrands decay like exp(-t), for which t = exp(w - exp(-w)) and the trapezoid rule in w
converge exponentially in the number of nodes (Takahasi and Mori, Publ. RIMS 9, 1974).
"""

import numpy as np

HALF_LINE_STEP, HALF_LINE_FROM, HALF_LINE_TO = 0.1, -4.0, 5.6
INTERVAL_STEP, INTERVAL_REACH = 0.35, 32.9


def half_line() -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights (97,) with sum(weight * f(node)) = int_0^inf f, for f that decays like exp(-t) or faster.

    f may be a mixture of exponentials whose rates spread over a factor of 30, or more where the slow ones weigh
    little; the relative error is then about 1e-13.
    """
    w = np.arange(HALF_LINE_FROM, HALF_LINE_TO + HALF_LINE_STEP / 2, HALF_LINE_STEP)
    node = np.exp(w - np.exp(-w))
    return node, HALF_LINE_STEP * node * (1 + np.exp(-w))


def unit_interval() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodes z, their distances 1 - z and weights (189,) for (0, 1), by z = 1/(1 + e^-s) and the trapezoid rule in s.

    Layers at either end, however thin, are as wide as 1 in s: relative error about 1e-12, for any of them.
    """
    s = np.arange(-INTERVAL_REACH, INTERVAL_REACH + INTERVAL_STEP / 2, INTERVAL_STEP)
    node, rest = 1 / (1 + np.exp(-s)), 1 / (1 + np.exp(s))
    return node, rest, INTERVAL_STEP * node * rest
