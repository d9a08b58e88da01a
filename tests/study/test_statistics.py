"""The numbers of a study, against closed forms and the measures they are made of."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxdyn
from jaxdyn import nulls
from jaxdyn.measures import effective_rank
from jaxdyn.study import statistics
from jaxdyn.study.conventions import Convention, every_convention
from jaxdyn.study.statistics import STATISTICS, closed_form, log_product_rank, numbers, profiles, slope, summarise


def blocks(rng, layers=4, samples=3, n=12, size=0.4):
    return np.eye(n) + size * rng.standard_normal((layers, samples, n, n)) / n**0.5


def test_slope_is_the_least_squares_one(rng):
    series = rng.standard_normal((6, 2))
    fitted = np.polyfit(np.linspace(0, 1, 6), series, 1)[0]
    assert np.allclose(slope(series), fitted, atol=1e-12)
    assert np.isnan(slope(series[:1])).all()


def test_profiles_do_not_depend_on_how_many_layers_are_taken_at_a_time(rng, monkeypatch):
    J = blocks(rng)
    at_once = profiles(J)
    monkeypatch.setattr(statistics, "HELD", 2 * J[0].nbytes)
    for name, value in profiles(J).items():
        assert np.array_equal(value, at_once[name])


def test_profiles_are_the_measures_of_each_matrix(rng):
    J = blocks(rng)
    found = profiles(J)
    one = np.asarray(J[2, 1], np.float32)
    spectrum = jaxdyn.decompose(one)
    complex_ones = np.abs(np.imag(spectrum.eigenvalues)) > 0
    assert found["complex_fraction"][2, 1] == pytest.approx(complex_ones.mean(), abs=1e-6)
    departure = np.sqrt(np.sum(one**2) - np.sum(np.abs(spectrum.eigenvalues) ** 2)) / np.linalg.norm(one)
    assert found["henrici"][2, 1] == pytest.approx(departure, rel=1e-4)
    rest = one - np.trace(one) / 12 * np.eye(12)
    u, _, vh = np.linalg.svd(rest)
    assert found["alignment"][2, 1] == pytest.approx(np.sum((u[:, :2].T @ vh[:2].T) ** 2) / 2, abs=1e-4)
    assert found["alignment_pairs"][2, 1] == pytest.approx(
        np.mean(np.abs(np.sum(u[:, :2] * vh[:2].T, axis=0))), abs=1e-4
    )
    assert found["alignment_trace"][2, 1] == pytest.approx(np.trace(rest @ rest) / np.sum(rest**2), abs=1e-4)


def test_the_product_is_that_of_all_layers(rng):
    J = blocks(rng).astype(np.float32)
    values = np.linalg.svd(J[3, 0] @ J[2, 0] @ J[1, 0] @ J[0, 0], compute_uv=False)
    assert log_product_rank(J)[0] == pytest.approx(np.log(effective_rank(values)), abs=1e-4)
    assert numbers(J)[STATISTICS.index("log_product_rank"), 0] == pytest.approx(log_product_rank(J)[0], abs=1e-6)


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_the_closed_form_is_what_noise_of_that_norm_gives(rng, shift):
    n = 48
    J = shift * np.eye(n) + 0.6 * rng.standard_normal((2, 2, n, n)) / n**0.5
    known = closed_form(J, jnp.full((2, 2), shift))
    for name, value in known.items():
        drawn = nulls.n0(jnp.asarray(J), lambda m, name=name: profiles(m)[name], shift=shift, draws=24).draws
        error = drawn.std() / np.sqrt(drawn.size)
        assert abs(drawn.mean() - value.mean()) < 4 * error + 0.02 * abs(value.mean()), name


def test_conventions_scale_shift_and_average(rng):
    J = jnp.asarray(blocks(rng))
    ratio = jnp.asarray(rng.uniform(0.5, 1.5, (4, 3)))
    relative = Convention("in-context", "A", "relative", "mean").matrices(J, ratio)
    assert np.allclose(relative[1, 0], np.mean(ratio[1][:, None, None] * J[1], axis=0) - np.eye(12), atol=1e-6)
    assert np.allclose(Convention("ov").matrices(J, ratio), J)
    assert np.all(Convention("ov", "A", "relative").shift(ratio) == 0)
    assert np.allclose(Convention("ov", "J", "relative").shift(ratio), ratio)
    every = every_convention(("in-context", "ov"))
    assert len(set(map(str, every))) == 16
    # A scale changes no number of a block: these are the same convention in both metrics.
    raw, scaled = (profiles(Convention("ov", "J", metric).matrices(J, ratio)) for metric in ("raw", "relative"))
    assert all(np.allclose(raw[name], scaled[name], atol=1e-5) for name in raw)


def test_summarise_keeps_the_order_of_the_names(rng):
    found = profiles(blocks(rng))
    rows = summarise(found, np.zeros(3))
    assert np.allclose(rows[STATISTICS.index("alignment_slope")], slope(found["alignment"]))
    assert np.allclose(rows[STATISTICS.index("complex_fraction")], found["complex_fraction"].mean(axis=0))
