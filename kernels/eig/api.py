"""Eigenvalues and eigenvectors of a batch of nonsymmetric matrices, all from one Schur form each."""

from dataclasses import dataclass, field
from typing import no_type_check

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Complex, Float, Inexact, Int

from ..balance import balance as balanced_by_powers
from ..certificate import eigenvector_residual
from ..dispatch import CUSOLVER, case_of, choose, platform_of, run, square_matrices
from ..scaling import adjoint, scale_of
from ..schur.api import certified_schur
from ..status import Status
from . import cusolver
from .from_schur import eigenvalues_from_schur, eigenvectors_from_schur, right_eigenvectors_from_schur


@no_type_check  # JAX rebuilds it around placeholders, which are no arrays
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class EigResult:
    """Eigenvalues, eigenvectors and their evidence.

    Attributes
    ----------
    eigenvalues : complex [..., n]
        In the order of the Schur form.
    right : complex [..., n, n]
        Unit right eigenvectors in columns: A x = lambda x.
    left : complex [..., n, n], or None
        Unit left eigenvectors in columns: y^H A = lambda y^H.
    condition : real [..., n], or None
        1 / abs(y^H x), the condition numbers of the eigenvalues; None without left vectors.
    residual : real [...]
        The largest norm(A x - lambda x)_2 / (n eps norm(A)_F) over all vectors, left ones included.
    robust : bool [...]
        Whether the Schur form, or a part of it, came from the robust method, as in `SchurResult`.
    status : int32 [...]
        A `Status` per matrix; where it is not OK every number of that matrix is NaN.
    implementation : str
        The implementation that ran: that of the Schur form, or "cusolver".
    """

    eigenvalues: Complex[Array, "*batch n"]
    right: Complex[Array, "*batch n n"]
    left: Complex[Array, "*batch n n"] | None
    condition: Float[Array, "*batch n"] | None
    residual: Float[Array, "*batch"]
    robust: Bool[Array, "*batch"]
    status: Int[Array, "*batch"]
    implementation: str = field(metadata={"static": True})


def eig(A: ArrayLike, *, left: bool = False, balance: bool = False, implementation: str | None = None) -> EigResult:
    """Eigenvalues and eigenvectors of each matrix of a batch: A x_k = lambda_k x_k, norm(x_k)_2 = 1.

    Parameters
    ----------
    A : real or complex [..., n, n], float32, float64, complex64 or complex128
        The matrices; see `schur` for scale, batches and traces.
    left : bool
        Also the left vectors, y_k^H A = lambda_k y_k^H, and the condition numbers 1 / abs(y_k^H x_k).
    balance : bool
        Balance the matrix first (`balance.py`): for entries of very different scale, where small eigenvalues then come
        out with small relative errors. The residual is relative to norm(A)_F still, and may be larger for it.
    implementation : str, optional
        Force one of ``implementations("eig")``: the implementations of the Schur form, and "cusolver" on CUDA (right
        vectors only, no derivatives; it takes the matrices one after another).

    Returns
    -------
    EigResult
        A pytree; failures per matrix as for `schur`. A defective matrix is no failure: its vectors coincide to
        rounding and its condition numbers are about 1/eps or more.

    Raises
    ------
    ValueError, NotImplementedError
        As `schur`; ValueError for left vectors by "cusolver", which has none.

    Notes
    -----
    One Schur form (25 n^3 operations) and 4 n^3 operations of back-substitution for each side.
    """
    A = square_matrices("eig", "A", A)
    chosen = choose("eig", platform_of(A), implementation, case=case_of(A, left=left))
    if chosen == CUSOLVER and left:
        message = "eig: implementation='cusolver' has no left vectors: use implementation='xla', or left=False"
        raise ValueError(message)
    return run(_eig, A, chosen, left=left, balance=balance)


def eigvals(A: ArrayLike, *, balance: bool = False, implementation: str | None = None) -> Complex[Array, "*batch n"]:
    """Eigenvalues of each matrix of a batch, in the order of the Schur form.

    Parameters
    ----------
    A : real or complex [..., n, n], float32, float64, complex64 or complex128
        The matrices; see `schur` for scale, batches and traces.
    balance : bool
        Balance the matrix first, as for `eig`.
    implementation : str, optional
        Force one of ``implementations("eigvals")``, as for `eig`.

    Returns
    -------
    complex [..., n]
        NaN for a matrix whose decomposition failed; `schur` or `eig` tell why.

    Raises
    ------
    ValueError, NotImplementedError
        As `schur`.
    """
    A = square_matrices("eigvals", "A", A)
    chosen = choose("eigvals", platform_of(A), implementation, case=case_of(A))
    return run(_eigvals, A, chosen, balance=balance)


def _eig(A: Inexact[Array, "*batch n n"], *, left: bool, balance: bool, implementation: str) -> EigResult:
    balanced, scale = _balanced(A) if balance else (A, None)
    if implementation == CUSOLVER.name:
        return _by_cusolver(A, balanced, scale)
    form = certified_schur(balanced, implementation=implementation)
    # Where it failed T is NaN: an identity keeps the arithmetic finite, NaN is written last.
    ok = form.status == Status.OK
    eye = jnp.eye(A.shape[-1], dtype=A.dtype)
    keep = ok[..., None, None]
    T, Q, A = jnp.where(keep, form.T, eye), jnp.where(keep, form.Q, eye), jnp.where(keep, A, eye)
    values = eigenvalues_from_schur(T)
    if left:
        right, left_vectors, condition = eigenvectors_from_schur(T, Q)
        if scale is not None:
            right, grown = _rescaled(right, scale)
            left_vectors, shrunk = _rescaled(left_vectors, 1 / scale)
            condition = jnp.maximum(condition * grown * shrunk, 1)
        residual = jnp.maximum(
            eigenvector_residual(A, values, right),
            eigenvector_residual(adjoint(A), jnp.conj(values), left_vectors),
        )
    else:
        right, left_vectors, condition = right_eigenvectors_from_schur(T, Q), None, None
        if scale is not None:
            right, _ = _rescaled(right, scale)
        residual = eigenvector_residual(A, values, right)

    def or_nan(x):
        return None if x is None else jnp.where(ok.reshape(ok.shape + (1,) * (x.ndim - ok.ndim)), x, jnp.nan)

    return EigResult(
        eigenvalues=jnp.where(ok[..., None], values, jnp.nan),
        right=jnp.where(keep, right, jnp.nan),
        left=or_nan(left_vectors),
        condition=or_nan(condition),
        residual=jnp.where(ok, residual, jnp.nan),
        robust=form.robust,
        status=form.status,
        implementation=implementation,
    )


def _by_cusolver(A, balanced, scale) -> EigResult:
    """Eigenvalues and right vectors by cuSOLVER, with the same certificate."""
    finite = jnp.all(jnp.isfinite(A), axis=(-2, -1))
    unit = scale_of(jnp.where(finite[..., None, None], balanced, 0))
    values, right = cusolver.eig(jnp.where(finite[..., None, None], balanced, 0) * (1 / unit)[..., None, None])
    if scale is not None:
        right, _ = _rescaled(right, scale)
    converged = jnp.all(jnp.isfinite(values), axis=-1) & jnp.all(jnp.isfinite(right), axis=(-2, -1))
    values = values * unit[..., None]
    residual = eigenvector_residual(jnp.where(finite[..., None, None], A, 0), values, right)
    fits = jnp.all(jnp.isfinite(values), axis=-1)
    status = jnp.select(
        [~finite, ~converged, ~fits],
        [jnp.int32(Status.NONFINITE_INPUT), jnp.int32(Status.NOT_CONVERGED), jnp.int32(Status.OVERFLOW)],
        jnp.int32(Status.OK),
    )
    ok = status == Status.OK
    return EigResult(
        eigenvalues=jnp.where(ok[..., None], values, jnp.nan),
        right=jnp.where(ok[..., None, None], right, jnp.nan),
        left=None,
        condition=None,
        residual=jnp.where(ok, residual, jnp.nan),
        robust=jnp.zeros(ok.shape, bool),
        status=status,
        implementation=CUSOLVER.name,
    )


def _eigvals(A: Inexact[Array, "*batch n n"], *, balance: bool, implementation: str) -> Complex[Array, "*batch n"]:
    balanced = _balanced(A)[0] if balance else A
    if implementation == CUSOLVER.name:
        return _by_cusolver(A, balanced, None).eigenvalues
    return eigenvalues_from_schur(certified_schur(balanced, vectors=False, implementation=implementation).T)


def _balanced(A: Inexact[Array, "*batch n n"]) -> tuple[Inexact[Array, "*batch n n"], Float[Array, "*batch n"]]:
    """Balanced matrices and the scales of their columns; one with NaN or infinity comes back with them."""
    finite = jnp.all(jnp.isfinite(A), axis=(-2, -1), keepdims=True)
    unit = scale_of(jnp.where(finite, A, 0))[..., None, None]
    balanced, scale = balanced_by_powers(jnp.where(finite, A, 0) * (1 / unit))
    return jnp.where(finite, balanced * unit, A), scale


def _rescaled(V: Complex[Array, "*batch n n"], scale: Float[Array, "*batch n"]):
    """Rows times scale, columns of norm one again, and what their norms had become."""
    grown = V * scale[..., None]
    norms = jnp.sqrt(jnp.sum(jnp.square(grown.real) + jnp.square(grown.imag), axis=-2))
    return grown / norms[..., None, :], norms
