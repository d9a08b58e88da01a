"""Derivatives of the Schur form and of what is made of it, against perturbation theory and finite differences."""

import jax
import jax.numpy as jnp
import jaxdyn_kernels as jk
import numpy as np
import pytest

from tests.matrices import matrix

N = 7


def drawn(dtype, rng, n=N):
    """A matrix and a direction."""
    real = rng.standard_normal((4, n, n))
    return (real[:2] + 1j * real[2:]) if np.issubdtype(dtype, np.complexfloating) else real[:2]


def derivative(function, A, D):
    """Along D, in forward mode."""
    return jax.jit(lambda A, D: jax.jvp(function, (A,), (D,))[1])(A, D)


def gradient(function, A):
    """The gradient, compiled."""
    return jax.jit(jax.grad(function))(A)


def difference(function, A, D, step=1e-6):
    """Central difference along D."""
    return np.asarray(function(jnp.asarray(A + step * D)) - function(jnp.asarray(A - step * D))) / (2 * step)


@pytest.mark.parametrize("implementation", ["lapack", "xla"])
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
class TestDerivative:
    def test_eigenvalues_move_as_perturbation_theory_says(self, dtype, implementation, rng):
        A, D = drawn(dtype, rng)
        values = jk.eigvals(A, implementation=implementation)
        moved = derivative(lambda A: jk.eigvals(A, implementation=implementation), A, D)
        exact, V = np.linalg.eig(A)
        slopes = np.diagonal(np.linalg.solve(V, D @ V))
        at = np.abs(np.asarray(values)[:, None] - exact).argmin(axis=1)
        assert sorted(at) == list(range(N))
        assert np.abs(np.asarray(moved) - slopes[at]).max() < 1e-12 * np.abs(slopes).max()

    def test_defining_equations_differentiated(self, dtype, implementation, rng):
        """dA = d(Q T Q^H), d(Q^H Q) = 0, and dT has T's zeros and equal diagonals of blocks."""
        A, D = drawn(dtype, rng)
        form = jk.schur(A, implementation=implementation)
        both = derivative(lambda A: (lambda f: (f.T, f.Q))(jk.schur(A, implementation=implementation)), A, D)
        T, Q, dT, dQ = (np.asarray(x) for x in (form.T, form.Q, *both))
        whole = dQ @ T @ Q.conj().T + Q @ dT @ Q.conj().T + Q @ T @ dQ.conj().T
        assert np.abs(whole - D).max() < 1e-12
        assert np.abs(dQ.conj().T @ Q + Q.conj().T @ dQ).max() < 1e-12
        below = np.tril(T, -1) != 0
        assert np.all(dT[np.tri(N, k=-1, dtype=bool) & ~below] == 0)
        i = np.flatnonzero(np.diagonal(below, -1))
        assert len(i) > 0 or dtype == np.complex128
        assert np.abs(dT[i, i] - dT[i + 1, i + 1]).max(initial=0) < 1e-12

    def test_scalars_of_a_schur_form(self, dtype, implementation, rng):
        A, D = drawn(dtype, rng)

        def scalars(A):
            """Henrici's departure from normality, squared, and the sum of the logarithms of the conditions."""
            found = jk.eig(A, left=True, implementation=implementation)
            squares = jnp.sum(jnp.abs(A) ** 2) - jnp.sum(jnp.abs(found.eigenvalues) ** 2)
            return jnp.stack([squares, jnp.sum(jnp.log(found.condition))])

        expected = difference(jax.jit(scalars), A, D)
        assert derivative(scalars, A, D) == pytest.approx(expected, rel=1e-6)
        slopes = jax.jit(jax.jacrev(scalars))(A)
        assert np.sum(np.asarray(slopes) * D, axis=(1, 2)).real == pytest.approx(expected, rel=1e-6)


def test_real_forms_move_smoothly(rng):
    """T and Q themselves: a real form has no free phase."""
    A, D = drawn(np.float64, rng)
    for part in ("T", "Q"):
        found = derivative(lambda A, part=part: getattr(jk.schur(A), part), A, D)
        expected = difference(lambda A, part=part: getattr(jk.schur(A), part), A, D)
        assert np.abs(found - expected).max() < 1e-6


def test_a_block_of_a_normal_matrix_has_eigenvalues_that_move(rng):
    """There T itself has a kink (b + c = 0), the eigenvalues none."""
    A, D = matrix("orthogonal", 6, np.float64), rng.standard_normal((6, 6))
    exact, V = np.linalg.eig(A)
    slopes = np.diagonal(np.linalg.solve(V, D @ V))
    at = np.abs(np.asarray(jk.eigvals(A))[:, None] - exact).argmin(axis=1)
    assert np.abs(np.asarray(derivative(jk.eigvals, A, D)) - slopes[at]).max() < 1e-12


def test_double_eigenvalues_have_no_derivative_and_spoil_no_other_matrix():
    A = np.stack([np.eye(4), np.diag([1.0, 2.0, 3.0, 4.0])])

    def scalar(A):
        return jnp.sum(jnp.abs(jk.eigvals(A)), axis=-1)

    moved = derivative(scalar, A, np.ones_like(A))
    assert np.isnan(moved[0])
    assert moved[1] == pytest.approx(4.0)
    assert np.allclose(gradient(lambda A: scalar(A)[1], A)[1], np.eye(4))
    assert np.all(np.isnan(gradient(lambda A: scalar(A).sum(), A)[0]))


def test_scale_and_evidence_do_not_enter(rng):
    A, D = drawn(np.float64, rng)
    plain = derivative(jk.eigvals, A, D)
    assert np.allclose(derivative(jk.eigvals, A * 2.0**90, D * 2.0**90), plain * 2.0**90, rtol=1e-12)
    assert np.all(derivative(lambda A: jk.schur(A).residual, A, D) == 0)


def test_under_jit_vmap_and_twice(rng):
    A = np.stack([drawn(np.float64, rng)[0] for _ in range(2)])

    def scalar(A):
        return jnp.sum(jk.eigvals(A) ** 3).real

    slopes = jax.jit(jax.vmap(jax.grad(scalar)))(A)
    hessian = jax.jit(jax.hessian(scalar))(A[0])
    for k in range(2):
        assert np.allclose(slopes[k], 3 * (A[k] @ A[k]).T, atol=1e-10)
    D = rng.standard_normal((N, N))
    along = np.einsum("ijkl,ij,kl", np.asarray(hessian), D, D)
    assert along == pytest.approx(6 * np.trace(A[0] @ D @ D), rel=1e-8)
