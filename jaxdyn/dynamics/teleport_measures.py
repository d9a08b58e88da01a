"""Stage 5 of 7: what teleported points did, as numbers by context and site (D10).

All are shares or medians over the points of one context; contexts are the replicates. A constant flow, every point
making the natural state's own step, keeps every distance and turns a share of the arrows inwards, from a half to nearly
all: an inward share means what it has beyond that. Nor is an arrow that points inwards a shorter distance: in many
dimensions a displacement that is merely turned loses its component along itself, and counts as inward.
"""

import numpy as np
from jaxtyping import Float

from .flow import Observed

MEASURES = {
    "inward_share": "share of points with (z - z_0) . (n_0 - z_0) > 0",
    "inward_constant": "the same share if every point made the natural state's step",
    "inward_excess": "inward share less that of the constant flow",
    "inward_moving": "share of points with (z - n - (z_0 - n_0)) . (n_0 - z_0) > 0: the natural state's step taken off",
    "inward_share_plane": "share of arrows in the plane that point towards the natural state",
    "inward_constant_plane": "the same share if every point made the natural state's step",
    "inward_excess_plane": "inward share in the plane less that of the constant flow",
    "contraction": "median norm(z - n) / norm(z_0 - n_0)",
    "contraction_relative": "the same, each distance divided by norm(n) at its site",
    "linear_contraction": "median norm(J ... J (z_0 - n_0)) / norm(z_0 - n_0)",
    "linear_error": "median norm(z - n - J ... J (z_0 - n_0)) / norm(z - n)",
    "linear_error_update": "median norm(z - n - J ... J (z_0 - n_0)) / norm(z - n - (z_0 - n_0)): the skip taken off",
    "arrow_length": "median norm(z - z_0) / norm(z_0 - n_0)",
    "natural_length": "norm(n - n_0) over the median of norm(z_0 - n_0)",
    "plane_rotation": "angle of the affine map of the plane to itself that fits the arrows best",
    "plane_rotation_linear": "the same of the linear prediction",
}
"""What `summarise` gives, with the state z of a point and n of its context, z_0 and n_0 where they start."""


def summarise(seen: Observed, first: int) -> dict[str, Float[np.ndarray, "site C"]]:
    """Return the measures of `MEASURES`, NaN before the start.

    Parameters
    ----------
    seen : from `flow.follow`, as numpy arrays.
    first : the site where the points were put.

    Notes
    -----
    Points that stand on the natural state itself are left out.
    """
    start = seen.distance[first]
    away = start > 0
    keep = away & np.isfinite(seen.distance)
    found = {
        "inward_share": _share(seen.inward, keep),
        "inward_constant": _share(seen.constant, keep),
        "inward_moving": _share(seen.inward - seen.constant, keep),
        "contraction": _median(seen.distance, start, keep),
        "linear_contraction": _median(seen.tangent, start, keep),
        "linear_error": _median(seen.error, seen.distance, keep & (seen.distance > 0)),
        "linear_error_update": _median(seen.error, seen.bent, keep & (seen.bent > 0)),
        "arrow_length": _median(seen.moved, start, keep),
    }
    found["inward_excess"] = found["inward_share"] - found["inward_constant"]
    with np.errstate(invalid="ignore", divide="ignore"):  # a natural state of length 0 has no relative length
        found["contraction_relative"] = found["contraction"] / (seen.norm / seen.norm[first])
    found["natural_length"] = seen.travelled / _nanmedian(start)
    return found | _in_the_plane(seen, first, keep)


def linear_radius(
    radii: Float[np.ndarray, " R"], error: Float[np.ndarray, "R ..."], threshold: float
) -> Float[np.ndarray, "..."]:
    """Return the radius at which the relative error of the linear prediction first reaches a threshold.

    Parameters
    ----------
    radii : ascending, above 0. error : one for each.
    threshold : the error beyond which the prediction is said to hold no longer.

    Returns
    -------
    Interpolated linearly in log(radius); 0 where even the smallest radius is beyond, inf where none is, NaN where an
    error below the crossing is NaN.
    """
    beyond = error >= threshold
    at = np.where(beyond.any(axis=0), beyond.argmax(axis=0), len(radii))
    logs = np.log(radii)
    here, before = np.minimum(at, len(radii) - 1), np.clip(at - 1, 0, len(radii) - 1)
    high = np.take_along_axis(error, here[None], axis=0)[0]
    low = np.take_along_axis(error, before[None], axis=0)[0]
    with np.errstate(invalid="ignore", divide="ignore"):
        part = (threshold - low) / (high - low)
        crossed = np.exp(logs[before] + part * (logs[here] - logs[before]))
    found = np.where(at == 0, 0.0, np.where(at == len(radii), np.inf, crossed))
    unknown = np.isnan(error) & (np.arange(len(radii)).reshape(-1, *[1] * at.ndim) < at)
    return np.where(unknown.any(axis=0), np.nan, found)


def plane_map(
    before: Float[np.ndarray, "C P 2"], after: Float[np.ndarray, "... C P 2"]
) -> Float[np.ndarray, "... C 2 2"]:
    """Return G of the least-squares fit after = G before + g; NaN where the points lie on a line.

    ``G = S_ab S_bb^-1`` with the covariances of the points, in closed form.
    """
    before = before - before.mean(axis=-2, keepdims=True)
    after = after - after.mean(axis=-2, keepdims=True)
    S = np.einsum("cpi,cpj->cij", before, before)
    (a, b), (_, d) = S[:, 0].T, S[:, 1].T
    determinant = a * d - b * b
    flat = determinant <= before.shape[-2] * np.finfo(float).eps * a * d
    adjugate = np.stack([np.stack([d, -b], -1), np.stack([-b, a], -1)], -2)
    inverse = adjugate / np.where(flat, np.nan, determinant)[:, None, None]
    return np.einsum("...cpi,cpj,cjk->...cik", after, before, inverse)


def rotation(matrix: Float[np.ndarray, "... 2 2"]) -> Float[np.ndarray, "..."]:
    """Return the angle of the rotation nearest to a 2 x 2 matrix, in (-pi, pi], counter-clockwise."""
    return np.arctan2(matrix[..., 1, 0] - matrix[..., 0, 1], matrix[..., 0, 0] + matrix[..., 1, 1])


def _share(product, keep):
    count = keep.sum(axis=-1)
    with np.errstate(invalid="ignore"):
        return np.where(count > 0, ((product > 0) & keep).sum(axis=-1) / count, np.nan)


def _median(top, bottom, keep):
    ratio = np.divide(top, np.broadcast_to(bottom, top.shape), out=np.full(top.shape, np.nan), where=keep)
    return _nanmedian(ratio)


def _nanmedian(values):
    found = np.full(values.shape[:-1], np.nan)
    some = np.isfinite(values).any(axis=-1)
    found[some] = np.nanmedian(values[some], axis=-1)
    return found


def _in_the_plane(seen, first, keep):
    z_0, n_0 = seen.plane[first], seen.natural_plane[first]
    home = n_0[:, None] - z_0
    share = _share(((seen.plane - z_0) * home).sum(axis=-1), keep)
    constant = _share(((seen.natural_plane - n_0)[:, :, None] * home).sum(axis=-1), keep)
    return {
        "inward_share_plane": share,
        "inward_constant_plane": constant,
        "inward_excess_plane": share - constant,
        "plane_rotation": rotation(plane_map(z_0, seen.plane)),
        "plane_rotation_linear": rotation(plane_map(z_0, seen.tangent_plane)),
    }
