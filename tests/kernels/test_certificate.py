"""Certificates, exact scaling and status messages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxdyn_kernels import Status, certificate
from jaxdyn_kernels.scaling import frobenius_norm, power_of_two_above, scale_of, to_order_one

from tests.assertions import lapack_eig, lapack_schur
from tests.matrices import matrix

schur_residual = jax.jit(certificate.schur_residual)
orthogonality = jax.jit(certificate.orthogonality)
eigenvector_residual = jax.jit(certificate.eigenvector_residual)
DTYPES = [np.float32, np.float64, np.complex64, np.complex128]


@pytest.mark.parametrize("dtype", [np.float32, np.complex128])
def test_numbers_are_the_documented_ones(dtype):
    A = matrix("ginibre", 20, dtype)
    T, Q = lapack_schur(A)
    unit = 20 * np.finfo(dtype).eps
    bad_T, bad_Q = T + dtype(0.01) * A, Q + dtype(0.01) * A
    residual = np.linalg.norm(A @ bad_Q - bad_Q @ bad_T) / (unit * np.linalg.norm(A))
    assert schur_residual(jnp.asarray(A), bad_Q, bad_T) == pytest.approx(residual, rel=1e-4)
    assert schur_residual(jnp.asarray(A), Q, T) < 2
    departure = np.linalg.norm(bad_Q.conj().T @ bad_Q - np.eye(20)) / unit
    assert orthogonality(jnp.asarray(bad_Q)) == pytest.approx(departure, rel=1e-4)
    assert orthogonality(jnp.asarray(Q)) < 3
    values, _, right, _ = lapack_eig(A)
    assert eigenvector_residual(jnp.asarray(A), jnp.asarray(values), jnp.asarray(right)) < 2
    moved = values.copy()
    moved[3] += 0.01
    expected = np.max(np.linalg.norm(A @ right - right * moved, axis=0)) / (unit * np.linalg.norm(A))
    assert eigenvector_residual(jnp.asarray(A), jnp.asarray(moved), jnp.asarray(right)) == pytest.approx(
        expected, rel=1e-3
    )


def test_identity_answers_are_told_apart():
    A, eye = jnp.asarray(matrix("ginibre", 8, np.float32)), jnp.eye(8, dtype=jnp.float32)
    assert schur_residual(A, eye, jnp.triu(A)) > 1e5
    assert orthogonality(A) > 1e5
    # Q = I, T = A satisfies both equations: triangularity is by construction of T, not certified here.
    assert schur_residual(A, eye, A) == 0


@pytest.mark.parametrize("power", [2.0**-1000, 2.0**1000])
def test_residual_does_not_depend_on_scale(power):
    A = matrix("ginibre", 8, np.float64)
    T, Q = lapack_schur(A)
    assert schur_residual(jnp.asarray(A * power), Q, T * power) == schur_residual(jnp.asarray(A), Q, T)


def test_zero_empty_and_nan():
    zero, eye = jnp.zeros((3, 3)), jnp.eye(3)
    assert schur_residual(zero, eye, zero) == 0
    assert schur_residual(zero, eye, eye) == jnp.inf
    assert jnp.isnan(schur_residual(zero, eye, eye * jnp.nan))
    assert schur_residual(jnp.zeros((2, 0, 0)), jnp.zeros((2, 0, 0)), jnp.zeros((2, 0, 0))).tolist() == [0, 0]
    assert orthogonality(jnp.zeros((0, 0))) == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_powers_of_two(dtype):
    info = np.finfo(dtype)
    x = np.array([0.3, 1.0, 1.5, 2.0, info.tiny, info.max, 0.0], dtype)
    powers = np.asarray(power_of_two_above(jnp.asarray(x)))
    assert powers[:4].tolist() == [0.5, 2.0, 2.0, 4.0]
    assert powers[-1] == 1
    mantissas, _ = np.frexp(powers)
    assert np.all(mantissas == 0.5)
    with np.errstate(all="raise"):
        assert np.all(1 / powers >= info.tiny)


@pytest.mark.parametrize("dtype", DTYPES)
def test_scaling_is_exact_and_norms_do_not_overflow(dtype):
    info = np.finfo(dtype)
    A = matrix("ginibre", 6, dtype)
    for power in (np.ldexp(info.dtype.type(1), info.maxexp - 3), np.ldexp(info.dtype.type(1), info.minexp + 40)):
        scaled, scale = to_order_one(jnp.asarray(A * power))
        assert np.array_equal(np.asarray(scaled) * np.asarray(scale), A * power)
        assert 2**-8 <= np.max(np.abs(scaled)) <= 2**8
        assert frobenius_norm(jnp.asarray(A * power)) == pytest.approx(np.linalg.norm(A) * float(power), rel=1e-6)
    assert scale_of(jnp.zeros((0, 0), dtype)) == 1


def test_every_status_has_a_message_of_its_own():
    messages = {Status(code).message for code in Status}
    assert len(messages) == len(Status)
    assert Status(2) is Status.NONFINITE_INPUT
    assert "upstream" in Status.NONFINITE_INPUT.message
