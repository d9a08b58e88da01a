"""Stage 7 of 7: figures of a trajectory with two axes of its own: heat maps, phase portraits, paths."""

from typing import TYPE_CHECKING

import numpy as np

from .chart import Chart, Panel, Series
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
        "Pearson's r over texts of a unit at two points along depth, mean over units (D2). Even points enter "
        "attention, "
        "odd ones the MLP. A walk of noise steps starts at the model's first point and goes on by isotropic steps as "
        "long as the model's: a smooth band along the diagonal is what any sum of independent steps has.",
    )
    lead = "A band along the diagonal is no finding; a band wider or narrower than the noise walk's may be one."
    return Chart(
        "dynamics_matrix", "Correlation of every point with every other", "heat", caption, tuple(panels), (), lead
    )


def path_chart(one: "Dynamics") -> Chart | None:
    """The mean state's path in its principal plane, beside that of a random walk of the same steps."""
    found = one.get("path")
    if found is None or found.sizes["component"] < 2:
        return None
    panels = []
    for control in (name for name in ("trained", "random") if name in found["control"].values.tolist()):
        at = found.sel(control=control)
        both = (("path", "variance_share", MARKS[control][1]),
                ("walk_path", "walk_variance_share", f"null: walk with the steps of {MARKS[control][1]}"))  # fmt: skip
        for name, share, title in both:
            x, y = at[name].values[:, 0], at[name].values[:, 1]
            one_, two = at[share].values[:2]
            panels.append(Panel(f"{name}_{control}", title, f"PC 1 ({one_:.0%})", f"PC 2 ({two:.0%})",
                                series=(Series("mean state", "measured", x, y),), window=_square(x, y)))  # fmt: skip
    caption = one.caption(
        "Path of the mean state in the plane of the first two principal components of the states of all points and "
        "texts, "
        "pooled and centred (D8); in brackets their share of the variance. Null: a walk of isotropic steps as long as "
        "the "
        "mean state's, with the same scatter of texts around it, on its own components. Random walks in many "
        "dimensions "
        "have such curved paths too.",
    )
    lead = "A smooth arc in a principal plane is what a random walk draws as well."
    return Chart("dynamics_path", "Path of the mean state", "path", caption, tuple(panels), (), lead)


def _square(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float, float]:
    """Window around the path with equal scales, a little wider than high."""
    tall = max(np.ptp(y), np.ptp(x) * 0.6, 1e-12) * 1.15
    wide = max(np.ptp(x) * 1.15, tall)
    cx, cy = (x.min() + x.max()) / 2, (y.min() + y.max()) / 2
    return (float(cx - wide / 2), float(cx + wide / 2), float(cy - tall / 2), float(cy + tall / 2))
