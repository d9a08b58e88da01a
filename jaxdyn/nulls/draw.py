"""Stage 5 of 7: draws of a null, one at a time, so that a rung never holds more than one copy of its matrices."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from jaxdyn.errors import InputError

from .named import Measure, measured


def of_draws(make: Callable[[int], Array], measure: Measure, draws: int) -> np.ndarray:
    """Apply a measure to each of the draws `make(0)`, `make(1)`, ...; (draws, ...)."""
    if draws < 1:
        msg = f"draws: got {draws}; allowed at least 1, and 2 for a standard deviation"
        raise InputError(msg)
    return np.stack([measured(make(draw), measure) for draw in range(draws)])


def keys_of(matrices: Array, seed, draw) -> Key[Array, " B"]:
    """One key a matrix, (B,), from the seed, the draw's number and the matrix's place in the array."""
    key = jax.random.fold_in(jax.random.key(seed), draw)
    return jax.vmap(lambda place: jax.random.fold_in(key, place))(jnp.arange(math.prod(matrices.shape[:-2])))
