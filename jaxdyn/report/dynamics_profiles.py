"""Stage 7 of 7: profiles along depth of a trajectory's density, continuity, direction, speed and more, with controls."""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from .chart import Chart, Panel, Series

if TYPE_CHECKING:
    from .dynamics import Dynamics

MARKS = {
    "trained": ("measured", "trained"),
    "random": ("N5", "random initialisation"),
    "rotated": ("rotated", "random basis"),
    "skip": ("skip", "skip-matched noise"),
    "shuffled": ("shuffled", "units shuffled"),
}
"""Role and name of every row of the dimension `control`."""

CONTROLS = (
    "Controls: random initialisation (one seed, same architecture, same texts); a random orthogonal (Haar) basis; "
    "skip-matched noise, a point and isotropic noise as long as its step; unit identity shuffled at every point."
)
STEPS = "Step l goes from point l to the next; even steps cross an attention, odd ones an MLP."


def by_control(found: xr.Dataset, name: str, x: np.ndarray, **options) -> list[Series]:
    """Return a line for every control that the variable (control, ...) has."""
    series = []
    for control in found["control"].values.tolist():
        role, label = MARKS[control]
        y = found[name].sel(control=control).values
        if np.isfinite(y).any():
            series.append(Series(label, role, x, y, **options))
    return series


def steps_caption(one: "Dynamics") -> str:
    """Say which sublayer a step crosses."""
    return "Step l goes from the entry of block l to the next." if "one a block" in str(
        one.root.attrs.get("points")) else STEPS  # fmt: skip


def continuity_chart(one: "Dynamics") -> Chart | None:
    """Unit correlation between consecutive points and its distribution, beside the controls."""
    found = one.get("continuity")
    if found is None:
        return None
    x = found["step"].values
    mean = Panel("mean_correlation", "mean unit correlation with the next point", "step", "Pearson's r",
                 series=tuple(by_control(found, "mean_correlation", x)))  # fmt: skip
    units = found["unit_correlation"].sel(control="trained").values
    with np.errstate(invalid="ignore"):
        low, middle, high = (np.nanquantile(units, q, axis=-1) for q in (0.1, 0.5, 0.9))
    spread = Panel(
        "unit_correlation", "trained, single units", "step", "Pearson's r",
        series=(Series("units, 10 % to 90 %", "walk", x, middle, low, high), Series("median", "measured", x, middle)),
    )  # fmt: skip
    caption = one.caption(
        "Pearson's r over texts of a unit at a point and at the next (D2), mean over units.", CONTROLS, steps_caption(one),
        "Skip-matched noise is what the skip connection alone gives; only the distance from it is the model's.",
    )  # fmt: skip
    lead = "A residual stream is continuous by construction: read the distance from the skip-matched line."
    return Chart("dynamics_continuity", "Continuity of units along depth", "lines", caption, (mean, spread), (), lead)


def motion_chart(one: "Dynamics") -> Chart | None:
    """Cosine, speed, relative speed and acceleration along depth."""
    found = one.get("continuity")
    if found is None:
        return None
    x = found["step"].values
    words = {
        "cosine": "cosine of a point with the next (D3)",
        "relative_velocity": "step over state, norms (D4)",
        "velocity": "norm of the step (D4)",
        "turn": "cosine of a step with the next step",
    }
    panels = tuple(
        Panel(name, text, "step", series=tuple(by_control(found, name, x)), log="velocity" in name)
        for name, text in words.items()
    )
    caption = one.caption(
        "Mean over texts. Random basis and shuffled units are not shown: the first leaves all of these as they are.",
        "Skip-matched noise has the measured steps' norms, so speeds agree with it by construction.", steps_caption(one),
    )  # fmt: skip
    return Chart("dynamics_motion", "Direction and speed along depth", "lines", caption, panels, (), "")


def density_chart(one: "Dynamics") -> Chart | None:
    """All estimators of density along depth."""
    found = one.get("density")
    if found is None:
        return None
    x = found["point"].values
    gaussian = {"mean_abs_relative": np.sqrt(2 / np.pi), "share_above_rms": 0.31731050786291415, "kurtosis": 3.0,
                "participation": 1 / 3}  # fmt: skip
    words = {
        "mean_abs": "mean abs(a)",
        "share_above": "share above tau",
        "mean_abs_relative": "mean abs(a) / rms",
        "share_above_rms": "share above rms",
        "kurtosis": "kurtosis over units",
        "participation": "participation ratio of a² / D",
    }
    panels = []
    for name, text in words.items():
        series = by_control(found, name, x)
        if name in gaussian:
            series.append(Series("Gaussian units, closed form", "N0", x, np.full(len(x), gaussian[name])))
        panels.append(Panel(name, text, "point", series=tuple(series), log=name in ("mean_abs", "kurtosis")))
    caption = one.caption(
        f"Density of the state (D1), mean over texts. tau = {found.attrs['tau']:.3g} "
        f"({found.attrs['tau_rule']}). Dashed: independent Gaussian units. A random basis makes any state nearly Gaussian:",
        "the distance between the two is what belongs to the units. Even points enter attention, odd ones the MLP.",
    )
    lead = "Mean abs(a) and the share above tau grow with the norm of the stream; the other four do not know of it."
    return Chart("dynamics_density", "Density of the state along depth", "lines", caption, tuple(panels), (), lead)
