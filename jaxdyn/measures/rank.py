"""Stage 5 of 7: how many directions a map really uses, from its singular values alone (1.4).

Every measure works on the logarithms of the singular values, so that a product of many Jacobians, whose singular values
range over more than a float can hold, is treated like a single matrix: pass `log=True` and their logarithms. Each can
also leave out the largest `removed` singular values, because one outlier can carry the whole number.
All functions are pure and batched over the leading dimensions.
"""

import jax.numpy as jnp
from jax.scipy.special import entr, logsumexp
from jaxtyping import Array, Float

from jaxdyn.errors import InputError

from .arrays import has_nan, nan_where

REMOVED = (0, 1, 4, 16)
"""How many of the largest singular values 1.8 asks to leave out."""


def effective_rank(
    singular_values: Float[Array, "*batch n"], *, removed: int = 0, log: bool = False
) -> Float[Array, "*batch"]:
    """Entropy rank of the squared singular values.

    r = exp(-sum_i p_i log p_i),  p_i = s_i^2 / sum_j s_j^2

    Parameters
    ----------
    singular_values : (..., n), any order, any scale; their natural logarithms where `log` is true (-inf for zero).
    removed : how many of the largest to leave out before the shares are formed.
    log : whether logarithms were given.

    Returns
    -------
    (...), dimensionless, 1 to n - removed; NaN for the zero matrix, for NaN input, or where nothing is left.

    Raises
    ------
    InputError : `removed` negative.

    References
    ----------
    1.4; O. Roy and M. Vetterli, "The effective rank", 2007, with squared singular values.
    """
    return jnp.exp(jnp.sum(entr(_shares(singular_values, 2, removed, log)), axis=-1))


def roy_vetterli_rank(
    singular_values: Float[Array, "*batch n"], *, removed: int = 0, log: bool = False
) -> Float[Array, "*batch"]:
    """Entropy rank of the singular values themselves, p_i = s_i / sum_j s_j.

    Parameters, returns and failures as in `effective_rank`.

    References
    ----------
    1.4; O. Roy and M. Vetterli, "The effective rank", 2007.
    """
    return jnp.exp(jnp.sum(entr(_shares(singular_values, 1, removed, log)), axis=-1))


def participation_ratio(
    singular_values: Float[Array, "*batch n"], *, removed: int = 0, log: bool = False
) -> Float[Array, "*batch"]:
    """Participation ratio of the squared singular values.

    PR = 1 / sum_i p_i^2 = (sum s^2)^2 / sum s^4,  p_i = s_i^2 / sum_j s_j^2

    Parameters, returns and failures as in `effective_rank`; PR <= effective rank.

    References
    ----------
    1.4.
    """
    return 1 / jnp.sum(_shares(singular_values, 2, removed, log) ** 2, axis=-1)


def stable_rank(
    singular_values: Float[Array, "*batch n"], *, removed: int = 0, log: bool = False
) -> Float[Array, "*batch"]:
    """Squared Frobenius norm over squared spectral norm, sum_i s_i^2 / max_i s_i^2.

    Parameters, returns and failures as in `effective_rank`; stable rank <= PR.

    References
    ----------
    1.4; M. Rudelson and R. Vershynin, "Sampling from large matrices", 2007.
    """
    return 1 / jnp.max(_shares(singular_values, 2, removed, log), axis=-1, initial=-jnp.inf)


def threshold_count(
    singular_values: Float[Array, "*batch n"], *, threshold: float = 0.1, removed: int = 0, log: bool = False
) -> Float[Array, "*batch"]:
    """Count the singular values above a share of the largest one, #{i : s_i > threshold * max_j s_j}.

    Parameters
    ----------
    singular_values, removed, log : as in `effective_rank`.
    threshold : positive share of the largest singular value that is kept; .1 by default.

    Returns
    -------
    (...), a count as a float, so that NaN can mark a failed matrix.

    Raises
    ------
    InputError : `threshold` not above 0, or `removed` negative.

    References
    ----------
    1.8 (threshold count).
    """
    if not threshold > 0:
        msg = f"threshold: got {threshold}; allowed: a positive share of the largest singular value, such as 0.1"
        raise InputError(msg)
    logs = _relative_logs(singular_values, removed, log)
    count = jnp.sum((logs > jnp.log(threshold)).astype(logs.dtype), axis=-1)
    empty = jnp.full_like(count, logs.shape[-1] == 0, dtype=bool)
    return nan_where(empty | has_nan(logs, 1), count)


def _shares(singular_values, power, removed, log):
    logs = power * _relative_logs(singular_values, removed, log)
    if logs.shape[-1] == 0:
        return jnp.full((*logs.shape[:-1], 1), jnp.nan, dtype=logs.dtype)
    return jnp.exp(logs - logsumexp(logs, axis=-1, keepdims=True))


def _relative_logs(singular_values, removed, log):
    """Logarithms relative to the largest one kept, in descending order; NaN for the zero matrix."""
    if removed < 0:
        msg = f"removed: got {removed}; allowed: 0 or more of the largest singular values"
        raise InputError(msg)
    logs = singular_values if log else jnp.log(singular_values)
    kept = -jnp.sort(-logs, axis=-1)[..., removed:]
    return kept - kept[..., :1]
