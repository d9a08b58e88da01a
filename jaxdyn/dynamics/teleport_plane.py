"""Stage 5 of 7: the planes that teleport takes its points from, and how far these are from the data (D10).

A plane goes through the mean of the samples' states at one layer. Its axes are the first two principal directions, or
two random ones. Massive coordinates, a few that are a thousand times the others, would be those directions alone, so
coordinates are divided by a scale first, and lengths are taken in it.
"""

from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Float

from jaxdyn.activations import massive_coordinates
from jaxdyn.errors import InputError

from .teleport_settings import SCALINGS, Scaling

FEWEST = 3
_massive = jax.jit(massive_coordinates)


@dataclass(frozen=True)
class Plane:
    """A plane in the stream: x = mean + scale (c axes), c in R^2.

    mean, scale : (D,). axes : (2, D), orthonormal in the scaled coordinates. low, high : (2,), the range of the
    samples' coordinates. explained : share of the scaled variance in the plane.
    """

    mean: Float[np.ndarray, " D"]
    scale: Float[np.ndarray, " D"]
    axes: Float[np.ndarray, "2 D"]
    low: Float[np.ndarray, " 2"]
    high: Float[np.ndarray, " 2"]
    explained: float

    def coordinates(self, x: Float[np.ndarray, "... D"]) -> Float[np.ndarray, "... 2"]:
        """Return where states fall in the plane."""
        return ((x - self.mean) / self.scale) @ self.axes.T

    def lift(self, c: Float[np.ndarray, "... 2"]) -> Float[np.ndarray, "... D"]:
        """Return the states with these coordinates; all that lies off the plane is that of the mean."""
        return self.mean + self.scale * (c @ self.axes)

    def grid(self, n: int) -> Float[np.ndarray, "points 2"]:
        """Return n x n coordinates over the samples' range, the first axis varying fastest."""
        first, second = (np.linspace(low, high, n) for low, high in zip(self.low, self.high, strict=True))
        return np.stack([np.tile(first, n), np.repeat(second, n)], axis=-1)


def scale_of(states: Float[np.ndarray, "S D"], scaling: Scaling) -> Float[np.ndarray, " D"]:
    """Return what each coordinate is divided by.

    Parameters
    ----------
    states : (S, D), the samples' states at one layer.
    scaling : "massive" divides massive coordinates (`activations.massive_coordinates`) by how much larger their
        standard deviation is than the median one, "all" divides every coordinate by its own (constant ones by 1),
        "none" divides by 1.

    Raises
    ------
    InputError : another name.
    """
    if scaling not in SCALINGS:
        msg = f"scaling: got {scaling!r}; allowed {', '.join(map(repr, SCALINGS))}"
        raise InputError(msg)
    ones = np.ones(states.shape[1])
    if scaling == "none":
        return ones
    deviation = canonical(states).std(axis=0)
    if scaling == "all":
        return np.where(deviation > 0, deviation, ones)
    massive = np.asarray(_massive(states[None]))[0] & (deviation > 0)
    usual = np.median(deviation)
    return np.where(massive & (deviation > usual) & (usual > 0), deviation / max(usual, np.finfo(float).tiny), ones)


def principal_plane(states: Float[np.ndarray, "S D"], scaling: Scaling = "massive") -> Plane:
    """Return the plane of the two principal directions with the largest variance, through the mean.

    Parameters
    ----------
    states : (S, D), 3 or more samples. scaling : as in `scale_of`.

    Returns
    -------
    Plane, in float64; the largest entry of each axis is positive. It does not depend on the order of the samples, to
    the bit. Cost: an SVD of S x D.

    Raises
    ------
    InputError : fewer than 3 samples, or samples that lie on a line.
    """
    states = canonical(states)
    _check_count(len(states))
    scale = scale_of(states, scaling)
    mean = states.mean(axis=0)
    _, s, axes = np.linalg.svd((states - mean) / scale, full_matrices=False)
    if s[1] <= len(states) * np.finfo(float).eps * s[0]:
        msg = f"texts: the last states of {len(states)} samples lie on a line or a point; give more, different texts"
        raise InputError(msg)
    largest = np.take_along_axis(axes[:2], np.abs(axes[:2]).argmax(axis=1)[:, None], axis=1)
    return _spanned(states, mean, scale, axes[:2] * np.sign(largest))


def random_plane(states: Float[np.ndarray, "S D"], rng: np.random.Generator, scaling: Scaling = "massive") -> Plane:
    """Return a plane through the mean in two uniformly random orthonormal directions; arguments as above."""
    states = canonical(states)
    _check_count(len(states))
    axes = np.linalg.qr(rng.normal(size=(states.shape[1], 2)))[0].T
    return _spanned(states, states.mean(axis=0), scale_of(states, scaling), axes)


def nearest(
    states: Float[np.ndarray, "S D"], points: Float[np.ndarray, "P D"], scale: Float[np.ndarray, " D"]
) -> Float[np.ndarray, " P"]:
    """Return each point's distance to the nearest sample, in scaled coordinates. Cost: S P D."""
    states, points = states / scale, points / scale
    squares = (points**2).sum(axis=1)[:, None] + (states**2).sum(axis=1) - 2 * points @ states.T
    return np.sqrt(np.maximum(squares.min(axis=1), 0.0))


def spacing(states: Float[np.ndarray, "S D"], scale: Float[np.ndarray, " D"]) -> float:
    """Return the median over samples of the distance to the nearest other sample, in scaled coordinates."""
    states = canonical(states) / scale
    size = (states**2).sum(axis=1)
    squares = size[:, None] + size - 2 * states @ states.T
    np.fill_diagonal(squares, np.inf)
    return float(np.median(np.sqrt(np.maximum(squares.min(axis=1), 0.0))))


def canonical(states: Float[np.ndarray, "S D"]) -> Float[np.ndarray, "S D"]:
    """Return the samples in float64, in an order that depends on their values alone."""
    states = np.asarray(states, np.float64)
    return states[np.lexsort(states.T[::-1])]


def _spanned(states, mean, scale, axes):
    scaled = (states - mean) / scale
    c = scaled @ axes.T
    return Plane(mean, scale, axes, c.min(axis=0), c.max(axis=0), float((c**2).sum() / (scaled**2).sum()))


def _check_count(samples):
    if samples < FEWEST:
        msg = f"texts: got {samples} samples; allowed {FEWEST} or more, for a plane through the data; give more texts"
        raise InputError(msg)
