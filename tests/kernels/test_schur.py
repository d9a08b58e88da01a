"""The Schur form: every defining equation, for each implementation x matrix class x dtype x transform."""

import functools

import jax
import jax.numpy as jnp
import jaxdyn_kernels as jk
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxdyn_kernels import Status, dispatch
from jaxdyn_kernels.schur import api, lapack, xla

from tests.assertions import assert_same_eigenvalues, assert_schur, assert_triangular, lapack_eig, lapack_schur
from tests.matrices import CLASSES, matrix, with_spectrum

SIZE = 24
REAL = [np.float32, np.float64]
COMPLEX = [np.complex64, np.complex128]
ALL = [*REAL, *COMPLEX]

jitted = jax.jit(jk.schur, static_argnames="implementation")


@functools.partial(jax.jit, static_argnames="implementation")
def vmapped(A, implementation):
    """A batch along axis 1."""
    return jax.vmap(functools.partial(jk.schur, implementation=implementation), in_axes=1)(A)


def transformed(name, A, implementation):
    """The Schur form of one matrix under a transform."""
    if name == "eager":
        return jk.schur(A, implementation=implementation)
    if name == "jit":
        return jitted(A, implementation=implementation)
    others = np.eye(A.shape[-1], dtype=A.dtype)
    result = vmapped(np.stack([others, A, 2 * others], axis=1), implementation)
    return jax.tree.map(lambda x: x[1], result)


# Below the order of its base case "divide" is "xla"; test_divide.py has it above. "wavefront" and "pallas", which are
# slow to compile, take all classes in one program: test_wavefront.py.
@pytest.mark.parametrize("implementation", ["lapack", "xla"])
class TestSchur:
    @pytest.mark.parametrize(
        ("transform", "dtype"),
        [
            *((transform, dtype) for transform in ("eager", "jit", "vmap") for dtype in REAL),
            *(("eager", dtype) for dtype in COMPLEX),
        ],
    )
    @pytest.mark.parametrize("name", CLASSES)
    def test_equations(self, implementation, name, dtype, transform):
        A = matrix(name, SIZE, dtype)
        result = transformed(transform, A, implementation)
        assert result.status == Status.OK
        assert result.implementation == implementation
        assert_schur(A, result.T, result.Q)
        assert result.orthogonality <= 20
        # Ten times LAPACK's own, which is nothing for some classes.
        assert result.residual <= max(10 * float(jk.schur(A, implementation="lapack").residual), 1)

    @pytest.mark.parametrize("dtype", REAL)
    @pytest.mark.parametrize("name", CLASSES)
    def test_eigenvalues_agree_with_lapack(self, implementation, name, dtype):
        A = matrix(name, SIZE, dtype)
        values = jk.eigenvalues_from_schur(jk.schur(A, implementation=implementation).T)
        # The oracle in float64: the distance is then the error of the implementation under test.
        reference, _, _, condition = lapack_eig(A.astype(np.float64))
        assert_same_eigenvalues(values, reference, A, np.minimum(condition, 1 / np.finfo(dtype).eps))

    @pytest.mark.parametrize(("n", "dtype"), [(0, np.float32), (1, np.float32), (2, np.complex128), (3, np.float32)])
    def test_small_orders(self, implementation, n, dtype):
        A = np.stack([matrix("ginibre", n, dtype, seed) for seed in range(4)])
        result = jk.schur(A, implementation=implementation)
        assert np.all(result.status == Status.OK)
        for k in range(4):
            assert_schur(A[k], result.T[k], result.Q[k])

    @pytest.mark.parametrize("shape", [(0, 3, 3), (2, 0, 3, 3), (2, 1, 3, 3), (1, 3, 3)])
    def test_batch_shapes(self, implementation, shape):
        result = jk.schur(np.ones(shape, np.float32), implementation=implementation)
        assert result.T.shape == result.Q.shape == shape
        assert result.residual.shape == result.orthogonality.shape == result.status.shape == shape[:-2]
        assert result.status.dtype == jnp.int32

    @pytest.mark.parametrize("dtype", REAL)
    def test_blocks_are_standard(self, implementation, dtype, rng):
        """Equal diagonals and b c < 0, also for pairs with parts of very different size; held by assert_schur."""
        for ratio in (1e-12, 1e-6, 1e-3, 1.0, 1e3):
            values = np.repeat(np.array([1 + 1j * ratio, -2 + 1j]), 6)
            values = np.stack([values, values.conj()], axis=1).ravel()
            A = with_spectrum(values, rng).astype(dtype)
            result = jk.schur(A, implementation=implementation)
            assert_schur(A, result.T, result.Q)
        block = np.array([[1, 1e-8], [-1e8, 1.001]], dtype)
        result = jk.schur(block, implementation=implementation)
        assert_schur(block, result.T, result.Q)
        assert result.T[1, 0] != 0

    @pytest.mark.parametrize("dtype", ALL)
    @pytest.mark.parametrize("exponent", [0.97, -0.8])
    def test_scale_near_the_ends_of_the_range(self, implementation, dtype, exponent):
        """A power of two near overflow or underflow changes the scale of T and no bit besides."""
        info = np.finfo(dtype)
        power = np.ldexp(info.dtype.type(1), int(exponent * (info.maxexp if exponent > 0 else -info.minexp)))
        A = matrix("ginibre", SIZE, dtype)
        plain = jk.schur(A, implementation=implementation)
        scaled = jk.schur(A * power, implementation=implementation)
        assert scaled.status == Status.OK
        assert np.array_equal(np.asarray(scaled.T) * (1 / power), plain.T)
        assert np.array_equal(scaled.Q, plain.Q)
        assert scaled.residual == plain.residual
        assert_schur(A * power, scaled.T, scaled.Q)

    def test_overflow_of_the_schur_form_is_a_status(self, implementation):
        A = np.stack([np.full((3, 3), 3e38, np.float32), np.eye(3, dtype=np.float32)])
        result = jk.schur(A, implementation=implementation)
        assert result.status.tolist() == [Status.OVERFLOW, Status.OK]
        assert_all_nan(result, 0)
        assert_schur(A[1], result.T[1], result.Q[1])

    @pytest.mark.parametrize(
        ("transform", "dtype"), [(jk.schur, np.float32), (jk.schur, np.complex128), (jitted, np.float32)]
    )
    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_bad_input_in_one_matrix_of_a_batch(self, implementation, bad, dtype, transform):
        A = np.stack([matrix("ginibre", SIZE, dtype, seed) for seed in range(3)])
        clean = transform(A, implementation=implementation)
        A[1, 3, 5] = bad
        result = transform(A, implementation=implementation)
        assert result.status.tolist() == [Status.OK, Status.NONFINITE_INPUT, Status.OK]
        assert_all_nan(result, 1)
        for k in (0, 2):
            assert np.array_equal(result.T[k], clean.T[k])
            assert np.array_equal(result.Q[k], clean.Q[k])
            assert result.residual[k] == clean.residual[k]

    def test_bits_do_not_depend_on_the_batch(self, implementation):
        A = np.stack([matrix("ginibre", 40, np.float32, seed) for seed in range(9)])
        whole = jk.schur(A, implementation=implementation)
        part = jk.schur(A[4:7], implementation=implementation)
        assert np.array_equal(whole.T[4:7], part.T)
        assert np.array_equal(whole.Q[4:7], part.Q)

    @pytest.mark.parametrize("dtype", [np.float32, np.complex128])
    def test_without_vectors_the_form_is_the_same(self, implementation, dtype):
        A = np.stack([matrix(name, SIZE, dtype) for name in ("ginibre", "grcar", "orthogonal", "zero")])
        whole = jk.schur(A, implementation=implementation)
        result = jk.schur(A, vectors=False, implementation=implementation)
        assert result.Q.shape == (4, 0, SIZE)
        assert np.all(np.isnan(result.orthogonality))
        assert np.all(result.residual <= 20)
        assert result.status.tolist() == [Status.OK] * 4
        scale = np.abs(A).max(axis=(1, 2)) * SIZE * np.finfo(dtype).eps
        for k in (0, 2):
            one, two = (np.sort_complex(jk.eigenvalues_from_schur(x.T[k])) for x in (whole, result))
            assert np.abs(one - two).max() <= 100 * scale[k]
        for k in range(4):
            assert_triangular(result.T[k])

    @settings(max_examples=25, deadline=None, derandomize=True)
    @given(data=st.data())
    def test_any_structure(self, implementation, data):
        """Small matrices drawn from few values: ties, zeros, repeated eigenvalues, reducible ones."""
        n = data.draw(st.sampled_from([3, 6]))
        entry = st.sampled_from([0.0, 0.0, 1.0, -1.0, 2.0, 0.5, 1e-20, 1e10])
        entries = data.draw(st.lists(entry, min_size=n * n, max_size=n * n))
        A = np.array(entries).reshape(n, n)
        result = jk.schur(A, implementation=implementation)
        assert result.status == Status.OK
        assert_schur(A, result.T, result.Q)


def assert_all_nan(result, k):
    """Every number of matrix k is NaN."""
    for x in (result.T, result.Q, result.residual, result.orthogonality):
        assert np.all(np.isnan(x[k]))


class TestLapackGuarantees:
    """What the rest of the package takes for granted of LAPACK's real Schur form, of the raw call."""

    @pytest.mark.parametrize("dtype", REAL)
    @pytest.mark.parametrize("name", CLASSES)
    def test_raw_blocks_are_standard_with_exact_zeros(self, name, dtype):
        A = matrix(name, SIZE, dtype)
        assert_schur(A, *lapack_schur(A))

    def test_large_matrices_take_the_other_code_path(self):
        """Above n = 75 LAPACK switches to multishift QR with early deflation, which moves blocks about."""
        A = matrix("ginibre", 120, np.float32)
        result = jk.schur(A)
        assert_schur(A, result.T, result.Q)


def test_no_convergence_is_a_status(monkeypatch):
    def failing(A, vectors):
        del vectors
        T, Q = (jnp.broadcast_to(jnp.eye(A.shape[-1], dtype=A.dtype), A.shape),) * 2
        # LAPACK through XLA marks a failure by NaN.
        return T.at[0].set(jnp.nan), Q.at[0].set(jnp.nan)

    monkeypatch.setattr(lapack, "schur", failing)
    result = api.certified_schur(jnp.ones((2, 3, 3)), implementation="lapack")
    assert result.status[0] == Status.NOT_CONVERGED
    assert_all_nan(result, 0)


def test_a_wrong_answer_shows_in_the_certificate(monkeypatch):
    """The residual is computed from A, not taken on trust."""
    monkeypatch.setattr(lapack, "schur", lambda A, vectors: (jnp.triu(A), jnp.broadcast_to(jnp.eye(3), A.shape)))
    result = api.certified_schur(jnp.ones((1, 3, 3)), implementation="lapack")
    assert result.status[0] == Status.OK
    assert result.residual[0] > 1e12


@pytest.mark.parametrize(
    ("A", "match"),
    [
        (np.ones((3, 2), np.float32), r"shape \(3, 2\); allowed is \[\.\.\., n, n\]"),
        (np.ones(3, np.float32), r"shape \(3,\)"),
        (np.ones((2, 2), np.int32), "dtype int32; allowed are float32"),
        (np.ones((2, 2), np.float16), "dtype float16"),
        (jnp.ones((2, 2), jnp.bfloat16), "dtype bfloat16"),
    ],
)
def test_bad_arguments(A, match):
    with pytest.raises(ValueError, match=match):
        jk.schur(A)


def test_float64_without_x64_is_float32_as_everywhere_in_jax():
    with jax.enable_x64(False):
        result = jk.schur(np.diag([1.0, 2.0]))
    assert result.T.dtype == jnp.float32


def test_is_a_pytree_with_a_static_name():
    result = jk.schur(np.eye(2, dtype=np.float32))
    leaves, structure = jax.tree.flatten(result)
    assert len(leaves) == 6
    assert jax.tree.unflatten(structure, leaves).implementation == "lapack"


def test_accelerators_take_the_implementation_that_runs_everywhere(monkeypatch):
    for platform in ("cuda", "rocm"):
        monkeypatch.setattr(api, "platform_of", lambda A, platform=platform: platform)
        assert jk.schur(np.eye(2, dtype=np.float32)).implementation == "xla"
        assert jk.schur(np.eye(2, dtype=np.float32), implementation="lapack").implementation == "lapack"
    assert dispatch.choose("schur", "cpu").name == "lapack"


def test_no_convergence_of_the_iteration_is_a_status_of_that_matrix_alone(monkeypatch):
    """With too few sweeps only the matrix that needs none comes through."""
    monkeypatch.setattr(xla, "SWEEPS", 0)
    A = np.stack([matrix("ginibre", 9, np.float32), np.eye(9, dtype=np.float32)])
    result = api.certified_schur(jnp.asarray(A), implementation="xla")
    assert result.status.tolist() == [Status.NOT_CONVERGED, Status.OK]
    assert_all_nan(result, 0)
    assert_schur(A[1], result.T[1], result.Q[1])


def test_without_vectors_a_wrong_form_shows_in_trace_and_norm(monkeypatch):
    A = matrix("ginibre", 6, np.float32)
    for wrong in (np.triu(A), np.diag(np.diag(A)), -np.asarray(jk.schur(A).T)):  # the last is of the same norm
        monkeypatch.setattr(lapack, "schur", lambda A, vectors, wrong=wrong: (jnp.asarray(wrong), A[:0]))
        assert api.certified_schur(jnp.asarray(A), vectors=False, implementation="lapack").residual > 1e3


def test_steps_are_counted():
    """As many as positions of a bulge: at least one sweep of n - 2 for a matrix that is full, none for a triangle."""
    A = jnp.asarray(np.stack([matrix("ginibre", 16, np.float32)]))
    count = xla.depth(A)
    assert 14 <= int(count.steps) <= int(count.sweeps) * 15
    assert 16 <= int(count.sweeps) <= 48
    assert xla.depth(jnp.triu(A)) == (0, 0)
    small = xla.depth(A[:, :3, :3])  # every sweep of a full 3 x 3 matrix has two positions
    assert int(small.steps) == 2 * int(small.sweeps) > 0


@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
def test_larger_matrices_converge_in_the_sweeps_that_are_stated(dtype, monkeypatch):
    """3 n sweeps at most, a tenth of the limit, at an order that takes several panels of the Hessenberg reduction."""
    n = 72
    A = np.stack([matrix(name, n, dtype) for name in ("ginibre", "grcar", "clustered", "frank", "orthogonal")])
    monkeypatch.setattr(xla, "SWEEPS", 3)
    result = api.certified_schur(jnp.asarray(A), implementation="xla")
    assert np.all(result.status == Status.OK)
    for k in range(len(A)):
        assert_schur(A[k], result.T[k], result.Q[k])
