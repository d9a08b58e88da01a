"""The Schur form of a batch of matrices: checks, choice of implementation, exact scaling, certificate and status."""

from dataclasses import dataclass, field
from typing import no_type_check

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Inexact, Int

from ..certificate import invariant_residual, orthogonality, schur_residual
from ..dispatch import case_of, choose, platform_of, run, square_matrices
from ..scaling import scale_of
from ..status import Status
from .derivative import schur_form


@no_type_check  # JAX rebuilds it around placeholders, which are no arrays
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SchurResult:
    """A Schur form A = Q T Q^H and its evidence.

    Attributes
    ----------
    T : [..., n, n], dtype of A
        Upper triangular for complex A; for real A upper quasi-triangular, every 2 x 2 block of the diagonal in
        standard form [[a, b], [c, a]] with b c < 0 (a complex pair a +- i sqrt(-b c)), exact zeros below.
    Q : [..., n, n], dtype of A
        Unitary (real orthogonal for real A): the Schur vectors in columns. Without vectors [..., 0, n].
    residual : real [...]
        norm(A Q - Q T)_F / (n eps norm(A)_F), see `certificate.schur_residual`; without vectors what trace and norm
        lost, see `certificate.invariant_residual`.
    orthogonality : real [...]
        norm(Q^H Q - I)_F / (n eps), see `certificate.orthogonality`; NaN without vectors.
    robust : bool [...]
        Whether a fast method could not certify its own work and the matrix, or a part of it, went through the robust
        method ("xla") in the same program; False for "lapack" and "xla" themselves.
    status : int32 [...]
        A `Status` per matrix; where it is not OK every number of that matrix is NaN.
    implementation : str
        The implementation that ran.
    """

    T: Inexact[Array, "*batch n n"]
    Q: Inexact[Array, "*batch m n"]
    residual: Float[Array, "*batch"]
    orthogonality: Float[Array, "*batch"]
    robust: Bool[Array, "*batch"]
    status: Int[Array, "*batch"]
    implementation: str = field(metadata={"static": True})


def schur(A: ArrayLike, *, vectors: bool = True, implementation: str | None = None) -> SchurResult:
    """Schur form of each matrix of a batch: A = Q T Q^H.

    Works eagerly, under jit and under vmap. Called eagerly with a batch on the host, it spreads the matrices over the
    cores with one BLAS thread each and returns when all are done; inside a jit of the caller's it takes one matrix
    after another (see threads.py for why). Eager calls are therefore the fast ones on a CPU.

    Parameters
    ----------
    A : real or complex [..., n, n], float32, float64, complex64 or complex128
        The matrices, any scale: each is divided by a power of two first, which changes no digit. Subnormal entries
        may count as zero, as XLA flushes them. Float64 numpy input is taken in float32 unless x64 is on, as
        everywhere in JAX.
    vectors : bool
        Also Q. Without them about half the work is left out, and the evidence is weaker.
    implementation : str, optional
        Force one of ``implementations("schur")``; by default the platform of the array decides (under a trace: the
        platform of the default device), with order and batch: `describe` lists the rows. Forcing "lapack" for an array
        of an accelerator copies it to the host, where the result stays.

    Returns
    -------
    SchurResult
        A pytree. A matrix with NaN or infinite entries, one whose iteration does not converge and one whose T
        overflows have a status of their own and NaN values; the other matrices of the batch are not affected.

    Raises
    ------
    ValueError
        For a dtype or shape that is not allowed, or an unknown implementation.
    NotImplementedError
        Where no implementation supports the platform; the message gives each one's reason and the remedy.

    Notes
    -----
    About 25 n^3 operations a matrix (10 n^3 without vectors), 3 n^2 numbers of memory; the certificate adds 6 n^3
    operations, all products. Differentiable in forward and reverse mode where the eigenvalues are simple; where two of
    a matrix agree to n eps norm(A) its derivatives are NaN. What depends on the free phases of Q, or on T where a real
    2 x 2 block is normal, has no derivative that means anything (`schur/derivative.py` says which choice is taken).
    Backward stable: `residual` and `orthogonality` are of order one or below. Golub and Van Loan, Matrix Computations,
    4th edition, section 7.5.
    """
    A = square_matrices("schur", "A", A)
    chosen = choose("schur", platform_of(A), implementation, case=case_of(A))
    return run(certified_schur, A, chosen, vectors=vectors)


def certified_schur(A: Inexact[Array, "*batch n n"], *, vectors: bool = True, implementation: str) -> SchurResult:
    """Trace `schur` into a larger program; `implementation` names the one to run."""
    finite = jnp.all(jnp.isfinite(A), axis=(-2, -1))
    # LAPACK may loop or write outside its workspace on NaN: it gets zeros in their place.
    safe = jnp.where(finite[..., None, None], A, 0)
    scale = scale_of(jax.lax.stop_gradient(safe))
    scaled = safe * (1 / scale)[..., None, None]  # exact
    T, Q, robust = schur_form(implementation, vectors, scaled)
    given, form, turned = jax.lax.stop_gradient((scaled, T, Q))
    if vectors:
        residual, departure = schur_residual(given, turned, form), orthogonality(turned)
    else:
        residual = invariant_residual(given, form)
        departure = jnp.full_like(residual, jnp.nan)
    converged = jnp.all(jnp.isfinite(T), axis=(-2, -1))
    T = T * scale[..., None, None]
    fits = jnp.all(jnp.isfinite(T), axis=(-2, -1))
    status = jnp.select(
        [~finite, ~converged, ~fits],
        [jnp.int32(Status.NONFINITE_INPUT), jnp.int32(Status.NOT_CONVERGED), jnp.int32(Status.OVERFLOW)],
        jnp.int32(Status.OK),
    )
    ok = status == Status.OK
    return SchurResult(
        T=jnp.where(ok[..., None, None], T, jnp.nan),
        Q=jnp.where(ok[..., None, None], Q, jnp.nan),
        residual=jnp.where(ok, residual, jnp.nan),
        orthogonality=jnp.where(ok, departure, jnp.nan),
        robust=(jax.lax.stop_gradient(robust) > 0) & ok,
        status=status,
        implementation=implementation,
    )
