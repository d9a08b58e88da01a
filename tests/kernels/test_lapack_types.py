"""The matrix types and ratios by which LAPACK tests its own gees and geev, for every way to a Schur form.

LAPACK Working Note 41 and the comments of its test programs describe 21 types of matrices, of order ten here as in
LAPACK's own input, and a threshold of 20 for every ratio. Two things differ: constants "near overflow" and "near
underflow" leave room for a norm n times the largest entry, and for entries eps times the largest to be normal numbers,
since XLA takes others for zero; and where LAPACK asks for the same bits with and without vectors, programs that are
compiled apart are asked for the same numbers to rounding times the condition.
"""

import functools

import jaxdyn_kernels as jk
import numpy as np
import pytest
from jaxdyn_kernels import Status

from tests.assertions import (
    FACTOR,
    assert_eigenpairs,
    assert_same_eigenvalues,
    assert_schur,
    assert_triangular,
    lapack_eig,
)

N = 10
WAYS = [
    *(("lapack", dtype) for dtype in (np.float32, np.complex128)),
    *(("xla", dtype) for dtype in (np.float64, np.complex64)),
    ("wavefront", np.float32),
]


def spaced(kind, eps, rng):
    """N numbers from 1 down to eps: evenly, geometrically, or one and the rest eps; with random signs."""
    values = {
        "even": np.linspace(1, eps, N),
        "geometric": np.geomspace(1, eps, N),
        "clustered": np.where(np.arange(N) == 0, 1, eps),
        "random": np.exp(rng.uniform(np.log(eps), 0, N)),
    }[kind]
    return values * rng.choice([-1.0, 1.0], N)


def similar(kind, condition, eps, rng):
    """X T X^-1 with these eigenvalues and random entries above; X has this condition, and is unitary for 1.

    Of the random kind half the eigenvalues are pairs: blocks [[a, b], [-b, a]].
    """
    T = np.triu(rng.uniform(-1, 1, (N, N)), 1) + np.diag(spaced(kind, eps, rng))
    if kind == "random":
        for i in range(0, N // 2, 2):
            T[i + 1, i + 1], T[i, i + 1], T[i + 1, i] = T[i, i], T[i, i], -T[i, i]
    U, V = (np.linalg.qr(rng.standard_normal((N, N)))[0] for _ in range(2))
    X = U @ np.diag(np.geomspace(1, 1 / condition, N)) @ V
    return X @ T @ np.linalg.inv(X)


def framed(rng):
    """Random entries, zero in the first two rows and the last, in the first column and the last two."""
    A = rng.uniform(-1, 1, (N, N))
    A[[0, 1, -1]] = 0
    A[:, [0, -2, -1]] = 0
    return A


def types(dtype):
    """The 21 matrices, by name."""
    rng, info = np.random.default_rng(41), np.finfo(dtype)
    eps, large, small = float(info.eps), 1 / (N**2 * float(info.tiny)), float(info.tiny) / float(info.eps)
    ill = eps**-0.5
    found = {"zero": np.zeros((N, N)), "identity": np.eye(N), "jordan": np.eye(N) + np.eye(N, k=-1)}
    for kind in ("even", "geometric", "clustered"):
        found[f"diagonal {kind}"] = np.diag(spaced(kind, eps, rng))
    found |= {f"diagonal even {name}": found["diagonal even"] * x for name, x in (("large", large), ("small", small))}
    kinds = ("even", "geometric", "clustered", "random")
    found |= {f"unitary {kind}": similar(kind, 1, eps, rng) for kind in kinds}
    found |= {f"ill {kind}": similar(kind, ill, eps, rng) for kind in kinds}
    last = found["ill random"] / np.abs(found["ill random"]).max()
    found |= {"ill random large": last * large, "ill random small": last * small}
    found["framed"] = framed(rng)
    found |= {f"framed {name}": found["framed"] * x for name, x in (("large", large), ("small", small))}
    assert len(found) == 21
    if np.issubdtype(dtype, np.complexfloating):
        found = {name: A * np.exp(0.7j) for name, A in found.items()}
    return {name: A.astype(dtype) for name, A in found.items()}


NAMES = tuple(types(np.float32))


@functools.cache
def decomposed(way, dtype):
    """All types in a batch, their Schur forms with vectors and without, and the forms with half the plane on top."""
    A = np.stack(list(types(dtype).values()))
    form, alone = (jk.schur(A, vectors=vectors, implementation=way) for vectors in (True, False))
    return A, form, alone, jk.reorder(form.T, form.Q, select=chosen(jk.eigenvalues_from_schur(form.T)))


@functools.cache
def eigenpairs(way, dtype):
    """All types in a batch: both sides, the right side alone, the eigenvalues alone."""
    A = np.stack(list(types(dtype).values()))
    both, right = (jk.eig(A, left=left, implementation=way) for left in (True, False))
    return A, both, right, jk.eigvals(A, implementation=way)


def chosen(values):
    """Eigenvalues in the right half of the plane."""
    return np.asarray(values).real > 0


def same_eigenvalues(values, others, A, *, nilpotent=False):
    """They agree to rounding times the condition, which is at most 1 / eps; both lists are off by that.

    The zeros of a `nilpotent` part (Jordan blocks of order three at most) move by the third root of rounding.
    """
    scale = float(np.abs(A).max()) or 1.0
    A = A / A.dtype.type(scale)
    wide = A.astype(np.result_type(A.dtype, np.float64))
    reference, _, _, condition = lapack_eig(wide)
    limit = np.minimum(condition, 1 / np.finfo(A.dtype).eps)
    simple = np.abs(reference) > 0.01 if nilpotent else np.ones(N, bool)
    for found in (values, others):
        found = np.asarray(found, complex) / scale
        found = found[np.argsort(-np.abs(found))]
        assert_same_eigenvalues(found[: np.sum(simple)], reference[simple], A, limit[simple])
        smallest = np.abs(found[np.sum(simple) :])
        assert np.all(smallest <= (N * np.finfo(A.dtype).eps) ** (1 / 3) * np.linalg.norm(wide))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("way", "dtype"), WAYS)
class TestGees:
    def test_form_and_eigenvalues(self, way, dtype, name):
        """Ratios 1 to 6: T in Schur form, A = Q T Q^H, Q unitary, eigenvalues those of T, vectors change neither."""
        k = NAMES.index(name)
        A, form, alone, _ = decomposed(way, dtype)
        assert form.status[k] == alone.status[k] == Status.OK
        assert_schur(A[k], form.T[k], form.Q[k])
        assert_triangular(alone.T[k])
        values, without = (np.asarray(jk.eigenvalues_from_schur(x.T))[k] for x in (form, alone))
        T, eps = np.asarray(form.T[k]), np.finfo(dtype).eps  # two roots and a product: a few eps
        pair = np.append(np.diagonal(T, -1), 0) != 0
        single = ~(pair | np.append(False, pair[:-1]))
        np.testing.assert_array_equal(values[single], np.diagonal(T)[single])
        for i in np.flatnonzero(pair):
            width = np.sqrt(np.abs(T[i, i + 1])) * np.sqrt(np.abs(T[i + 1, i]))
            np.testing.assert_allclose(values[i : i + 2], T[i, i] + np.array([1j, -1j]) * width, rtol=8 * eps)
        if way == "lapack":
            np.testing.assert_array_equal(alone.T[k], form.T[k])
        same_eigenvalues(values, without, A[k], nilpotent="framed" in name)

    def test_form_with_chosen_eigenvalues_on_top(self, way, dtype, name):
        """Ratios 7 to 13: a Schur form still, and as many eigenvalues on top as were chosen."""
        k = NAMES.index(name)
        A, form, _, moved = decomposed(way, dtype)
        assert moved.status[k] == Status.OK
        assert_schur(A[k], moved.T[k], moved.Q[k], factor=2 * FACTOR)  # of the form and of its reordering
        if not moved.converged[k]:
            # LAPACK reports those too: eigenvalues that are equal to rounding were not swapped.
            assert "even" not in name
            return
        before, after = (chosen(jk.eigenvalues_from_schur(x.T))[k] for x in (form, moved))
        count = int(np.sum(before))
        wrong = np.sum(~after[:count]) + np.sum(after[count:])
        # Two that nearly coincide move by the root of rounding, and may change sides so near to the imaginary axis.
        values = np.asarray(jk.eigenvalues_from_schur(moved.T))[k] / (np.abs(A[k]).max() or 1)
        near = np.abs(values.real) <= N * FACTOR * np.finfo(dtype).eps ** 0.5
        assert wrong <= np.sum(near)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("way", "dtype"), [("lapack", np.complex64), ("xla", np.float64)])
def test_geev(way, dtype, name):
    """Ratios 1 to 7: both residuals, unit vectors with a real largest entry, one side or none changes no number."""
    k = NAMES.index(name)
    A, both, right, values = eigenpairs(way, dtype)
    assert both.status[k] == right.status[k] == Status.OK
    left, condition = np.asarray(both.left)[k], np.asarray(both.condition)[k]
    assert_eigenpairs(A[k], both.eigenvalues[k], both.right[k], left, condition)
    for V in (np.asarray(both.right[k]), left):
        largest = V[np.argmax(np.abs(V), axis=0), np.arange(N)]
        assert np.all(np.abs(largest.imag) <= 2 * np.finfo(dtype).eps)
    same_eigenvalues(both.eigenvalues[k], values[k], A[k], nilpotent="framed" in name)
    assert_eigenpairs(A[k], right.eigenvalues[k], right.right[k])
    if way == "lapack":
        np.testing.assert_array_equal(right.eigenvalues[k], both.eigenvalues[k])
