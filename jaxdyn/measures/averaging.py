"""Stage 5 of 7: how much of the Jacobians survives averaging over prompts (1.8).

The mean of N matrices carries noise of norm Var/N, so that norm(mean)^2 overstates what they share. The inner product
of the means of two halves, split by article, has no such bias.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def surviving_energy(
    mean: Float[Array, "*batch m n"], mean_square_norm: Float[Array, "*batch"]
) -> Float[Array, "*batch"]:
    """Share of the mean squared norm that the mean matrix keeps, norm(mean_i A_i)_F^2 / mean_i norm(A_i)_F^2.

    Parameters
    ----------
    mean : (..., m, n), the mean of the matrices over prompts.
    mean_square_norm : (...), the mean over the same prompts of norm(A_i)_F^2.

    Returns
    -------
    (...), dimensionless, 0 to 1 up to rounding; 1 where all matrices agree, 1/N for N orthogonal ones. NaN for 0/0.

    References
    ----------
    1.8, averaging. Biased upwards by the sampling variance over N: `surviving_energy_split` is not.
    """
    return surviving_energy_split(mean, mean, mean_square_norm)


def surviving_energy_split(
    first_mean: Float[Array, "*batch m n"],
    second_mean: Float[Array, "*batch m n"],
    mean_square_norm: Float[Array, "*batch"],
) -> Float[Array, "*batch"]:
    """Unbiased surviving energy, tr(mean_1 A^T mean_2 A) / mean norm(A)_F^2 over two independent halves.

    Parameters
    ----------
    first_mean, second_mean : (..., m, n), the means over two disjoint halves of the prompts, split by article so that
        the halves are independent.
    mean_square_norm : (...), the mean of norm(A_i)_F^2 over all prompts.

    Returns
    -------
    (...), dimensionless, at most 1; may fall below 0 where nothing survives. NaN for 0/0.

    References
    ----------
    1.8, averaging.
    """
    rows = first_mean.reshape(*first_mean.shape[:-2], 1, -1)
    columns = second_mean.reshape(*second_mean.shape[:-2], -1, 1)
    return jnp.matmul(rows, columns, precision=lax.Precision.HIGHEST)[..., 0, 0] / mean_square_norm
