"""Stage 7 of 7: phase portraits and rotation counts, each unit beside its own random walk."""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from .chart import Chart, Panel, Series
from .dynamics_profiles import MARKS

if TYPE_CHECKING:
    from .dynamics import Dynamics

MOST_RANKS = 200
"""Units drawn in a profile of counts; of more, evenly spaced ranks."""

SIGN = "Counter-clockwise is positive, position to the right and speed upwards: a sine of f cycles has R = -f."
TESTS = {"mean_walk": "mean trajectory", "sample_walk": "samples, averaged"}


def verdict(found: xr.Dataset, test: str, control: str = "trained") -> str:
    """Say in one sentence what a test found, beside what chance finds."""
    n = {name: float(v) for name, v in zip(found["outcome"].values.tolist(),
         found["units"].sel(rotation_test=test, control=control).values, strict=True)}  # fmt: skip
    level, units = float(found.attrs["level"]), found.sizes["coordinate"]
    _, null, sd, p = (float(v) for v in found["average"].sel(rotation_test=test, control=control).values)
    average = float(found["average"].sel(rotation_test=test, control=control, statistic="measured"))
    return (
        f"R averaged over units is {average:.2f}, that of walks {null:.2f} ± {sd:.2f} (p {p:.2g}); "
        f"{n['found_bh']:.0f} of {units} units differ from their own random walk at a false discovery rate of "
        f"{level:g} "
        f"({n['more_bh']:.0f} turn more, {n['less_bh']:.0f} less; the null itself gives {n['chance_bh']:.2f}); by "
        "max-T "
        f"{n['found_max_t']:.0f} ({n['more_max_t']:.0f} more, {n['less_max_t']:.0f} less; by chance one or more in "
        f"{level:.0%} of runs); uncorrected {n['uncorrected']:.0f}, by chance {level * units:.1f}"
    )


def rotation_chart(one: "Dynamics") -> Chart | None:
    """Counts of all units in order, on the band of each unit's own walk null."""
    found = one.get("rotation")
    if found is None:
        return None
    panels = []
    for control in (name for name in ("trained", "random") if name in found["control"].values.tolist()):
        at = found.sel(control=control)
        for kind, words in (("mean", "mean trajectory"), ("sample", "samples, averaged")):
            count = at[f"count_{kind}"].values
            order = np.argsort(count)
            order = order[np.unique(np.linspace(0, len(order) - 1, min(MOST_RANKS, len(order))).astype(int))]
            x = np.arange(len(order))
            middle, sd = at[f"{kind}_walk"].values[order], at[f"{kind}_walk_sd"].values[order]
            series = [Series("own walk null, mean ± 2 sd", "walk", x, middle, middle - 2 * sd, middle + 2 * sd)]
            if kind == "mean":
                series.append(Series("flipped increments, mean", "N0", x, at["mean_flip"].values[order]))
                series.append(
                    Series("depth shuffled, mean (a straw man)", "floor", x, at["mean_shuffle"].values[order])
                )
            series.append(Series("measured R", "measured", x, count[order]))
            panels.append(Panel(f"{kind}_{control}", f"{words}, {MARKS[control][1]}", "units, by R", "R, turns",
                                series=tuple(series)))  # fmt: skip
    told = " ".join(f"{words[0].upper()}{words[1:]}: {verdict(found, test)}." for test, words in TESTS.items())
    caption = one.caption(
        f"Rotation count R (D7). {SIGN} Null: every increment times a Gaussian number drawn for its depth, so steps "
        "keep "
        f"the unit's own sizes; {found.attrs['draws']} draws for the mean trajectory, {found.attrs['sample_draws']} "
        "for "
        f"samples ({found.attrs['samples_tested']} of them tested). {told}",
        "Two-sided tests; sorting by R alone makes the ends leave a band of 2 sd.",
    )
    lead = f"About as many turns as a random walk has are no rotation. Mean trajectory: {verdict(found, 'mean_walk')}."
    return Chart(
        "dynamics_rotation", "Rotation counts beside their own random walks", "lines", caption, tuple(panels), (), lead
    )


def portrait_chart(one: "Dynamics") -> Chart | None:
    """Phase portraits of six units: furthest from their own null on either side, and in the middle."""
    found = one.get("rotation")
    if found is None:
        return None
    at = found.sel(control="trained")
    count, middle, sd = (at[name].values for name in ("count_mean", "mean_walk", "mean_walk_sd"))
    with np.errstate(invalid="ignore", divide="ignore"):
        z = np.where(sd > 1e-9, (count - middle) / sd, 0.0)
    order = np.argsort(z)
    half = len(order) // 2
    chosen = list(dict.fromkeys(int(u) for u in (*order[:2], *order[half - 1 : half + 1], *order[-2:])))
    panels = []
    for unit in chosen:
        x, y = at["portrait_x"].values[unit], at["portrait_y"].values[unit]
        p = float(at["mean_walk_p_max_t"].values[unit])
        title = f"unit {unit}: R {count[unit]:.2f}, walk {middle[unit]:.2f} ± {sd[unit]:.2f}, p {p:.2g}"
        panels.append(
            Panel(f"unit_{unit}", title, "position", "speed", series=(Series("mean trajectory", "measured", x, y),))
        )
    caption = one.caption(
        "Phase portraits (D6) of the mean trajectory: position a_l - a_0, speed g_l - g_0, g the gradient along "
        "depth. Of "
        f"{len(z)} units the two that turn most against their own walk null, the two in the middle, and the two that "
        "turn "
        f"least. p is corrected for all units (max-T). {SIGN} Portraits of random walks turn too: compare R with the "
        "null.",
    )
    lead = (
        "Curls are what every smooth or noisy trajectory draws in this plane; the numbers say whether there are more."
    )
    return Chart("dynamics_portraits", "Phase portraits of single units", "path", caption, tuple(panels), (), lead)
