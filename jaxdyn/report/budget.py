"""Stage 7 of 7: the data of the budget figure: what explains the Henrici departure of a block (1.7).

The normalised departure h of M is split into three steps, each the next rung less the last:

    h_t = sqrt((1 - n t^2 / norm(M)_F^2) / 2)   trace: t I + s G, t = tr M / n, G Ginibre, with the norm of M
    h_1 - h_t                                   singular values: N1 keeps those of M - tI, directions random
    h - h_1                                     orientation: what singular vectors add; the excess over N1

t is the mean of the stored eigenvalues. The steps add up to h; the second and third may be negative.
"""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float

from . import captions
from .chart import Chart, Panel, Series
from .profiles import PART_TITLES, available_parts, interval, profile
from .source import Source

MEASURE = "henrici_normalized"
PARTS = ("block", "update")
STEPS = {"trace": "trace", "singular": "singular values", "orientation": "orientation"}
CHUNK = 64
"""Samples whose eigenvalues are read at once: 4 GiB of them pass through memory in pieces."""

FORMULA = (
    "Trace: sqrt((1 - n t² / norm(M)²) / 2), the departure of t I + s G with t = tr M / n, G Ginibre and the norm of "
    "M. Singular values: N1 (those of M - t I kept, directions random) less that. Orientation: measured less N1. "
    "Each bar starts where the last one ends (pale: it goes down); the last ends at the measured departure, whose line "
    "is the 95 % interval of the orientation step, articles as replicates."
)


def budget_chart(sources: Sequence[Source]) -> Chart | None:
    """Split the departure of block and update at every layer; None for a store without N1, norms or eigenvalues."""
    panels = []
    for number, source in enumerate(sources):
        for part in available_parts(source.root, PARTS) if _complete(source.root) else []:
            steps = budget(source.root, part)
            title = source.prefix + PART_TITLES[part]
            layer, base = source.root["layer"].values, np.zeros(source.root.sizes["layer"])
            series = []
            for role, label in STEPS.items():
                label += source.suffix if role == "orientation" else ""
                series.append(Series(label, role, layer, steps[role], base, base + steps[role], store=number))
                base = base + steps[role]
            low, high = steps["low"], steps["high"]
            series.append(
                Series(f"measured{source.suffix}", "measured", layer, steps["measured"], low, high, store=number)
            )
            panels.append(Panel(part, title, "layer", "Henrici departure, normalised", part, tuple(series)))
    if not panels:
        return None
    caption = captions.join(
        captions.data_captions(sources),
        FORMULA,
        captions.null_caption(sources[0].root, {"N1"}, {"N1": "the level where orientation starts"}),
        captions.energy_captions(sources),
        captions.failure_captions(sources),
    )
    lead = (
        "Read a layer from left to right: the trace sets a level, the singular values move it, orientation is the rest."
    )
    return Chart("budget", "What explains the Henrici departure", "budget", caption, tuple(panels), (), lead)


def budget(root: xr.Dataset, part: str) -> dict[str, Float[np.ndarray, " L"]]:
    """Means over samples of the three steps and of the measured departure, by layer.

    Parameters
    ----------
    root : finished samples, with `eigenvalues`, `frobenius_norm`, the departure and its N1.
    part : which Jacobian.

    Returns
    -------
    "trace", "singular", "orientation" and "measured", (L,), the first three adding up to the last; "low" and "high",
    the 95 % interval of the orientation step around the measured departure. Samples that failed are left out of all.
    """
    at = root.sel(part=part)
    measured = _by_layer(at[MEASURE])
    null = _by_layer(at[f"{MEASURE}_null"].sel(rung="N1"))
    share = root.sizes["eig"] * _mean_trace(at) ** 2 / _by_layer(at["frobenius_norm"]) ** 2
    trace = np.sqrt(np.maximum(0.0, 1 - share) / 2)
    good = np.isfinite(measured) & np.isfinite(null) & np.isfinite(trace)
    article = np.asarray(root["article"].values)
    steps = {"trace": trace, "singular": null - trace, "orientation": measured - null, "measured": measured}
    found = {name: interval(np.where(good, values, np.nan), article) for name, values in steps.items()}
    _, low, high = found["orientation"]
    offset = found["measured"][0] - found["orientation"][0]
    return {name: mean for name, (mean, *_) in found.items()} | {"low": low + offset, "high": high + offset}


def _complete(root: xr.Dataset) -> bool:
    names = {"eigenvalues", "frobenius_norm", MEASURE, f"{MEASURE}_null"}
    if not names <= set(root.data_vars) or "N1" not in root["rung"].values.tolist():
        return False
    return bool(profile(root, MEASURE, root["part"].values.tolist()[0]).nulls.keys() & {"N1"})


def _mean_trace(at: xr.Dataset) -> Float[np.ndarray, "L S"]:
    """Mean eigenvalue of each matrix, real because they come in conjugate pairs; read a few samples at a time."""
    pieces = []
    for start in range(0, at.sizes["sample"], CHUNK):
        some = at["eigenvalues"].isel(sample=slice(start, start + CHUNK)).transpose("layer", "sample", "eig")
        pieces.append(np.real(some.values).mean(axis=-1, dtype=np.float64))
    return np.concatenate(pieces, axis=1)


def _by_layer(array: xr.DataArray) -> Float[np.ndarray, "L S"]:
    return np.asarray(array.transpose("layer", "sample").values, dtype=np.float64)
