"""The Hessenberg form: every defining equation, for each implementation x matrix class x dtype."""

import jax
import jax.numpy as jnp
import jaxdyn_kernels as jk
import numpy as np
import pytest
from jaxdyn_kernels import Status
from jaxdyn_kernels.hessenberg import xla
from jaxdyn_kernels.reflectors import reflector

from tests.matrices import CLASSES, matrix

SIZE = 24
ALL = [np.float32, np.float64, np.complex64, np.complex128]


def assert_hessenberg(A, H, Q, *, factor=20.0):
    """A Q = Q H, Q unitary with the identity's first column, H with exact zeros below its first subdiagonal."""
    A, H, Q = (np.asarray(x) for x in (A, H, Q))
    n, eps = A.shape[-1], np.finfo(A.dtype).eps
    assert H.dtype == Q.dtype == A.dtype
    assert np.all(np.tril(H, -2) == 0)
    assert np.all(Q[:, 0] == np.eye(n)[:, 0])
    wide = np.complex128 if np.iscomplexobj(A) else np.float64
    A, H, Q = (x.astype(wide) for x in (A, H, Q))
    assert np.linalg.norm(A @ Q - Q @ H) <= factor * n * eps * np.linalg.norm(A)
    assert np.linalg.norm(Q.conj().T @ Q - np.eye(n)) <= factor * n * eps


def test_the_assertion_refuses_wrong_answers():
    A = matrix("ginibre", 8, np.float64)
    form = jk.hessenberg(A, implementation="lapack")
    H, Q = np.asarray(form.H), np.asarray(form.Q)
    assert_hessenberg(A, H, Q)
    turned = Q @ np.diag([-1.0] + [1.0] * 7)
    wrong = [(A, np.eye(8)), (np.triu(A, -1), np.eye(8)), (H, np.eye(8)), (H * (1 + 1e-11), Q), (H, turned), (H, 2 * Q)]
    for answer in wrong:
        with pytest.raises(AssertionError):
            assert_hessenberg(A, *answer)


@pytest.mark.parametrize("implementation", jk.implementations("hessenberg"))
class TestHessenberg:
    @pytest.mark.parametrize("dtype", ALL)
    @pytest.mark.parametrize("name", CLASSES)
    def test_equations(self, implementation, name, dtype):
        A = matrix(name, SIZE, dtype)
        result = jk.hessenberg(A, implementation=implementation)
        assert result.status == Status.OK
        assert result.implementation == implementation
        assert_hessenberg(A, result.H, result.Q)
        assert result.residual <= 20
        assert result.orthogonality <= 20

    @pytest.mark.parametrize("dtype", [np.float32, np.complex128])
    @pytest.mark.parametrize("n", [1, 2, 3, 33, 34, 35, 70])
    def test_orders_around_a_panel(self, implementation, n, dtype):
        A = np.stack([matrix("ginibre", n, dtype, seed) for seed in range(2)])
        result = jk.hessenberg(A, implementation=implementation)
        for k in range(2):
            assert_hessenberg(A[k], result.H[k], result.Q[k])

    def test_bad_input_in_one_matrix_of_a_batch(self, implementation):
        A = np.stack([matrix("ginibre", SIZE, np.float32, seed) for seed in range(3)])
        clean = jk.hessenberg(A, implementation=implementation)
        A[1, 3, 5] = np.nan
        result = jk.hessenberg(A, implementation=implementation)
        assert result.status.tolist() == [Status.OK, Status.NONFINITE_INPUT, Status.OK]
        for x in (result.H, result.Q, result.residual, result.orthogonality):
            assert np.all(np.isnan(x[1]))
        for k in (0, 2):
            assert np.array_equal(result.H[k], clean.H[k])
            assert np.array_equal(result.Q[k], clean.Q[k])

    def test_overflow_is_a_status(self, implementation):
        A = np.full((3, 3), 3e38, np.float32)
        assert jk.hessenberg(A, implementation=implementation).status == Status.OVERFLOW

    def test_vmap_and_jit(self, implementation):
        A = np.stack([matrix("ginibre", 9, np.float32, seed) for seed in range(6)]).reshape(2, 3, 9, 9)
        plain = jk.hessenberg(A, implementation=implementation)
        mapped = jax.jit(jax.vmap(lambda a: jk.hessenberg(a, implementation=implementation), in_axes=1, out_axes=1))(A)
        assert np.allclose(plain.H, mapped.H, atol=1e-5)
        assert mapped.status.shape == (2, 3)


def test_a_wrong_answer_shows_in_the_certificate(monkeypatch):
    monkeypatch.setattr(xla, "hessenberg", lambda A: (jnp.triu(A, -1), jnp.broadcast_to(jnp.eye(5), A.shape)))
    from jaxdyn_kernels.hessenberg import api

    result = api._certified(jnp.ones((1, 5, 5)), implementation="xla")
    assert result.residual[0] > 1e6


@pytest.mark.parametrize("dtype", ALL)
def test_a_reflector_maps_a_vector_to_a_multiple_of_the_first(dtype, rng):
    draws = rng.standard_normal((14, 4)) + (
        1j * rng.standard_normal((14, 4)) if np.issubdtype(dtype, np.complexfloating) else 0
    )
    draws[7:] *= 1e-30
    x = np.concatenate([draws, np.eye(4)[:1], np.zeros((1, 4))]).astype(dtype)
    x[:, 0] = 0
    x[-2] = [0, 2, 0, 0]
    house = reflector(jnp.asarray(x), jnp.arange(4) == 1)
    for row, v, tau, beta in zip(x, *(np.asarray(part) for part in house), strict=True):
        row = row.astype(np.result_type(row, np.float64))
        P = np.eye(4) - tau * np.outer(v, v.conj())
        expected = np.array([0, beta, 0, 0])
        assert np.allclose(P.conj().T @ row, expected, atol=10 * np.finfo(dtype).eps * np.linalg.norm(row))
        assert np.allclose(P.conj().T @ P, np.eye(4), atol=10 * np.finfo(dtype).eps)
        assert v[1] == 1
        assert beta == 0 or abs(beta / np.linalg.norm(row)) == pytest.approx(1, abs=10 * float(np.finfo(dtype).eps))
