"""The two tests themselves by Monte Carlo, in any metric space and for any kernel: what the laws are checked with.

A space draws points and measures distances; a kernel maps a distance to a similarity. One trial draws n items and a
probe, answers by Luce's choice, and scores the probability of the right answer (not a drawn answer, which would only
add noise). Trials run in batches inside one jitted loop.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxdyn.errors import InputError

BATCH = 1 << 16

Sampler = Callable[[Array, int, int], Array]
"""(key, trials, points a trial) -> points (trials, points, ...)."""


@dataclass(frozen=True)
class Space:
    """A metric probability space.

    Attributes
    ----------
    sample : draws the points of many trials: (key, trials, points) -> (trials, points, ...).
    distance : (..., d-like) x (..., d-like) -> (...), on points as `sample` gives them.
    """

    sample: Sampler
    distance: Callable[[Array, Array], Array]


@dataclass(frozen=True)
class Estimate:
    """A mean over trials with its standard error."""

    mean: float
    error: float
    trials: int


def circle() -> Space:
    """Return the circle of circumference 1: uniform points, wrapped distance, at most 1/2; b = 2 eps."""
    return torus(1)


def torus(dimension: int) -> Space:
    """Return the flat torus of side 1 with the Euclidean wrapped distance; a ball with eps <= 1/2 is a flat ball."""

    def distance(x: Array, y: Array) -> Array:
        gap = jnp.abs(x - y)
        return jnp.sqrt(jnp.sum(jnp.minimum(gap, 1 - gap) ** 2, axis=-1))

    return Space(
        lambda key, trials, points: jax.random.uniform(key, (trials, points, dimension), jnp.float32), distance
    )


def segment() -> Space:
    """Return [0, 1] with uniform points."""
    return Space(
        lambda key, trials, points: jax.random.uniform(key, (trials, points), jnp.float32), lambda x, y: jnp.abs(x - y)
    )


def sphere(dimension: int) -> Space:
    """Return the unit sphere in `dimension` + 1 coordinates with the angle, 0 to pi, as distance."""

    def sample(key: Array, trials: int, points: int) -> Array:
        x = jax.random.normal(key, (trials, points, dimension + 1), jnp.float32)
        return x / jnp.linalg.norm(x, axis=-1, keepdims=True)

    def distance(x: Array, y: Array) -> Array:
        return 2 * jnp.arctan2(jnp.linalg.norm(x - y, axis=-1), jnp.linalg.norm(x + y, axis=-1))

    return Space(sample, distance)


def finite(distances: np.ndarray) -> Space:
    """Return a finite set with all distances (N, N); the points of a trial are drawn without replacement."""
    table = jnp.asarray(distances)
    count = len(table)
    if table.shape != (count, count):
        msg = f"distances: got shape {table.shape}; allowed (N, N)"
        raise InputError(msg)

    def sample(key: Array, trials: int, points: int) -> Array:
        if points > count:
            msg = f"points: got {points} a trial; the set has {count}, and they are drawn without replacement"
            raise InputError(msg)
        return jnp.argsort(jax.random.uniform(key, (trials, count), jnp.float32), axis=-1)[:, :points]

    return Space(sample, lambda x, y: table[x, y])


def constant(eps: float, noise: float = 0.0) -> Callable[[Array], Array]:
    """Return the kernel g = 1 for d <= eps, else the floor."""
    return lambda d: jnp.where(d <= eps, 1.0, noise)


def linear(eps: float, noise: float = 0.0) -> Callable[[Array], Array]:
    """Return the kernel g = max(floor, 1 - d/eps)."""
    return lambda d: jnp.maximum(noise, 1 - d / eps)


def simulate(
    space: Space, kernel: Callable[[Array], Array], n: int = 2, *, trials: int = 1 << 18, seed: int = 0
) -> tuple[Estimate, Estimate]:
    """Estimate p_S and p_I of n items.

    Parameters
    ----------
    space, kernel : where the points are, and how similar points at a distance are.
    n : number of items, 1 or more.
    trials : how many, rounded up to whole batches of 65536 (of fewer where fewer are asked for).
    seed : of the draws.

    Returns
    -------
    (p_S, p_I), each with its standard error sd/sqrt(trials). Items equally near to the probe are right alike, each with
    an equal share; all similarities zero is a guess, 1/n. Sums are kept per batch in float32 and added in float64.

    Raises
    ------
    InputError : n or trials below 1.
    """
    for name, value in (("n", n), ("trials", trials)):
        if value < 1:
            msg = f"{name}: got {value}; allowed 1 or more"
            raise InputError(msg)
    batch = min(BATCH, trials)
    batches = -(-trials // batch)
    keys = jax.random.split(jax.random.key(seed), batches)
    sums = np.asarray(_run(keys, space, kernel, n, batch), np.float64).sum(axis=0)  # (test, moment)
    total = batches * batch
    mean = sums[:, 0] / total + 0.5
    spread = np.maximum(sums[:, 1] / total - (mean - 0.5) ** 2, 0.0)
    error = np.sqrt(spread / total)
    return tuple(Estimate(float(m), float(e), total) for m, e in zip(mean, error, strict=True))  # pyright: ignore[reportReturnType]


@partial(jax.jit, static_argnames=("space", "kernel", "n", "batch"))
def _run(keys, space, kernel, n, batch):
    return lax.map(lambda key: _batch(key, space, kernel, n, batch), keys)


def _batch(key, space, kernel, n, batch):
    """Sums over trials of score - 1/2 and of its square, for the two tests: (2, 2)."""
    key_s, key_i = jax.random.split(key)
    points = space.sample(key_s, batch, n + 1)
    distance = space.distance(points[:, :n], points[:, n:])
    nearest = distance == jnp.min(distance, axis=-1, keepdims=True)
    share = _luce(kernel(distance))
    p_s = jnp.sum(jnp.where(nearest, share, 0.0), axis=-1) / jnp.sum(nearest, axis=-1)
    items = space.sample(key_i, batch, n)
    p_i = _luce(kernel(space.distance(items, items[:, :1])))[:, 0]
    score = jnp.stack([p_s, p_i]) - 0.5
    return jnp.stack([score.sum(-1), (score**2).sum(-1)], axis=-1)


def _luce(g):
    total = jnp.sum(g, axis=-1, keepdims=True)
    return jnp.where(total > 0, g / jnp.where(total > 0, total, 1.0), 1 / g.shape[-1])
