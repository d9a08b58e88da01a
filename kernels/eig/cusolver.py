"""Eigenvalues and right vectors by cuSOLVER Xgeev through JAX, for CUDA alone: one matrix after another on the device.

`implementation` and the missing left vectors are stated, because JAX otherwise copies the matrices to the host and
calls LAPACK there, without a word.
"""

import jax
from jaxtyping import Array, Complex, Inexact


def eig(A: Inexact[Array, "*batch n n"]) -> tuple[Complex[Array, "*batch n"], Complex[Array, "*batch n n"]]:
    """Eigenvalues and unit right vectors of finite matrices, NaN where the iteration did not converge."""
    values, right = jax.lax.linalg.eig(
        A,
        compute_left_eigenvectors=False,
        compute_right_eigenvectors=True,
        implementation=jax.lax.linalg.EigImplementation.CUSOLVER,
    )
    return values, right
