import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdyn import measures

from .samples import antisymmetric, ginibre, jordan, orthogonal, pieces, symmetric

EPS = float(np.finfo(np.float64).eps)
EPS32 = float(np.finfo(np.float32).eps)


def normal_matrices(rng, n):
    return {
        "symmetric": symmetric(rng, n),
        "antisymmetric": antisymmetric(rng, n),
        "identity plus antisymmetric": np.eye(n) + antisymmetric(rng, n),
        "orthogonal": orthogonal(rng, n),
        "identity": np.eye(n),
    }


@pytest.mark.parametrize("n", [2, 9, 20])
def test_normal_matrices_have_no_departure(rng, n):
    for name, matrix in normal_matrices(rng, n).items():
        departure = measures.henrici(pieces(matrix).schur)
        # backward error of the Schur form: c n eps norm(M)_F with c <= 10 for LAPACK
        assert departure <= 10 * n * EPS * np.linalg.norm(matrix), name


@given(seed=st.integers(0, 2**32 - 1), n=st.sampled_from([1, 2, 11]), shift=st.floats(-3, 3))
@settings(max_examples=15, deadline=None, derandomize=True)
def test_departure_equals_its_definition_and_ignores_the_shift(seed, n, shift):
    matrix = ginibre(np.random.default_rng(seed), n, n)
    p, moved = pieces(matrix), pieces(matrix + shift * np.eye(n))
    defined = max(0.0, np.linalg.norm(matrix) ** 2 - np.sum(np.abs(p.eigenvalues) ** 2)) ** 0.5
    norm = np.linalg.norm(moved.matrix) + np.linalg.norm(matrix)
    # the definition cancels: its error is sqrt(n eps) norm where the departure is small
    np.testing.assert_allclose(measures.henrici(p.schur), defined, atol=10 * (n * EPS) ** 0.5 * norm)
    np.testing.assert_allclose(measures.henrici(moved.schur), measures.henrici(p.schur), atol=50 * n * EPS * norm)
    np.testing.assert_allclose(
        measures.henrici_normalized(moved.schur) * np.linalg.norm(moved.matrix),
        measures.henrici(p.schur),
        rtol=1e-10,
        atol=1e-13,
    )


def test_departure_counts_the_asymmetry_of_a_complex_block():
    block = jnp.asarray([[1.0, 3.0], [-2.0, 1.0]])  # |lambda|^2 = 1 + 6, norm^2 = 2 + 9 + 4
    np.testing.assert_allclose(measures.henrici(block), 1.0, rtol=4 * EPS)
    np.testing.assert_allclose(measures.henrici_normalized(block), 1 / np.sqrt(15), rtol=4 * EPS)


def test_departure_does_not_cancel_in_float32():
    schur = np.diag(np.linspace(1, 2, 16)).astype(np.float32)
    schur[3, 9] = 1e-6
    np.testing.assert_allclose(measures.henrici(jnp.asarray(schur)), 1e-6, rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e25])
def test_departure_neither_overflows_nor_underflows(scale):
    schur = (scale * jordan(8)).astype(np.float32)
    np.testing.assert_allclose(measures.henrici(jnp.asarray(schur)), scale * np.sqrt(7), rtol=1e-5)


def test_jordan_block():
    n = 16
    block = jordan(n)
    np.testing.assert_allclose(measures.henrici_normalized(jnp.asarray(block)), 1, rtol=4 * EPS)
    np.testing.assert_allclose(measures.symmetry_gap(jnp.asarray(block)), np.sqrt(2), rtol=4 * EPS)
    edge = np.cos(np.pi / (n + 1))  # numerical range of the shift: a disc of this radius
    np.testing.assert_allclose(measures.numerical_abscissa(jnp.asarray(block)), edge, rtol=n * EPS)
    np.testing.assert_allclose(measures.numerical_radius(jnp.asarray(block)), edge, rtol=n * EPS)


def test_numerical_abscissa_from_the_norm_is_that_of_the_symmetric_part(rng):
    batch = np.stack([ginibre(rng, 12, 12), symmetric(rng, 12), antisymmetric(rng, 12), -np.eye(12), jordan(12)])
    norm = np.linalg.norm(batch, 2, axis=(1, 2))
    expected = np.linalg.eigvalsh((batch + batch.swapaxes(1, 2)) / 2)[:, -1]
    found = measures.numerical_abscissa(jnp.asarray(batch), norm=jnp.asarray(norm))
    # The shifted matrix has a norm of at most 2 norm(M): backward stability of its singular values.
    np.testing.assert_array_less(np.abs(found - expected), 2 * 12 * EPS * norm)


def test_symmetry_gap_is_the_trace_of_the_square(rng):
    matrix = ginibre(rng, 12, 12)
    share = np.trace(matrix @ matrix) / np.linalg.norm(matrix) ** 2
    np.testing.assert_allclose(measures.symmetry_gap(jnp.asarray(matrix)), np.sqrt(2 * (1 - share)), rtol=100 * EPS)
    assert measures.symmetry_gap(jnp.asarray(symmetric(rng, 8))) == 0
    np.testing.assert_allclose(measures.symmetry_gap(jnp.asarray(antisymmetric(rng, 8))), 2, rtol=4 * EPS)


def test_self_alignment_of_symmetric_and_rotated_matrices(rng):
    n = 30
    p = pieces(2 * np.eye(n) + symmetric(rng, n))
    for top in (None, 1, 7, n):
        np.testing.assert_allclose(measures.self_alignment(p.left, p.right_h, top=top), 1, rtol=1e4 * n * EPS)
    shift = np.roll(
        np.eye(n), 3, axis=0
    )  # sends each axis three places on: no leading axis stays among the leading three
    np.testing.assert_allclose(measures.self_alignment(jnp.asarray(shift), jnp.eye(n), top=3), 0, atol=EPS)
    np.testing.assert_allclose(measures.self_alignment(jnp.asarray(shift), jnp.eye(n), top=4), 1 / 4, rtol=EPS)


def test_self_alignment_default_is_a_tenth_rounded_up(rng):
    left, right_h = jnp.asarray(orthogonal(rng, 21)), jnp.asarray(orthogonal(rng, 21))
    default = measures.self_alignment(left, right_h)
    assert default == measures.self_alignment(left, right_h, top=3)
    assert default != measures.self_alignment(left, right_h, top=2)
    np.testing.assert_allclose(measures.self_alignment(left[:, :3], right_h[:3]), default, rtol=4 * EPS)


@pytest.mark.parametrize("top", [0, 5])
def test_self_alignment_refuses_more_vectors_than_given(top):
    with pytest.raises(ValueError, match=r"top: got .*allowed: 1 to 4"):
        measures.self_alignment(jnp.eye(8)[:, :4], jnp.eye(8)[:4], top=top)


def test_numerical_abscissa_and_radius_bound_the_spectrum(rng):
    stack = ginibre(rng, 4, 10, 10)
    p = pieces(stack)
    abscissa, radius = measures.numerical_abscissa(p.matrix), measures.numerical_radius(p.matrix)
    assert np.all(abscissa >= p.eigenvalues.real.max(-1))
    assert np.all(radius >= np.abs(p.eigenvalues).max(-1))
    assert np.all(radius <= p.singular_values[:, 0])
    assert np.all(radius >= abscissa)
    dense = [
        max(np.linalg.eigvalsh((z * m + (z * m).conj().T) / 2)[-1] for z in np.exp(1j * np.linspace(0, np.pi, 2001)))
        for m in stack
    ]
    np.testing.assert_allclose(radius, dense, rtol=1e-5)
    np.testing.assert_allclose(measures.numerical_radius(-p.matrix), radius, rtol=1e-5)


def test_numerical_radius_of_a_two_by_two_block():
    # [[0, 2], [0, 0]]: a disc of radius 1; the identity moves its centre
    np.testing.assert_allclose(measures.numerical_radius(jnp.asarray([[1.0, 2.0], [0.0, 1.0]])), 2, rtol=8 * EPS)
    with pytest.raises(ValueError, match="angles: got 2"):
        measures.numerical_radius(jnp.eye(2), angles=2)


def test_condition_quantiles():
    condition = jnp.asarray([1.0, 2.0, 4.0, jnp.inf, 1.0])
    median, ninth, largest = measures.eigenvector_condition(condition)
    np.testing.assert_allclose([median, largest], [2, np.inf])
    np.testing.assert_allclose(ninth, 1 / (0.4 * 0.25), rtol=8 * EPS)  # 10 % between the reciprocals 0 and 1/4
    assert np.isnan(measures.eigenvector_condition(condition.at[0].set(jnp.nan))[0])


def test_jit_batch_single_and_nan(rng):
    stack = ginibre(rng, 3, 8, 8)
    p = pieces(stack)
    functions = {
        "henrici": p.schur,
        "henrici_normalized": p.schur,
        "symmetry_gap": p.matrix,
        "numerical_abscissa": p.matrix,
        "numerical_radius": p.matrix,
    }
    for name, argument in functions.items():
        function = jax.jit(getattr(measures, name))
        batched = function(argument)
        single = np.stack([function(one) for one in argument])
        np.testing.assert_allclose(batched, single, rtol=1e-13, err_msg=name)
        broken = np.array(argument)
        broken[1, 4, 4] = np.nan
        value = function(jnp.asarray(broken))
        np.testing.assert_array_equal(np.isnan(value), [False, True, False], err_msg=name)
        np.testing.assert_allclose(value[::2], batched[::2], rtol=1e-13, err_msg=name)


@pytest.mark.parametrize("name", ["henrici", "henrici_normalized"])
def test_float32_agrees_with_float64(rng, name):
    matrix = np.eye(48) + 0.3 * ginibre(rng, 48, 48)
    single = getattr(measures, name)(pieces(matrix.astype(np.float32)).schur)
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, getattr(measures, name)(pieces(matrix).schur), rtol=48 * EPS32)
