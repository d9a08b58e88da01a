"""Reordering of Schur forms: checks, keys, certificate and status."""

from dataclasses import dataclass, field
from typing import no_type_check

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Inexact, Int

from ..batching import over_flat_batch
from ..certificate import orthogonality, schur_residual
from ..dispatch import case_of, choose, concrete, jitted, platform_of, square_matrices
from ..product import matmul
from ..scaling import scale_of
from ..status import Status
from .swaps import by_key


@no_type_check  # JAX rebuilds it around placeholders, which are no arrays
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ReorderResult:
    """A Schur form with its eigenvalues in another order, and its evidence.

    Attributes
    ----------
    T, Q : [..., n, n]
        As of `SchurResult`: T (quasi-)triangular with standard blocks, and Q T Q^H what it was.
    source : int32 [..., n]
        Row of the given T that the eigenvalue of every row came from.
    residual : real [...]
        norm(T U - U T')_F / (n eps norm(T)_F) for the given T, the new T' and U = Q^H Q'.
    orthogonality : real [...]
        norm(U^H U - I)_F / (n eps), see `certificate.orthogonality`.
    converged : bool [...]
        Whether the order is the one that was asked for. False where eigenvalues are equal to rounding and cannot be
        swapped: T is a Schur form still, with these where they were.
    status : int32 [...]
        A `Status` per matrix; where it is not OK every number of that matrix is NaN.
    implementation : str
        The implementation that ran.
    """

    T: Inexact[Array, "*batch n n"]
    Q: Inexact[Array, "*batch n n"]
    source: Int[Array, "*batch n"]
    residual: Float[Array, "*batch"]
    orthogonality: Float[Array, "*batch"]
    converged: Bool[Array, "*batch"]
    status: Int[Array, "*batch"]
    implementation: str = field(metadata={"static": True})


def reorder(
    T: ArrayLike, Q: ArrayLike, *, select: ArrayLike | None = None, order: ArrayLike | None = None
) -> ReorderResult:
    """Sort the eigenvalues along the diagonal of Schur forms; Q T Q^H stays.

    Parameters
    ----------
    T, Q : real or complex [..., n, n], of one dtype
        Schur forms as `schur` returns them; the vectors of whatever basis T is in.
    select : bool [..., n], optional
        Eigenvalues, by rows of T, that go to the top; both parts keep their order. The first rows of Q then span their
        invariant subspace.
    order : real [..., n], optional
        Keys: eigenvalues are sorted by ascending key, equal keys keep their order. Exactly one of the two is given.
        A conjugate pair of a real form moves as one: it is selected if either row is, and has the smaller key.

    Returns
    -------
    ReorderResult
        A pytree. A form with NaN or infinite entries has a status of its own and NaN values.

    Raises
    ------
    ValueError
        For shapes or dtypes that do not agree, or unless exactly one of `select` and `order` is given.

    Notes
    -----
    At most n rounds, one after another, each of up to n / 2 swaps at once and of order 50 n^2 operations; eigenvalues
    move by rounding times their condition. `reorder/swaps.py` has the method.
    """
    T, Q = (jnp.asarray(square_matrices("reorder", name, x)) for name, x in (("T", T), ("Q", Q)))
    if T.shape != Q.shape or T.dtype != Q.dtype:
        message = (
            f"reorder: T is {T.dtype}{T.shape} and Q is {Q.dtype}{Q.shape}; they have to agree: pass one Schur form"
        )
        raise ValueError(message)
    if (select is None) == (order is None):
        given = "neither" if select is None else "both"
        message = f"reorder: got {given} of select and order; allowed is one: select=mask, or order=keys"
        raise ValueError(message)
    if order is None:
        key = ~jnp.asarray(select, bool)
    else:
        key = jnp.asarray(order)
    if key.shape != T.shape[:-1] or jnp.iscomplexobj(key):
        name = "select" if order is None else "order"
        message = f"reorder: {name} is {key.dtype}{key.shape}; allowed is one real number a row, shape {T.shape[:-1]}"
        raise ValueError(message)
    implementation = choose("reorder", platform_of(T), case=case_of(T)).name
    key = key.astype(jnp.finfo(T.dtype).dtype)
    if concrete(T, Q, key):
        return jitted(_certified, ("implementation",))(T, Q, key, implementation=implementation)
    return _certified(T, Q, key, implementation=implementation)


def _certified(T: Array, Q: Array, key: Array, *, implementation: str) -> ReorderResult:
    (form, vectors), source, evidence = over_flat_batch(_flat, T, Q, jnp.broadcast_to(key[..., None, :], T.shape))
    residual, departure, converged, status = evidence
    return ReorderResult(
        T=form,
        Q=vectors,
        source=source,
        residual=residual,
        orthogonality=departure,
        converged=converged,
        status=status,
        implementation=implementation,
    )


def _flat(T: Array, Q: Array, keys: Array):
    """Certified forms of a batch; the keys come as rows of a matrix."""
    key = keys[:, 0] if T.shape[-1] else keys.reshape(keys.shape[:2])
    finite = jnp.all(jnp.isfinite(T), axis=(1, 2)) & jnp.all(jnp.isfinite(Q), axis=(1, 2))
    finite = finite & ~jnp.any(jnp.isnan(key), axis=1)
    eye = jnp.eye(T.shape[-1], dtype=T.dtype)
    ok = finite[:, None, None]
    T, Q = jnp.where(ok, T, eye), jnp.where(ok, Q, eye)
    scale = scale_of(T)[:, None, None]
    given = T * (1 / scale)
    done = jax.vmap(by_key)(given, jnp.broadcast_to(eye, T.shape), jnp.where(finite[:, None], key, 0))
    residual, departure = schur_residual(given, done.Q, done.T), orthogonality(done.Q)
    converged = jnp.all(done.key[:, :-1] <= done.key[:, 1:], axis=1) & finite
    form = (jnp.where(ok, done.T * scale, jnp.nan), jnp.where(ok, matmul(Q, done.Q), jnp.nan))
    status = jnp.where(finite, jnp.int32(Status.OK), jnp.int32(Status.NONFINITE_INPUT))
    numbers = (jnp.where(finite, x, jnp.nan) for x in (residual, departure))
    return form, done.source.astype(jnp.int32), (*numbers, converged, status)
