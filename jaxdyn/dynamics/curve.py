"""Arc length and curvature of a path of points in any number of dimensions."""

import numpy as np

from .exact import exact_sum


def arc_length(path: np.ndarray) -> np.ndarray:
    """Length of the path up to every point, (P,): the sum of the steps' norms. `path` is (P, D)."""
    steps = np.sqrt(exact_sum(np.diff(path, axis=0) ** 2, -1))
    return np.concatenate([[0.0], np.cumsum(steps)])


def straightness(path: np.ndarray) -> float:
    """Distance from the first to the last point over the arc length: 1 for a straight path. `path` is (P, D)."""
    length = arc_length(path)[-1]
    return float(np.sqrt(exact_sum((path[-1] - path[0]) ** 2, -1)) / length) if length > 0 else float("nan")


def curvature(path: np.ndarray) -> np.ndarray:
    """Curvature at every inner point, one over the radius of the circle through it and its neighbours.

    kappa_l = 2 sin(angle) / norm(x_{l+1} - x_{l-1}), the angle between the two steps (Menger curvature).

    Parameters
    ----------
    path : (P, D).

    Returns
    -------
    (P,), one over the path's unit, NaN at the ends and where a step has no length. Exact for points of a circle;
    orthogonal steps of lengths s and t give 2 / sqrt(s^2 + t^2).
    """
    step = np.diff(path, axis=0)
    before, after = step[:-1], step[1:]
    found = np.full(len(path), np.nan)
    aa, bb, ab = exact_sum(before**2, -1), exact_sum(after**2, -1), exact_sum(before * after, -1)
    chord = np.sqrt(exact_sum((path[2:] - path[:-2]) ** 2, -1))
    with np.errstate(invalid="ignore", divide="ignore"):
        sine = np.sqrt(np.maximum(0.0, 1 - ab**2 / (aa * bb)))
        found[1:-1] = 2 * sine / chord
    return found


def orthogonal_null(path: np.ndarray) -> tuple[float, np.ndarray]:
    """Straightness and curvature (P,) of a path of steps as long and orthogonal, as of a random walk in high dimension.

    sqrt(sum s^2) / sum s, and 2 / sqrt(s_{l-1}^2 + s_l^2); NaN at the ends.
    """
    steps = np.diff(arc_length(path))
    bent = np.full(len(path), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        bent[1:-1] = 2 / np.sqrt(steps[:-1] ** 2 + steps[1:] ** 2)
        return float(np.sqrt((steps**2).sum()) / steps.sum()), bent
