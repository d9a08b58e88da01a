"""Spectral divide and conquer: every defining equation on every class in one batch, and what it says of its work."""

import functools

import jax
import jax.numpy as jnp
import jaxdyn_kernels as jk
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxdyn_kernels import Status
from jaxdyn_kernels.schur import api, divide, finish, lapack, wavefront
from jaxdyn_kernels.schur.sign import sign
from jaxdyn_kernels.schur.split import split

from tests.assertions import assert_same_eigenvalues, assert_schur, lapack_eig
from tests.matrices import CLASSES, SENSITIVE, matrix
from tests.programs import WELL

schur = jax.jit(functools.partial(jk.schur, implementation="divide"), compiler_options=WELL)

SIZE = 80
"""Above the order that goes to shifted QR, so that there is a level of splits."""

NAMES = tuple(CLASSES)


@functools.cache
def decomposed(dtype):
    """All classes, and a matrix with a NaN last, in one batch: one program a type."""
    A = np.stack([*(matrix(name, SIZE, dtype) for name in NAMES), np.full((SIZE, SIZE), 1, dtype)])
    A[-1, 3, 5] = np.nan
    return A, schur(A)


@pytest.mark.parametrize("dtype", [np.float64, np.complex64])
@pytest.mark.parametrize("name", NAMES)
def test_equations(name, dtype):
    A, form = decomposed(dtype)
    k = NAMES.index(name)
    assert form.status[k] == Status.OK
    assert form.implementation == "divide"
    assert_schur(A[k], form.T[k], form.Q[k])
    assert form.residual[k] <= 1
    assert form.orthogonality[k] <= 5
    assert form.residual[k] <= max(10 * float(jk.schur(A[k], implementation="lapack").residual), 0.5)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in SENSITIVE])
def test_eigenvalues_agree_with_lapack(name):
    A, form = decomposed(np.float64)
    k = NAMES.index(name)
    reference, _, _, condition = lapack_eig(A[k])
    limit = np.minimum(condition, 1 / np.finfo(float).eps)
    assert_same_eigenvalues(jk.eigenvalues_from_schur(form.T[k]), reference, A[k], limit)


@pytest.mark.parametrize("dtype", [np.float64, np.complex64])
def test_says_which_matrices_went_to_the_robust_method(dtype):
    """Eigenvalues too sensitive for any line to part them do; gaps and clusters of a normal kind do not."""
    _, form = decomposed(dtype)
    robust = dict(zip(NAMES, np.asarray(form.robust), strict=False))
    for name in ("ginibre", "companion", "orthogonal", "skew", "symmetric", "clustered", "permutation", "identity"):
        assert not robust[name], name
    assert robust["grcar"]


def test_a_matrix_that_is_not_finite_fails_alone():
    _, form = decomposed(np.float64)
    assert form.status[-1] == Status.NONFINITE_INPUT
    assert np.all(np.isnan(form.T[-1]))
    assert not form.robust[-1]


@pytest.mark.parametrize("power", [2.0**990, 2.0**-900])
def test_scale_near_the_ends_of_the_range(power):
    """The bits are those of the matrix of order one."""
    A, form = decomposed(np.float64)
    scaled = schur(A * power)
    assert np.all(scaled.status[:-1] == Status.OK)
    assert np.array_equal(np.asarray(scaled.T[:-1]) / power, form.T[:-1])
    assert np.array_equal(scaled.Q[:-1], form.Q[:-1])


@settings(max_examples=3, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    share=st.sampled_from([0.02, 0.1, 0.5]),
    entries=st.sampled_from([(1.0,), (1.0, -1.0), (1.0, 2.0, 0.5, -1.0), (1.0, 1e-20, 1e10)]),
)
def test_any_structure(seed, share, entries):
    """Sparse matrices of few values, a batch at once: ties, zeros, repeated eigenvalues, reducible ones."""
    rng = np.random.default_rng(seed)
    shape = (len(NAMES) + 1, SIZE, SIZE)
    A = np.where(rng.random(shape) < share, rng.choice(entries, shape), 0)
    form = schur(A)
    assert np.all(form.status == Status.OK)
    for k in range(len(A)):
        assert_schur(A[k], form.T[k], form.Q[k])


def test_a_wrong_split_shows_and_goes_to_the_robust_method(monkeypatch):
    """Blocks that were never split, said to be: what would be dropped is most of the matrix."""
    A = np.stack([matrix("ginibre", 72, np.float32), np.triu(matrix("ginibre", 72, np.float32))])

    def wrong(A):
        batch, n = A.shape[:2]
        eye = jnp.broadcast_to(jnp.eye(n, dtype=A.dtype), A.shape).reshape(-1, n)
        blocks = jnp.zeros((batch * n, 2), jnp.int32).at[::36, 0].set(36)
        return divide._State(eye[:, : divide.BASE], eye, blocks, jnp.int32(0), jnp.int32(0), jnp.float32(0))

    monkeypatch.setattr(divide, "_divided", wrong)
    monkeypatch.setattr(divide.xla, "schur", lambda A: lapack.schur(A))  # quick to compile
    form = jax.jit(lambda A: api.certified_schur(A, implementation="divide"))(A)
    assert form.robust.tolist() == [True, False]
    for k in range(2):
        assert_schur(A[k], form.T[k], form.Q[k])
    # Without the robust method the same answer is no Schur form, and the certificate says so.
    monkeypatch.setattr(divide, "finish_large", lambda T, Q, left: (jnp.triu(T), Q))
    form = jax.jit(lambda A: api.certified_schur(A, implementation="divide"))(A)
    assert form.residual[0] > 1e3
    with pytest.raises(AssertionError, match="residual"):
        assert_schur(A[0], form.T[0], form.Q[0])


class TestSmallBlocks:
    """Elsewhere than on a CPU they take the wavefront, on a TPU its kernel."""

    def test_by_the_wavefront(self, monkeypatch):
        A = np.stack([matrix(name, 72, np.float32) for name in ("ginibre", "orthogonal")])
        monkeypatch.setattr(finish, "small_forms", wavefront.attempted)
        monkeypatch.setattr(divide.xla, "schur", lambda A: lapack.schur(A))  # quick to compile
        form = jax.jit(lambda A: api.certified_schur(A, implementation="divide"))(A)
        assert form.robust.tolist() == [False, False]
        for k in range(2):
            assert_schur(A[k], form.T[k], form.Q[k])

    def test_one_that_is_not_certified_sends_its_matrix_to_the_robust_method(self, monkeypatch):
        A = np.stack([matrix("ginibre", 72, np.float32), np.eye(72, dtype=np.float32)])

        def unsound(blocks):
            T, Q = lapack.schur(blocks)
            return 2 * T, Q, jnp.all(T == blocks, axis=(1, 2))

        monkeypatch.setattr(finish, "small_forms", unsound)
        monkeypatch.setattr(divide.xla, "schur", lambda A: lapack.schur(A))
        form = jax.jit(lambda A: api.certified_schur(A, implementation="divide"))(A)
        assert form.robust[0]
        assert_schur(A[0], form.T[0], form.Q[0])

    @pytest.mark.parametrize(("platform", "kernels"), [("tpu", 1), ("cuda", 0)])
    def test_the_kernel_is_in_the_program_of_a_tpu(self, platform, kernels):
        blocks = jax.ShapeDtypeStruct((3, 64, 64), np.float32)
        text = jax.jit(finish.small_forms).trace(blocks).lower(lowering_platforms=(platform,)).as_text()
        assert text.count("tpu_custom_call") == kernels
        assert "lapack" not in text


class TestSign:
    def test_agrees_with_scipy(self, rng):
        A = rng.standard_normal((3, 9, 9))
        found, steps = jax.jit(sign)(A, A, np.array([False, False, True]))
        assert 4 <= steps <= 20
        for k in range(2):
            assert np.abs(found[k] - scipy.linalg.signm(A[k])).max() < 1e-11
            assert np.abs(np.asarray(found[k]) - np.eye(9)).max() > 1e-3
        # The quotient of a matrix by itself is the identity.
        assert np.abs(found[2] - np.eye(9)).max() < 1e-11

    def test_an_eigenvalue_on_the_axis_ends_at_the_limit(self):
        A = np.diag([1.0, -1.0, 0.0])[None]
        _, steps = jax.jit(sign)(A, A, np.array([False]))
        assert steps <= 30


class TestSplit:
    def test_parts_the_eigenvalues_of_padded_blocks(self, rng):
        """Lines and circles: unitary Q that is the identity beyond the block, E gone, eigenvalues on either side."""
        sizes, tries = np.array([12, 7, 0, 9]), np.array([0, 1, 0, 3])
        D = np.zeros((4, 12, 12))
        for k, n in enumerate(sizes):
            D[k, :n, :n] = matrix("ginibre", n, float, k)
        keys = jax.vmap(jax.random.key)(jnp.arange(4))
        limit = np.full(4, 1e-10)
        found = jax.jit(split)(D, sizes, tries, limit, np.full(4, 1e-16), keys)
        assert found.accepted.tolist() == [True, True, False, True]
        for k in (0, 1, 3):
            n, rank = sizes[k], int(found.rank[k])
            Q = np.asarray(found.Q[k])
            assert 0 < rank < n
            assert np.allclose(Q @ Q.T, np.eye(12), atol=1e-13)
            assert np.array_equal(Q[n:], np.eye(12)[n:])
            turned = Q.T @ D[k] @ Q
            assert np.abs(turned[rank:n, :rank]).max() < 1e-10
            assert np.allclose(found.D[k], turned, atol=1e-10)
            assert np.all(np.asarray(found.D[k])[rank:, :rank] == 0)
            first, second = (np.linalg.eigvals(turned[s, s]) for s in (slice(0, rank), slice(rank, n)))
            if tries[k] % 2 == 0:
                assert first.real.min() > second.real.max()
            else:
                centre = np.trace(D[k]) / n
                assert np.abs(first - centre).min() > np.abs(second - centre).max()
        # A limit that nothing can meet: refused, and the block as it was.
        refused = jax.jit(split)(D, sizes, tries, np.zeros(4), np.full(4, 1e-16), keys)
        assert not np.any(refused.accepted)
        assert np.array_equal(refused.D, D)


def test_widths_halve_and_end_at_the_base():
    assert divide.widths(64) == (64,)
    assert divide.widths(65) == (65, 64)
    assert divide.widths(512) == (512, 288, 160, 64)
    assert divide.widths(4096) == (4096, 2304, 1152, 288, 64)
    for n in range(1, 3000, 7):
        found = divide.widths(n)
        assert found[0] == n
        assert list(found) == sorted(set(found), reverse=True)
        assert found[-1] <= divide.BASE


def test_windows_hold_whole_blocks_and_nothing_that_is_left():
    begins = np.zeros(200, bool)
    begins[[0, 30, 60, 64, 164, 170, 190]] = True
    left = np.zeros(200, bool)
    left[64:164] = True
    _, last = finish.ends(jnp.asarray(begins)[None])
    start, stop = finish.windows(last[0], jnp.asarray(left), 9)
    pairs = [(int(a), int(b)) for a, b in zip(start, stop, strict=True) if b > a]
    assert pairs == [(0, 64), (164, 200)]


def test_depth_is_counted():
    """A few dozen Newton steps; nothing is left of matrices with gaps, everything of one without."""
    A = jnp.asarray(np.stack([matrix("ginibre", 72, np.float32), matrix("grcar", 72, np.float32)]))
    count = jax.jit(divide.depth)(A)
    assert 1 <= int(count.splits) <= 30
    assert int(count.splits) < int(count.newton) <= 20 * int(count.splits)
    # Every split is of two padded blocks at once.
    fewest = 2 * 72**3 * (8 / 3 * int(count.newton) + 8 * int(count.splits))
    assert fewest < float(count.operations) < 2 * fewest
    assert count.left[0] == 0
    assert count.left[1] > 0
