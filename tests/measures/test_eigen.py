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


def test_symmetric_matrix_has_no_rotation(rng):
    p = pieces(symmetric(rng, 12))
    assert measures.complex_fraction(p.schur) == 0
    assert measures.imaginary_energy(p.eigenvalues) == 0
    assert measures.antisymmetric_share(p.matrix) == 0


@pytest.mark.parametrize(("n", "fraction"), [(12, 1.0), (9, 8 / 9)])
def test_identity_plus_antisymmetric_is_all_rotation(rng, n, fraction):
    p = pieces(3 * np.eye(n) + antisymmetric(rng, n))
    np.testing.assert_allclose(measures.complex_fraction(p.schur), fraction, rtol=4 * EPS)
    np.testing.assert_allclose(measures.imaginary_energy(p.eigenvalues), 1, rtol=100 * n * EPS)
    np.testing.assert_allclose(measures.antisymmetric_share(p.matrix), 1, rtol=100 * n * EPS)


def test_even_antisymmetric_rotates_by_a_right_angle(rng):
    p = pieces(antisymmetric(rng, 10))
    np.testing.assert_allclose(measures.mean_rotation_angle(p.eigenvalues), np.pi / 2, rtol=100 * EPS)


def test_rotation_angle_is_that_of_the_matrix_without_its_mean_scaling():
    eigenvalues = jnp.asarray([1 + 1j, 1 - 1j, 2.0, 0.0])  # t = 1: angles pi/2, pi/2, 0, pi
    np.testing.assert_allclose(measures.mean_rotation_angle(eigenvalues), np.pi / 2, rtol=4 * EPS)
    np.testing.assert_allclose(measures.imaginary_energy(eigenvalues), 2 / 4, rtol=4 * EPS)
    np.testing.assert_allclose(measures.spectral_radius(eigenvalues), 2, rtol=4 * EPS)


@given(seed=st.integers(0, 2**32 - 1), n=st.sampled_from([2, 11]), shift=st.floats(-3, 3))
@settings(max_examples=15, deadline=None, derandomize=True)
def test_shift_and_rotation_change_no_rotation_measure(seed, n, shift):
    rng = np.random.default_rng(seed)
    base = ginibre(rng, n, n)
    q = orthogonal(rng, n)
    p, moved = pieces(base), pieces(q @ (base + shift * np.eye(n)) @ q.T)
    np.testing.assert_allclose(
        np.sort(moved.eigenvalues), np.sort(p.eigenvalues + shift), atol=1e-6
    )  # eig(J) = 1 + eig(A)
    scale = 1e4 * n * EPS * p.condition.max()
    assert measures.complex_fraction(p.schur) == measures.complex_fraction(moved.schur)
    np.testing.assert_allclose(
        measures.imaginary_energy(p.eigenvalues), measures.imaginary_energy(moved.eigenvalues), atol=scale
    )
    np.testing.assert_allclose(
        measures.antisymmetric_share(p.matrix), measures.antisymmetric_share(moved.matrix), atol=scale
    )


def test_undecided_counts_pairs_within_their_error():
    eigenvalues = jnp.asarray([1 + 1e-3j, 1 - 1e-3j, 2.0, 2.001, 5.0, 0 + 1j, 0 - 1j, -1.0])
    condition = jnp.ones(8)

    def undecided(error):
        return float(measures.complex_undecided(eigenvalues, condition, jnp.asarray(error)))

    assert undecided(0.0) == 0
    assert undecided(1e-4) == 0
    assert undecided(7e-4) == 2 / 8  # half the gap of the two real ones is 5e-4
    assert undecided(2e-3) == 4 / 8
    assert undecided(1.9) == 8 / 8  # half of the gap from -1 to 2 is 1.5, of that from 2.001 to 5 1.4995
    weighted = measures.complex_undecided(eigenvalues, condition.at[:2].set(100.0), jnp.asarray(1e-4))
    assert weighted == 2 / 8


def test_undecided_in_a_jordan_block_and_not_in_a_random_matrix(rng):
    block = pieces(orthogonal_jordan(rng, 8))
    assert measures.complex_undecided(block.eigenvalues, block.condition, block.backward_error) == 1
    p = pieces(ginibre(rng, 32, 32))
    assert measures.complex_undecided(p.eigenvalues, p.condition, p.backward_error) == 0


def orthogonal_jordan(rng, n):
    q = orthogonal(rng, n)
    return q @ jordan(n, 1.0) @ q.T


def test_no_other_real_eigenvalue_means_decided():
    alone = jnp.asarray([1.0 + 0j, 1j, -1j])
    assert measures.complex_undecided(alone, jnp.ones(3), jnp.asarray(1e-3)) == 0


@pytest.mark.parametrize("name", ["imaginary_energy", "mean_rotation_angle", "spectral_radius"])
def test_nan_stays_in_its_matrix(rng, name):
    stack = np.stack([pieces(ginibre(rng, 6, 6)).eigenvalues for _ in range(3)])
    clean = getattr(measures, name)(jnp.asarray(stack))
    stack[1, 2] = np.nan
    value = getattr(measures, name)(jnp.asarray(stack))
    np.testing.assert_array_equal(np.isnan(value), [False, True, False])
    np.testing.assert_array_equal(value[::2], clean[::2])


def test_failed_schur_form_has_no_complex_fraction(rng):
    schur = np.stack([pieces(ginibre(rng, 6, 6)).schur for _ in range(2)])
    schur[0] = np.nan
    np.testing.assert_array_equal(np.isnan(measures.complex_fraction(jnp.asarray(schur))), [True, False])
    undecided = measures.complex_undecided(jnp.ones((2, 3), complex), jnp.ones((2, 3)), jnp.asarray([np.nan, 0.0]))
    np.testing.assert_array_equal(np.isnan(undecided), [True, False])


def test_multiple_of_the_identity_has_no_share():
    assert np.isnan(measures.antisymmetric_share(2 * jnp.eye(4)))
    assert np.isnan(measures.imaginary_energy(jnp.full(4, 2.0 + 0j)))
    assert measures.complex_fraction(2 * jnp.eye(1)) == 0


def test_float32_agrees_with_float64(rng):
    m = ginibre(rng, 32, 32)
    single, double = pieces(m.astype(np.float32)), pieces(m)
    for name, argument in (("imaginary_energy", "eigenvalues"), ("antisymmetric_share", "matrix")):
        value = jax.jit(getattr(measures, name))(getattr(single, argument))
        assert value.dtype == jnp.float32
        expected = getattr(measures, name)(getattr(double, argument))
        np.testing.assert_allclose(value, expected, rtol=200 * 32 * EPS32)
