from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdyn import measures
from jaxdyn.measures import nulls
from jaxdyn.measures.nulls import ginibre as law

from .samples import ginibre, pieces

closed_form = jax.jit(nulls.closed_form, static_argnums=2, static_argnames="top")
EPS = float(np.finfo(np.float64).eps)

# How far the limits lie from the mean over draws at n = 64, relative: edges converge as n^(-2/3), the bulk as 1/n.
FINITE_SIZE = {
    "henrici": 0.004,
    "henrici_normalized": 0.004,
    "complex_fraction": 0.001,
    "mean_rotation_angle": 0.0,
    "imaginary_energy": 0.005,
    "antisymmetric_share": 0.0,
    "self_alignment": 0.0,
    "symmetry_gap": 0.001,
    "spectral_radius": 0.065,
    "spectral_norm": 0.032,
    "numerical_abscissa": 0.045,
    "eigenvector_condition": 0.035,
    "eigenvector_condition_q90": 0.03,
    "effective_rank": 0.006,
    "participation_ratio": 0.003,
    "stable_rank": 0.07,
}


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 2.0), (1.0, 0.5)])
def test_monte_carlo(rng, shift, scale):
    n, draws = 64, 120
    noise = scale * ginibre(rng, draws, n, n)
    p = pieces(shift * np.eye(n) + noise)
    measured = jax.jit(partial(measures.measure_all, kreiss=False))(**p._asdict())
    norm = jnp.asarray(np.linalg.norm(noise, axis=(1, 2)))
    null = closed_form(jnp.asarray(shift), norm, n)
    assert set(FINITE_SIZE) | {"complex_undecided", "eigenvector_condition_max"} == set(measured)
    for name, allowed in FINITE_SIZE.items():
        difference = np.asarray(measured[name] - null[name])
        error = difference.std(ddof=1) / np.sqrt(draws)
        assert abs(difference.mean()) < 3.5 * error + allowed * np.mean(null[name]), name
        assert error < 0.03 * np.mean(null[name]), f"{name}: the standard error {error} tests nothing"


def test_values_of_the_methods():
    n = 4096
    null = closed_form(jnp.asarray([0.0, 1.0]), jnp.asarray(0.3 * n**0.5), n)
    np.testing.assert_allclose(null["henrici_normalized"], [0.7071, 0.203], atol=5e-4)
    np.testing.assert_allclose(null["complex_fraction"], 0.9875, atol=2e-4)
    np.testing.assert_allclose(null["effective_rank"][0], n * np.exp(-0.5), rtol=1e-9)
    np.testing.assert_allclose(null["participation_ratio"][1], n * 1.09**2 / (1 + 4 * 0.09 + 2 * 0.09**2), rtol=1e-3)
    np.testing.assert_allclose(null["symmetry_gap"][0], np.sqrt(2), rtol=2e-4)
    np.testing.assert_allclose(null["spectral_norm"][0], 0.6, rtol=4 * EPS)
    np.testing.assert_allclose(null["numerical_abscissa"], [0.3 * 2**0.5, 1 + 0.3 * 2**0.5], rtol=4 * EPS)
    np.testing.assert_allclose(null["self_alignment"], 410 / n, rtol=4 * EPS)


def test_complex_fraction_of_two_by_two_matrices_is_known():
    null = closed_form(jnp.asarray(0.0), jnp.asarray(1.0), 2)
    np.testing.assert_allclose(null["complex_fraction"], 1 - 2**-0.5, rtol=5e-3)  # exact; the series stops at n^-5


def test_every_measure_has_a_null_or_a_reason():
    null = closed_form(jnp.asarray(1.0), jnp.asarray(1.0), 8)
    assert set(null) == {measure.name for measure in measures.MEASURES}
    missing = {name for name, value in null.items() if np.isnan(value)}
    assert missing == set(nulls.UNAVAILABLE) == {m.name for m in measures.MEASURES if not m.null}


def test_top_and_unknown_norms():
    null = closed_form(jnp.asarray(1.0), jnp.asarray([1.0, 0.0, np.nan]), 40, top=10)
    np.testing.assert_array_equal(null["self_alignment"], [0.25, np.nan, np.nan])
    assert np.all(np.isnan(null["effective_rank"][1:]))
    with pytest.raises(ValueError, match="width: got 1"):
        closed_form(jnp.asarray(1.0), jnp.asarray(1.0), 1)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("scale", [0.01, 0.3, 1.0, 7.0])
def test_law_of_shifted_ginibre_reproduces_its_moments(scale, dtype):
    c, s = jnp.asarray(1, dtype), jnp.asarray(scale, dtype)
    size = 1 + scale**2
    tolerance = 100 * float(jnp.finfo(dtype).eps)
    expectation = jax.jit(law.expectation, static_argnums=0)
    for function, moment in (
        (lambda x: x**0, 1),
        (lambda x: x**2, 1),
        (lambda x: x**4, (1 + 4 * scale**2 + 2 * scale**4) / size**2),
    ):
        value = expectation(function, c, s)
        assert value.dtype == dtype
        np.testing.assert_allclose(value, moment, rtol=tolerance)


def test_law_without_shift_is_the_quarter_circle():
    zero, one = jnp.asarray(0.0), jnp.asarray(1.0)
    np.testing.assert_allclose(law.expectation(lambda x: x, zero, one), 8 / (3 * np.pi), rtol=1e-12)
    np.testing.assert_allclose(law.spectral_edge(zero, one), 2, rtol=4 * EPS)
    np.testing.assert_allclose(law.spectral_edge(one, one), np.sqrt(27 / 4), rtol=4 * EPS)
    np.testing.assert_allclose(law.spectral_edge(one, zero), 1, rtol=4 * EPS)


def test_condition_quantiles_scale_and_order():
    assert law.condition_quantile(256, 0.5) == pytest.approx(2 * law.condition_quantile(64, 0.5), rel=0.03)
    assert law.condition_quantile(64, 0.9) > 2 * law.condition_quantile(64, 0.5)
    q = (
        law.condition_quantile(10**8, 0.5) ** 2
    ) / 10**8  # complex eigenvalues only: the closed form of the distribution
    assert 2 * q * (1 - np.exp(-1 / q)) - np.exp(-1 / q) == pytest.approx(0.5, abs=1e-4)
