import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdyn import measures

from .samples import antisymmetric, ginibre, jordan, pieces, symmetric

kreiss_scaled = jax.jit(measures.kreiss_scaled)
transient_growth = jax.jit(measures.transient_growth, static_argnames="steps")
pseudospectrum = jax.jit(measures.pseudospectrum, static_argnames=("points", "margin"))


def kreiss(p):
    return kreiss_scaled(p.schur, p.eigenvalues, p.condition)


def dense_kreiss(matrix, distances=33, angles=49):
    """The same supremum on a dense grid that also holds the arguments of all eigenvalues, by singular values."""
    eigenvalues = np.linalg.eigvals(matrix)
    scaled = matrix / np.abs(eigenvalues).max()
    h = np.geomspace(1e-4, 3, distances)[:, None]
    theta = np.concatenate([np.linspace(0, np.pi, angles), np.abs(np.angle(eigenvalues))])[None]
    z = (1 + h) * np.exp(1j * theta)
    smallest = np.linalg.svd(z[..., None, None] * np.eye(len(matrix)) - scaled, compute_uv=False)[..., -1]
    return max(1, (h / smallest).max())


def test_normal_matrices_have_constant_one(rng):
    for matrix in (symmetric(rng, 8), antisymmetric(rng, 8), np.eye(8) + antisymmetric(rng, 8)):
        np.testing.assert_allclose(kreiss(pieces(matrix)), 1, rtol=1e-6)


def test_a_matrix_of_two_by_two_with_known_constant():
    # [[1, a], [0, 0]]: the dominant eigenvalue has condition sqrt(1 + a^2), which is the supremum for large a
    a = 10.0
    p = pieces(np.array([[1.0, a], [0.0, 0.0]]))
    np.testing.assert_allclose(kreiss(p), np.sqrt(1 + a**2), rtol=2e-3)


@pytest.mark.parametrize("name", ["ginibre", "block", "graded"])
def test_within_one_percent_of_a_dense_grid(rng, name):
    n = 20
    matrix = {
        "ginibre": ginibre(rng, n, n),
        "block": np.eye(n) + 0.5 * ginibre(rng, n, n),
        "graded": np.diag(rng.uniform(-1, 1, n)) + 0.5 * np.triu(rng.standard_normal((n, n)), 1),
    }[name]
    p, dense = pieces(matrix), dense_kreiss(matrix)
    assert 0.99 * dense < kreiss(p) < 1.02 * dense
    assert dense > 1.2


def test_growth_lies_between_the_bounds_of_the_kreiss_theorem(rng):
    p = pieces(np.stack([ginibre(rng, 10, 10), 0.3 * np.eye(10) + np.triu(ginibre(rng, 10, 10))]))
    radius = measures.spectral_radius(p.eigenvalues)
    growth, constant = transient_growth(p.matrix, radius), kreiss(p)
    assert np.all(constant <= np.e * 10 * growth)
    assert np.all(growth <= np.e * 10 * constant)
    powers = [np.linalg.norm(np.linalg.matrix_power(p.matrix[0] / radius[0], k), 2) for k in range(33)]
    np.testing.assert_allclose(growth[0], max(powers), rtol=1e-10)
    np.testing.assert_allclose(transient_growth(p.matrix[0], radius[0], steps=1), max(powers[:2]), rtol=1e-10)
    np.testing.assert_allclose(transient_growth(jnp.eye(3), jnp.asarray(1.0)), 1, rtol=1e-14)


def test_scale_does_not_matter_and_failures_stay_alone(rng):
    stack = ginibre(rng, 3, 8, 8)
    p, scaled = pieces(stack), pieces(100 * stack)
    values = kreiss(p)
    np.testing.assert_allclose(kreiss(scaled), values, rtol=1e-6)
    schur = np.array(p.schur)
    schur[1] = np.nan
    broken = kreiss_scaled(schur, p.eigenvalues, p.condition)
    np.testing.assert_array_equal(np.isnan(broken), [False, True, False])
    np.testing.assert_allclose(broken[::2], values[::2], rtol=1e-6)
    nilpotent = jordan(4)
    assert np.isnan(kreiss_scaled(nilpotent, np.zeros(4, complex), np.ones(4)))
    growth = transient_growth(jnp.asarray(schur), measures.spectral_radius(p.eigenvalues))
    np.testing.assert_array_equal(np.isnan(growth), [False, True, False])


def test_float32(rng):
    matrix = ginibre(rng, 16, 16)
    value = kreiss(pieces(matrix.astype(np.float32)))
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, kreiss(pieces(matrix)), rtol=2e-2)


def test_pseudospectrum_on_a_grid(rng):
    p = pieces(ginibre(rng, 2, 9, 9))
    grid = pseudospectrum(p.schur, p.eigenvalues, points=5)
    assert grid.log_resolvent.shape == (2, 5, 5)
    assert np.all(grid.real[:, 0] < p.eigenvalues.real.min(-1))
    assert np.all(grid.imaginary[:, -1] > p.eigenvalues.imag.max(-1))
    assert np.all(grid.imaginary[:, 0] == 0)
    z = grid.real[1, 3] + 1j * grid.imaginary[1, 2]
    smallest = np.linalg.svd(z * np.eye(9) - p.matrix[1], compute_uv=False)[-1]
    np.testing.assert_allclose(grid.log_resolvent[1, 2, 3], -np.log10(smallest), atol=1e-3)
    wide = pseudospectrum(p.schur, p.eigenvalues, points=5, margin=1.0)
    assert np.all(wide.real[:, 0] < grid.real[:, 0])
    with pytest.raises(ValueError, match="points: got 1"):
        pseudospectrum(p.schur, p.eigenvalues, points=1)


def test_refuses_no_steps():
    with pytest.raises(ValueError, match="steps: got 0"):
        transient_growth(jnp.eye(2), jnp.asarray(1.0), steps=0)
