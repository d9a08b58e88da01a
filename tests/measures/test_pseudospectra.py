from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdyn import measures

from .samples import antisymmetric, ginibre, jordan, pieces, symmetric

N = 12
kreiss_scaled = jax.jit(measures.kreiss_scaled)
transient_growth = jax.jit(measures.transient_growth, static_argnames="steps")


def cases(rng):
    """Matrices of one size, so that one compiled program serves them all."""
    two = np.zeros((N, N))
    two[0, :2] = 1, 10
    return {
        "symmetric": symmetric(rng, N),
        "antisymmetric": antisymmetric(rng, N),
        "identity plus antisymmetric": np.eye(N) + antisymmetric(rng, N),
        "two by two": two,
        "ginibre": ginibre(rng, N, N),
        "block": np.eye(N) + 0.5 * ginibre(rng, N, N),
        "graded": np.diag(rng.uniform(-1, 1, N)) + 0.5 * np.triu(rng.standard_normal((N, N)), 1),
        "nilpotent": jordan(N),
        "failed": ginibre(rng, N, N),
    }


@pytest.fixture(scope="module")
def solved():
    """The cases, their pieces as a stack, and their Kreiss constants by name."""
    matrices = cases(np.random.default_rng(5))
    p = pieces(np.stack(list(matrices.values())))
    last, nilpotent = len(matrices) - 1, list(matrices).index("nilpotent")
    p = p._replace(schur=p.schur.at[last, 1, 1].set(jnp.nan), eigenvalues=p.eigenvalues.at[nilpotent].set(0))
    values = kreiss_scaled(p.schur, p.eigenvalues, p.condition)
    return matrices, p, dict(zip(matrices, np.asarray(values), strict=True))


def dense_kreiss(matrix, distances=33, angles=49):
    """The same supremum on a dense grid that also holds the arguments of all eigenvalues, by singular values."""
    eigenvalues = np.linalg.eigvals(matrix)
    scaled = matrix / np.abs(eigenvalues).max()
    h = np.geomspace(1e-4, 3, distances)[:, None]
    theta = np.concatenate([np.linspace(0, np.pi, angles), np.abs(np.angle(eigenvalues))])[None]
    z = (1 + h) * np.exp(1j * theta)
    smallest = np.linalg.svd(z[..., None, None] * np.eye(len(matrix)) - scaled, compute_uv=False)[..., -1]
    return max(1, (h / smallest).max())


@pytest.mark.parametrize("name", ["symmetric", "antisymmetric", "identity plus antisymmetric"])
def test_normal_matrices_have_constant_one(solved, name):
    np.testing.assert_allclose(solved[2][name], 1, rtol=1e-6)


def test_a_matrix_of_two_by_two_with_known_constant(solved):
    # [[1, a], [0, 0]]: the dominant eigenvalue has condition sqrt(1 + a^2), which is the supremum for large a
    np.testing.assert_allclose(solved[2]["two by two"], np.sqrt(101), rtol=1e-9)


@pytest.mark.parametrize("name", ["ginibre", "block", "graded"])
def test_within_one_percent_of_a_dense_grid(solved, name):
    dense = dense_kreiss(solved[0][name])
    assert 0.99 * dense < solved[2][name] < 1.02 * dense  # the limit at the eigenvalue may lie above the grid
    assert dense > 1.2


def test_failures_are_nan_and_stay_alone(solved):
    assert {name for name, value in solved[2].items() if np.isnan(value)} == {"nilpotent", "failed"}


def test_scale_does_not_matter(solved):
    _, p, values = solved
    scaled = np.asarray(kreiss_scaled(100 * p.schur, 100 * p.eigenvalues, p.condition))
    np.testing.assert_allclose(scaled, list(values.values()), rtol=1e-6)


def test_float32_agrees_with_float64_and_single_with_batch(solved):
    matrices, _, values = solved
    p = pieces(matrices["graded"].astype(np.float32))
    value = kreiss_scaled(p.schur, p.eigenvalues, p.condition)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, values["graded"], rtol=2e-2)


def test_growth_lies_between_the_bounds_of_the_kreiss_theorem(solved):
    matrices, p, values = solved
    radius = measures.spectral_radius(p.eigenvalues)
    growth = dict(zip(matrices, np.asarray(transient_growth(p.matrix, radius)), strict=True))
    for name in ("two by two", "ginibre", "block", "graded"):
        assert values[name] <= 1.01 * growth[name] <= 1.01 * np.e * N * values[name], name
    scaled = matrices["ginibre"] / np.abs(np.linalg.eigvals(matrices["ginibre"])).max()
    powers = [np.linalg.norm(np.linalg.matrix_power(scaled, k), 2) for k in range(33)]
    np.testing.assert_allclose(growth["ginibre"], max(powers), rtol=1e-10)
    first = dict(zip(matrices, np.asarray(transient_growth(p.matrix, radius, steps=1)), strict=True))
    np.testing.assert_allclose(first["ginibre"], max(powers[:2]), rtol=1e-10)
    assert growth["ginibre"] > first["ginibre"]
    np.testing.assert_allclose(growth["symmetric"], 1, rtol=1e-12)
    assert np.isnan(growth["nilpotent"])
    assert np.isnan(transient_growth(p.matrix.at[0, 0, 0].set(jnp.nan), radius)[0])


def test_pseudospectrum_on_a_grid(solved):
    _, p, _ = solved
    schur, eigenvalues = p.schur[4:6], p.eigenvalues[4:6]
    grid = jax.jit(partial(measures.pseudospectrum, points=5, margin=0.5))(schur, eigenvalues)
    assert grid.log_resolvent.shape == (2, 5, 5)
    low, high, top = eigenvalues.real.min(-1), eigenvalues.real.max(-1), eigenvalues.imag.max(-1)
    reach = 0.5 * np.maximum(high - low, 2 * top)
    np.testing.assert_allclose(grid.real[:, [0, -1]], np.stack([low - reach, high + reach], 1), rtol=1e-12)
    np.testing.assert_allclose(grid.imaginary[:, -1], top + reach, rtol=1e-12)
    assert np.all(grid.imaginary[:, 0] == 0)
    z = grid.real[1, 3] + 1j * grid.imaginary[1, 2]
    smallest = np.linalg.svd(z * np.eye(N) - p.matrix[5], compute_uv=False)[-1]
    np.testing.assert_allclose(grid.log_resolvent[1, 2, 3], -np.log10(smallest), atol=1e-3)


def test_refusals():
    with pytest.raises(ValueError, match="steps: got 0"):
        measures.transient_growth(jnp.eye(2), jnp.asarray(1.0), steps=0)
    with pytest.raises(ValueError, match="points: got 1"):
        measures.pseudospectrum(jnp.eye(2), jnp.ones(2, complex), points=1)
