"""The Hessenberg form of a batch of matrices: checks, choice of implementation, exact scaling, certificate, status."""

from dataclasses import dataclass, field
from typing import no_type_check

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Inexact, Int

from ..certificate import orthogonality, schur_residual
from ..dispatch import case_of, choose, platform_of, run, square_matrices
from ..scaling import to_order_one
from ..status import Status


@no_type_check  # JAX rebuilds it around placeholders, which are no arrays
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class HessenbergResult:
    """A Hessenberg form A = Q H Q^H and its evidence.

    Attributes
    ----------
    H : [..., n, n], dtype of A
        Upper Hessenberg: exact zeros below the first subdiagonal.
    Q : [..., n, n], dtype of A
        Unitary (real orthogonal for real A), its first column that of the identity.
    residual : real [...]
        norm(A Q - Q H)_F / (n eps norm(A)_F), see `certificate.schur_residual`.
    orthogonality : real [...]
        norm(Q^H Q - I)_F / (n eps), see `certificate.orthogonality`.
    status : int32 [...]
        A `Status` per matrix; where it is not OK every number of that matrix is NaN.
    implementation : str
        The implementation that ran.
    """

    H: Inexact[Array, "*batch n n"]
    Q: Inexact[Array, "*batch n n"]
    residual: Float[Array, "*batch"]
    orthogonality: Float[Array, "*batch"]
    status: Int[Array, "*batch"]
    implementation: str = field(metadata={"static": True})


def hessenberg(A: ArrayLike, *, implementation: str | None = None) -> HessenbergResult:
    """Hessenberg form of each matrix of a batch: A = Q H Q^H.

    Parameters
    ----------
    A : real or complex [..., n, n], float32, float64, complex64 or complex128
        The matrices; see `schur` for scale, batches and traces.
    implementation : str, optional
        Force one of ``implementations("hessenberg")``; by default the platform of the array decides.

    Returns
    -------
    HessenbergResult
        A pytree. NaN or infinite input and an overflow of H give that matrix a status and NaN values; the other
        matrices of the batch are not affected.

    Raises
    ------
    ValueError
        For a dtype or shape that is not allowed, or an unknown implementation.

    Notes
    -----
    14/3 n^3 operations a matrix, of which 2/3 n^3 are products of a matrix and a vector and the rest products of
    matrices; the certificate adds 6 n^3. Golub and Van Loan, Matrix Computations, 4th edition, section 7.4.
    """
    A = square_matrices("hessenberg", "A", A)
    chosen = choose("hessenberg", platform_of(A), implementation, case=case_of(A))
    return run(_certified, A, chosen)


def _certified(A: Inexact[Array, "*batch n n"], *, implementation: str) -> HessenbergResult:
    finite = jnp.all(jnp.isfinite(A), axis=(-2, -1))
    scaled, scale = to_order_one(jnp.where(finite[..., None, None], A, 0))
    H, Q = choose("hessenberg", "", implementation).load("hessenberg")(scaled)
    residual, departure = schur_residual(scaled, Q, H), orthogonality(Q)
    H = H * scale[..., None, None]
    fits = jnp.all(jnp.isfinite(H), axis=(-2, -1))
    status = jnp.select([~finite, ~fits], [jnp.int32(Status.NONFINITE_INPUT), jnp.int32(Status.OVERFLOW)], Status.OK)
    ok = status == Status.OK
    return HessenbergResult(
        H=jnp.where(ok[..., None, None], H, jnp.nan),
        Q=jnp.where(ok[..., None, None], Q, jnp.nan),
        residual=jnp.where(ok, residual, jnp.nan),
        orthogonality=jnp.where(ok, departure, jnp.nan),
        status=status.astype(jnp.int32),
        implementation=implementation,
    )
