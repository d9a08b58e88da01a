"""Whole arrays of matrices as bulges.py works on them: rolls and masks without an index that depends on the data.

Vectors lie along the lanes, [B, 1, N]. H and Q are reached through a `Store`, which is the arrays themselves in XLA and
fast memory in a kernel.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Inexact, Int

NOWHERE = -9
"""A place that no comparison meets, two rows further neither."""


class Store(Protocol):
    """Where H and Q are kept between steps; `state` is what a loop carries."""

    def read(self, state: Any) -> tuple[Array, Array | None]:
        """H and Q."""
        ...

    def write(self, H: Array, Q: Array | None) -> Any:
        """Keep both, and return the state that says so."""
        ...


class Carried:
    """H and Q are the state."""

    def read(self, state: Any) -> tuple[Array, Array | None]:
        """H and Q."""
        return state

    def write(self, H: Array, Q: Array | None) -> Any:
        """Carry both."""
        return H, Q


class Grid(NamedTuple):
    """Row and column numbers of an array [B, R, N] that holds matrices of order n, and how to roll it."""

    n: int
    i: Int[Array, "1 R N"]
    j: Int[Array, "1 1 N"]
    roll: Callable[[Array, int, int], Array]

    def left(self, v: Array, by: int) -> Array:
        """Entry j + by at j."""
        return self.roll(v, v.shape[2] - by, 2)

    def right(self, v: Array, by: int) -> Array:
        """Entry j - by at j."""
        return self.roll(v, by, 2)

    def diagonal(self, H: Inexact[Array, "B R N"], below: int) -> Inexact[Array, "B 1 N"]:
        """H[j + below, j] for every column j; zero where there is none."""
        return jnp.sum(jnp.where(self.i == self.j + below, H, 0), axis=1, keepdims=True)

    def upright(self, v: Inexact[Array, "B 1 N"]) -> Inexact[Array, "B R 1"]:
        """Turn a vector along the columns into the same along the rows."""
        return jnp.sum(jnp.where(self.i == self.j, v, 0), axis=2, keepdims=True)

    def take(self, upright: Inexact[Array, "B R 1"], index: Int[Array, "B 1 N"]) -> Inexact[Array, "B 1 N"]:
        """Entry index[j] for every column j."""
        return jnp.sum(jnp.where(self.i == index, upright, 0), axis=1, keepdims=True)


def grid(shape: tuple[int, ...], n: int, roll: Callable[[Array, int, int], Array] = jnp.roll) -> Grid:
    """Number the rows and columns of arrays of this shape [B, R, N]."""
    _, rows, columns = shape
    i = lax.broadcasted_iota(jnp.int32, (1, rows, columns), 1)
    return Grid(n, i, lax.broadcasted_iota(jnp.int32, (1, 1, columns), 2), roll)


def flag(condition: Bool[Array, "*shape"]) -> Int[Array, "*shape"]:
    """1 where it holds, else 0."""
    return condition.astype(jnp.int32)
