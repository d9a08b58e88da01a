"""Stage 5 of 7: the product of the blocks' Jacobians along depth, and what is left of its rank (1.4).

The singular values of M_l = J_l ... J_1 spread over more orders of magnitude than a float holds, and a plain product
loses all but the largest. Here M is carried as U D T: U orthonormal, D = exp(log_scale) a descending diagonal kept as
logarithms, T well conditioned. One step multiplies U by the next Jacobian, sorts the columns by their scaled norms and
takes a QR (pre-pivoted QR). A step is a pure function of (state, Jacobian): layers can be streamed, or scanned under
jit.
"""

import math
from typing import Literal, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxdyn_kernels.over_cores import over_cores
from jaxdyn_kernels.threads import one_at_a_time_on_the_host
from jaxtyping import Array, Float, Inexact, Int

from .errors import InputError
from .measures.graded import graded_singular_values

HIGHEST = lax.Precision.HIGHEST
ROUNDING = 4
"""Rounding of a product and a QR in units of eps norm(J)_F, with a margin: at most 0.4 measured against 60 digits."""


class Product(NamedTuple):
    """A product of matrices in graded form, left diag(exp(log_scale)) right; a pytree, usable as a scan carry.

    Attributes
    ----------
    left : (..., n, r), orthonormal columns.
    log_scale : (..., r), natural logarithms, nearly descending; -inf for a direction that was lost exactly.
    right : (..., r, n), well conditioned.
    error : (..., r), first-order estimate of the relative error of each singular value from rounding in the steps.
    factors : number of factors so far.
    """

    left: Inexact[Array, "*batch n r"]
    log_scale: Float[Array, "*batch r"]
    right: Inexact[Array, "*batch r n"]
    error: Float[Array, "*batch r"]
    factors: Int[Array, ""]


def start(factor: Inexact[Array, "*batch n n"], *, rank: int | None = None) -> Product:
    """Return the product of one factor, J_1, cut to its `rank` leading singular directions where that is given.

    Parameters
    ----------
    factor : (..., n, n), real or complex; all factors of one dtype.
    rank : how many singular directions to keep; default all. A product cut once keeps that rank, so that cutting after
        every step, as the source paper does at 512, is the same as cutting here and never truncates a rank above it.

    Returns
    -------
    Product of one factor. NaN in a matrix stays in that matrix. Cost: as `step`, and an SVD where a rank is given.

    Raises
    ------
    InputError : rank outside 1..n.
    """
    n, dtype = factor.shape[-1], factor.dtype
    eye = jnp.broadcast_to(jnp.eye(n, dtype=dtype), factor.shape)
    nothing = jnp.zeros(factor.shape[:-1], dtype=jnp.finfo(dtype).dtype)
    product = step(Product(eye, nothing, eye, nothing, jnp.zeros((), dtype=jnp.int32)), factor)
    return product if rank is None else truncate(product, rank)


def step(product: Product, factor: Inexact[Array, "*batch n n"]) -> Product:
    """Multiply by one more factor from the left, M <- J M.

    Parameters
    ----------
    product : the state so far.
    factor : (..., n, n), J.

    Returns
    -------
    The next state, of the same shapes and dtype. Cost: a product, a QR and two triangular products of n x r, about
    9 n^3 flops for r = n.

    References
    ----------
    1.4; A. Tomas, C.-C. Chang, R. Scalettar and Z. Bai, "Advancing large scale many-body QMC simulations", 2012.
    """
    moved = jnp.matmul(factor, product.left, precision=HIGHEST)
    order = jnp.argsort(-(jnp.log(jnp.linalg.norm(moved, axis=-2)) + product.log_scale), axis=-1)
    moved = jnp.take_along_axis(moved, order[..., None, :], axis=-1)
    scale = jnp.take_along_axis(product.log_scale, order, axis=-1)
    right = jnp.take_along_axis(product.right, order[..., :, None], axis=-2)
    left, triangle = _qr(moved)
    log_scale, unit = _balance(triangle, scale)
    local = ROUNDING * float(jnp.finfo(factor.dtype).eps) * _sensitivity(triangle)
    error = jnp.take_along_axis(product.error, order, axis=-1) + local
    return Product(left, log_scale, jnp.matmul(unit, right, precision=HIGHEST), error, product.factors + 1)


def truncate(product: Product, rank: int) -> Product:
    """Keep the `rank` leading singular directions of the product (the source paper keeps 512).

    Raises
    ------
    InputError : rank outside 1..r.
    """
    kept = product.log_scale.shape[-1]
    if not 1 <= rank <= kept:
        msg = f"rank: got {rank}; allowed: 1 to {kept}, the rank of the product; leave it out to keep all directions"
        raise InputError(msg)
    scaled, top = _scaled(product.log_scale, product.right)
    u, s, vh = _svd(scaled)
    left = jnp.matmul(product.left, u[..., :, :rank], precision=HIGHEST)
    order = jnp.argsort(-product.log_scale, axis=-1)[..., :rank]
    error = jnp.max(jnp.take_along_axis(product.error, order, axis=-1), axis=-1, keepdims=True)
    error = jnp.broadcast_to(error, order.shape)
    return product._replace(left=left, log_scale=jnp.log(s[..., :rank]) + top, right=vh[..., :rank, :], error=error)


def log_singular_values(product: Product, *, method: Literal["svd", "jacobi"] = "svd") -> Float[Array, "*batch r"]:
    """Natural logarithms of the singular values of the product, descending.

    Parameters
    ----------
    product : the graded product.
    method : "svd" scales by the largest one and is right for those above eps times the largest (all that a rank measure
        sees); "jacobi" keeps the relative accuracy of the small ones however far they reach, at several times the cost.

    Returns
    -------
    (..., r); -inf for zero, NaN where the product has NaN or Jacobi did not converge. Cost: one singular value problem
    of r x r and one QR; Jacobi: 5 to 9 sweeps of 6 r^3 flops in r - 1 dependent steps each.

    Raises
    ------
    InputError : another method.
    """
    if method not in ("svd", "jacobi"):
        msg = f"method: got {method!r}; allowed: 'svd', 'jacobi'"
        raise InputError(msg)
    log_scale, unit = _core(product)
    if method == "jacobi":
        return graded_singular_values(unit, log_scale)[0]
    failed = jnp.any(jnp.isnan(unit), axis=(-2, -1)) | jnp.any(jnp.isnan(log_scale), axis=-1)
    scaled, top = _scaled(log_scale, unit)
    values = _singular_values(jnp.where(failed[..., None, None], 0, scaled))
    return jnp.where(failed[..., None], jnp.nan, jnp.log(values) + top)


def digits(product: Product, log_values: Float[Array, "*batch r"], *, method: str = "svd") -> Float[Array, "*batch r"]:
    """Decimal digits kept in each singular value of the product.

    digits_i = -log10(error_i), for "svd" at most log10(s_i / (n eps s_1)); never below 0

    Parameters
    ----------
    product : the graded product, whose `error` holds the rounding of its steps.
    log_values : (..., r), from `log_singular_values` by the same method.
    method : the method that gave them.

    Returns
    -------
    (..., r), decimal digits. The factors' own errors are not known here: float32 Jacobians carry theirs.
    """
    eps, rank = float(jnp.finfo(log_values.dtype).eps), log_values.shape[-1]
    kept = -jnp.log10(product.error + eps)
    if method == "svd":
        kept = jnp.minimum(kept, (log_values - log_values[..., :1]) / math.log(10) - math.log10(rank * eps))
    return jnp.maximum(kept, 0)


def stretching_rates(
    product: Product, *, method: Literal["svd", "jacobi"] = "jacobi", least_digits: float = 1.0
) -> tuple[Float[Array, "*batch r"], Float[Array, "*batch r"]]:
    """Finite-time stretching rates log(s_i) / L of a product of L factors, with the digits kept in each s_i.

    They are finite-depth quantities of one path, not Lyapunov exponents: there is no limit of infinite depth.

    Parameters
    ----------
    product : the graded product of L factors.
    method : as in `log_singular_values`; Jacobi by default, since the small ones are asked for.
    least_digits : rates whose singular value keeps fewer decimal digits are NaN.

    Returns
    -------
    rates (..., r), nats a layer, descending; digits (..., r), decimal.

    References
    ----------
    1.4, 1.8 (state the digits kept).
    """
    values = log_singular_values(product, method=method)
    kept = digits(product, values, method=method)
    return jnp.where(kept >= least_digits, values / product.factors, jnp.nan), kept


def cumulative(
    factors: Inexact[Array, "L ... n n"],
    *,
    rank: int | None = None,
    method: Literal["svd", "jacobi"] = "svd",
) -> tuple[Product, Float[Array, "L ... r"]]:
    """Follow the whole curve: singular values of the running product after each of L factors.

    Parameters
    ----------
    factors : (L, ..., n, n), first layer first.
    rank : as in `start`.
    method : as in `log_singular_values`.

    Returns
    -------
    The final product, and the log singular values (L, ..., r) after each factor, for `measures.rank` with log=True.
    Memory: the state (twice n x r) and the factors; pass layers one by one to `step` to hold one factor at a time.
    """
    first = start(factors[0], rank=rank)

    def advance(product, factor):
        product = step(product, factor)
        return product, log_singular_values(product, method=method)

    last, values = lax.scan(advance, first, factors[1:])
    return last, jnp.concatenate([log_singular_values(first, method=method)[None], values])


def product_log_singular_values(
    factors: Inexact[Array, "L ... n n"], *, running: bool = False
) -> Float[Array, "*batch n"]:
    """Singular values of J_L ... J_1, or of every running product: `cumulative` called at once, with one BLAS thread.

    So many small LAPACK calls with all cores each would mostly wait for one another on a busy machine. The products of
    wide matrices are spread over the cores, those of narrow ones are taken one after another. Call it eagerly.

    Parameters
    ----------
    factors : (L, ..., n, n), first layer first, real or complex.
    running : every running product, (L, ..., n), not only the last.

    Returns
    -------
    (..., n) or (L, ..., n), natural logarithms, descending; NaN where a factor has one. Cost: as `step` a factor, and
    one singular value problem a product.
    """
    per_product = jnp.moveaxis(factors, 0, -3)
    if running:
        return jnp.moveaxis(over_cores(_running, per_product, axes=factors.ndim - 3), -2, 0)
    return over_cores(_whole, per_product, axes=factors.ndim - 3)


def _running(per_product):
    return jnp.moveaxis(cumulative(jnp.moveaxis(per_product, -3, 0))[1], 0, -2)


def _whole(per_product):
    factors = jnp.moveaxis(per_product, -3, 0)
    product, _ = lax.scan(lambda state, factor: (step(state, factor), None), start(factors[0]), factors[1:])
    return log_singular_values(product)


# A batch that LAPACK takes whole would wait for the next one for ever (jaxdyn_kernels.threads, trap 3).
_qr = one_at_a_time_on_the_host(lambda A: tuple(jnp.linalg.qr(A)))
_svd = one_at_a_time_on_the_host(lambda A: tuple(jnp.linalg.svd(A, full_matrices=False)))
_singular_values = one_at_a_time_on_the_host(lambda A: jnp.linalg.svd(A, compute_uv=False))
_solve = one_at_a_time_on_the_host(lambda R, B: lax.linalg.triangular_solve(R, B, left_side=True))


def _balance(triangle, scale):
    """Return log_scale and W with R diag(exp(scale)) = diag(exp(log_scale)) W, |w_ii| = 1; lost rows are unit rows."""
    diagonal = jnp.abs(jnp.diagonal(triangle, axis1=-2, axis2=-1))
    log_scale = jnp.log(diagonal) + scale
    lost = (log_scale == -jnp.inf)[..., None]
    upper = jnp.triu(jnp.ones(triangle.shape[-2:], dtype=bool))
    gap = scale[..., None, :] - jnp.where(lost, 0, scale[..., :, None])
    unit = triangle * jnp.exp(jnp.where(upper, gap, 0)) / jnp.where(diagonal > 0, diagonal, 1)[..., None]
    return log_scale, jnp.where(lost, jnp.eye(triangle.shape[-1], dtype=triangle.dtype), jnp.triu(unit))


def _scaled(log_scale, rows):
    """Return diag(exp(log_scale - top)) rows and top, the largest scale; zeros for a product that is zero."""
    top = jnp.max(log_scale, axis=-1, keepdims=True)
    return jnp.where(top == -jnp.inf, 0, jnp.exp(log_scale - top))[..., None] * rows, top


def _core(product):
    """diag(exp(log_scale)) W, with the singular values of the product: one more QR, of right^T diag(exp(log_scale))."""
    columns = jnp.swapaxes(product.right, -1, -2)
    order = jnp.argsort(-(jnp.log(jnp.linalg.norm(columns, axis=-2)) + product.log_scale), axis=-1)
    columns = jnp.take_along_axis(columns, order[..., None, :], axis=-1)
    _, triangle = _qr(columns)
    return _balance(triangle, jnp.take_along_axis(product.log_scale, order, axis=-1))


def _sensitivity(triangle):
    """norm(R)_F norm(R^-1 e_i): how much a relative perturbation of C = QR moves its i-th direction, to first order."""
    eye = jnp.broadcast_to(jnp.eye(triangle.shape[-1], dtype=triangle.dtype), triangle.shape)
    inverse = _solve(triangle, eye)
    columns = jnp.sqrt(jnp.sum(jnp.abs(inverse) ** 2, axis=-2))
    size = jnp.sqrt(jnp.sum(jnp.abs(triangle) ** 2, axis=(-2, -1)))[..., None]
    return jnp.where(jnp.isnan(columns), jnp.inf, size * columns)
