"""Any kernel through A and B or as a table; the segment; finite sets: against closed forms and enumeration."""

from itertools import combinations
from math import log

import jax
import numpy as np
import pytest
from scipy import integrate

from jaxdyn.errors import InputError
from jaxdyn.semanticity import finite, kernels, segment, simulate, theory

N = 14
PLACE = np.arange(N)
RING = np.minimum(np.abs(PLACE[:, None] - PLACE), N - np.abs(PLACE[:, None] - PLACE))
LINE = np.abs(PLACE[:, None] - PLACE)


def test_constants_of_the_linear_kernel_in_flat_spaces() -> None:
    closed = {1: log(2), 2: 4 * log(2) - 2, 3: 12 * log(2) - 7.5, 4: 32 * log(2) - 64 / 3}  # int D r^(D-1)/(2 - r)
    table = {1: (0.6931, 0.6931), 2: (0.7726, 0.7196), 3: (0.8178, 0.7294), 4: (0.8474, 0.7345)}
    for dimension, rounded in table.items():
        a, b = kernels.kernel_constants(lambda r: 1 - r, dimension)
        assert a == pytest.approx(closed[dimension], rel=1e-12)
        both = integrate.dblquad(
            lambda far, near, d=dimension: 2 * d * d * (near * far) ** (d - 1) * (1 - near) / (2 - near - far),
            0, 1, lambda near: near, 1, epsabs=1e-10,
        )[0]  # fmt: skip
        assert b == pytest.approx(both, abs=1e-8)
        assert (round(a, 4), round(b, 4)) == rounded


def test_fronts_from_constants_are_those_of_the_families() -> None:
    for b in (0.0, 0.4, 1.0):
        for kernel, (a, big_b) in {"constant": (0.5, 0.5), "linear": (log(2), log(2))}.items():
            np.testing.assert_allclose(
                kernels.front_from_constants(b, a, big_b), theory.front(b, 2, kernel), rtol=1e-12
            )


def test_a_sharper_kernel_lies_above() -> None:
    p_i = np.linspace(0.85, 0.99, 8)
    below = 0.0
    for power in (0.0, 0.5, 1.0, 2.0):
        a, b = kernels.kernel_constants(lambda r, power=power: (1 - r) ** power)
        here = kernels.front_from_constants((1 - p_i) / (1 - a), a, b)[0]
        assert (np.asarray(here) > below).all()
        below = here


def test_a_kernel_that_rises_is_refused() -> None:
    with pytest.raises(InputError, match="kernel: it must give one positive number"):
        kernels.kernel_constants(lambda r: 1 + r)
    with pytest.raises(InputError, match="dimension: got 0"):
        kernels.kernel_constants(lambda r: 1 - r, 0)


@pytest.mark.parametrize("noise", [0.0, 1e-7, 0.05])
def test_a_table_of_two_shells_is_the_constant_kernel(noise: float) -> None:
    for n in (1, 2, 5, 1000):
        found = kernels.front_of_table([1.0, noise], [0.2, 0.8], n)
        np.testing.assert_allclose(found, theory.front(0.2, n, noise=noise), rtol=1e-11)


def test_a_table_of_many_shells_tends_to_the_linear_kernel() -> None:
    for noise in (0.0, 0.1):
        error = []
        for m in (20, 80):
            r = (np.arange(m) + 0.5) / m
            g = np.append(np.maximum(noise, 1 - r), noise)
            found = kernels.front_of_table(g, np.append(np.full(m, 0.3 / m), 0.7), 5)
            error.append(np.max(np.abs(np.subtract(found, theory.front(0.3, 5, "linear", noise)))))
        assert error[1] < error[0] / 3
        assert error[1] < 3e-3  # shells of width 1/80


def test_a_table_that_rises_and_its_slopes() -> None:
    g, w = np.array([0.3, 0.9, 0.0, 0.2]), np.array([0.1, 0.4, 0.3, 0.2])
    expected = sum(  # two items: the nearer shell answers
        w[i] * w[j] * (0.5 if g[i] == g[j] else g[min(i, j)] / (g[i] + g[j])) for i in range(4) for j in range(4)
    )
    assert float(kernels.front_of_table(g, w)[0]) == pytest.approx(expected, rel=1e-11)
    assert float(kernels.front_of_table(g, w, top=2.0)[1]) == pytest.approx(np.sum(w * 2 / (2 + g)), rel=1e-11)
    slope = jax.grad(lambda x: kernels.front_of_table(x, w)[0])(g)
    moved = [float(kernels.front_of_table(g + sign * 1e-6 * np.eye(4)[0], w)[0]) for sign in (1, -1)]
    assert float(slope[0]) == pytest.approx((moved[0] - moved[1]) / 2e-6, rel=1e-6)


def test_the_segment_of_the_methods_text() -> None:
    p_s, p_i = segment.front_on_segment(0.3)
    assert (float(p_s), float(p_i)) == pytest.approx((0.74, 0.745), abs=5e-5)


@pytest.mark.parametrize("eps", [0.0, 0.1, 0.5, 0.7, 1.0])
def test_moments_of_the_segment_by_integration(eps: float) -> None:
    kinks = sorted({min(eps, 1 - eps), max(eps, 1 - eps)})
    first, second = (
        integrate.quad(lambda p, k=k: float(segment.ball(p, eps)) ** k, 0, 1, points=kinks)[0] for k in (1, 2)
    )
    mean, variance = segment.moments(eps)
    assert float(mean) == pytest.approx(first, abs=1e-12)
    assert float(variance) == pytest.approx(second - first**2, abs=1e-12)


@pytest.mark.parametrize("eps", [0.1, 0.8])
def test_n_items_on_the_segment_by_integration(eps: float) -> None:
    by_quadrature = segment.front_on_segment(eps, np.array([2, 6]), 0.1)
    np.testing.assert_allclose([one[0] for one in by_quadrature], segment.front_on_segment(eps, 2, 0.1), rtol=1e-11)
    p = (np.arange(4000) + 0.5) / 4000
    rough = [np.mean(one) for one in theory.front(segment.ball(p, eps), 6, noise=0.1)]
    np.testing.assert_allclose([one[1] for one in by_quadrature], rough, rtol=1e-6)  # midpoints: 1/4000^2


@pytest.mark.parametrize("distance", [RING, LINE], ids=["ring", "line"])
@pytest.mark.parametrize("ties", ["half", "right"])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_a_finite_set_by_enumeration(distance: np.ndarray, ties: str, noise: float) -> None:
    g = np.where(distance <= 3, 1.0, noise)
    found = finite.front_of_set(distance, 3, 2, noise, ties)
    np.testing.assert_allclose(found, finite.two_item_tests(g, distance, ties), rtol=1e-11)
    b = np.asarray(finite.resolutions(distance, 3))
    kappa = (1 - noise) / (1 + noise)
    closed = 0.5 + (N - 1) / (N - 2) * kappa * (b.mean() - b.mean() ** 2 - b.var())
    if ties == "half":
        np.testing.assert_allclose(found, (closed, 0.5 + kappa * (1 - b.mean()) / 2), rtol=1e-11)


def enumerate_tests(g: np.ndarray, distance: np.ndarray, n: int) -> tuple[float, float]:
    """p_S and p_I of n items, one tuple after the other, in plain Python."""
    scores_s, scores_i = [], []
    for p in range(len(g)):
        others = [i for i in range(len(g)) if i != p]
        for items in combinations(others, n):
            share = [g[i, p] for i in items]
            total = sum(share)
            share = [s / total if total else 1 / n for s in share]
            nearest = min(distance[i, p] for i in items)
            right = [s for s, i in zip(share, items, strict=True) if distance[i, p] == nearest]
            scores_s.append(sum(right) / len(right))
        for items in combinations(others, n - 1):
            total = g[p, p] + sum(g[i, p] for i in items)
            scores_i.append(g[p, p] / total if total else 1 / n)
    return float(np.mean(scores_s)), float(np.mean(scores_i))


@pytest.mark.parametrize("n", [2, 4])
def test_n_items_of_a_finite_set_by_plain_enumeration(n: int) -> None:
    distance = LINE[:9, :9]
    for noise in (0.0, 0.2):
        g = np.where(distance <= 2, 1.0, noise)
        np.testing.assert_allclose(
            finite.front_of_set(distance, 2, n, noise), enumerate_tests(g, distance, n), rtol=1e-11
        )


def test_two_item_tests_of_any_similarity_by_plain_enumeration(rng: np.random.Generator) -> None:
    distance = RING[:7, :7]
    g = np.maximum(rng.standard_normal((2, 7, 7)), 0)  # not symmetric, with zeros
    p_s, p_i = finite.two_item_tests(g, distance)
    for k in range(2):
        np.testing.assert_allclose((p_s[k], p_i[k]), enumerate_tests(g[k], distance, 2), rtol=1e-11)


def test_what_a_finite_set_refuses() -> None:
    for arguments, message in (
        ((RING, 3, N), "n: got 14; allowed 1 to 13"),
        ((RING, 3, 3, 0.0, "right"), "got 'right' with n = 3"),
        ((RING, 3, 2, 0.0, "never"), "ties: got 'never'"),
        ((RING[:, :3], 3), r"distance: got shape \(14, 3\)"),
    ):
        with pytest.raises(InputError, match=message):
            finite.front_of_set(*arguments)


MONTE_CARLO = {
    "constant": (5, simulate.constant(0.1), (0.2, 5, "constant", 0.0), (0.5963, 0.6723)),
    "constant, noise": (5, simulate.constant(0.1, 0.05), (0.2, 5, "constant", 0.05), (0.5203, 0.5880)),
    "linear": (5, simulate.linear(0.1), (0.2, 5, "linear", 0.0), (0.6467, 0.7851)),
    "linear, 10 items": (10, simulate.linear(0.15), (0.3, 10, "linear", 0.0), (0.5583, 0.4871)),
}
"""methods.md 3.2: items, kernel, arguments of the law, its values there."""
CIRCLE = simulate.circle()


@pytest.mark.parametrize("case", MONTE_CARLO)
def test_monte_carlo_on_the_circle_agrees_with_the_law(case: str) -> None:
    n, kernel, law, published = MONTE_CARLO[case]
    found = simulate.simulate(CIRCLE, kernel, n, trials=4_000_000)
    for estimate, exact, printed in zip(found, theory.front(*law), published, strict=True):
        assert estimate.trials >= 4_000_000
        assert estimate.error < 2e-4
        assert abs(estimate.mean - float(exact)) < 3 * estimate.error
        assert float(exact) == pytest.approx(printed, abs=5.1e-5)


@pytest.mark.parametrize(
    ("space", "kernel", "n", "law"),
    [
        (simulate.segment(), simulate.constant(0.3), 2, lambda: segment.front_on_segment(0.3)),
        (simulate.segment(), simulate.constant(0.3, 0.1), 4, lambda: segment.front_on_segment(0.3, np.array(4), 0.1)),
        (CIRCLE, simulate.linear(0.2, 0.15), 4, lambda: theory.front(0.4, 4, "linear", 0.15)),
        (simulate.sphere(2), simulate.constant(np.pi / 3), 3, lambda: theory.front(0.25, 3)),
        (
            simulate.torus(2),
            simulate.linear(0.4),
            2,
            lambda: kernels.front_from_constants(np.pi * 0.16, *kernels.kernel_constants(lambda r: 1 - r, 2)),
        ),
        (simulate.finite(LINE), simulate.constant(3.0, 0.1), 4, lambda: finite.front_of_set(LINE, 3, 4, 0.1)),
    ],
    ids=["segment", "segment, 4 items", "noisy linear", "sphere", "torus", "finite"],
)
def test_monte_carlo_in_other_spaces_agrees_with_the_laws(space, kernel, n, law) -> None:
    for estimate, exact in zip(simulate.simulate(space, kernel, n, trials=200_000, seed=3), law(), strict=True):
        assert abs(estimate.mean - float(exact)) < 3.5 * estimate.error
        assert 0 < estimate.error < 2e-3


def test_monte_carlo_repeats_itself_and_refuses_no_trials() -> None:
    first, second = (simulate.simulate(CIRCLE, simulate.constant(0.1), trials=1000, seed=s) for s in (1, 1))
    assert first == second
    assert first != simulate.simulate(CIRCLE, simulate.constant(0.1), trials=1000, seed=2)
    with pytest.raises(InputError, match="trials: got 0"):
        simulate.simulate(CIRCLE, simulate.constant(0.1), trials=0)
