"""Inverse, orthonormal basis and products as a TPU gets them: full panels, part of one, and one that is all."""

from functools import partial

import jax
import numpy as np
import pytest
from jaxdyn_kernels.blocked import inverse, orthonormal
from jaxdyn_kernels.product import by_parts, looped

from tests.matrices import matrix


@pytest.mark.parametrize(("n", "panel"), [(32, 16), (21, 8), (5, 128)])
@pytest.mark.parametrize("dtype", [np.float32, np.complex128])
def test_inverse_and_basis(n, panel, dtype):
    A = np.stack([matrix(name, n, dtype) for name in ("ginibre", "permutation", "orthogonal", "zero")])
    A[0, 0, 0] = 0  # the first pivot is another row's
    found, Q = (np.asarray(jax.jit(partial(f, panel=panel))(A)) for f in (inverse, orthonormal))
    eps = np.finfo(dtype).eps
    for k in range(3):
        assert_inverse(A[k], found[k], eps)
    assert not np.any(np.isfinite(found[3]))
    for k in range(4):
        assert_basis(A[k], Q[k], eps)
    with pytest.raises(AssertionError):
        assert_inverse(A[0], np.eye(n), eps)
    with pytest.raises(AssertionError):
        assert_basis(A[0], np.eye(n), eps)
    with pytest.raises(AssertionError):
        assert_basis(A[0], A[0], eps)


@pytest.mark.parametrize("dtype", [np.float32, np.complex128])
def test_product_by_parts(dtype, rng):
    """More than a block every way, none of them full, of several matrices and of one with many."""
    A, B = (matrix("ginibre", 40, dtype, seed) for seed in (0, 1))
    A, B = np.stack([A, 2 * A.T])[:, :21], np.stack([B, B.T])[:, :, :13]
    by_four = jax.jit(partial(looped, group=1, block=8, tile=4))
    assert_product(A, B, by_four(A, B))
    assert_product(A, B[:1], by_four(A, B[:1]))
    with pytest.raises(AssertionError):
        assert_product(A, B, by_four(A[:, :, :36], B[:, :36]))  # the last terms left out
    # Small ones in groups, the last of which is not full.
    two_of_three = jax.jit(partial(looped, group=2 * 21 * 40 * 13))
    three = np.concatenate([A, -A[:1]])
    assert_product(three, B[:1], two_of_three(three, B[:1]))
    # What a product of any platform is, and its derivatives, without the branch for a TPU taken here.
    assert_product(A, B, by_parts(A, B))
    change = np.asarray(rng.standard_normal(A.shape), dtype)
    assert_product(change, B, jax.jvp(lambda A: by_parts(A, B), (A,), (change,))[1])
    assert_product(
        change[:, :, :13], np.swapaxes(B, 1, 2), jax.vjp(lambda A: by_parts(A, B), A)[1](change[:, :, :13])[0]
    )


def assert_product(A, B, C):
    """C is A B to rounding."""
    assert np.abs(np.asarray(C) - A @ B).max() <= 100 * np.finfo(A.dtype).eps


def assert_inverse(A, X, eps):
    """A X and X A are the identity, to rounding times the condition."""
    limit = 10 * len(A) * eps * np.linalg.cond(A)
    A, X, eye = (np.asarray(M, np.complex128) for M in (A, X, np.eye(len(A))))
    assert max(np.linalg.norm(A @ X - eye), np.linalg.norm(X @ A - eye)) <= limit


def assert_basis(A, Q, eps):
    """Q is unitary and Q^H A upper triangular."""
    A, Q = (np.asarray(M, np.complex128) for M in (A, Q))
    assert np.linalg.norm(Q.conj().T @ Q - np.eye(len(A))) <= 10 * len(A) * eps
    assert np.linalg.norm(np.tril(Q.conj().T @ A, -1)) <= 10 * len(A) * eps * np.linalg.norm(A)


def test_what_a_tpu_runs_splits_as_well(monkeypatch):
    """The split of blocks with these two in the place of the host's."""
    from jaxdyn_kernels.schur import sign, split

    D = np.zeros((2, 24, 24), np.float32)
    D[0], D[1, :17, :17] = matrix("ginibre", 24, np.float32), matrix("ginibre", 17, np.float32)
    monkeypatch.setattr(sign, "_inverse", inverse)
    monkeypatch.setattr(split, "_orthonormal", orthonormal)
    keys = jax.vmap(jax.random.key)(np.arange(2))
    given = D, np.array([24, 17]), np.array([0, 0]), np.full(2, 1e-3, np.float32), np.full(2, 1e-7, np.float32), keys
    found = jax.jit(split.split)(*given)
    assert np.all(found.accepted)
    for k, size in enumerate((24, 17)):
        Q, rank = np.asarray(found.Q[k], float), int(found.rank[k])
        assert 0 < rank < size
        assert np.linalg.norm(Q.T @ Q - np.eye(24)) < 1e-5
        assert np.linalg.norm((Q.T @ D[k] @ Q)[rank:, :rank]) < 1e-3
