"""Resolvent norms against dense singular value decompositions."""

import jax
import jax.numpy as jnp
import jaxdyn_kernels as jk
import numpy as np
import pytest
from jaxdyn_kernels.resolvent import xla

from tests.matrices import matrix

SIZE, POINTS = 24, 12


def grid(radius, points=POINTS):
    side = np.linspace(-radius, radius, points)
    return side[:, None] + 1j * side


def dense(T, z):
    """1 / sigma_min(z I - T) by a full decomposition in double precision."""
    T = np.asarray(T, complex)
    return 1 / np.linalg.svd(z[..., None, None] * np.eye(T.shape[-1]) - T, compute_uv=False)[..., -1]


@pytest.mark.parametrize("implementation", jk.implementations("resolvent_norm"))
class TestResolventNorm:
    @pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64])
    @pytest.mark.parametrize("name", ["ginibre", "grcar", "orthogonal", "symmetric", "clustered", "triangular", "zero"])
    def test_against_dense(self, implementation, name, dtype):
        T = jk.schur(matrix(name, SIZE, dtype)).T
        z = grid(1.5 * (1 + np.max(np.abs(np.asarray(jk.eigenvalues_from_schur(T))))))
        norms = jk.resolvent_norm(T, z, implementation=implementation)
        assert norms.dtype == np.finfo(dtype).dtype
        assert np.allclose(norms, dense(T, z), rtol=1e-3)

    def test_tolerance_is_met_and_changes_the_result(self, implementation):
        """Far from the spectrum of a normal matrix the singular values crowd at the end that is sought."""
        T, z = np.diag(np.linspace(-1, 1, 200)), np.array([3j, 1 + 0.3j])

        def error(tolerance):
            norms = jk.resolvent_norm(T, z, tolerance=tolerance, implementation=implementation)
            return np.max(np.abs(norms / dense(T, z) - 1))

        assert error(0.5) > error(1e-3) > error(1e-9)
        assert error(0.1) < 0.1
        assert error(1e-3) < 1e-3

    def test_lower_bound(self, implementation):
        T = jk.schur(matrix("grcar", SIZE, np.float64)).T
        z = grid(3.0)
        norms = jk.resolvent_norm(T, z, tolerance=0.5, implementation=implementation)
        assert np.all(norms <= dense(T, z) * (1 + 1e-10))

    def test_batches_share_the_grid(self, implementation):
        T = jk.schur(np.stack([matrix("ginibre", 8, np.float64, seed) for seed in range(6)]).reshape(2, 3, 8, 8)).T
        z = grid(2.0, 5)
        norms = jk.resolvent_norm(T, z, implementation=implementation)
        assert norms.shape == (2, 3, 5, 5)
        assert np.allclose(norms[1, 2], dense(T[1, 2], z), rtol=1e-3)
        assert jax.eval_shape(lambda z: jk.resolvent_norm(T, z), 0.3 + 0.1j).shape == (2, 3)

    def test_under_jit_and_vmap(self, implementation):
        T = jk.schur(np.stack([matrix("ginibre", 8, np.float64, seed) for seed in range(2)])).T
        z = np.stack([grid(1.0, 4), grid(2.0, 4)])
        norms = jax.jit(jax.vmap(lambda T, z: jk.resolvent_norm(T, z, implementation=implementation)))(T, z)
        for k in range(2):
            assert np.allclose(norms[k], dense(T[k], z[k]), rtol=1e-3)

    def test_at_eigenvalues_and_beside_them(self, implementation):
        """A normal matrix: the inverse distance to the spectrum, infinite on it."""
        values = np.linspace(-2.0, 1.0, SIZE)
        z = grid(3.0)
        z[0] = np.resize(values, POINTS)
        z[1, 0] = values[3] + 1e-12
        with np.errstate(divide="ignore"):
            expected = 1 / np.min(np.abs(z[..., None] - values), axis=-1)
        norms = np.asarray(jk.resolvent_norm(np.diag(values), z, implementation=implementation))
        assert np.all(np.isinf(norms[0]))
        assert np.all(np.isfinite(norms[1:]))
        assert np.allclose(norms[1:], expected[1:], rtol=1e-3)

    def test_not_finite_input(self, implementation):
        T, z = np.eye(SIZE), grid(3.0)
        z[0, 0] = np.inf
        norms = np.asarray(jk.resolvent_norm(T, z, implementation=implementation))
        assert np.isnan(norms[0, 0])
        assert np.all(np.isfinite(norms.ravel()[1:]))
        T[0, 1] = np.nan
        assert np.all(np.isnan(jk.resolvent_norm(T, z, implementation=implementation)))

    @pytest.mark.parametrize("power", [2.0**1000, 2.0**-1000])
    def test_scale(self, implementation, power):
        T = np.triu(matrix("ginibre", SIZE, np.float64))
        z = grid(2.0)
        plain = jk.resolvent_norm(T, z, implementation=implementation)
        scaled = jk.resolvent_norm(T * power, z * power, implementation=implementation)
        assert np.allclose(np.asarray(scaled) * power, plain, rtol=1e-6)

    def test_order_one(self, implementation):
        norms = jk.resolvent_norm(np.array([[2.0]]), np.array([0.0, 2.5]), implementation=implementation)
        assert np.allclose(norms, [0.5, 2.0])


def test_largest_singular_value_of_bidiagonal_matrices(rng):
    alpha, beta = np.abs(rng.standard_normal((2, 6, 5)))
    beta[-1] = 0
    entries = np.stack([alpha, beta], axis=1).reshape(12, 5)[:-1]
    expected = [np.linalg.norm(np.diag(alpha[:, k]) + np.diag(beta[:-1, k], 1), 2) for k in range(5)]
    assert np.allclose(xla._largest_singular_value(jnp.asarray(entries)), expected, rtol=1e-14)
    assert np.all(xla._largest_singular_value(jnp.zeros((3, 2))) == 0)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"empty matrix has no resolvent"):
        jk.resolvent_norm(np.ones((0, 0)), 1.0)
    with pytest.raises(ValueError, match=r"T has shape \(2, 3\)"):
        jk.resolvent_norm(np.ones((2, 3)), 1.0)
    with pytest.raises(ValueError, match=r"tolerance=0.0 is outside \(0, 1\)"):
        jk.resolvent_norm(np.eye(2), 1.0, tolerance=0.0)
    with pytest.raises(ValueError, match="implementation='lapack' is unknown for 'resolvent_norm'"):
        jk.resolvent_norm(np.eye(2), 1.0, implementation="lapack")
