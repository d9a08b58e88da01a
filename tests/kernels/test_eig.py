"""Eigenvalues and eigenvectors: every defining equation, for each implementation x class x dtype x transform."""

import jax
import jax.numpy as jnp
import jaxdyn_kernels as jk
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxdyn_kernels import Status
from jaxdyn_kernels.balance import balance
from jaxdyn_kernels.eig.back_substitution import triangular_eigenvectors
from jaxdyn_kernels.triangular import blocks, complex_triangular, unpack

from tests.assertions import assert_eigenpairs, assert_same_eigenvalues, lapack_eig, lapack_schur
from tests.matrices import CLASSES, SENSITIVE, matrix, with_spectrum

SIZE = 24
TRANSFORMS = {
    "eager": lambda A: jk.eig(A, left=True),
    "jit": jax.jit(lambda A: jk.eig(A, left=True)),
    "vmap": jax.jit(jax.vmap(lambda A: jk.eig(A, left=True), in_axes=1)),
}


def transformed(name, A):
    """The eigendecomposition of one matrix under a transform."""
    if name == "vmap":
        result = TRANSFORMS[name](np.stack([np.eye(A.shape[-1], dtype=A.dtype), A], axis=1))
        return jax.tree.map(lambda x: x[1], result)
    return TRANSFORMS[name](A)


class TestEig:
    @pytest.mark.parametrize(
        ("transform", "dtype"),
        [("eager", np.float32), ("eager", np.float64), ("jit", np.float64), ("vmap", np.float32)],
    )
    @pytest.mark.parametrize("name", CLASSES)
    def test_equations(self, name, dtype, transform):
        A = matrix(name, SIZE, dtype)
        result = transformed(transform, A)
        assert result.status == Status.OK
        assert_eigenpairs(A, result.eigenvalues, result.right, result.left, result.condition)
        assert result.residual <= 20

    @pytest.mark.parametrize("name", CLASSES)
    def test_equations_complex(self, name):
        A = matrix(name, SIZE, np.complex64)
        result = jk.eig(A, left=True)
        assert result.status == Status.OK
        assert_eigenpairs(A, result.eigenvalues, result.right, result.left, result.condition)

    @pytest.mark.parametrize("name", sorted(set(CLASSES) - set(SENSITIVE)))
    def test_conditions_and_values_agree_with_lapack(self, name):
        A = matrix(name, SIZE, np.float64)
        result = jk.eig(A, left=True)
        reference, _, _, condition = lapack_eig(A)
        assert_same_eigenvalues(result.eigenvalues, reference, A, condition)
        # Condition numbers are functions of the matrix alone; sorted they can be compared without matching.
        assert np.allclose(np.sort(result.condition), np.sort(condition), rtol=1e-6)

    @pytest.mark.parametrize("name", ["ginibre", "skew", "grcar"])
    def test_more_than_one_block_of_rows_and_pairs_across_their_border(self, name):
        """Three blocks of 32 rows, one of them hardly filled; skew and grcar have pairs at every position."""
        A = matrix(name, 65, np.float64)
        result = jk.eig(A, left=True)
        assert_eigenpairs(A, result.eigenvalues, result.right, result.left, result.condition)

    @pytest.mark.parametrize("n", [0, 2, 3])
    def test_small_orders(self, n):
        for seed in range(4):
            A = matrix("ginibre", n, np.float64, seed)
            result = jk.eig(A, left=True)
            assert_eigenpairs(A, result.eigenvalues, result.right, result.left, result.condition)

    def test_known_eigenvalues(self):
        """Small matrices whose eigenvalues are known in closed form, of scipy's tests of eig."""
        root = np.sqrt(93)
        cases = [
            (np.array([[1.0, 2, 3], [1, 2, 3], [2, 5, 6]]), [(9 + root) / 2, 0, (9 - root) / 2]),
            (np.array([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]]), np.exp(2j * np.pi * np.arange(3) / 3)),
            (np.array([[0.0, -2, 0], [2, 0, 0], [0, 0, 3]]), [2j, -2j, 3]),
        ]
        for A, values in cases:
            result = jk.eig(A, left=True)
            assert_eigenpairs(A, result.eigenvalues, result.right, result.left, result.condition)
            assert_same_eigenvalues(result.eigenvalues, values, A, np.full(3, 10.0))
            with pytest.raises(AssertionError, match="further from its partner"):
                assert_same_eigenvalues(np.diagonal(A), values, A, np.full(3, 10.0))

    def test_left_changes_what_is_returned_and_nothing_else(self):
        A = matrix("ginibre", SIZE, np.float32)
        plain, both = jk.eig(A), jk.eig(A, left=True)
        assert plain.left is None
        assert plain.condition is None
        assert np.array_equal(plain.eigenvalues, both.eigenvalues)
        assert np.allclose(plain.right, both.right, atol=1e-5)

    def test_bad_input_in_one_matrix_of_a_batch(self):
        A = np.stack([matrix("ginibre", SIZE, np.float32, seed) for seed in range(2)], axis=1)
        clean = TRANSFORMS["vmap"](A)
        A[0, 1, 0] = np.nan
        result = TRANSFORMS["vmap"](A)
        assert result.status.tolist() == [Status.OK, Status.NONFINITE_INPUT]
        for before, after in zip(jax.tree.leaves(clean), jax.tree.leaves(result), strict=True):
            assert np.array_equal(before[0], after[0])
            assert after.dtype in (jnp.int32, jnp.bool_) or np.all(np.isnan(after[1]))

    @pytest.mark.parametrize("power", [1e300, 1e-290])
    def test_scale_near_the_ends_of_the_range(self, power):
        A = matrix("ginibre", SIZE, np.float64) * power
        result = jk.eig(A, left=True)
        assert result.status == Status.OK
        assert_eigenpairs(A, result.eigenvalues, result.right, result.left, result.condition)

    def test_normal_matrices_have_condition_one(self):
        for name in ("orthogonal", "skew", "symmetric", "permutation", "identity", "zero"):
            result = jk.eig(matrix(name, SIZE, np.float64), left=True)
            assert np.allclose(result.condition, 1, rtol=1e-9), name

    def test_defective_matrices_have_conditions_near_the_inverse_of_eps(self):
        """Rounding splits a block of order k by eps^(1/k), and the condition is the inverse of that split to k - 1."""
        block = jk.eig(np.array([[1.0, 1], [0, 1]]), left=True)
        assert np.all(block.condition > 1e15)
        assert np.all(jk.eig(matrix("defective", SIZE, np.float64), left=True).condition > 1e6)

    def test_gauge_unit_vectors_with_largest_entry_real_and_positive(self):
        result = jk.eig(matrix("ginibre", SIZE, np.float64), left=True)
        for V in (np.asarray(result.right), np.asarray(result.left)):
            largest = V[np.argmax(np.abs(V), axis=0), np.arange(SIZE)]
            assert np.allclose(largest.imag, 0, atol=1e-14)
            assert np.all(largest.real > 0)

    def test_growth_beyond_the_range_is_scaled(self):
        """A bidiagonal matrix whose vectors, not scaled, would have entries up to 1e3^(n - 1), beyond float32."""
        A = (np.diag(np.linspace(1, 2, SIZE)) + 1e3 * np.eye(SIZE, k=1)).astype(np.float32)
        result = jk.eig(A, left=True)
        assert_eigenpairs(A, result.eigenvalues, result.right, result.left, result.condition)
        assert result.residual <= 20

    @settings(max_examples=20, deadline=None, derandomize=True)
    @given(data=st.data())
    def test_any_structure(self, data):
        entry = st.sampled_from([0.0, 0.0, 1.0, -1.0, 2.0, 0.5, 1e-20, 1e10])
        small = np.array(data.draw(st.lists(entry, min_size=36, max_size=36))).reshape(6, 6)
        A = np.kron(np.eye(SIZE // 6), small) + np.kron(np.eye(SIZE // 6, k=1), small)
        result = jk.eig(A, left=True)
        assert result.status == Status.OK
        assert_eigenpairs(A, result.eigenvalues, result.right, result.left, result.condition)


class TestFromSchur:
    def test_vectors_from_a_form_of_lapack(self):
        A = matrix("ginibre", SIZE, np.float32)
        T, Q = lapack_schur(A)
        values = jk.eigenvalues_from_schur(T)
        right, left, condition = jk.eigenvectors_from_schur(T, Q)
        assert_eigenpairs(A, values, right, left, condition)
        assert np.array_equal(jk.eigvals(A), jk.eig(A).eigenvalues)

    def test_values_of_a_block_do_not_overflow_or_vanish(self):
        values = jk.eigenvalues_from_schur(np.array([[1e-200, 1e-200], [-1e-200, 1e-200]]))
        assert np.allclose(np.asarray(values) * 1e200, [1 + 1j, 1 - 1j])
        values = jk.eigenvalues_from_schur(np.array([[0, 1e200], [-1e200, 0]]))
        assert np.allclose(np.asarray(values) * 1e-200, [1j, -1j])

    def test_batch_axes_of_any_number(self):
        T = np.stack([np.triu(matrix("ginibre", 3, np.float64, seed)) for seed in range(4)]).reshape(2, 2, 3, 3)
        Q = np.broadcast_to(np.eye(3), T.shape)
        right, left, condition = jax.eval_shape(jk.eigenvectors_from_schur, T, Q)
        assert right.shape == left.shape == (2, 2, 3, 3)
        assert condition.shape == (2, 2, 3)
        assert np.array_equal(jk.eigenvalues_from_schur(T)[1, 0], np.diagonal(T[1, 0]))

    def test_mismatched_arguments(self):
        with pytest.raises(ValueError, match="they have to agree"):
            jk.eigenvectors_from_schur(np.eye(3), np.eye(2))
        with pytest.raises(ValueError, match="they have to agree"):
            jk.eigenvectors_from_schur(np.eye(3), np.eye(3, dtype=np.float32))
        with pytest.raises(ValueError, match=r"T has shape \(2, 3\)"):
            jk.eigenvalues_from_schur(np.ones((2, 3)))

    def test_invariant_of_the_back_substitution(self):
        """Every column's largest entry stays of order one, even where it would overflow."""
        vectors = jax.jit(lambda T: unpack(blocks(T), triangular_eigenvectors(T)))
        for name in ("grcar", "kahan", "jordan", "defective", "skew"):
            T, _ = lapack_schur(matrix(name, 48, np.float32))
            T = T / np.float32(2 ** np.ceil(np.log2(np.max(np.abs(T)))))
            X = np.abs(vectors(T))
            assert np.all(np.max(X, axis=0) <= np.sqrt(2) * (1 + 1e-6)), name
            assert np.all(np.max(X, axis=0) >= 0.3), name

    def test_complex_triangular_is_similar_and_exactly_triangular(self, rng):
        A = with_spectrum(np.array([1 + 2j, 1 - 2j, 3.0, -1 + 0.1j, -1 - 0.1j]), rng)
        T, _ = lapack_schur(A)
        C = np.asarray(jax.jit(complex_triangular)(T))
        assert np.all(np.tril(C, -1) == 0)
        assert np.array_equal(np.diagonal(C), jk.eigenvalues_from_schur(T))
        shifted = 0.3j * np.eye(5)
        expected = np.linalg.svd(T - shifted, compute_uv=False)
        assert np.allclose(np.linalg.svd(C - shifted, compute_uv=False), expected, atol=1e-13)
        # Not the matrix with its blocks cut away, which has the same eigenvalues.
        assert not np.allclose(np.linalg.svd(np.diag(np.diagonal(C)) - shifted, compute_uv=False), expected)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"eig: A has shape \(3, 2\)"):
        jk.eig(np.ones((3, 2), np.float32))
    with pytest.raises(ValueError, match="eigvals: A has dtype int64"):
        jk.eigvals(np.ones((2, 2), np.int64))
    with pytest.raises(ValueError, match="'magma' is unknown for 'eig': use one of 'cusolver', 'lapack'"):
        jk.eig(np.eye(2), implementation="magma")


class TestBalance:
    """A diagonal similarity by powers of two; the eigenvalues of a badly scaled matrix gain digits."""

    @staticmethod
    def badly_scaled(n, dtype, rng):
        """D^-1 G D with powers of two over 40 binary decades, and the eigenvalues of G in double precision."""
        G = matrix("ginibre", n, dtype)
        D = np.exp2(rng.integers(-20, 20, n)).astype(dtype)
        return G / D[:, None] * D, np.linalg.eigvals(G.astype(np.complex128))

    @staticmethod
    def worst(values, exact):
        return np.abs(np.asarray(values)[:, None] - exact).min(axis=0).max()

    @pytest.mark.parametrize("dtype", [np.float32, np.complex64])
    def test_eigenvalues_of_a_badly_scaled_matrix(self, dtype, rng):
        A, exact = self.badly_scaled(16, dtype, rng)
        assert self.worst(jk.eigvals(A), exact) > 1e-2
        assert self.worst(jk.eigvals(A, balance=True), exact) < 1e-5
        found = jk.eig(A, balance=True)
        assert self.worst(found.eigenvalues, exact) < 1e-5

    def test_vectors_and_conditions_belong_to_the_matrix_itself(self, rng):
        A, _ = self.badly_scaled(12, np.float64, rng)
        found = jk.eig(A, left=True, balance=True)
        right, left = np.asarray(found.right), np.asarray(found.left)
        assert np.allclose(np.linalg.norm(right, axis=0), 1)
        assert np.allclose(np.linalg.norm(left, axis=0), 1)
        overlap = np.abs(np.sum(left.conj() * right, axis=0))
        assert np.allclose(1 / overlap, found.condition, rtol=1e-6)
        values = np.asarray(found.eigenvalues)
        assert np.abs(A @ right - right * values).max() <= 1e-12 * np.abs(A).max()
        assert np.abs(A.conj().T @ left - left * values.conj()).max() <= 1e-12 * np.abs(A).max()

    def test_similarity_is_exact_and_rows_match_columns(self, rng):
        A, _ = self.badly_scaled(16, np.float64, rng)
        balanced, scale = (np.asarray(x) for x in balance(jnp.asarray(A)))
        assert np.array_equal(balanced, A / scale[:, None] * scale)
        assert np.all(np.frexp(scale)[0] == 0.5)
        off = np.abs(balanced - np.diag(np.diag(balanced)))
        ratio = np.linalg.norm(off, axis=0) / np.linalg.norm(off, axis=1)
        assert 1 / 4 <= ratio.min() <= ratio.max() <= 4

    @pytest.mark.parametrize("name", ["triangular", "zero", "identity", "permutation"])
    def test_reducible_matrices_end(self, name):
        A = matrix(name, 8, np.float32)
        found = jk.eig(A, left=True, balance=True)
        assert found.status == Status.OK
        assert_same_eigenvalues(found.eigenvalues, np.linalg.eigvals(A.astype(float)), A, np.full(8, 1e3))

    def test_bad_input_in_one_matrix(self):
        A = np.stack([matrix("ginibre", 6, np.float32, seed) for seed in range(2)])
        clean = jk.eig(A, balance=True)
        A[1, 2, 3] = np.nan
        found = jk.eig(A, balance=True)
        assert found.status.tolist() == [Status.OK, Status.NONFINITE_INPUT]
        assert np.all(np.isnan(found.eigenvalues[1]))
        assert np.array_equal(found.eigenvalues[0], clean.eigenvalues[0])
