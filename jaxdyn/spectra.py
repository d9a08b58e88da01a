"""Stage 4 of 7: Jacobians to spectra.

`decompose` takes each matrix to its Schur form once; eigenvalues, eigenvectors, condition numbers, Henrici's departure
and interventions all come from that one form, and `shifted` turns the spectrum of J into that of J - s I (a block and
its update) without another. Singular values are the only second decomposition. Each result carries its scaled residual,
its orthogonality and a status per matrix (methods.md 1.3, E1).
"""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, no_type_check

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxdyn_kernels.dispatch import case_of, choose, platform_of, run, square_matrices
from jaxdyn_kernels.eig.from_schur import eigenvalues_from_schur, eigenvectors_from_schur
from jaxdyn_kernels.product import matmul
from jaxdyn_kernels.scaling import adjoint, frobenius_norm, to_order_one
from jaxdyn_kernels.schur.api import SchurResult, certified_schur
from jaxdyn_kernels.singular.api import scaled_singular_values
from jaxdyn_kernels.status import Status
from jaxdyn_kernels.threads import one_at_a_time
from jaxtyping import Array, Complex, Float, Inexact, Int


@no_type_check  # JAX rebuilds it around placeholders, which are no arrays
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Spectrum:
    """The spectrum of a batch of matrices J = Q T Q^H = U diag(s) V^H, with its evidence.

    Attributes
    ----------
    eigenvalues : complex [..., n]
        In the order of the Schur form; of a pair the one with positive imaginary part first, exact conjugates.
    T, Q : [..., n, n], dtype of J
        Schur form (real J: quasi-triangular with standard 2 x 2 blocks) and Schur vectors in columns.
    singular_values : real [..., n]
        Descending.
    U, Vh : [..., n, n], dtype of J, or None
        Left singular vectors in columns and right ones, conjugated, in rows; None unless asked for.
    right, left : complex [..., n, n], or None
        Unit eigenvectors in columns, J x = lambda x and y^H J = lambda y^H; None unless asked for.
    condition : real [..., n], or None
        Condition numbers of the eigenvalues 1 / abs(y^H x), 1 for a normal matrix; None without eigenvectors.
    residual : real [...]
        norm(J Q - Q T)_F / (n eps norm(J)_F).
    orthogonality : real [...]
        norm(Q^H Q - I)_F / (n eps).
    status : int32 [...]
        A `jaxdyn_kernels.Status` per matrix; where it is not OK every number of that matrix is NaN.
    implementation : str
        The implementation of the Schur form that ran.
    device : str
        Platform on which it ran and where the arrays are: "cpu", "cuda", ...
    """

    eigenvalues: Complex[Array, "*batch n"]
    T: Inexact[Array, "*batch n n"]
    Q: Inexact[Array, "*batch n n"]
    singular_values: Float[Array, "*batch n"]
    U: Inexact[Array, "*batch n n"] | None
    Vh: Inexact[Array, "*batch n n"] | None
    right: Complex[Array, "*batch n n"] | None
    left: Complex[Array, "*batch n n"] | None
    condition: Float[Array, "*batch n"] | None
    residual: Float[Array, "*batch"]
    orthogonality: Float[Array, "*batch"]
    status: Int[Array, "*batch"]
    implementation: str = field(metadata={"static": True})
    device: str = field(metadata={"static": True})


def decompose(
    J: ArrayLike, *, vectors: bool = False, singular_vectors: bool = False, implementation: str | None = None
) -> Spectrum:
    """Eigenvalues, Schur form and singular values of each matrix of a batch: J = Q T Q^H, J = U diag(s) V^H.

    Call it eagerly between jitted stages where you can: on a CPU a concrete batch is spread over the cores with one
    BLAS thread a matrix, while inside a jit the matrices are taken one after another.

    Parameters
    ----------
    J : real or complex [..., n, n], float32, float64, complex64 or complex128
        The matrices, for example Jacobians (sample, d, d), in any unit.
    vectors : bool
        Also right and left eigenvectors and the condition numbers of the eigenvalues, from the same Schur form.
    singular_vectors : bool
        Also the singular vectors.
    implementation : str, optional
        Force one of ``jaxdyn_kernels.implementations("schur")``; by default the platform of the array decides. With
        "lapack" a concrete array of an accelerator is copied to the host, and the result stays there: `device` says
        so.

    Returns
    -------
    Spectrum
        A pytree. NaN or infinite input, an iteration without convergence and an overflow give that matrix a status
        and NaN values; the others are not affected.

    Raises
    ------
    ValueError
        For a dtype or shape that is not allowed, or an unknown implementation.
    NotImplementedError
        Where the array's platform has no Schur form and no implementation is forced.

    Notes
    -----
    About 25 n^3 operations for the Schur form, 3 n^3 for singular values (20 n^3 with vectors), 8 n^3 for
    eigenvectors, a matrix; memory 2 n^2 numbers of the result and as much again while one matrix is at work.
    """
    J = square_matrices("decompose", "J", J)
    platform = platform_of(J)
    chosen = choose("schur", platform, implementation, case=case_of(J))
    device = "cpu" if chosen.platforms == ("cpu",) else platform
    return run(_decompose, J, chosen, vectors=vectors, singular_vectors=singular_vectors, device=device)


def singular_values(J: ArrayLike) -> Float[Array, "*batch n"]:
    """Singular values alone of each matrix of a batch, descending.

    Parameters
    ----------
    J : real or complex [..., n, n], float32, float64, complex64 or complex128
        The matrices, in any unit.

    Returns
    -------
    real [..., n]
        NaN for a matrix that is not finite or did not converge; the others are not affected. A concrete batch on a
        CPU is spread over the cores, as in `decompose`.

    Notes
    -----
    About 3 n^3 operations a matrix.
    """
    J = square_matrices("singular_values", "J", J)
    platform = platform_of(J)
    return run(_singular_alone, J, choose("schur", platform), device=platform)


def svd(J: ArrayLike) -> tuple[Inexact[Array, "*batch n n"], Float[Array, "*batch n"], Inexact[Array, "*batch n n"]]:
    """Singular value decomposition alone of each matrix of a batch, J = U diag(s) V^H.

    Parameters
    ----------
    J : real or complex [..., n, n], float32, float64, complex64 or complex128
        The matrices, in any unit.

    Returns
    -------
    U [..., n, n], s [..., n] descending, V^H [..., n, n]; NaN as in `singular_values`.

    Notes
    -----
    About 20 n^3 operations a matrix.
    """
    J = square_matrices("svd", "J", J)
    platform = platform_of(J)
    return run(_svd_alone, J, choose("schur", platform), device=platform)


def shifted(spectrum: Spectrum, shift: float) -> Spectrum:
    """Spectrum of J - shift I from that of J: same Schur vectors and eigenvectors, T and eigenvalues shifted.

    Only the singular values (and vectors, where `spectrum` has them) are computed anew, from T - shift I.

    Parameters
    ----------
    spectrum : Spectrum
        That of J.
    shift : float
        Real number; 1 takes a block to its update J - I, -1 an update to its block.

    Returns
    -------
    Spectrum
        With `residual` in units of the shifted matrix, norm(J - shift I)_F: going from J to a small update J - I it
        grows by norm(J)/norm(J - I), as rounding in J then weighs more. Decompose the update and shift by -1 where
        both are wanted and the update is known without that cancellation.

    Notes
    -----
    Eigenvectors and condition numbers do not change (methods.md 1.2, item 5). The Schur form is not computed again.
    """
    n = spectrum.T.shape[-1]
    eye = jnp.eye(n, dtype=spectrum.T.dtype)
    T = spectrum.T - shift * eye
    before, after = frobenius_norm(spectrum.T), frobenius_norm(T)
    absolute = spectrum.residual * before
    chosen = choose("schur", spectrum.device, spectrum.implementation)
    keep = spectrum.U is not None
    s, U, Vh, failure = run(_singular, T, chosen, vectors=keep, device=spectrum.device)
    status = jnp.where(spectrum.status == Status.OK, failure, spectrum.status)
    result = replace(
        spectrum,
        eigenvalues=spectrum.eigenvalues - shift,
        T=T,
        singular_values=s,
        U=None if U is None else matmul(spectrum.Q, U),
        Vh=None if Vh is None else matmul(Vh, adjoint(spectrum.Q)),
        residual=jnp.where(absolute == 0, 0, absolute / after),
        status=status,
    )
    return _nan_where_failed(result)


def _decompose(
    J: Inexact[Array, "*batch n n"], *, vectors: bool, singular_vectors: bool, implementation: str, device: str
) -> Spectrum:
    """Trace `decompose` with every choice made."""
    form = certified_schur(J, implementation=implementation)
    return complete(J, form, vectors=vectors, singular_vectors=singular_vectors, device=device)


def complete(
    J: Inexact[Array, "*batch n n"],
    form: SchurResult,
    *,
    vectors: bool,
    singular_vectors: bool,
    device: str,
    singular: str | None = None,
) -> Spectrum:
    """Everything else of `decompose`, from a Schur form of J that is there already.

    Parameters
    ----------
    J : real or complex [..., n, n]
        The matrices.
    form : jaxdyn_kernels.SchurResult
        Their Schur form.
    vectors, singular_vectors : bool
        As for `decompose`.
    device : str
        Platform on which it runs: on "cpu" the singular values are taken one matrix after another.
    singular : str, optional
        What computes singular values without vectors, of ``jaxdyn_kernels.implementations("singular_values")``; by
        default what suits `device`.

    Returns
    -------
    Spectrum
        As `decompose`.
    """
    s, U, Vh, failure = _singular(
        J, vectors=singular_vectors, implementation=form.implementation, device=device, singular=singular
    )
    status = jnp.where(form.status == Status.OK, failure, form.status)
    right = left = condition = None
    if vectors:
        # Failed matrices are NaN: an identity keeps the back-substitution finite, NaN is written last.
        eye = jnp.eye(J.shape[-1], dtype=J.dtype)
        ok = (status == Status.OK)[..., None, None]
        right, left, condition = eigenvectors_from_schur(jnp.where(ok, form.T, eye), jnp.where(ok, form.Q, eye))
    return _nan_where_failed(
        Spectrum(
            eigenvalues=eigenvalues_from_schur(form.T),
            T=form.T,
            Q=form.Q,
            singular_values=s,
            U=U,
            Vh=Vh,
            right=right,
            left=left,
            condition=condition,
            residual=form.residual,
            orthogonality=form.orthogonality,
            status=status,
            implementation=form.implementation,
            device=device,
        )
    )


def _singular(
    M: Inexact[Array, "*batch n n"],
    *,
    vectors: bool,
    implementation: str,
    device: str,
    singular: str | None = None,
):
    """Singular values, vectors or None, and a status for the failures of this decomposition alone."""
    del implementation  # that of the Schur form
    finite = jnp.all(jnp.isfinite(M), axis=(-2, -1))
    safe = jnp.where(finite[..., None, None], M, 0)
    safe, scale = to_order_one(safe)
    chosen = singular or choose("singular_values", device).name
    one: Any = _svd_with_vectors if vectors else partial(_svd_values, chosen)
    # On the host a batched LAPACK call can wait for ever (jaxdyn_kernels.threads): one matrix after another there.
    svd = one_at_a_time(one) if device == "cpu" else one
    for _ in range(M.ndim - 2):
        svd = jax.vmap(svd)
    U, s, Vh = svd(safe)
    s = s * scale[..., None]
    failure = jnp.where(jnp.any(jnp.isnan(s), axis=-1), jnp.int32(Status.NOT_CONVERGED), jnp.int32(Status.OK))
    failure = jnp.where(jnp.any(jnp.isinf(s), axis=-1), jnp.int32(Status.OVERFLOW), failure)
    return s, U, Vh, jnp.where(finite, failure, jnp.int32(Status.NONFINITE_INPUT))


def _singular_alone(J: Inexact[Array, "*batch n n"], *, implementation: str, device: str):
    s, _, _, failure = _singular(J, vectors=False, implementation=implementation, device=device)
    return jnp.where((failure == Status.OK)[..., None], s, jnp.nan)


def _svd_alone(J: Inexact[Array, "*batch n n"], *, implementation: str, device: str):
    s, U, Vh, failure = _singular(J, vectors=True, implementation=implementation, device=device)
    ok = failure == Status.OK
    return tuple(jnp.where(ok[(...,) + (None,) * (leaf.ndim - ok.ndim)], leaf, jnp.nan) for leaf in (U, s, Vh))


def _svd_values(chosen: str, M: Inexact[Array, "n n"]):
    return None, scaled_singular_values(M, implementation=chosen), None


def _svd_with_vectors(M: Inexact[Array, "n n"]):
    U, s, Vh = jnp.linalg.svd(M)
    return U, s, Vh


def _nan_where_failed(spectrum: Spectrum) -> Spectrum:
    """Write NaN into every number of a matrix whose status is not OK."""
    ok = spectrum.status == Status.OK

    def write(x: Array) -> Array:
        return x if x.dtype == jnp.int32 else jnp.where(ok.reshape(ok.shape + (1,) * (x.ndim - ok.ndim)), x, jnp.nan)

    return jax.tree.map(write, spectrum)
