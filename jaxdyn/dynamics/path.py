"""D8: the path of the mean state in the plane of the pooled states' principal components, its length and curvature.

A random walk in high dimension has a smooth, curved path in its own principal plane too, half a cosine against a whole
one (Antognini and Sohl-Dickstein 2018): so a walk of steps as long as the mean state's, among the same scatter of
samples, goes through the same code and is drawn beside.
"""

import numpy as np
import scipy.linalg
import xarray as xr

from .curve import arc_length, curvature, orthogonal_null, straightness
from .stages import Inputs, labelled

COMPONENTS = 10
WALKS = 8
"""Walks of which the shares of variance are averaged, up to this width; one for wider models."""

WIDE = 512


def principal(covariance: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the leading components (D, K) and their shares of the variance (K,), descending.

    The sign of a component is that its largest loading is positive.
    """
    width, total = len(covariance), np.trace(covariance)
    values, vectors = scipy.linalg.eigh(covariance, subset_by_index=(width - count, width - 1))
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    largest = vectors[np.argmax(np.abs(vectors), axis=0), np.arange(vectors.shape[1])]
    return vectors * np.where(largest < 0, -1.0, 1.0), values / total


def isotropic_walk(path: np.ndarray, seed: int | list[int]) -> np.ndarray:
    """Draw a path (P, D) from the same start whose steps are as long and of independent directions."""
    steps = np.diff(path, axis=0)
    noise = np.random.default_rng(seed).standard_normal(steps.shape)
    noise *= np.linalg.norm(steps, axis=1, keepdims=True) / np.linalg.norm(noise, axis=1, keepdims=True)
    return np.cumsum(np.concatenate([path[:1], noise]), axis=0)


def stage(inputs: Inputs) -> xr.Dataset:
    """Measure the path of the trained model and of the random one, each beside a walk."""
    states = inputs.states
    rows = [row for row in inputs.rows() if row in ("trained", "random")]
    count = min(COMPONENTS, states.width)
    found: dict[str, dict[str, np.ndarray]] = {}
    for number, row in enumerate(rows):
        for name, values in _measure(states, row, count, inputs.settings.seed).items():
            found.setdefault(name, {})[row] = values
        inputs.tick("mean path", number + 1, len(rows))
    along, pc = ("control", "point"), ("control", "point", "component")
    words = {
        "path": ("mean state on the principal components of the pooled states", pc, "activation"),
        "scatter": ("sd over samples along the components", pc, "activation"),
        "walk_path": ("null: a walk of isotropic steps as long, on its own components", pc, "activation"),
        "variance_share": ("share of the pooled variance", ("control", "component"), "1"),
        "walk_variance_share": ("null: share of the pooled variance with the walk", ("control", "component"), "1"),
        "arc_length": ("length of the mean path up to the point", along, "activation"),
        "curvature": ("curvature of the mean path", along, "1/activation"),
        "walk_curvature": ("null: curvature with orthogonal steps", along, "1/activation"),
        "straightness": ("end-to-end distance over arc length of the mean path", ("control",), "1"),
        "walk_straightness": ("null: straightness with orthogonal steps", ("control",), "1"),
    }  # fmt: skip
    data = {
        name: labelled(text, dims, inputs.by_control(found[name]), "D8", unit)
        for name, (text, dims, unit) in words.items()
    }
    return xr.Dataset(data, {"component": np.arange(1, count + 1)})


def _measure(states, row: str, count: int, seed: int) -> dict[str, np.ndarray]:
    path = sum(chunk.sum(axis=0) for chunk in states.chunks(row)) / states.samples
    within = np.zeros((states.width, states.width))
    for chunk in states.chunks(row):
        flat = (chunk - path).reshape(-1, states.width)
        within += flat.T @ flat
    within /= states.samples * states.points
    components, share = principal(within + _between(path), count)
    spread = np.zeros((states.points, count))
    for chunk in states.chunks(row):
        spread += (((chunk - path) @ components) ** 2).sum(axis=0)
    walks = WALKS if states.width <= WIDE else 1
    walk_share = np.zeros(count)
    walk_path = np.zeros_like(spread)
    for number in range(walks):
        walk = isotropic_walk(path, [seed, 7, number])
        axes, its = principal(within + _between(walk), count)
        walk_share += its / walks
        if number == 0:
            walk_path = (walk - walk.mean(axis=0)) @ axes
    straight, bent = orthogonal_null(path)
    return {
        "path": (path - path.mean(axis=0)) @ components,
        "scatter": np.sqrt(spread / states.samples),
        "walk_path": walk_path,
        "variance_share": share,
        "walk_variance_share": walk_share,
        "arc_length": arc_length(path),
        "curvature": curvature(path),
        "walk_curvature": bent,
        "straightness": np.array(straightness(path)),
        "walk_straightness": np.array(straight),
    }


def _between(path: np.ndarray) -> np.ndarray:
    centred = path - path.mean(axis=0)
    return centred.T @ centred / len(path)
