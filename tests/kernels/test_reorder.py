"""Reordering: Schur forms stay Schur forms of the same matrix, the order is the one asked for, LAPACK agrees."""

import functools
from typing import Any

import jaxdyn_kernels as jk
import numpy as np
import pytest
import scipy.linalg
from jaxdyn_kernels import Status

from tests.assertions import assert_same_eigenvalues, assert_schur, lapack_eig
from tests.matrices import CLASSES, matrix

SIZE = 20
NAMES = tuple(CLASSES)
# Classes whose eigenvalues differ by more than rounding. Of the others neighbours may be equal to it, and then are
# rightly left unswapped; which ones depends on the machine's sums.
APART = ("ginibre", "companion", "symmetric", "triangular")
# In double precision only: in float32 what is smallest in them is rounding of what is largest.
APART_IN_DOUBLE = ("graded", "stacked_scales")


@functools.cache
def forms(dtype):
    """One batch of all classes: matrices, forms, eigenvalues."""
    A = np.stack([matrix(name, SIZE, dtype) for name in NAMES])
    form = jk.schur(A)
    return A, form, np.asarray(jk.eigenvalues_from_schur(form.T))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_sorted_by_modulus(dtype):
    A, form, values = forms(dtype)
    done = jk.reorder(form.T, form.Q, order=-np.abs(values))
    assert np.all(done.status == Status.OK)
    assert np.all(done.residual <= 20)
    assert np.all(done.orthogonality <= 20)
    moved = np.asarray(jk.eigenvalues_from_schur(done.T))
    for k, name in enumerate(NAMES):
        assert_schur(A[k], done.T[k], done.Q[k])
        assert sorted(np.asarray(done.source[k])) == list(range(SIZE))
        rounding = 20 * SIZE * np.finfo(dtype).eps * np.linalg.norm(A[k])
        assert done.converged[k] or np.max(np.diff(np.abs(moved[k]))) <= rounding, name
        _, _, _, condition = lapack_eig(A[k].astype(np.result_type(dtype, float)))
        condition = np.minimum(condition, 1 / np.finfo(dtype).eps)
        assert_same_eigenvalues(moved[k], values[k], A[k], condition)
        # Each eigenvalue is the one that its row came from, where they can be told apart.
        if name in APART or (name in APART_IN_DOUBLE and dtype != np.float32):
            assert done.converged[k], name
            scale = SIZE * np.finfo(dtype).eps * np.linalg.norm(A[k]) * 20
            there = values[k][np.asarray(done.source[k])]
            assert np.all(np.abs(moved[k] - there) <= scale * condition.max()), name
            assert np.all(np.diff(np.abs(there)) <= 0), name


SORTS = {
    "lhp": lambda z: z.real < 0,
    "rhp": lambda z: z.real >= 0,
    "iuc": lambda z: np.abs(z) <= 1,
    "ouc": lambda z: np.abs(z) > 1,
}
"""The sorts that scipy's schur has names for."""


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("sort", SORTS)
def test_selected_subspace_is_lapacks(sort, dtype):
    """LAPACK's sorted form (gees with trsen) gives another basis of the same invariant subspace, of as many rows."""
    A, form, values = forms(dtype)
    done = jk.reorder(form.T, form.Q, select=SORTS[sort](values))
    moved = []
    for name in ("ginibre", "companion", "graded"):
        k = NAMES.index(name)
        answer: Any = scipy.linalg.schur(A[k], sort=sort)
        T, Q, count = answer
        assert count == np.count_nonzero(SORTS[sort](values[k]))
        ours, theirs, first = (np.asarray(X)[:, :count] for X in (done.Q[k], Q, form.Q[k]))
        assert np.all(SORTS[sort](np.asarray(jk.eigenvalues_from_schur(done.T[k])))[:count])
        if not 0 < count < SIZE:
            continue
        # A subspace moves by a perturbation over the separation of the two parts of the spectrum (Stewart).
        size = SIZE - count
        both = np.kron(np.eye(size), T[:count, :count]) - np.kron(T[count:, count:].T, np.eye(count))
        limit = 20 * SIZE * np.finfo(dtype).eps * np.linalg.norm(A[k]) / np.linalg.svd(both, compute_uv=False)[-1]
        assert limit < 1e-3 or name == "graded"
        assert np.linalg.norm(ours @ ours.conj().T - theirs @ theirs.conj().T) < limit
        moved.append(np.linalg.norm(ours @ ours.conj().T - first @ first.conj().T))
    assert max(moved) > 0.1  # the form as it was is another answer


@pytest.mark.parametrize(("sort", "first"), [("lhp", [-(2**0.5), -0.5]), ("iuc", [-0.5, 0.5]), ("rhp", [0.5, 2**0.5])])
def test_a_matrix_with_known_eigenvalues(sort, first):
    """The one that scipy checks its sorted form with: eigenvalues +-1/2 and +-sqrt(2), two on either side."""
    A = np.array([[4, 3, 1, -1], [-4.5, -3.5, -1, 1], [9, 6, -4, 4.5], [6, 4, -3, 3.5]])
    form = jk.schur(A)
    done = jk.reorder(form.T, form.Q, select=SORTS[sort](np.asarray(jk.eigenvalues_from_schur(form.T))))
    assert_schur(A, done.T, done.Q)
    assert np.allclose(np.sort(np.diagonal(done.T)[:2]), first)


def test_pairs_move_as_one_and_equal_keys_stay():
    T = np.asarray(scipy.linalg.block_diag([[1.0, 2], [-3, 1]], 5.0, [[-1.0, 1], [-1, -1]], 7.0))
    T = T + np.triu(np.ones((6, 6)), 2)
    done = jk.reorder(T, np.eye(6), select=[False, False, False, False, True, True])
    assert done.source.tolist() == [3, 4, 5, 0, 1, 2]
    assert done.T[1, 0] != 0
    assert_schur(T, done.T, done.Q)
    same = jk.reorder(T, np.eye(6), order=np.zeros(6))
    assert np.array_equal(same.T, T)
    assert np.array_equal(same.Q, np.eye(6))


def test_eigenvalues_equal_to_rounding_end_with_a_form_that_is_right():
    """A Jordan block: any order is the same, and swaps that would spoil the form are refused or harmless."""
    T = np.eye(6) + np.triu(np.ones((6, 6)), 1)
    done = jk.reorder(T, np.eye(6), order=-np.arange(6.0))
    assert done.status == Status.OK
    assert_schur(T, done.T, done.Q)


def test_what_is_not_finite_fails_alone():
    _, form, values = forms(np.float64)
    T = np.array(form.T)
    T[1, 0, 3] = np.nan
    done = jk.reorder(T, form.Q, order=-np.abs(values))
    assert done.status[:3].tolist() == [Status.OK, Status.NONFINITE_INPUT, Status.OK]
    assert np.all(np.isnan(done.T[1]))
    assert np.all(np.isfinite(done.T[2]))


def test_identity_answer_fails():
    A, form, values = forms(np.float64)
    k = NAMES.index("ginibre")
    keys = -np.abs(values[k])
    assert np.any(np.diff(keys) < 0)  # the form as it is is not sorted
    with pytest.raises(AssertionError):
        assert_schur(A[k], np.sort(np.diagonal(form.T[k])) * np.eye(SIZE), np.eye(SIZE))


@pytest.mark.parametrize("n", [0, 1])
def test_small_orders(n):
    T = np.triu(np.arange(float(n * n)).reshape(n, n) + 1)
    done = jk.reorder(T, np.eye(n), order=-np.diagonal(T))
    assert done.T.shape == (n, n)
    assert np.all(np.diff(np.diagonal(done.T)) <= 0)


def test_errors_say_what_to_do():
    T = np.eye(3)
    with pytest.raises(ValueError, match="got neither of select and order; allowed is one"):
        jk.reorder(T, T)
    with pytest.raises(ValueError, match="got both of select and order"):
        jk.reorder(T, T, select=[True] * 3, order=[1, 2, 3])
    with pytest.raises(ValueError, match=r"order is .*\(2,\); allowed is one real number a row, shape \(3,\)"):
        jk.reorder(T, T, order=[1, 2])
    with pytest.raises(ValueError, match="they have to agree"):
        jk.reorder(T, np.eye(4), order=[1, 2, 3])
