"""The matrix sign function of many blocks at once, by Newton's iteration with norm scaling.

sign(X) has the eigenvectors of X, and -1 or 1 for the eigenvalues left or right of the imaginary axis, so that
(I + sign(X)) / 2 projects on the invariant subspace of those on the right. X <- (mu X + (mu X)^-1) / 2 converges
quadratically; mu = (norm(X^-1) / norm(X))^(1/2) brings eigenvalues far from one there in a few steps: Higham,
Functions of Matrices, sections 5.3 and 5.5. An eigenvalue on the axis gives no sign; the iteration then ends at its
limit, and the caller sees it in the subspace. A step is one inverse, and the blocks go in step, those that are done as
they are.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Inexact, Int

from .. import blocked
from ..product import matmul
from ..threads import one_at_a_time_on_the_host

NEARLY = 0.1
"""Scaling ends where mu is this close to one: from there on Newton's own quadratic convergence is faster."""


def sign(
    X: Inexact[Array, "B n n"], other: Inexact[Array, "B n n"], quotient: Bool[Array, " B"]
) -> tuple[Inexact[Array, "B n n"], Int[Array, ""]]:
    """Sign function of X, or of other X^-1, and the steps that the slowest took.

    Parameters
    ----------
    X, other : real or complex [B, n, n]
        Matrices of order one.
    quotient : bool [B]
        Where True the sign of other X^-1 is taken, in one step more. (One inversion in the program serves both.)

    Returns
    -------
    sign : [B, n, n]
        Not to be trusted before it is checked: NaN where a step met a singular matrix, anything where eigenvalues lie
        on the axis.
    steps : int32
        Ten to fifteen are usual, each of 8/3 n^3 operations a matrix (2 n^3 on a TPU).
    """
    eps = float(jnp.finfo(X.dtype).eps)
    most = 20 if eps > 1e-10 else 30
    # The change of a step is squared by the next one, up to the condition of the eigenvectors.
    enough = eps**0.5 / 4

    def unfinished(state):
        _, change, _, count = state
        return jnp.any(change > enough) & (count < most)

    def step(state):
        X, change, scaled, count = state
        inverse = _inverse(X)
        mu = jnp.sqrt(_norm(inverse) / _norm(X))
        scaled = scaled & ((jnp.abs(mu - 1) > NEARLY) | (quotient & (count == 0)))
        mu = jnp.where(scaled, mu, 1)[:, None, None].astype(X.dtype)
        new = (mu * X + inverse / mu) / 2
        mapped = quotient & (count == 0)
        new = lax.cond(
            jnp.any(mapped), lambda: jnp.where(mapped[:, None, None], matmul(other, inverse), new), lambda: new
        )
        moved = jnp.where(mapped, jnp.inf, _norm(new - X) / _norm(new))
        # NaN compares false: what broke down is left alone.
        on = change > enough
        return jnp.where(on[:, None, None], new, X), jnp.where(on, moved, change), scaled, count + 1

    batch = X.shape[0]
    start = (X, jnp.full(batch, jnp.inf, X.real.dtype), jnp.ones(batch, bool), jnp.int32(0))
    X, _, _, count = lax.while_loop(unfinished, step, start)
    return X, count


_inverse = one_at_a_time_on_the_host(jnp.linalg.inv, tpu=blocked.inverse)
"""Inverses, by LU or Gauss-Jordan elimination with partial pivoting."""


def _norm(X: Inexact[Array, "B n n"]) -> Float[Array, " B"]:
    return jnp.sqrt(jnp.sum(jnp.square(X.real) + jnp.square(X.imag), axis=(1, 2)))
