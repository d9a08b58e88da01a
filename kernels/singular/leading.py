"""Projectors on the leading singular directions, from products, inverses and known singular values.

sign(A A^H - mu I) with mu between the squares of singular values k and k + 1 has the eigenvalue 1 on the k leading left
singular vectors and -1 on the others, so (I + sign) / 2 projects on the first; A^H A in place of A A^H gives the right
ones. Newton's iteration (schur/sign.py) makes both signs side by side. The projector's error is eps norm(A)^2 over the
gap between the two squares: that of the subspaces that a singular value decomposition gives, times norm(A) over the sum
of the two singular values, a small factor for leading ones.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from ..product import matmul
from ..scaling import adjoint
from ..schur.sign import sign


def leading_projectors(
    A: Inexact[Array, "n n"], singular_values: Float[Array, " n"], k: int
) -> tuple[Inexact[Array, "n n"], Inexact[Array, "n n"]]:
    """Orthogonal projectors on the k leading left and right singular vectors of A.

    Parameters
    ----------
    A : real or complex [n, n]
        The matrix, any scale that its square does not overflow: of order one, say.
    singular_values : real [n]
        Those of A, descending.
    k : int
        1 to n.

    Returns
    -------
    left, right : [n, n]
        NaN where singular values k and k + 1 are the same up to rounding, for then there are no such directions.

    Notes
    -----
    Some 15 inverses of 2 n^3 operations each and n dependent steps, of both matrices together.
    """
    n = A.shape[-1]
    eye = jnp.eye(n, dtype=A.dtype)
    if k == n:
        return eye, eye
    largest, inside, outside = singular_values[0], singular_values[k - 1], singular_values[k]
    unit = jnp.where(largest > 0, largest, 1)
    scaled = A / unit.astype(A.dtype)
    middle = ((inside / unit) ** 2 + (outside / unit) ** 2) / 2
    squares = jnp.stack([matmul(scaled, adjoint(scaled)), matmul(adjoint(scaled), scaled)])
    X = squares - middle.astype(A.dtype) * eye
    with jax.named_scope("sign"):
        found, _ = sign(X, X, jnp.zeros(2, bool))
    projectors = (eye + found) / 2
    # Rounding has moved a singular value over the middle where the rank of a projector is another.
    rank = jnp.trace(projectors, axis1=1, axis2=2).real
    exist = (inside - outside > 4 * float(jnp.finfo(A.dtype).eps) * largest) & jnp.all(jnp.abs(rank - k) < 0.5)
    left, right = jnp.where(exist, projectors, jnp.nan)
    return left, right
