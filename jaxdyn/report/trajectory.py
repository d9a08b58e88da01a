"""Stage 7 of 7: the claims' numbers over training beside the null that asks most of each, and what is left."""

import json

import numpy as np
import xarray as xr

from . import captions
from .chart import Chart, Panel, Series

ASKED = ("N1", "n1-of-normal", "rotated")
"""Of each claim's ladder, the rung drawn: what singular values give; of the coupling, the rotated basis."""


def trajectory_charts(found: xr.Dataset) -> list[Chart]:
    """Return two figures: numbers beside their nulls with the loss, and the excess on the band of the margin."""
    numbers, excesses = [], []
    x = np.arange(found.sizes["step"])
    names = tuple(str(step) for step in found["step"].values)
    for claim in json.loads(found.attrs["claims"]):
        rung = next((one for one in ASKED if one in claim["ladder"]), None)
        at = found.sel(claim=claim["name"])
        if rung is None or not np.isfinite(at["number"]).any():
            continue
        number, excess = at["number"].values, at["by_rung"].sel(rung_of=rung).values
        measured = _over_runs("measured", "measured", x, number)
        null = _over_runs(f"null: {rung}", "null", x, number - excess)
        title, margin = f"{claim['name']} ({rung})", claim["margin"]
        numbers.append(Panel(f"number_{claim['name']}", title, "step", series=(null, measured), names=names))
        series = [_over_runs("excess", "measured", x, excess)]
        if claim["name"] != "coupling":
            series.insert(0, Series("margin", "null", x, 0.0 * x, np.full(len(x), -margin), np.full(len(x), margin)))
        excesses.append(Panel(f"excess_{claim['name']}", title, "step", series=tuple(series), names=names, zero=True))
    loss = _over_runs("loss", "means", x, found["loss"].values)
    numbers.append(Panel("loss", "loss of the texts, nats a token", "step", series=(loss,), names=names))
    said, runs = found.attrs, found["run"].values.tolist()
    operator = captions.OPERATORS.get(str(said.get("operator")), captions.UNKNOWN)
    data = captions.join(
        f"{operator[0].upper()}{operator[1:]}; metric: raw; {said.get('texts', captions.UNKNOWN)} texts, the last "
        f"token of each; BOS: {said.get('bos', captions.UNKNOWN)}.",
        f"Mean over {len(runs)} run{'s' if len(runs) > 1 else ''} ({', '.join(map(str, runs))}); bars and band: their "
        "range. Step 0 is the initialisation.",
    )
    about = (
        "Depth gradient and alignment: slopes against relative depth; bottleneck: log entropy rank of the product; "
        "intervention: log of its ratio without N; coupling: Spearman correlation."
    )
    lead = "What moves with training and what does not, each beside what its singular values alone would give."
    over = captions.join(data, about, "Measured less the null named; grey: the claim's margin.")
    rest = "Inside the band, training changed the number through what the null keeps."
    return [
        Chart("trajectory", "The claims over training", "lines", captions.join(data, about), tuple(numbers), (), lead),
        Chart("trajectory_excess", "What training adds to the nulls", "lines", over, tuple(excesses), (), rest),
    ]


def _over_runs(label: str, role: str, x: np.ndarray, values: np.ndarray) -> Series:
    """Mean over runs, (run, step), with their range where there are several."""
    mean = values.mean(axis=0)
    if len(values) == 1 and role != "null":
        return Series(label, role, x, mean)
    return Series(label, role, x, mean, values.min(axis=0), values.max(axis=0))
