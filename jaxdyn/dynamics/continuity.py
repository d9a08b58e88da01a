"""D2-D4 of a model and its controls: how far each unit goes on along depth, in which direction, how fast.

A residual stream is continuous by construction: each point is the last one and something added. What that alone gives
is the skip-matched null, a_l + n_l with noise as long as the step; only what differs from it is the model's.
"""

import numpy as np
import xarray as xr

from .correlation import correlation_matrix, pair_correlation
from .exact import exact_mean, finite_mean
from .motion import NAMES, motion
from .stages import Inputs, labelled


def stage(inputs: Inputs) -> xr.Dataset:
    """Correlate, measure directions and speeds, for the model and every control."""
    states, rows = inputs.states, inputs.rows()
    units: dict[str, np.ndarray] = {}
    matrix: dict[str, np.ndarray] = {}
    moved: dict[str, dict[str, np.ndarray]] = {name: {} for name in NAMES}
    for row in rows:
        units[row] = pair_correlation(lambda row=row: states.pairs(row), states.samples)
        matrix[row] = correlation_matrix(lambda row=row: states.chunks(row), states.samples)
        if row not in ("rotated", "shuffled"):  # the first changes none of these, the second says nothing of them
            for name, mean in _motion(states, row).items():
                moved[name][row] = mean
        inputs.tick("continuity", rows.index(row) + 1, len(rows))
    found = {
        "unit_correlation": labelled(
            "Pearson's r of a unit at a point with itself at the next", ("control", "step", "coordinate"),
            inputs.by_control(units), "D2"),
        "mean_correlation": labelled(
            "mean of unit_correlation over the units that vary", ("control", "step"),
            inputs.by_control({row: finite_mean(r) for row, r in units.items()}), "D2"),
        "correlation_matrix": labelled(
            "Pearson's r of a unit at two points, mean over units", ("control", "point", "other_point"),
            inputs.by_control(matrix), "D2"),
    }  # fmt: skip
    for name, (text, formula) in NAMES.items():
        found[name] = labelled(
            f"{text}, mean over samples", ("control", "step"), inputs.by_control(moved[name]), formula
        )
    crosses = np.where(inputs.points.within, "attention", "MLP") if inputs.points.site[0] != "both" else ["block"]
    crossed = np.broadcast_to(np.array(crosses, object), len(inputs.points) - 1)
    return xr.Dataset(found, {"crosses": ("step", crossed.astype(str), {"long_name": "sublayer the step crosses"})})


def _motion(states, row: str) -> dict[str, np.ndarray]:
    """Means over samples; acceleration and turn of the skip null are those of its walk, where steps follow steps."""
    pieces = [motion(*pair) for pair in states.pairs(row)]
    if row == "skip":
        walks = [motion(chunk[:, :-1], chunk[:, 1:]) for chunk in states.chunks(row)]
        pieces = [piece | {name: walk[name] for name in ("acceleration", "turn")}
                  for piece, walk in zip(pieces, walks, strict=True)]  # fmt: skip
    found = {}
    for name in NAMES:
        every = np.concatenate([piece[name] for piece in pieces])
        found[name] = exact_mean(np.nan_to_num(every), 0)
        found[name][np.isnan(every).any(axis=0)] = np.nan
    return found
