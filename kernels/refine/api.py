"""Refinement of a Schur form: checks, choice of the residual's precision, certificate, and the robust way out."""

from dataclasses import dataclass, field
from functools import partial
from typing import Literal, NamedTuple, no_type_check

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Inexact, Int

from ..batching import over_flat_batch
from ..certificate import orthogonality, schur_residual
from ..dispatch import choose, concrete, jitted, platform_of, require_type, square_matrices
from ..scaling import frobenius_norm, scale_of
from ..schur.api import certified_schur
from ..schur.standard import standardize
from ..status import Status
from .arithmetic import DoubleSingle, Pair, Wide
from .newton import block_triangular
from .newton import refine as newton

RESIDUALS = ("working", "float64", "double-single")
"""Precisions that `refine` takes its residual in."""

ACCEPTED = 20.0
"""Residual and orthogonality, in units of n eps, up to which a form counts as refined (LAPACK's own threshold)."""

Residual = Literal["working", "float64", "double-single"]


@no_type_check  # JAX rebuilds it around placeholders, which are no arrays
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RefineResult:
    """A refined Schur form A = Q T Q^H and its evidence.

    Attributes
    ----------
    T, Q : [..., n, n]
        As of `SchurResult`, in the working type, or in float64 (complex128) for residual="float64".
    T_low, Q_low : [..., n, n], or None
        For residual="double-single" what has to be added to T and Q: the form is (T + T_low, Q + Q_low).
    residual : real [...]
        norm(A Q - Q T)_F / (n eps norm(A)_F), with the pairs' sums for double-single.
    orthogonality : real [...]
        norm(Q^H Q - I)_F / (n eps).
    steps : int32 [...]
        Newton steps that were taken.
    converged : bool [...]
        Whether residual and orthogonality are at most 20, LAPACK's own threshold. A form that is not converged is the
        best that was found, with finite numbers.
    robust : bool [...]
        Whether the steps did not get there and the matrix was decomposed anew in the type of the result, by
        `implementation`; never for double-single, which has no such type.
    status : int32 [...]
        A `Status` per matrix; where it is not OK every number of that matrix is NaN.
    eps : float
        Spacing of the result's numbers: 2^-47 for double-single.
    implementation : str
        The implementation of `schur` that robust matrices take.
    """

    T: Inexact[Array, "*batch n n"]
    Q: Inexact[Array, "*batch n n"]
    T_low: Inexact[Array, "*batch n n"] | None
    Q_low: Inexact[Array, "*batch n n"] | None
    residual: Float[Array, "*batch"]
    orthogonality: Float[Array, "*batch"]
    steps: Int[Array, "*batch"]
    converged: Bool[Array, "*batch"]
    robust: Bool[Array, "*batch"]
    status: Int[Array, "*batch"]
    eps: float = field(metadata={"static": True})
    implementation: str = field(metadata={"static": True})


def refine(
    A: ArrayLike,
    Q: ArrayLike,
    T: ArrayLike,
    *,
    residual: Residual = "working",
    steps: int = 4,
    implementation: str | None = None,
) -> RefineResult:
    """Refine a Schur form A = Q T Q^H by Newton steps whose residual is taken in a chosen precision.

    Parameters
    ----------
    A, Q, T : real or complex [..., n, n], of one dtype
        The matrices and a Schur form of them, as `schur` returns it, from any implementation: a backward error of
        1e-3 is a good start, one of norm(A) is none (the result then says robust, or not converged).
    residual : "working", "float64" or "double-single"
        Precision of A Q - Q T and Q^H Q - I, and of the result. "working" is the input's own: what is left is the
        rounding of a few products. "float64" returns float64 (complex128) and needs x64 mode. "double-single"
        takes float32 or complex64, also where float64 does not exist, and returns T + T_low and Q + Q_low.
    steps : int
        Newton steps at most; each squares the error until rounding, so two or three are taken.
    implementation : str, optional
        Force one of ``implementations("schur")`` for the matrices that have to be decomposed anew.

    Returns
    -------
    RefineResult
        A pytree. Failures per matrix as for `schur`.

    Raises
    ------
    ValueError
        For dtypes or shapes that do not agree, an unknown `residual`, float64 without x64 mode, double-single of
        float64 input, or `steps` below one.

    Notes
    -----
    A step costs about 14 n^3 operations in products of the residual's type (a double-single product is 28 of float32 at
    n = 512), 16 n^3 real ones for the triangular equation, and 2 n sequential steps. Eigenvalues that lie closer than
    the remaining error cannot be told apart by small rotations; their coupling stays, and shows in the residual. Such a
    matrix is decomposed anew in the type of the result, inside the same program, and says so in `robust`.
    """
    A, Q, T = (jnp.asarray(square_matrices("refine", name, x)) for name, x in (("A", A), ("Q", Q), ("T", T)))
    if not (A.shape == Q.shape == T.shape and A.dtype == Q.dtype == T.dtype):
        found = ", ".join(f"{name} {x.dtype}{x.shape}" for name, x in (("A", A), ("Q", Q), ("T", T)))
        message = f"refine: got {found}; they have to agree: pass a matrix and its own Schur form"
        raise ValueError(message)
    if residual not in RESIDUALS:
        message = f"refine: residual={residual!r} is unknown: use one of {', '.join(map(repr, RESIDUALS))}"
        raise ValueError(message)
    if residual == "float64" and not jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]
        message = (
            "refine: residual='float64' needs float64, which is off: call jax.config.update('jax_enable_x64', True) "
            "first, or use residual='double-single'"
        )
        raise ValueError(message)
    if residual == "double-single" and A.dtype not in (jnp.float32, jnp.complex64):
        message = f"refine: residual='double-single' takes float32 or complex64, got {A.dtype}: use 'working'"
        raise ValueError(message)
    if steps < 1:
        message = f"refine: steps={steps}; allowed 1 or more"
        raise ValueError(message)
    require_type("refine", platform_of(A), "float64" if residual == "float64" else str(A.dtype))
    implementation = choose("schur", platform_of(A), implementation).name
    static = {"residual": residual, "steps": steps, "implementation": implementation}
    if concrete(A, Q, T):
        return jitted(certified_refine, tuple(static))(A, Q, T, **static)
    return certified_refine(A, Q, T, **static)


def certified_refine(
    A: Inexact[Array, "*batch n n"],
    Q: Inexact[Array, "*batch n n"],
    T: Inexact[Array, "*batch n n"],
    *,
    residual: Residual,
    steps: int,
    implementation: str,
) -> RefineResult:
    """Trace `refine` into a larger program."""
    work = partial(_flat, residual=residual, steps=steps, implementation=implementation)
    form, evidence = over_flat_batch(work, A, Q, T)
    T, Q, T_low, Q_low = form.T, form.Q, form.T_low, form.Q_low
    eps = DoubleSingle.eps if residual == "double-single" else float(jnp.finfo(T.dtype).eps)
    return RefineResult(T, Q, T_low, Q_low, *evidence, eps=eps, implementation=implementation)


class _Form(NamedTuple):
    T: Array
    Q: Array
    T_low: Array | None
    Q_low: Array | None


def _flat(A: Array, Q: Array, T: Array, *, residual: Residual, steps: int, implementation: str):
    finite = jnp.all(jnp.isfinite(A), axis=(-2, -1))
    usable = finite & jnp.all(jnp.isfinite(Q) & jnp.isfinite(T), axis=(-2, -1))
    eye = jnp.broadcast_to(jnp.eye(A.shape[-1], dtype=A.dtype), A.shape)
    A = jnp.where(finite[:, None, None], A, 0)
    Q, T = (jnp.where(usable[:, None, None], x, other) for x, other in ((Q, eye), (T, jnp.triu(A))))
    scale = scale_of(A)
    inverse = (1 / scale)[:, None, None]
    A, T = A * inverse, T * inverse
    if residual == "double-single":
        form, evidence, took = _double_single(A, Q, T, steps)
        robust = jnp.zeros(len(A), bool)
    else:
        form, evidence, took, robust = _wide(A, Q, T, usable, residual, steps, implementation)
    good = jnp.all(jnp.stack(evidence) <= ACCEPTED, axis=0)
    form = form._replace(
        T=form.T * scale[:, None, None].astype(form.T.real.dtype),
        T_low=None if form.T_low is None else form.T_low * scale[:, None, None],
    )
    whole = jnp.all(jnp.isfinite(form.T), axis=(-2, -1))
    known = usable | robust
    status = jnp.select(
        [~finite, ~known, ~whole],
        [jnp.int32(Status.NONFINITE_INPUT), jnp.int32(Status.NOT_CONVERGED), jnp.int32(Status.OVERFLOW)],
        jnp.int32(Status.OK),
    )
    ok = status == Status.OK
    form = jax.tree.map(lambda x: jnp.where(ok[:, None, None], x, jnp.nan), form)
    numbers = [jnp.where(ok, x, jnp.nan) for x in evidence]
    return form, (*numbers, took, good & ok, robust & ok, status)


def _wide(A: Array, Q: Array, T: Array, usable: Array, residual: Residual, steps: int, implementation: str):
    """Refine in one type, and decompose anew in it what did not get there."""
    double = jnp.complex128 if jnp.iscomplexobj(A) else jnp.float64
    arithmetic = Wide(A.dtype, double if residual == "float64" else A.dtype)
    state, paired = newton(A, Q, T, arithmetic, steps)
    Q, T = state.Q, block_triangular(state.F, paired)
    if not jnp.iscomplexobj(A):
        T, Q = standardize(T, Q)
    precise = arithmetic.lift(A)
    form = _Form(T, Q, None, None)
    evidence = schur_residual(precise, Q, T), orthogonality(Q)
    failed = ~(usable & (evidence[0] <= ACCEPTED) & (evidence[1] <= ACCEPTED))

    def anew(_):
        other = certified_schur(jnp.where(failed[:, None, None], precise, 0), implementation=implementation)
        took = failed & (other.status == Status.OK)
        pick = partial(jnp.where, took[:, None, None])
        found = _Form(pick(other.T, T), pick(other.Q, Q), None, None)
        numbers = zip((other.residual, other.orthogonality), evidence, strict=True)
        return found, tuple(jnp.where(took, x, y) for x, y in numbers), took

    form, evidence, robust = jax.lax.cond(jnp.any(failed), anew, lambda _: (form, evidence, failed), None)
    return form, evidence, state.steps, robust


def _double_single(A: Array, Q: Array, T: Array, steps: int):
    arithmetic = DoubleSingle()
    n = A.shape[-1]
    state, paired = newton(A, Q, T, arithmetic, steps)
    vectors: Pair = state.Q
    form: Pair = jax.tree.map(lambda part: block_triangular(part, paired), state.F)
    if not jnp.iscomplexobj(A):
        form = _equal_diagonals(form, paired)
    precise, product = arithmetic.lift(A), arithmetic.product
    difference = arithmetic.rounded(arithmetic.minus(product(precise, vectors), product(vectors, form)))
    eye = arithmetic.lift(jnp.broadcast_to(jnp.eye(n, dtype=A.dtype), A.shape))
    departure = arithmetic.rounded(arithmetic.minus(eye, product(arithmetic.adjoint(vectors), vectors)))
    unit, norm = max(n, 1) * arithmetic.eps, frobenius_norm(A)
    evidence = jnp.where(norm > 0, frobenius_norm(difference) / (unit * norm), 0), frobenius_norm(departure) / unit
    return _Form(form.hi, vectors.hi, form.lo, vectors.lo), evidence, state.steps


def _equal_diagonals(T: Pair, paired: Bool[Array, "B m"]) -> Pair:
    """Both diagonal entries of a 2 x 2 block are its first, from which the second differs by rounding."""
    i = jnp.arange(paired.shape[-1])

    def put(x):
        return x.at[:, i + 1, i + 1].set(jnp.where(paired, x[:, i, i], x[:, i + 1, i + 1]))

    return Pair(put(T.hi), put(T.lo))
