"""`singular_values`: those of a batch of square matrices, without vectors."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Inexact

from ..dispatch import case_of, choose, platform_of, run, square_matrices
from ..scaling import to_order_one


def singular_values(A: ArrayLike, *, implementation: str | None = None) -> Float[Array, "*batch n"]:
    """Singular values of each matrix of a batch, descending.

    Parameters
    ----------
    A : real or complex [..., n, n], float32, float64, complex64 or complex128
        The matrices, any scale: each is divided by a power of two first, which changes no digit.
    implementation : str, optional
        Force one of ``implementations("singular_values")``; by default the platform of the array decides (under a
        trace: that of the default device).

    Returns
    -------
    real [..., n]
        With an error of order n eps norm(A) at most. NaN for a matrix that is not finite; the others are not affected.

    Raises
    ------
    ValueError
        For a dtype or shape that is not allowed, or an unknown implementation.
    NotImplementedError
        Where the platform does not have the dtype.

    Notes
    -----
    "lapack" and "xla" are what XLA calls on the platform, 8/3 n^3 operations; for a TPU of n = 4096 that was not
    compiled within minutes. "bisection", the TPU's default: 8 n^3 operations in n dependent steps that read the whole
    matrix, then about 50 n (110 n in float64) short dependent steps; its memory is a copy of the matrix.
    """
    A = square_matrices("singular_values", "A", A)
    chosen = choose("singular_values", platform_of(A), implementation, case=case_of(A))
    return run(scaled_singular_values, A, chosen)


def scaled_singular_values(A: Inexact[Array, "*batch n n"], *, implementation: str) -> Float[Array, "*batch n"]:
    """Trace `singular_values` into a larger program; `implementation` names the one to run."""
    finite = jnp.all(jnp.isfinite(A), axis=(-2, -1))
    scaled, scale = to_order_one(jnp.where(finite[..., None, None], A, 0))
    function = choose("singular_values", "", implementation).load("singular_values")
    for _ in range(A.ndim - 2):
        function = jax.vmap(function)
    return jnp.where(finite[..., None], function(scaled) * scale[..., None], jnp.nan)
