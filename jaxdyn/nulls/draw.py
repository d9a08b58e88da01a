"""Stage 5 of 7: draws of a null, one at a time, so that a rung never holds more than one copy of its matrices."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from jaxdyn.errors import InputError

from .named import Measure, measured


def of_draws(make: Callable[[int], Array], measure: Measure, draws: int) -> np.ndarray:
    """Apply a measure to each of the draws `make(0)`, `make(1)`, ...; (draws, ...)."""
    if draws < 1:
        msg = f"draws: got {draws}; allowed at least 1, and 2 for a standard deviation"
        raise InputError(msg)
    return np.stack([measured(make(draw), measure) for draw in range(draws)])


def keys_of(matrices: Array, seed, draw, places: Int[Array, "*batch"] | None = None) -> Key[Array, " B"]:
    """One key a matrix, (B,), from the seed, the draw's number and its place, by default that in the array.

    Part of an array, given with its places in the whole, is drawn as the whole would be.
    """
    key = jax.random.fold_in(jax.random.key(seed), draw)
    found = places_of(matrices) if places is None else places
    return jax.vmap(lambda place: jax.random.fold_in(key, place))(found.reshape(-1))


def places_of(matrices: Array) -> Int[Array, "*batch"]:
    """Count the matrices of an array (..., n, n) through."""
    lead = matrices.shape[:-2]
    return jnp.arange(math.prod(lead)).reshape(lead)
