"""The shared assertions fail on wrong answers, each for its own reason; and pass on LAPACK's."""

import numpy as np
import pytest

from tests.assertions import (
    assert_conjugate_pairs,
    assert_eigenpairs,
    assert_same_eigenvalues,
    assert_schur,
    assert_svd,
    assert_triangular,
    lapack_eig,
    lapack_schur,
)
from tests.matrices import CLASSES, SENSITIVE, matrix, with_spectrum


@pytest.fixture
def schur_form(rng):
    A = rng.standard_normal((9, 9))
    T, Q = lapack_schur(A)
    return A, T, Q


def test_identity_answer_fails_as_a_schur_form(schur_form):
    A, T, Q = schur_form
    assert_schur(A, T, Q)
    with pytest.raises(AssertionError, match="quasi-triangular"):
        assert_schur(A, A, np.eye(9))
    with pytest.raises(AssertionError, match="residual"):
        assert_schur(A, T, np.eye(9))
    with pytest.raises(AssertionError, match="residual"):
        assert_schur(A, np.diag(np.diagonal(A)), Q)


def test_identity_answer_fails_as_a_complex_schur_form(rng):
    A = rng.standard_normal((5, 5)) + 1j * rng.standard_normal((5, 5))
    T, Q = lapack_schur(A)
    assert_schur(A, T, Q)
    with pytest.raises(AssertionError, match="not upper triangular"):
        assert_schur(A, A, np.eye(5, dtype=complex))


def test_each_equation_of_the_schur_form_is_needed(schur_form):
    A, T, Q = schur_form
    stretched = np.diag([2.0, *np.ones(8)])
    # A Q = Q T holds, the block structure too: only unitarity is lost.
    upper, unitary = lapack_schur(A.astype(complex))
    with pytest.raises(AssertionError, match="Q unitary"):
        assert_schur(A.astype(complex), np.linalg.inv(stretched) @ upper @ stretched, unitary @ stretched)
    with pytest.raises(AssertionError, match="shapes"):
        assert_schur(A, T[:4, :4], Q)
    with pytest.raises(AssertionError, match="dtypes"):
        assert_schur(A, T.astype(np.float32), Q)
    with pytest.raises(AssertionError, match="residual"):
        assert_schur(A, T * (1 + 1e-11), Q)


def test_block_structure_is_checked():
    assert_triangular(np.array([[1.0, 2], [-3, 1]]))
    with pytest.raises(AssertionError, match="unequal diagonal"):
        assert_triangular(np.array([[1.0, 2], [-3, 1.5]]))
    with pytest.raises(AssertionError, match="b c >= 0"):
        assert_triangular(np.array([[1.0, 2], [3, 1]]))
    with pytest.raises(AssertionError, match="overlap"):
        assert_triangular(np.array([[1.0, 2, 0], [-3, 1, 2], [0, -3, 1]]))
    with pytest.raises(AssertionError, match="finite"):
        assert_triangular(np.full((2, 2), np.nan))


def test_wrong_eigenpairs_fail(rng):
    A = rng.standard_normal((6, 6))
    values, left, right, condition = lapack_eig(A)
    assert_eigenpairs(A, values, right, left, condition)
    eye = np.eye(6, dtype=complex)
    with pytest.raises(AssertionError, match="right vectors: residual"):
        assert_eigenpairs(A, np.diagonal(A).astype(complex), eye)
    with pytest.raises(AssertionError, match="right vectors are not unit"):
        assert_eigenpairs(A, values, 2 * right)
    with pytest.raises(AssertionError, match="left vectors: residual"):
        assert_eigenpairs(A, values, right, right)
    with pytest.raises(AssertionError, match="condition numbers differ"):
        assert_eigenpairs(A, values, right, left, condition + 1)
    with pytest.raises(AssertionError, match="trace"):
        # The same pair repeated: each equation A x = lambda x holds.
        assert_eigenpairs(A, np.repeat(values[:1], 6), np.repeat(right[:, :1], 6, axis=1))
    with pytest.raises(AssertionError, match="conjugate"):
        assert_conjugate_pairs(np.array([1 + 1j, 2.0, 1 - 1j]))
    with pytest.raises(AssertionError, match="conjugate"):
        assert_conjugate_pairs(np.array([1 + 1j]))


def test_wrong_eigenvalues_fail(rng):
    A = rng.standard_normal((6, 6))
    values = np.linalg.eigvals(A)
    condition = np.full(6, 10.0)
    assert_same_eigenvalues(values[::-1], values, A, condition)
    with pytest.raises(AssertionError, match="further from its partner"):
        assert_same_eigenvalues(values + 1e-9, values, A, condition)
    with pytest.raises(AssertionError, match="further from its partner"):
        assert_same_eigenvalues(np.repeat(values[:1], 6), values, A, condition)


def test_wrong_svd_fails(rng):
    A = rng.standard_normal((6, 6))
    U, s, Vh = np.linalg.svd(A)
    assert_svd(A, U, s, Vh)
    eye = np.eye(6)
    with pytest.raises(AssertionError, match="residual"):
        assert_svd(A, eye, s, eye)
    with pytest.raises(AssertionError, match="U is not unitary"):
        assert_svd(A, U / 2, 2 * s, Vh)
    with pytest.raises(AssertionError, match="descending"):
        assert_svd(A, U[:, ::-1], s[::-1], Vh[::-1])
    with pytest.raises(AssertionError, match="negative"):
        assert_svd(A, -U, -s, Vh)


@pytest.mark.parametrize("name", CLASSES)
def test_classes_are_seeded_square_and_finite(name):
    for n in (0, 1, 2, 3, 12):
        A = matrix(name, n, np.float64)
        assert A.shape == (n, n)
        assert np.all(np.isfinite(A))
        assert np.array_equal(A, matrix(name, n, np.float64))
    assert np.iscomplexobj(matrix(name, 12, np.complex64))


def test_classes_have_the_structure_that_they_are_named_for(rng):
    assert set(SENSITIVE) <= set(CLASSES)
    Q = matrix("orthogonal", 12, np.float64)
    assert np.allclose(Q.T @ Q, np.eye(12))
    assert np.ptp(np.log10(np.abs(np.diagonal(matrix("graded", 12, np.float64))))) > 10
    J = matrix("defective", 8, np.float64)
    assert np.linalg.matrix_rank(J - np.eye(8), tol=1e-8) == 7
    assert np.linalg.matrix_rank(matrix("clustered", 24, np.float64) - np.eye(24)) == 8
    values = np.array([2.0, 1 + 3j, 1 - 3j, -1.0])
    made = np.linalg.eigvals(with_spectrum(values, rng))
    assert np.allclose(np.sort_complex(made), np.sort_complex(values))
