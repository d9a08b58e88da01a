"""Singular values and projectors without an SVD, against LAPACK's: what a TPU runs, forced on a CPU."""

from functools import cache

import jax
import jax.numpy as jnp
import jaxdyn_kernels as jk
import numpy as np
import pytest
from jaxdyn_kernels.singular.bisection import bidiagonal, bidiagonal_singular_values
from jaxdyn_kernels.singular.leading import leading_projectors

from tests.matrices import CLASSES, matrix

N, K = 33, 4
DTYPES = (np.float32, np.float64)
NO_GAP = {"companion", "jordan", "orthogonal", "defective", "clustered", "repeated", "zero", "identity", "permutation"}
"""Classes whose leading singular values may agree, so that there are no K leading directions."""


@cache
def true(name: str, dtype: type):
    """A matrix, and the decomposition of it in twice the precision that is tested (float64: the same)."""
    A = matrix(name, N, dtype)
    return A, *np.linalg.svd(A.astype(np.complex128 if np.iscomplexobj(A) else np.float64))


@pytest.fixture(scope="module")
def found():
    """By dtype, the singular values of all classes, by one call each."""
    return {
        dtype: jk.singular_values(np.stack([true(name, dtype)[0] for name in CLASSES]), implementation="bisection")
        for dtype in DTYPES
    }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CLASSES)
def test_bisection_is_as_exact_as_lapack(name, dtype, found):
    A, _, s, _ = true(name, dtype)
    got = np.asarray(found[dtype][list(CLASSES).index(name)])
    assert np.all(np.diff(got) <= 0)
    assert np.all(got >= 0)
    # LAPACK's own largest error over these classes is .1 n eps norm(A); bisection's is .13.
    assert np.abs(got - s).max() <= 0.3 * N * np.finfo(A.real.dtype).eps * s[0]


@pytest.mark.parametrize(("n", "dtype"), [(0, float), (1, float), (2, float), (3, complex)])
def test_small_orders_and_complex_matrices(n, dtype):
    A = matrix("ginibre", n, dtype)
    wanted = np.linalg.svd(A, compute_uv=False)
    np.testing.assert_allclose(jk.singular_values(A, implementation="bisection"), wanted, atol=1e-15)


def test_a_matrix_of_any_scale_and_one_that_is_not_finite():
    A, _, s, _ = true("ginibre", np.float32)
    broken = A.copy()
    broken[2, 3] = np.inf
    got = np.asarray(jk.singular_values(np.stack([A * 2.0**120, broken, A * 2.0**-110]), implementation="bisection"))
    np.testing.assert_allclose(got[0] * 2.0**-120, s, atol=1e-5)
    np.testing.assert_allclose(got[2] * 2.0**110, s, atol=1e-5)
    assert np.all(np.isnan(got[1]))


def test_the_bidiagonal_form_has_both_norms_of_the_matrix():
    A, _, s, _ = true("ginibre", np.float64)
    d, e = map(np.asarray, bidiagonal(jnp.asarray(A)))
    B = np.diag(d) + np.diag(e, 1)
    np.testing.assert_allclose(np.linalg.svd(B, compute_uv=False), s, atol=1e-14)
    assert np.all(np.abs(e[:-1]) > 1e-3), "nothing deflates by chance"


def test_tiny_singular_values_of_a_bidiagonal_matrix_are_found_beside_large_ones():
    d, e = np.array([1.0, 1e-9, 1.0]), np.array([1e-12, 1e-12])
    got = np.asarray(bidiagonal_singular_values(jnp.asarray(d), jnp.asarray(e)))
    np.testing.assert_allclose(got, [1, 1, 1e-9], atol=1e-16)


def test_lapack_is_the_hosts_and_the_rest_of_a_batch_is_not_affected():
    A = np.stack([true("ginibre", np.float64)[0], np.full((N, N), np.nan)])
    got = np.asarray(jk.singular_values(A))
    np.testing.assert_allclose(got[0], true("ginibre", np.float64)[2], atol=1e-14)
    assert np.all(np.isnan(got[1]))


@pytest.fixture(scope="module")
def projectors():
    """By dtype and class, the projectors of all classes, from one program a dtype."""
    made = {}
    for dtype in DTYPES:
        given = [(true(name, dtype)[0], jnp.asarray(true(name, dtype)[2], np.finfo(dtype).dtype)) for name in CLASSES]
        program = jax.jit(leading_projectors, static_argnums=2)
        made[dtype] = {name: program(A / max(s[0], 1e-30), s / max(s[0], 1e-30), K) for name, (A, s) in
                       zip(CLASSES, given, strict=True)}  # fmt: skip
    return made


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CLASSES)
def test_projectors_are_those_of_the_leading_singular_vectors(name, dtype, projectors):
    A, u, s, vh = true(name, dtype)
    left, right = map(np.asarray, projectors[dtype][name])
    gap = (s[K - 1] ** 2 - s[K] ** 2) / max(s[0], 1e-30) ** 2
    eps = np.finfo(A.real.dtype).eps
    if gap < 8 * eps:
        assert name in NO_GAP
        assert np.all(np.isnan(left)) == np.all(np.isnan(right))
        return
    for got, basis in ((left, u[:, :K]), (right, vh[:K].conj().T)):
        error = np.linalg.norm(got - basis @ basis.conj().T, 2)
        assert error <= N * eps / gap, error


def test_no_leading_directions_where_singular_values_agree():
    for A in (np.eye(2), np.zeros((6, 6)), np.eye(7)[::-1]):
        s = np.linalg.svd(A, compute_uv=False)
        assert all(np.all(np.isnan(P)) for P in leading_projectors(jnp.asarray(A), jnp.asarray(s), 1))
    both = leading_projectors(jnp.eye(3), jnp.ones(3), 3)
    np.testing.assert_array_equal(both, np.stack([np.eye(3)] * 2))
