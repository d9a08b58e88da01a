"""The front: the published table, exact sums, limits and derivatives, for few items and for many."""

from fractions import Fraction
from itertools import pairwise
from math import comb, log

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from jaxdyn.errors import InputError
from jaxdyn.semanticity import theory

KERNELS = ("constant", "linear")
OPTIMA = {
    2: ((0.5000, 0.6197), (0.7500, 0.8098), (0.7500, 0.8466)),
    3: ((0.3772, 0.4665), (0.6703, 0.7435), (0.5833, 0.7274)),
    5: ((0.2519, 0.3103), (0.6080, 0.6900), (0.3875, 0.5582)),
    10: ((0.1372, 0.1683), (0.5622, 0.6497), (0.1998, 0.3404)),
    20: ((0.0717, 0.0878), (0.5397, 0.6296), (0.1000, 0.1859)),
    40: ((0.0367, 0.0448), (0.5285, 0.6196), (0.0500, 0.0966)),
}
"""methods.md 3.2: b* of p_S, its largest value, and p_I at b = .5, for the constant and the linear kernel."""

unit = st.floats(0, 1, allow_subnormal=False)
inner = st.floats(0.001, 0.999)
count = st.integers(1, 60)
few = settings(max_examples=25, deadline=None, derandomize=True)


def exact(b: float, n: int, noise: float) -> tuple[float, float]:
    """Sums over the binomial numbers of similar items, in rational arithmetic."""
    p, floor = Fraction(b), Fraction(noise)
    some = sum(comb(n, k) * p**k * (1 - p) ** (n - k) / (k + floor * (n - k)) for k in range(1, n + 1))
    p_i = sum(comb(n - 1, k) * p**k * (1 - p) ** (n - 1 - k) / (1 + k + floor * (n - 1 - k)) for k in range(n))
    return float((1 - p) ** n / n + some), float(p_i)


def approx(value: float, *, rel: float = 1e-11):
    """Quadrature leaves 1e-13; n powers of rounded numbers a little more."""
    return pytest.approx(value, rel=rel, abs=1e-14)


@pytest.mark.parametrize("column", [0, 1], ids=KERNELS)
def test_optima_are_those_of_the_table(column: int) -> None:
    expected = np.array([[row[column] for row in rows] for rows in OPTIMA.values()]).T
    n = np.array(list(OPTIMA))
    found = (*theory.optimum(n, KERNELS[column]), theory.front(0.5, n, KERNELS[column])[1])
    np.testing.assert_allclose(found, expected, rtol=0, atol=5.1e-5)


def test_values_of_the_methods_text() -> None:
    assert theory.front(1.0, 5, noise=0.0) == (approx(0.2), approx(0.2))
    assert float(theory.front(0.0, 5, noise=0.05)[1]) == pytest.approx(0.833, abs=5e-4)
    b, p_s = theory.optimum(2, "linear")
    assert float(b) == pytest.approx(1 / (3 - 2 * log(2)), abs=1e-8)
    assert float(p_s) == pytest.approx(0.80985, abs=5.1e-6)
    assert float(theory.front(b, 2, "linear")[1]) == pytest.approx(0.80985, abs=5.1e-6)


@few
@given(b=unit, n=count, noise=st.sampled_from([0.0, 1e-6, 0.05, 0.5, 1.0]))
def test_the_constant_kernel_is_the_sum_over_similar_items(b: float, n: int, noise: float) -> None:
    p_s, p_i = theory.front(b, n, noise=noise)
    expected = exact(b, n, noise)
    assert float(p_s) == approx(expected[0])
    assert float(p_i) == approx(expected[1])


@pytest.mark.parametrize("b", [1e-12, 1e-6, 1e-4, 0.01, 0.5, 0.99, 1 - 1e-9])
@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_ten_thousand_items(b: float, noise: float) -> None:
    n = 10_000
    k = np.arange(n + 1)
    share = np.divide(1.0, k + noise * (n - k), out=np.full(n + 1, 1 / n), where=k > 0)
    p_s = np.sum(stats.binom.pmf(k, n, b) * share)
    p_i = np.sum(stats.binom.pmf(k[:-1], n - 1, b) / (1 + k[:-1] + noise * (n - 1 - k[:-1])))
    found = theory.front(b, n, noise=noise)
    assert float(found[0]) == approx(p_s, rel=1e-9)  # scipy's probabilities at n = 10^4 are good to about 1e-10
    assert float(found[1]) == approx(p_i, rel=1e-9)


@few
@given(b=unit, n=st.integers(1, 12))
def test_the_linear_kernel_is_the_sum_over_h(b: float, n: int) -> None:
    h = [
        integrate.quad(lambda t, m=m: np.exp(-t) * (-np.expm1(-t) / t) ** m, 0, np.inf, epsabs=1e-13)[0]
        for m in range(n)
    ]
    p_i = sum(comb(n - 1, k) * b**k * (1 - b) ** (n - 1 - k) * h[k] for k in range(n))
    p_s = (1 - b) ** n / n + sum(comb(n, k) * b**k * (1 - b) ** (n - k) * h[k - 1] for k in range(1, n + 1))
    found = theory.front(b, n, "linear")
    assert float(found[0]) == approx(p_s, rel=1e-9)  # of scipy's quadrature
    assert float(found[1]) == approx(p_i, rel=1e-9)


def test_h_of_the_methods_text() -> None:
    found = [float(theory.front(1.0, m + 1, "linear")[1]) for m in range(4)]  # at b = 1 all items are in the ball
    np.testing.assert_allclose(found, [1, log(2), 0.523248, 0.417972], atol=5.1e-7)


@few
@given(b=unit, noise=unit)
def test_two_items_and_the_constant_kernel_in_closed_form(b: float, noise: float) -> None:
    kappa = (1 - noise) / (1 + noise)
    for found in (theory.front(b, 2, noise=noise), theory.front_from_moments(b, 0.0, noise)):
        assert float(found[0]) == approx(0.5 + kappa * (b - b**2))
        assert float(found[1]) == approx(0.5 + kappa * (1 - b) / 2)


def test_the_spread_of_b_costs_generalisation_alone() -> None:
    even, spread = theory.front_from_moments(0.4, 0.0), theory.front_from_moments(0.4, 0.03)
    assert float(even[0] - spread[0]) == approx(0.03)
    assert float(even[1]) == float(spread[1])


@few
@given(b=unit)
def test_two_items_and_the_linear_kernel_in_closed_form(b: float) -> None:
    p_s, p_i = theory.front(b, 2, "linear")
    assert float(p_s) == approx(0.5 + b - (1.5 - log(2)) * b**2)
    assert float(p_i) == approx(1 - (1 - log(2)) * b)


@pytest.mark.parametrize(("b", "n"), [(0.001, 5), (0.3, 2), (0.3, 7), (1.0, 3), (0.5, 10_000)])
def test_the_noisy_linear_kernel_tends_to_the_linear_and_to_chance(b: float, n: int) -> None:
    for found, clean in zip(theory.front(b, n, "linear", 1e-12), theory.front(b, n, "linear"), strict=True):
        assert float(found) == approx(float(clean), rel=1e-9)  # the floor of 1e-12 shows at 1e-11
    for value in theory.front(b, n, "linear", 1.0):
        assert float(value) == approx(1 / n)


@pytest.mark.parametrize("noise", [0.02, 0.3])
@pytest.mark.parametrize("b", [0.05, 0.6, 1.0])
def test_the_noisy_linear_kernel_of_two_items_by_plain_integration(b: float, noise: float) -> None:
    def g(q: float) -> float:
        return max(noise, 1 - q / b)

    kink = [b * (1 - noise)]
    p_i = integrate.quad(lambda q: 1 / (1 + g(q)), 0, 1, points=[*kink, b], epsabs=1e-12)[0]
    edges = sorted({0.0, kink[0], b, 1.0})
    p_s = 0.0
    for low, high in pairwise(edges):  # the nearer item at q, the other beyond
        inner_edges = [edge for edge in edges if edge > low]
        for start, stop in zip([low, *inner_edges], inner_edges, strict=False):
            p_s += 2 * integrate.dblquad(
                lambda other, q: g(q) / (g(q) + g(other)), low, high, lambda q, s=start: max(q, s), lambda _, s=stop: s,
                epsabs=1e-10,
            )[0]  # fmt: skip
    found = theory.front(b, 2, "linear", noise)
    assert float(found[0]) == approx(p_s, rel=1e-8)
    assert float(found[1]) == approx(p_i, rel=1e-9)


@pytest.mark.parametrize("kernel", KERNELS)
def test_slopes_are_those_of_differences_and_finite_at_the_ends(kernel: str) -> None:
    def both(b: jax.Array, n: jax.Array, noise: jax.Array) -> jax.Array:
        return jnp.stack(theory.front(b, n, kernel, noise))

    slopes = jax.jit(jax.jacfwd(both, (0, 2)))
    n, noise = (grid.ravel() for grid in np.meshgrid([2.0, 9.0, 1e4], [0.01, 0.2]))
    for one, floor in zip(n, noise, strict=True):
        b, step = 0.3 / one, 1e-6 / one
        by_b, by_noise = slopes(b, one, floor)
        around = [both(b + sign * step, one, floor) for sign in (1, -1)]
        np.testing.assert_allclose(by_b, (around[0] - around[1]) / (2 * step), rtol=1e-6)
        around = [both(b, one, floor + sign * 1e-6) for sign in (1, -1)]
        np.testing.assert_allclose(by_noise, (around[0] - around[1]) / 2e-6, rtol=1e-6, atol=1e-9)
        for end in (0.0, 1.0):
            assert np.isfinite(slopes(end, one, floor)).all()
            assert np.isfinite(slopes(end, one, 0.0)).all()


@pytest.mark.parametrize("kernel", KERNELS)
def test_slopes_without_noise_and_second_slopes(kernel: str) -> None:
    slope = jax.grad(lambda b, n: theory.front(b, n, kernel)[0])
    first, second = jax.jit(slope), jax.jit(jax.grad(slope))
    square = -2.0 if kernel == "constant" else -(3 - 2 * log(2))
    for b in (0.0, 0.3, 1.0):
        assert float(first(b, 2.0)) == approx(1 + square * b, rel=1e-9)
        assert float(second(b, 2.0)) == approx(square, rel=1e-9)
        assert np.isfinite([first(b, 1e4), second(b, 1e4)]).all()


@few
@given(b=inner, n=st.integers(2, 200), noise=st.sampled_from([0.0, 0.1]), kernel=st.sampled_from(KERNELS))
def test_resolution_inverts_identification(b: float, n: int, noise: float, kernel: str) -> None:
    p_s, p_i = theory.front(b, n, kernel, noise)
    found = theory.resolution_at(p_i, n, kernel, noise)
    slope = (1 - noise) * b * min(1.0, 1 / (n * b)) ** 2  # p_I is flat where n b is large, and b as uncertain there
    assert float(found) == pytest.approx(b, abs=1e-12 / slope)
    assert float(theory.similarity_at(p_i, n, kernel, noise)) == pytest.approx(float(p_s), rel=1e-6)


def test_the_two_item_front_as_a_curve() -> None:
    p_i = jnp.linspace(0.5, 1, 11)
    np.testing.assert_allclose(theory.similarity_at(p_i), 0.5 + 2 * (1 - p_i) - 4 * (1 - p_i) ** 2, atol=1e-12)
    _, slope = jax.jvp(theory.similarity_at, (p_i[1:],), (jnp.ones(10),))
    np.testing.assert_allclose(slope, -2 + 8 * (1 - p_i[1:]), atol=1e-9)
    assert np.isnan(theory.similarity_at(jnp.linspace(0, 0.49, 11))).all()
    assert np.isnan(theory.similarity_at(0.6, 2, "linear"))  # the linear kernel keeps ln 2 at b = 1


@pytest.mark.parametrize("kernel", KERNELS)
def test_identification_falls_like_one_over_n(kernel: str) -> None:
    n = np.array([100, 1000, 10_000])
    scaled = n * np.asarray(theory.front(0.2, n, kernel)[1])
    limit = 5.0 if kernel == "constant" else 10.0  # one over the mean similarity, b or b/2
    assert np.abs(scaled / limit - 1)[-1] < 1e-3
    assert (np.diff(np.abs(scaled - limit)) < 1e-12).all()


def test_arguments_broadcast_and_what_is_no_probability_is_not_a_number() -> None:
    p_s, p_i = theory.front(np.linspace(0, 1, 4)[:, None], np.array([2, 5, 9]), noise=0.1)
    assert p_s.shape == p_i.shape == (4, 3)
    assert float(p_s[2, 1]) == approx(exact(2 / 3, 5, 0.1)[0])
    for bad in ({"b": -0.1}, {"b": 1.1}, {"b": 0.5, "n": 0}, {"b": 0.5, "noise": 1.5}):
        assert np.isnan(theory.front(**bad)[0])
    with pytest.raises(InputError, match="kernel: got 'cubic'"):
        theory.front(0.5, kernel="cubic")


def test_float32_keeps_five_digits() -> None:
    b = np.array([1e-6, 0.01, 0.4, 0.99], np.float32)[:, None]
    n = np.array([2, 30, 10_000], np.float32)
    for kernel in KERNELS:
        for noise in (np.float32(0.0), np.float32(0.1)):
            single = theory.front(b, n, kernel, noise)
            double = theory.front(b.astype(float), n.astype(float), kernel, float(noise))
            assert single[0].dtype == jnp.float32
            for one, other in zip(single, double, strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-5)
