"""Stage 5 of 7: what is kept of teleport: labelled arrays with units (D10)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from .lyapunov import NULLS, Rates
from .teleport_measures import MEASURES, linear_radius

if TYPE_CHECKING:
    from .teleport import Place
    from .teleport_settings import TeleportSettings

HORIZONS = ("one block", "last block")
SWEPT = (
    "inward_share",
    "inward_constant",
    "inward_moving",
    "contraction",
    "contraction_relative",
    "linear_contraction",
    "linear_error",
    "linear_error_update",
)
UNITS = {"plane_rotation": "rad", "plane_rotation_linear": "rad"}
BY_CONTROL = ("teleport_control", "start", "context", "stop")
AT_START = ("start", "context")
ARROWS = ("horizon", "start", "context", "grid_point")
RATES = ("context", "stretch")

NAMES: dict[str, tuple[str, tuple[str, ...], str]] = {
    **{name: (text, BY_CONTROL, UNITS.get(name, "1")) for name, text in MEASURES.items()},
    **{f"sweep_{name}": (f"{MEASURES[name]}, by radius", ("radius", *BY_CONTROL[1:]), "1") for name in SWEPT},
    "linear_radius": ("radius where linear_error reaches the threshold; 0 before, inf beyond the sweep",
                      BY_CONTROL[1:], "1"),
    "linear_radius_update": ("radius where linear_error_update reaches the threshold; 0 before, inf beyond",
                             BY_CONTROL[1:], "1"),
    "linear_radius_relative": ("linear_radius times the grid's displacement over norm(n_0)", BY_CONTROL[1:], "1"),
    "displacement": ("median norm(z_0 - n_0) of the grid, over norm(n_0)", AT_START, "1"),
    "grid_x": ("grid point, first axis of the plane", ("start", "grid_point"), "scaled residual"),
    "grid_y": ("grid point, second axis", ("start", "grid_point"), "scaled residual"),
    "arrow_x": ("where the point went, first axis", ARROWS, "scaled residual"),
    "arrow_y": ("where the point went, second axis", ARROWS, "scaled residual"),
    "linear_x": ("where the Jacobians send it, first axis", ARROWS, "scaled residual"),
    "linear_y": ("where the Jacobians send it, second axis", ARROWS, "scaled residual"),
    "natural_x": ("natural state at the start, first axis", AT_START, "scaled residual"),
    "natural_y": ("natural state at the start, second axis", AT_START, "scaled residual"),
    "natural_end_x": ("natural state where the arrows end, first axis", ARROWS[:3], "scaled residual"),
    "natural_end_y": ("natural state where the arrows end, second axis", ARROWS[:3], "scaled residual"),
    "data_x": ("the samples, first axis", ("start", "plane_sample"), "scaled residual"),
    "data_y": ("the samples, second axis", ("start", "plane_sample"), "scaled residual"),
    "data_distance": ("distance of a grid point to the nearest sample", ("start", "grid_point"), "scaled residual"),
    "data_spacing": ("median distance of a sample to the nearest other one", ("start",), "scaled residual"),
    "plane_explained": ("share of the samples' scaled variance in the plane", ("start",), "1"),
    "stretching_rate": ("finite-time stretching rate log(s_i) / m of the product of the m Jacobians", RATES,
                        "nat a layer"),
    "stretching_digits": ("decimal digits kept in s_i", RATES, "1"),
    "stretching_rate_null": ("mean over draws of the rate of random products", ("rate_null", *RATES), "nat a layer"),
    "stretching_rate_null_sd": ("standard deviation over draws", ("rate_null", *RATES), "nat a layer"),
}  # fmt: skip
"""Long name, dimensions and unit of every variable; `stop` is the site where the state is looked at."""


def assemble(
    places: "Sequence[Place]",
    initial: Sequence[Sequence[dict[str, np.ndarray]]],
    rates: Rates,
    starts: Sequence[int],
    samples: np.ndarray,
    settings: "TeleportSettings",
) -> xr.Dataset:
    """Put everything into one dataset.

    Parameters
    ----------
    places : one a start. initial : the measures of each random initialisation, one a start.
    rates : from `lyapunov.stretching`. starts, samples : what was chosen. settings : of the run.
    """
    values = _arrows(places, starts) | _planes(places, starts)
    controls = [*places[0].summaries, *(["random-init"] if initial else [])]
    for name in MEASURES:
        by_control = [np.stack([place.summaries[c][name].T for place in places]) for c in places[0].summaries]
        if initial:
            by_control.append(np.mean([[at[name].T for at in one] for one in initial], axis=0))
        values[name] = np.stack(by_control)
    for name in SWEPT:
        values[f"sweep_{name}"] = np.stack(
            [np.stack([place.sweep[r][name].T for place in places]) for r in range(len(settings.radii))]
        )
    radii, stops = np.asarray(settings.radii), np.arange(places[0].seen.distance.shape[0])
    after = stops > np.asarray(starts)[:, None, None]
    for name in ("linear_radius", "linear_radius_update"):
        error = values[f"sweep_{name.replace('radius', 'error')}"]
        values[name] = np.where(after, linear_radius(radii, error, settings.threshold), np.nan)
    values["linear_radius_relative"] = values["linear_radius"] * values["displacement"][..., None]
    values |= {
        "stretching_rate": rates.rate,
        "stretching_digits": rates.digits,
        "stretching_rate_null": rates.null_mean,
        "stretching_rate_null_sd": rates.null_sd,
    }
    variables: dict[str, Any] = {}
    for name, (text, dims, unit) in NAMES.items():
        attributes = {"long_name": text, "units": unit, "formula": "methods.md D10"}
        variables[name] = (dims, np.asarray(values[name], np.float64), attributes)
    coordinates = {
        "teleport_control": controls,
        "start": np.array(starts),
        "context": samples,
        "stop": stops,
        "radius": radii,
        "horizon": list(HORIZONS),
        "rate_null": list(NULLS),
    }
    attributes = {
        "grid": settings.grid, "scaling": settings.scaling, "off_plane": settings.off_plane,
        "threshold": settings.threshold,
        "rates_from": min(starts), "random_planes": settings.random_planes,
        "initial_seeds": len(initial), "rate_draws": settings.rate_draws, "seed": settings.seed,
        "data_samples": len(places[0].data),
    }  # fmt: skip
    return xr.Dataset(variables, coordinates, attributes)


def _arrows(places, starts):
    """Coordinates of the arrows after one block and after the last, each (horizon, start, context, ...)."""
    found: dict[str, list] = {name: [] for name in ("arrow", "linear", "natural_end")}
    for horizon in HORIZONS:
        stops = [start + 1 if horizon == HORIZONS[0] else -1 for start in starts]
        pairs = list(zip(places, stops, strict=True))
        found["arrow"].append(np.stack([place.seen.plane[stop] for place, stop in pairs]))
        found["linear"].append(np.stack([place.seen.tangent_plane[stop] for place, stop in pairs]))
        found["natural_end"].append(np.stack([place.seen.natural_plane[stop] for place, stop in pairs]))
    return {f"{name}_{axis}": np.stack(values)[..., i] for name, values in found.items() for i, axis in enumerate("xy")}


def _planes(places, starts):
    found = {
        "data_spacing": [place.data_spacing for place in places],
        "plane_explained": [place.plane.explained for place in places],
        "data_distance": [place.data_distance for place in places],
        "displacement": [
            np.median(place.seen.distance[start], axis=-1) / place.seen.norm[start]
            for place, start in zip(places, starts, strict=True)
        ],
    }
    for i, axis in enumerate("xy"):
        found[f"grid_{axis}"] = [place.grid[:, i] for place in places]
        found[f"natural_{axis}"] = [
            place.seen.natural_plane[start][:, i] for place, start in zip(places, starts, strict=True)
        ]
        found[f"data_{axis}"] = [place.data[:, i] for place in places]
    return {name: np.stack(values) for name, values in found.items()}
