"""Many bulges in a wavefront, in XLA and in a Pallas kernel: every defining equation, and what it says of its work.

A program of these takes seconds to compile: one for each of CASES serves most tests, and the robust method in them,
which none of the classes may need, is LAPACK's.
"""

import functools
import types

import jax
import jax.numpy as jnp
import jaxdyn_kernels as jk
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxdyn_kernels import Status
from jaxdyn_kernels.schur import api, bulges, lapack, pallas_tpu, wavefront, xla
from jaxdyn_kernels.schur.standard import standardize

from tests.assertions import assert_same_eigenvalues, assert_schur, lapack_eig
from tests.matrices import CLASSES, SENSITIVE, matrix
from tests.programs import WELL

SIZE = 40
"""Above twice the window, so that a round leaves a block behind; not a multiple of a tile."""

NAMES = tuple(CLASSES)
CASES = [("wavefront", np.float64), ("wavefront", np.complex64), ("wavefront", np.complex128), ("pallas", np.float32)]

ROBUST = types.SimpleNamespace(schur=lapack.schur)
"""In place of the robust method, which takes long to compile."""


@functools.cache
def program(implementation):
    """The Schur form of a batch as large as all classes and one more; the kernel takes it in groups of seven."""
    return jax.jit(functools.partial(api.certified_schur, implementation=implementation), compiler_options=WELL)


def decompose(implementation, A):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wavefront, "xla", ROBUST)
        patch.setattr(pallas_tpu, "GROUP", 7 * 128 * SIZE)
        return program(implementation)(A)


@functools.cache
def decomposed(implementation, dtype):
    """All classes, and a matrix with a NaN last."""
    A = np.stack([*(matrix(name, SIZE, dtype) for name in NAMES), np.full((SIZE, SIZE), 1, dtype)])
    A[-1, 3, 5] = np.nan
    return A, decompose(implementation, A)


@pytest.mark.parametrize(("implementation", "dtype"), CASES)
class TestClasses:
    @pytest.mark.parametrize("name", NAMES)
    def test_equations(self, implementation, dtype, name):
        A, form = decomposed(implementation, dtype)
        k = NAMES.index(name)
        assert form.status[k] == Status.OK
        assert form.implementation == implementation
        assert_schur(A[k], form.T[k], form.Q[k])
        assert form.residual[k] <= 2
        assert form.orthogonality[k] <= 8

    def test_no_class_needs_the_robust_method(self, implementation, dtype):
        _, form = decomposed(implementation, dtype)
        gone = {name for name, robust in zip(NAMES, form.robust, strict=False) if robust}
        assert gone <= {"defective"}  # of which some fourfold eigenvalues come out late, or not, as rounding falls

    @pytest.mark.parametrize("name", [name for name in NAMES if name not in SENSITIVE])
    def test_eigenvalues_agree_with_lapack(self, implementation, dtype, name):
        A, form = decomposed(implementation, dtype)
        k = NAMES.index(name)
        reference, _, _, condition = lapack_eig(A[k].astype(np.result_type(dtype, np.float64)))
        limit = np.minimum(condition, 1 / np.finfo(dtype).eps)
        assert_same_eigenvalues(jk.eigenvalues_from_schur(form.T[k]), reference, A[k], limit)

    def test_a_matrix_that_is_not_finite_fails_alone(self, implementation, dtype):
        _, form = decomposed(implementation, dtype)
        assert form.status.tolist() == [Status.OK] * len(NAMES) + [Status.NONFINITE_INPUT]
        assert np.all(np.isnan(form.T[-1]))

    def test_matrices_do_not_know_of_each_other(self, implementation, dtype):
        """The same bits in another order, and beside a matrix that is finite."""
        A, form = decomposed(implementation, dtype)
        other = A[::-1].copy()
        other[0] = matrix("ginibre", SIZE, dtype, seed=1)
        again = decompose(implementation, other)
        assert again.status[0] == Status.OK
        for one, two in ((form.T, again.T), (form.Q, again.Q), (form.residual, again.residual)):
            assert np.array_equal(one[:-1], two[:0:-1])


@settings(max_examples=4, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    share=st.sampled_from([0.02, 0.1, 0.5]),
    entries=st.sampled_from([(1.0,), (1.0, -1.0), (1.0, 2.0, 0.5, -1.0), (1.0, 1e-20, 1e10)]),
)
@pytest.mark.parametrize(("implementation", "dtype"), CASES)
def test_any_structure(implementation, dtype, seed, share, entries):
    """Sparse matrices of few values, a batch at once: ties, zeros, repeated eigenvalues, reducible ones."""
    rng = np.random.default_rng(seed)
    shape = (len(NAMES) + 1, SIZE, SIZE)
    A = np.where(rng.random(shape) < share, rng.choice(entries, shape), 0)
    if np.issubdtype(dtype, np.complexfloating):
        A = A * rng.choice([1, 1j, -1j, 1 + 1j], shape)
    A = A.astype(dtype)
    form = decompose(implementation, A)
    assert np.all(form.status == Status.OK)
    assert np.sum(form.robust) <= 1  # a defective one, where rounding falls so
    for k in range(len(A)):
        assert_schur(A[k], form.T[k], form.Q[k])


@pytest.mark.parametrize(("n", "dtype"), [(0, np.float32), (2, np.float32), (0, np.complex128), (1, np.complex64)])
def test_orders_without_a_bulge(monkeypatch, n, dtype):
    monkeypatch.setattr(wavefront, "xla", ROBUST)
    A = np.stack([matrix("ginibre", n, dtype, seed) for seed in range(4)])
    form = api.certified_schur(jnp.asarray(A), implementation="wavefront")
    assert not np.any(form.robust)
    for k in range(4):
        assert_schur(A[k], form.T[k], form.Q[k])


@pytest.mark.parametrize(("n", "dtype"), [(3, np.float32), (2, np.complex64), (3, np.complex128)])
def test_the_smallest_orders_with_a_bulge(n, dtype):
    A = np.stack([matrix(name, n, dtype) for name in ("ginibre", "permutation", "companion", "zero", "jordan")])
    A[:, 2:, 0] = 0  # Hessenberg
    iterated = jax.jit(wavefront._iterated)
    H, Q, done = iterated(A, np.broadcast_to(np.eye(n, dtype=dtype), A.shape))
    T, Q = (jnp.triu(H), Q) if np.iscomplexobj(A) else standardize(jnp.triu(H, -1), Q)
    assert np.all(done)
    for k in range(len(A)):
        assert_schur(A[k], T[k], Q[k])


@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
@pytest.mark.parametrize("vectors", [True, False])
def test_what_is_not_done_and_what_is_wrong_goes_to_the_robust_method_alone(monkeypatch, vectors, dtype):
    """Said to be unfinished, wrong, not a number, and a matrix that is a triangle already; so is the first."""
    A = np.stack([matrix("ginibre", 9, dtype, seed) for seed in range(4)])
    A[[0, 3]] = np.triu(A[[0, 3]])

    def iteration(H, Q):
        H = jnp.triu(H)  # no Schur form of the matrix, though done
        return H.at[2].set(jnp.nan), Q, jnp.asarray([False, True, True, True])

    monkeypatch.setattr(wavefront, "_iterated", iteration)
    monkeypatch.setattr(wavefront, "xla", ROBUST)
    form = api.certified_schur(jnp.asarray(A), vectors=vectors, implementation="wavefront")
    assert form.robust.tolist() == [True, True, True, False]
    assert form.status.tolist() == [Status.OK] * 4
    assert form.Q.shape == (4, 9 if vectors else 0, 9)
    for k in range(4):
        one, two = (np.sort_complex(x) for x in (jk.eigenvalues_from_schur(form.T[k]), np.linalg.eigvals(A[k])))
        assert np.abs(one - two).max() < 1e-5
        if vectors:
            assert_schur(A[k], form.T[k], form.Q[k])


def test_an_iteration_that_is_broken_off_ends_in_the_robust_method(monkeypatch):
    """The iteration and the robust method themselves, complex: of two matrices one is a triangle, which needs none."""
    monkeypatch.setattr(bulges, "ROUNDS", -2)  # none at n = 9
    A = np.stack([matrix(name, 9, np.complex64) for name in ("ginibre", "triangular")])
    T, Q, robust = jax.jit(wavefront.schur)(A)
    assert robust.tolist() == [True, False]
    for k in range(2):
        assert_schur(A[k], T[k], Q[k])


counted = jax.jit(wavefront.depth)


@pytest.mark.parametrize(("dtype", "share"), [(np.float32, 0.2), (np.complex64, 0.3)])
def test_steps_are_counted(dtype, share):
    """A fifth of n^2 where one bulge at a time takes .7 n^2, complex .3 of 1.4 n^2; none for a triangle."""
    n = 64
    A = matrix("ginibre", n, dtype)[None]
    rounds, steps, inside = (int(x) for x in counted(A))
    assert 4 <= rounds <= 15
    assert rounds * 6 <= steps <= share * n**2
    assert 0 < inside < steps
    assert counted(np.triu(A)) == (0, 0, 0)


def test_complex_matrices_take_a_third_of_the_steps_of_one_bulge_at_a_time():
    A = matrix("ginibre", 64, np.complex64)[None]
    _, steps, inside = counted(A)
    assert 3 * (steps + inside) <= jax.jit(xla.depth)(A).steps


def test_a_complex_form_under_vmap_has_derivatives(monkeypatch):
    """Of eigenvalues along dA: y^H dA x / y^H x, with numpy's vectors."""
    monkeypatch.setattr(wavefront, "xla", ROBUST)
    A = np.stack([matrix("ginibre", 5, np.complex128, seed) for seed in range(3)])
    along = np.stack([matrix("ginibre", 5, np.complex128, seed) for seed in range(3, 6)])

    def values(A):
        T = api.certified_schur(A, implementation="wavefront").T
        return jnp.diagonal(T, axis1=-2, axis2=-1)

    slopes = jax.jit(jax.vmap(lambda A, along: jax.jvp(values, (A,), (along,))))
    found, moved = slopes(A, along)
    for k in range(3):
        reference, left, right, _ = lapack_eig(A[k])
        exact = np.sum(left.conj() * (along[k] @ right), axis=0) / np.sum(left.conj() * right, axis=0)
        order = np.argmin(np.abs(found[k][:, None] - reference), axis=1)
        assert sorted(order) == list(range(5))
        assert np.abs(found[k] - reference[order]).max() < 1e-13
        assert np.abs(moved[k] - exact[order]).max() < 1e-12


@pytest.mark.parametrize(
    ("implementation", "A", "match"),
    [
        ("pallas", np.ones((3, 3), np.complex64), "takes float32 matrices of order at most 256, A has dtype complex64"),
        ("pallas", np.ones((3, 3), np.float64), "'pallas' takes float32 matrices of order at most 256, A has dtype"),
        ("pallas", np.ones((257, 257), np.float32), "use implementation='xla' or 'divide', or None"),
    ],
)
def test_what_it_does_not_take(implementation, A, match):
    with pytest.raises(ValueError, match=match):
        jax.jit(lambda A: jk.schur(A, implementation=implementation))(A)


def test_the_kernel_is_refused_where_there_is_no_tpu():
    with pytest.raises(NotImplementedError, match=r"'pallas' does not run .* 'cpu' .*'wavefront' is the same in XLA"):
        jk.schur(np.ones((3, 3), np.float32), implementation="pallas")


class TestProgram:
    """What is lowered for a platform that is not there."""

    @staticmethod
    def lowered(function, platform, n=40, dtype=jnp.float32):
        A = jax.ShapeDtypeStruct((3, 5, n, n), dtype)
        return jax.jit(function).trace(A).lower(lowering_platforms=(platform,)).as_text()

    @pytest.mark.parametrize(
        "function",
        [
            lambda A: jk.schur(A, implementation="pallas"),
            lambda A: jk.schur(A, vectors=False, implementation="pallas"),
            lambda A: jk.eig(A, left=True, implementation="pallas"),
            jax.vmap(lambda A: jk.eigvals(A, implementation="pallas"), in_axes=1),
            jax.grad(lambda A: jnp.sum(jnp.abs(jk.eigvals(A, implementation="pallas")))),
        ],
        ids=["schur", "without vectors", "eig", "vmap", "gradient"],
    )
    def test_one_kernel_on_a_tpu(self, function):
        """Of the whole batch, two groups of eight; also under vmap and where it is differentiated."""
        text = self.lowered(function, "tpu")
        assert text.count("@tpu_custom_call") == 1
        (line,) = (line for line in text.splitlines() if "@tpu_custom_call" in line)
        assert pallas_tpu.NAME in line
        assert line.rstrip().endswith("tensor<16x1x128xi32>)")
        assert "callback" not in text

    def test_an_order_that_needs_no_padding_nor_grouping(self):
        assert self.lowered(lambda A: jk.schur(A, implementation="pallas"), "tpu", 256).count("@tpu_custom_call") == 1

    @pytest.mark.parametrize("dtype", [jnp.float32, jnp.complex64])
    @pytest.mark.parametrize("platform", ["cuda", "tpu"])
    def test_the_wavefront_lowers_everywhere(self, platform, dtype):
        text = self.lowered(lambda A: jk.schur(A, implementation="wavefront"), platform, dtype=dtype)
        assert ("x40xcomplex<f32>" in text) == (dtype == jnp.complex64)
        for word in ("callback", "lapack", "custom_call @tpu", "x40xf64", "x40xcomplex<f64>"):
            assert word not in text
