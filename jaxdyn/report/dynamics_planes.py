"""Stage 7 of 7: figures of a trajectory with two axes of its own: heat maps, phase portraits, paths."""

from typing import TYPE_CHECKING

import numpy as np

from .chart import Chart, Panel
from .dynamics_profiles import MARKS

if TYPE_CHECKING:
    from .dynamics import Dynamics


def matrix_chart(one: "Dynamics") -> Chart | None:
    """Mean unit correlation of every point with every other, as heat maps: the model and its controls."""
    found = one.get("continuity")
    if found is None:
        return None
    panels = []
    for control in found["control"].values.tolist():
        values = found["correlation_matrix"].sel(control=control).values
        if np.isfinite(values).any():
            axis = np.arange(len(values))
            title = "a walk of noise steps" if control == "skip" else MARKS[control][1]
            panels.append(Panel(control, title, "point", "point", grid=values, grid_x=axis, grid_y=axis))
    caption = one.caption(
        "Pearson's r over texts of a unit at two points along depth, mean over units (D2). Even points enter attention, "
        "odd ones the MLP. A walk of noise steps starts at the model's first point and goes on by isotropic steps as "
        "long as the model's: a smooth band along the diagonal is what any sum of independent steps has.",
    )
    lead = "A band along the diagonal is no finding; a band wider or narrower than the noise walk's may be one."
    return Chart(
        "dynamics_matrix", "Correlation of every point with every other", "heat", caption, tuple(panels), (), lead
    )
