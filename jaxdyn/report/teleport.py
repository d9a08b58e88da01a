"""Stage 7 of 7: teleport: where states put elsewhere went, beside every control, and what the Jacobians say of it."""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from .chart import Chart, Panel, Series

if TYPE_CHECKING:
    from .dynamics import Dynamics

GROUP, GRID = "teleport", "grid"
MARKS = {
    GRID: ("measured", "grid in the principal plane"),
    "random-plane": ("rotated", "grid in a random plane"),
    "random-displacement": ("displaced", "random directions, same lengths"),
    "context-frozen": ("frozen", "attention held at its pattern"),
    "context-ablated": ("ablated", "held, without the other positions"),
    "random-init": ("N5", "random initialisation"),
}
"""Role and name of every row of the dimension `teleport_control`."""

MOST_ARROWS = 10
"""Arrows along each side of a panel; a finer grid is thinned out."""

CONTROLS = (
    "Random directions have the grid's lengths. Attention held: the pattern of the natural state, so that the context "
    "adds what it adds there and is not read again; then without the other positions. Random initialisation: one seed, "
    "its own plane. Constant flow: every point makes the natural state's own step."
)


INWARD = (
    "Inward: (z - z_0) . (n - z_0) > 0 in all dimensions, with n the natural state at the start; step off: the "
    "natural state's step is subtracted first. A displacement that is merely turned counts as inward, and a constant "
    "flow has a share of its own (dashed); with the step off it has none, and changes in random directions have half."
)


def flow_chart(one: "Dynamics") -> Chart | None:
    """Arrows from the grid to where the points went, and to where the Jacobians send them."""
    found = one.get(GROUP)
    if found is None:
        return None
    context = found["context"].values[0]
    groups, panels = {}, []
    for h in range(found.sizes["horizon"]):
        for off in (False, True):
            group = f"{h}-{'off' if off else 'all'}"
            words = "natural step taken off" if off else "as they are"
            groups[group] = f"{'after one block' if h == 0 else 'to the last block'}, {words}"
            panels += [_flow_panel(found.isel(start=s, context=0, horizon=h), group, off) for s in
                       range(found.sizes["start"])]  # fmt: skip
    caption = one.caption(
        _design(found),
        f"Arrows: z - z_0 in the plane, in the context of sample {context}, one of {found.sizes['context']}; drawn "
        "longer or shorter by the factor in each panel. Natural step taken off: what is left of an arrow when the step "
        "that the natural state itself makes is subtracted, zero in the null of a constant flow. Jacobians: the "
        "derivative of the natural path, the product of the blocks' in-context Jacobians, applied to the same "
        "displacements.",
    )
    lead = (
        "Most of an arrow is the step that the natural state makes as well: read the arrows with that step taken off, "
        "and beside the prediction of the Jacobians."
    )
    return Chart("teleport_flow", "Flow of states put elsewhere", "flow", caption, tuple(panels), (), lead, groups)


def return_chart(one: "Dynamics") -> Chart | None:
    """Distance to the natural state and inward share after each later block, with the controls."""
    found = one.get(GROUP)
    if found is None:
        return None
    groups = {
        "contraction_relative": "distance / norm(h)",
        "contraction": "distance",
        "inward_share": "inward share",
        "inward_moving": "inward, step off",
    }
    panels = []
    for name in groups:
        for s, start in enumerate(found["start"].values.tolist()):
            series = _return_series(found.isel(start=s), name, start)
            log = name.startswith("contraction")
            panels.append(Panel(f"{name}_{start}", f"from block {start}", "entry of block", group=name,
                                series=tuple(series), log=log))  # fmt: skip
    caption = one.caption(
        _design(found),
        "Distances to the natural state, over that at the start, as they are or over the natural state's own norm.",
        f"Medians and shares over the points of a context, then the mean over {found.sizes['context']} contexts; bars: "
        "2 standard errors over contexts. The last entry is the state after the last block.",
        CONTROLS,
        INWARD,
    )
    lead = (
        "Below 1 points come closer to the natural state, relative to its length or not; what random directions and a "
        "random initialisation do as well is no property of the plane or of training."
    )
    return Chart(
        "teleport_return",
        "Distance from the natural state along depth",
        "lines",
        caption,
        tuple(panels),
        (),
        lead,
        groups,
    )


def contraction_chart(one: "Dynamics") -> Chart | None:
    """The table of contractions at the end by start, beside the nulls and controls, as lines."""
    found = one.get(GROUP)
    if found is None:
        return None
    panels = []
    for name, words in (
        ("contraction_relative", "distance / norm(h) at the end, over that at the start"),
        ("contraction", "distance at the end, over that at the start"),
        ("inward_moving", "inward share at the end, natural step taken off"),
    ):
        each = [_return_series(found.isel(start=s), name, int(start)) for s, start in enumerate(found["start"].values)]
        series = [_by_start(found["start"].values, same) for same in zip(*each, strict=True)]
        panels.append(Panel(name, words, "block where the state is replaced", series=tuple(series),
                            log=name.startswith("contraction")))  # fmt: skip
    caption = one.caption(
        _design(found),
        f"Medians and shares over the points, mean over {found.sizes['context']} contexts; bars: 2 standard errors.",
        CONTROLS, INWARD,
    )  # fmt: skip
    lead = (
        "One number a start: what the grid does counts where it leaves constant flow, random directions and contexts."
    )
    return Chart("teleport_contraction", "Distance at the end, by start", "lines", caption, tuple(panels), (), lead)


def radius_chart(one: "Dynamics") -> Chart | None:
    """Error of the linear prediction by the size of the displacement."""
    found = one.get(GROUP)
    if found is None or found.sizes["radius"] < 2:
        return None
    threshold, x = float(found.attrs["threshold"]), np.log10(found["radius"].values)
    panels = []
    for s, start in enumerate(found["start"].values.tolist()):
        at = found.isel(start=s).mean("context")
        series = [Series(f"threshold {threshold:g}", "N0", x, np.full(len(x), threshold))]
        for name, role, words in (
            ("sweep_linear_error_update", "jacobian", "skip taken off, to the last block"),
            ("sweep_linear_error", "measured", "of the whole displacement, to the last block"),
        ):
            series.append(Series(words, role, x, at[name].isel(stop=-1).values))
        one_block = at["sweep_linear_error_update"].isel(stop=start + 1).values
        series.insert(1, Series("skip taken off, after one block", "linear", x, one_block))
        panels.append(Panel(f"radius_{start}", f"from block {start}", "log10 of the displacement over the grid's",
                            series=tuple(series), log=True))  # fmt: skip
    caption = one.caption(
        _design(found),
        "Median over points, mean over contexts, of norm(z - n - J d) / norm(z - n), with d the displacement from the "
        "natural state at the start and J the product of the in-context Jacobians; with the skip taken off, over "
        "norm(z - n - d): 1 where J is no better than its null, the identity. 0 on the axis is the grid's own size.",
    )
    lead = (
        "With the skip connection counted in, the identity alone predicts much: read the error with the skip taken off."
    )
    return Chart("teleport_linear", "Reach of the linear prediction", "plane", caption, tuple(panels), (), lead)


def rates_chart(one: "Dynamics") -> Chart | None:
    """Finite-time stretching rates of the natural paths beside those of random products."""
    found = one.get(GROUP)
    if found is None:
        return None
    rate = found["stretching_rate"].values
    x = np.arange(1, rate.shape[-1] + 1)
    null, sd = (found[name].values for name in ("stretching_rate_null", "stretching_rate_null_sd"))
    fans = [Series(f"sample {c}", "fan", x, line) for c, line in zip(found["context"].values, rate, strict=True)]
    raw, excess = list(fans), []
    if np.isfinite(null).any():
        middle, spread = null.mean(axis=1), 2 * sd.mean(axis=1)
        n1, n2 = (found["rate_null"].values.tolist().index(name) for name in ("N1", "N2"))
        raw.append(Series("N1, singular vectors at random", "N1", x, middle[n1], middle[n1] - spread[n1],
                          middle[n1] + spread[n1]))  # fmt: skip
        raw.append(Series("N2, layers turned at random", "N2", x, middle[n2]))
        excess.append(Series("N1, two standard deviations", "N1", x, 0 * middle[n1], -spread[n1], spread[n1]))
        excess.append(Series("N2 less N1", "N2", x, middle[n2] - middle[n1]))
        excess.append(Series("measured less N1", "measured", x, rate.mean(axis=0) - middle[n1]))
    raw.append(Series("measured, mean over samples", "measured", x, rate.mean(axis=0)))
    panels = [Panel("rates", "rates", "direction, most stretched first", "nat a block", series=tuple(raw))]
    if excess:
        panels.append(
            Panel("rates_excess", "less the mean of N1", panels[0].x_label, "nat a block", series=tuple(excess))
        )
    caption = one.caption(
        f"log(s_i) / m of the product of the m in-context Jacobians from block {found.attrs['rates_from']} on, "
        f"N = {len(rate)} samples; {found.attrs['rate_draws']} draws a null, each of the sample's own Jacobians. "
        "Rates of singular values of which float arithmetic keeps no digit are left out.",
    )
    lead = (
        "Finite-depth quantities of single paths, not limits: a product of unrelated matrices spreads them as widely, "
        "and only what leaves the band of the random products behind says something of how layers fit together."
    )
    return Chart("teleport_rates", "Finite-time stretching rates", "lines", caption, tuple(panels), (), lead)


def _design(found: xr.Dataset) -> str:
    said = found.attrs
    off = "the samples' mean" if said["off_plane"] == "mean" else "the natural state's own"
    scaled = {"massive": "massive coordinates scaled down", "all": "every coordinate standardised", "none": "raw"}
    return (
        f"Teleport (D10): the last token's input to a block is replaced by {said['grid']} x {said['grid']} points over "
        f"the range of {said['data_samples']} samples in their principal plane there ({scaled[said['scaling']]}; off "
        f"the plane: {off} part) and run on."
        + (f" Left out: block {said['left_out']}, where the samples span no plane." if said["left_out"] else "")
    )


def _flow_panel(at: xr.Dataset, group: str, off: bool) -> Panel:
    """One start, context and horizon."""
    n, start = int(at.attrs["grid"]), int(at["start"])
    rows = np.arange(n)[:: -(-n // MOST_ARROWS)]
    chosen = (rows[:, None] * n + rows).ravel()
    x, y = (at[f"grid_{axis}"].values for axis in "xy")
    moved = [np.stack([at[f"{name}_x"] - x, at[f"{name}_y"] - y], -1)[chosen] for name in ("arrow", "linear")]
    if off:
        own = np.array([float(at[f"natural_end_{axis}"] - at[f"natural_{axis}"]) for axis in "xy"])
        moved = [arrows - own for arrows in moved]
    step = min(np.ptp(x), np.ptp(y)) / (len(rows) - 1)
    usual = np.quantile(np.linalg.norm(moved[0], axis=-1), 0.9)
    factor = 1.2 * step / usual if usual > 0 else 1.0
    x, y = x[chosen], y[chosen]
    series = [
        Series("samples", "walk", at["data_x"].values, at["data_y"].values),
        Series("predicted by the Jacobians", "jacobian", x, y, to_x=x + factor * moved[1][:, 0],
               to_y=y + factor * moved[1][:, 1]),
        Series("measured", "measured", x, y, to_x=x + factor * moved[0][:, 0], to_y=y + factor * moved[0][:, 1]),
        Series("natural state", "front", at["natural_x"].values.reshape(1), at["natural_y"].values.reshape(1)),
    ]  # fmt: skip
    share = float(at["plane_explained"])
    return Panel(f"flow_{group}_{start}", f"block {start}, {share:.0%} of the variance", "PC 1", "PC 2", group,
                 tuple(series), window=_window(at), note=f"arrows times {factor:.2g}")  # fmt: skip


def _window(at: xr.Dataset) -> tuple[float, float, float, float]:
    """The grid and the natural state with a margin, at equal scales and at most twice as wide as high."""
    edges = []
    for axis in "xy":
        values = np.append(at[f"grid_{axis}"].values, float(at[f"natural_{axis}"]))
        edges.append((values.min() + values.max(), np.ptp(values) * 1.15))
    (x, wide), (y, tall) = edges
    wide, tall = max(wide, 0.8 * tall), max(tall, 0.6 * wide)
    return (x - wide) / 2, (x + wide) / 2, (y - tall) / 2, (y + tall) / 2


def _return_series(at: xr.Dataset, name: str, start: int) -> list[Series]:
    x = at["stop"].values[start + (name.startswith("inward")) :]
    stops = slice(x[0], None)
    series = []
    if name.startswith("inward"):
        constant = at["inward_constant"].sel(teleport_control=GRID).mean("context").isel(stop=stops).values
        flat = constant if name == "inward_share" else np.zeros(len(x))
        series.append(Series("constant flow", "N0", x, flat))
    else:
        if name == "contraction":
            series.append(Series("constant flow", "N0", x, np.ones(len(x))))
            linear = at["linear_contraction"].sel(teleport_control=GRID).mean("context").isel(stop=stops).values
            series.append(Series("predicted by the Jacobians", "jacobian", x, linear))
        else:
            norm = at["contraction"] / at["contraction_relative"]
            flat = (1 / norm.sel(teleport_control=GRID)).mean("context").isel(stop=stops).values
            series.append(Series("constant flow", "N0", x, flat))
    for control in reversed(at["teleport_control"].values.tolist()):
        role, label = MARKS[control]
        values = at[name].sel(teleport_control=control).isel(stop=stops)
        y, count = values.mean("context").values, values.sizes["context"]
        spread = None
        if control == GRID and count > 1:
            spread = 2 * values.std("context", ddof=1).values / np.sqrt(count)
        series.append(Series(label, role, x, y, *((y - spread, y + spread) if spread is not None else ())))
    return series


def _by_start(starts: np.ndarray, series: tuple[Series, ...]) -> Series:
    """The last values of one series a start, as a series over the starts."""

    def last(columns):
        return None if columns[0] is None else np.array([column[-1] for column in columns])

    y, low, high = (last([getattr(one, name) for one in series]) for name in ("y", "low", "high"))
    assert y is not None
    return Series(series[0].label, series[0].role, starts, y, low, high)
