"""Refinement: the triangular equation, the arithmetic of pairs, and every defining equation of what is returned."""

import functools

import jax
import jax.numpy as jnp
import jaxdyn_kernels as jk
import numpy as np
import pytest
from jaxdyn_kernels import Status
from jaxdyn_kernels.refine.arithmetic import DoubleSingle, Pair, Wide, slice_bits, two_sum
from jaxdyn_kernels.refine.commutator import solve_commutator

from tests.assertions import assert_schur, assert_triangular
from tests.matrices import CLASSES, SENSITIVE, matrix

SIZE = 24
quick = jax.jit(jk.refine, static_argnames=("residual", "steps"))
WIDE = {np.float32: np.float64, np.complex64: np.complex128}


def joined(high, low):
    """The sum of a pair in double precision."""
    high = np.asarray(high)
    return high.astype(WIDE[high.dtype.type]) + np.asarray(low)


def sums(result, k):
    """T and Q of matrix k from their pairs."""
    return joined(result.T[k], result.T_low[k]), joined(result.Q[k], result.Q_low[k])


def backward_error(A, T, Q):
    """norm(A Q - Q T)_F / norm(A)_F in double precision."""
    A, T, Q = (np.asarray(x).astype(np.complex128) for x in (A, T, Q))
    return np.linalg.norm(A @ Q - Q @ T) / (np.linalg.norm(A) or 1)


@functools.cache
def starts(dtype, size=SIZE):
    """Every class in one batch, and its Schur form by LAPACK."""
    A = np.stack([matrix(name, size, dtype) for name in CLASSES])
    form = jk.schur(A)
    return A, form.Q, form.T


@functools.cache
def refined(dtype, residual):
    A, Q, T = starts(dtype)
    return jk.refine(A, Q, T, residual=residual)


class TestCommutator:
    @pytest.mark.parametrize("n", [1, 2, 7, 32, 33, 70])
    def test_solves_its_equation(self, n, rng):
        T, E = (rng.standard_normal((n, n)) + 1j * rng.standard_normal((n, n)) for _ in range(2))
        T = np.diag(np.diagonal(T)) + np.triu(T, 1) / n
        lower = np.tri(n, k=-1, dtype=bool)
        L = np.asarray(solve_commutator(T, E, lower, 0.0))
        assert np.all(L[~lower] == 0)
        left = np.abs((T @ L - L @ T + E)[lower])
        assert np.all(left <= 20 * n * np.finfo(float).eps * max(np.abs(L).max(), 1))

    def test_entries_that_are_not_wanted_or_too_close_are_zero(self, rng):
        T = np.diag([1.0, 1.001, 3.0, 4.0]) + np.triu(rng.standard_normal((4, 4)), 1)
        wanted = np.tri(4, k=-1, dtype=bool)
        wanted[3, 2] = False
        E = rng.standard_normal((4, 4))
        L = np.asarray(solve_commutator(T + 0j, E + 0j, wanted, 0.01))
        assert L[1, 0] == L[3, 2] == 0
        solved = wanted.copy()
        solved[1, 0] = False
        assert np.all(L[solved] != 0)
        assert np.abs((T @ L - L @ T + E)[solved]).max() < 1e-12


class TestPairs:
    def test_a_sum_of_two_numbers_keeps_what_rounding_takes(self, rng):
        a, b = rng.standard_normal((2, 1000)).astype(np.float32) * np.float32(10.0) ** rng.integers(-8, 8, (2, 1000))
        a, b = a.astype(np.float32), b.astype(np.float32)
        pair = jax.jit(two_sum)(a, b)
        assert np.array_equal(pair.hi, a + b)
        exact = a.astype(np.float64) + b
        assert np.abs(joined(*pair) - exact).max() <= np.finfo(float).eps * np.abs(exact).max()

    @pytest.mark.parametrize("dtype", [np.float32, np.complex64])
    @pytest.mark.parametrize("n", [1, 6, 100])
    def test_product_holds_48_bits(self, n, dtype, rng):
        def pair():
            x = matrix("ginibre", n, WIDE[dtype], rng.integers(99)) * 10.0 ** rng.uniform(-3, 3, (n, 1))
            hi = x.astype(dtype)
            return Pair(jnp.asarray(hi), jnp.asarray((x - hi).astype(dtype)))

        x, y = pair(), pair()
        found = joined(*jax.jit(DoubleSingle().product)(x, y))
        X, Y = joined(*x), joined(*y)
        largest = np.abs(X).max(axis=1, keepdims=True) * np.abs(Y).max(axis=0)
        assert np.all(np.abs(found - X @ Y) <= 4 * np.sqrt(n) * 2.0**-48 * largest)

    def test_slices_sum_up_exactly(self):
        for n in (1, 2, 512, 513, 4096, 8192):
            assert 2 * slice_bits(n) + np.ceil(np.log2(max(n, 2))) <= 24
        assert slice_bits(512) == 7

    def test_long_sums_of_the_working_type_are_cut(self, rng):
        x, y = rng.standard_normal((2, 400, 400)).astype(np.float32)
        exact = x.astype(np.float64) @ y
        cut, plain = (np.linalg.norm(np.asarray(f(x, y)) - exact) for f in (Wide(x.dtype, x.dtype).product, jnp.matmul))
        assert cut < 0.8 * plain


class TestRefine:
    @pytest.mark.parametrize("dtype", WIDE)
    @pytest.mark.parametrize("k", range(len(CLASSES)), ids=list(CLASSES))
    def test_float64_residual_gives_a_float64_form(self, k, dtype):
        A, result = starts(dtype)[0][k].astype(WIDE[dtype]), refined(dtype, "float64")
        assert_schur(A, result.T[k], result.Q[k])
        assert result.converged[k]
        assert result.status[k] == Status.OK
        assert result.residual[k] <= 20
        assert backward_error(A, result.T[k], result.Q[k]) < 1e-14

    @pytest.mark.parametrize("dtype", WIDE)
    @pytest.mark.parametrize("name", sorted(set(CLASSES) - set(SENSITIVE)))
    def test_pairs_reach_1e_13_without_float64(self, name, dtype):
        k, result = list(CLASSES).index(name), refined(dtype, "double-single")
        T, Q = sums(result, k)
        A = starts(dtype)[0][k]
        assert result.T.dtype == dtype
        assert_triangular(T)
        assert backward_error(A, T, Q) < 1e-13
        assert np.linalg.norm(Q.conj().T @ Q - np.eye(SIZE)) < 1e-13
        assert result.converged[k]
        assert backward_error(A, result.T[k], result.Q[k]) > 1e-10 or name == "triangular"

    def test_pairs_say_what_did_not_converge(self):
        result = refined(np.float32, "double-single")
        A = starts(np.float32)[0]
        for k, name in enumerate(CLASSES):
            T, Q = sums(result, k)
            stated = result.residual[k] * SIZE * result.eps
            assert stated == pytest.approx(backward_error(A[k], T, Q), rel=0.1, abs=1e-14), name
            assert result.converged[k] == (result.residual[k] <= 20)
        assert not np.all(result.converged)
        assert not np.any(result.robust)

    @pytest.mark.parametrize("dtype", WIDE)
    def test_working_precision_lowers_the_error_of_a_float32_form(self, dtype):
        (A, Q, T), result = starts(dtype), refined(dtype, "working")
        for k, name in enumerate(CLASSES):
            assert_schur(A[k], result.T[k], result.Q[k])
            before, after = backward_error(A[k], T[k], Q[k]), backward_error(A[k], result.T[k], result.Q[k])
            assert after < 5e-7 or name in SENSITIVE, name
            assert after <= max(0.6 * before, 6e-8), name
        assert backward_error(A[0], np.triu(A[0]), np.eye(SIZE)) > 0.1  # an identity answer

    def test_working_precision_at_512(self):
        A = np.stack([matrix(name, 512, np.float32) for name in ("ginibre", "orthogonal")])
        form = jk.schur(A)
        result = jk.refine(A, form.Q, form.T)
        for k in range(2):
            assert backward_error(A[k], form.T[k], form.Q[k]) > 5e-6
            assert backward_error(A[k], result.T[k], result.Q[k]) < 5e-7

    def test_real_blocks_stay_standard_and_eigenvalues_gain_eight_digits(self):
        A, result = starts(np.float32)[0], refined(np.float32, "double-single")
        k = list(CLASSES).index("ginibre")
        T, _ = sums(result, k)
        values = np.asarray(jk.eigenvalues_from_schur(T))
        exact = np.linalg.eigvals(A[k].astype(np.float64))
        nearest = np.abs(values[:, None] - exact).min(axis=1)
        assert nearest.max() < 1e-12

    def test_a_wrong_form_is_replaced_where_there_is_a_type_for_it(self):
        A = np.stack([matrix("ginibre", SIZE, np.float32, seed) for seed in range(2)])
        form = jk.schur(A)
        Q = np.array(form.Q)
        Q[1] = np.eye(SIZE)
        result = quick(A, Q, form.T, residual="float64")
        assert result.robust.tolist() == [False, True]
        assert np.all(result.converged)
        for k in range(2):
            assert_schur(A[k].astype(np.float64), result.T[k], result.Q[k])
        pairs = quick(A, Q, form.T, residual="double-single")
        assert pairs.converged.tolist() == [True, False]
        assert pairs.residual[1] > 1e6

    @pytest.mark.parametrize("residual", ["working", "float64", "double-single"])
    def test_bad_input_in_one_matrix(self, residual):
        A = np.stack([matrix("ginibre", 8, np.float32, seed) for seed in range(4)])
        form = jk.schur(A)
        Q = np.array(form.Q)
        clean = quick(A, Q, form.T, residual=residual)
        A[1, 0, 3] = np.inf
        Q[2] = np.nan
        result = quick(A, Q, form.T, residual=residual)
        lost = Status.NOT_CONVERGED if residual == "double-single" else Status.OK
        assert result.status.tolist() == [Status.OK, Status.NONFINITE_INPUT, lost, Status.OK]
        for number in (result.T[1], result.Q[1], result.residual[1]):
            assert np.all(np.isnan(number))
        for k in (0, 3):
            assert np.array_equal(result.T[k], clean.T[k])
            assert np.array_equal(result.Q[k], clean.Q[k])

    def test_any_scale(self):
        A = matrix("ginibre", 8, np.float32)
        form = jk.schur(A)
        for power in (2.0**100, 2.0**-100):
            for residual in ("working", "double-single"):
                plain = quick(A, form.Q, form.T, residual=residual)
                result = quick(A * np.float32(power), form.Q, form.T * np.float32(power), residual=residual)
                assert np.array_equal(np.asarray(result.T) / np.float32(power), plain.T)
                assert np.array_equal(result.Q, plain.Q)

    def test_vmap_of_some_arguments_joins_the_batch(self):
        A, Q, T = (x[:3] for x in starts(np.float32))
        eager = jax.tree.map(lambda x: x[:3], refined(np.float32, "float64"))
        mapped = jax.vmap(lambda a, q: jk.refine(a, q, T[0], residual="float64"), in_axes=(None, 0))
        result = jax.jit(mapped)(A[0], Q)
        assert np.allclose(result.T[0], eager.T[0], rtol=0, atol=1e-13)
        assert np.all(result.converged)
        assert result.robust.tolist() == [False, True, True]

    @pytest.mark.parametrize(
        ("n", "residual"), [(0, "working"), (0, "double-single"), (1, "double-single"), (2, "working"), (3, "float64")]
    )
    def test_small_orders(self, n, residual):
        A = np.stack([matrix("ginibre", n, np.float32, seed) for seed in range(3)])
        form = jk.schur(A)
        result = quick(A, form.Q, form.T, residual=residual)
        assert np.all(result.converged)
        assert result.T.shape == A.shape

    def test_zero_is_its_own_form(self):
        zero = np.zeros((3, 3), np.float32)
        for residual in ("working", "double-single"):
            result = quick(zero, np.eye(3, dtype=np.float32), zero, residual=residual)
            assert result.residual == 0
            assert result.converged


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"residual": "single"}, "residual='single' is unknown: use one of 'working', 'float64', 'double-single'"),
        ({"T": np.eye(4, dtype=np.float32)}, "they have to agree"),
        ({"steps": 0}, "steps=0; allowed 1 or more"),
        ({name: np.eye(3) for name in "AQT"} | {"residual": "double-single"}, "takes float32 or complex64"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    given = {name: np.eye(3, dtype=np.float32) for name in "AQT"} | change
    with pytest.raises(ValueError, match=message):
        jk.refine(**given)


def test_float64_residual_needs_float64():
    eye = np.eye(3, dtype=np.float32)
    with jax.enable_x64(False), pytest.raises(ValueError, match="use residual='double-single'"):
        jk.refine(eye, eye, eye, residual="float64")
