import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdyn import measures

from .samples import ginibre, orthogonal

EPS = float(np.finfo(np.float64).eps)
EPS32 = float(np.finfo(np.float32).eps)


@pytest.mark.parametrize(("n", "m"), [(1, 3), (2, 2), (5, 8), (16, 16)])
def test_agrees_with_svd_at_moderate_range(rng, n, m):
    rows = rng.standard_normal((3, n, m))
    logs = rng.uniform(-2, 2, (3, n))
    expected = np.linalg.svd(rows * np.exp(logs)[..., None], compute_uv=False)
    value, converged = jax.jit(measures.graded_singular_values)(jnp.asarray(rows), jnp.asarray(logs))
    assert np.all(converged)
    np.testing.assert_allclose(np.exp(value), expected, rtol=1e4 * n * EPS)


def test_keeps_relative_accuracy_over_any_range(rng):
    # orthonormal columns with scales: the singular values are the scales, here over 10^868
    n = 9
    rows, logs = orthogonal(rng, n), np.linspace(1000, -1000, n)
    value, converged = measures.graded_singular_values(jnp.asarray(rows), jnp.asarray(rng.permutation(logs)))
    assert converged
    np.testing.assert_allclose(value, logs, atol=100 * n * EPS)


def test_strong_grading_is_a_gram_schmidt(rng):
    # for ratios near 0 the singular values are the scaled diagonal of QR
    n = 6
    rows, logs = rng.standard_normal((n, n)), np.linspace(0, -500, n)
    diagonal = np.abs(np.diag(np.linalg.qr(rows.T)[1]))
    value, _ = measures.graded_singular_values(jnp.asarray(rows), jnp.asarray(logs))
    np.testing.assert_allclose(value, np.log(diagonal) + logs, rtol=1e-12)


def test_zero_columns_and_nan_matrices(rng):
    rows = ginibre(rng, 3, 5, 5)
    rows[0, 2] = 0
    rows[1, 1, 1] = np.nan
    value, converged = measures.graded_singular_values(jnp.asarray(rows), jnp.zeros((3, 5)))
    assert value[0, -1] == -np.inf
    np.testing.assert_array_equal(converged, [True, False, True])
    np.testing.assert_array_equal(np.isnan(value).any(1), [False, True, False])
    np.testing.assert_allclose(np.exp(value[2]), np.linalg.svd(rows[2], compute_uv=False), rtol=1e-12)


def test_float32(rng):
    rows = rng.standard_normal((12, 12))
    value, converged = measures.graded_singular_values(jnp.asarray(rows, jnp.float32), jnp.zeros(12, jnp.float32))
    assert converged
    assert value.dtype == jnp.float32
    expected = np.linalg.svd(rows, compute_uv=False)
    np.testing.assert_allclose(np.exp(value), expected, rtol=12 * EPS32 * np.linalg.cond(rows))
