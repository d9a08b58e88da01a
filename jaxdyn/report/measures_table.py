"""Stage 7 of 7: the table of every measure beside every rung, from the stage `measures` of a study."""

import numpy as np
import xarray as xr

from . import captions
from .chart import Chart
from .profiles import TITLES

MINUS = "\N{MINUS SIGN}"


def measures_chart(found: xr.Dataset, data: str) -> Chart:
    """List every measure: first and last layer, by rung the largest excess and how many layers it accounts for."""
    rungs = [str(rung) for rung in found["rung"].values]
    rows = [("measure", "first and last layer", *rungs, "trend along depth, p (N7)")]
    for name in found["measure"].values:
        at = found.sel(measure=name)
        values = at["measured"].values[np.isfinite(at["measured"].values)]
        ends = f"{_short(values[0])} \N{HORIZONTAL ELLIPSIS} {_short(values[-1])}" if len(values) else ""
        trend = f"{float(at['trend']):+.2f}, {float(at['trend_p']):.2g}".replace("-", MINUS)
        cells = [_cell(at.sel(rung=rung)) for rung in rungs]
        rows.append((_title(str(name)), ends, *cells, trend if np.isfinite(at["trend"]) else ""))
    share = f"{100 * float(found.attrs['tolerance']):.0f} %"
    caption = captions.join(
        data,
        "Excess: the mean over samples less the mean of the rung's draws, of the layer where it is largest in size; in "
        f"brackets in how many layers the whole 95 % interval of the excess lies within {share} of the number "
        "(articles as replicates, and the spread of the draws). One rule for all, not the claims' margins. The "
        "products are J_l ... J_1 at every depth; the first is one matrix, which N2 cannot change. N3, the free "
        "law, speaks of participation ratios only.",
    )
    lead = "The leftmost rung that accounts for a number in every layer is what the number tells you."
    return Chart(
        "measures_ladder", "Every measure beside every rung", "table", caption, (), (), lead, table=tuple(rows)
    )


OWN_TITLES = {
    "henrici": "Henrici departure",
    "eigenvector_condition_q90": "eigenvalue condition, 90 % quantile",
    "eigenvector_condition_max": "eigenvalue condition, largest",
    "roy_vetterli_rank": "rank of Roy and Vetterli",
    "cross_layer_overlap": "overlap with the layer before",
}


def _title(name: str) -> str:
    known = TITLES | OWN_TITLES
    if name.startswith("product_"):
        return f"product: {_title(name.removeprefix('product_'))}"
    return known.get(name, name.replace("_", " "))


def _cell(at: xr.Dataset) -> str:
    state, excess = np.array([str(one) for one in at["state"].values]), at["excess"].values
    said = (state != "") & np.isfinite(excess)
    if not said.any():
        return ""
    largest = excess[said][np.argmax(np.abs(excess[said]))]
    return f"{_short(largest, sign=True)} ({np.sum(state[said] == 'explained')} of {said.sum()})"


def _short(value: float, *, sign: bool = False) -> str:
    return (f"{value:+.3g}" if sign else f"{value:.3g}").replace("-", MINUS)
