"""Stage 7 of 7: the specification curve: a number's excess in every convention, sorted, over the choices each made."""

import numpy as np
import xarray as xr

from . import captions
from .chart import Chart, Panel, Series

WORDS = {"J": "block J", "A": "update J - I", "samples": "each sample", "mean": "mean Jacobian"}
"""What a choice is called where its short name says too little."""


def specification_chart(found: xr.Dataset) -> Chart:
    """Excess over N1, or over the rung that decides, of each claim in every convention, by size; below, the choices.

    Parameters
    ----------
    found : the stage `conventions` of a study.
    """
    from .study import data_words

    axes = [str(name) for name in found.coords if found[name].dims == ("convention",) and name != "convention"]
    choices = [(axis, value) for axis in axes for value in dict.fromkeys(found[axis].values.tolist())]
    choices = [(axis, value) for axis, value in choices if len(set(found[axis].values.tolist())) > 1]
    panels = []
    for column, name in enumerate(found["claim"].values.tolist()):
        at = found.isel(claim=column)
        order = np.argsort(at["excess"].values, kind="stable")  # NaN last
        order = order[np.isfinite(at["excess"].values[order])]
        if not len(order):
            continue
        x, margin = np.arange(len(order)), float(at["margin"])
        y, low, high = (at[key].values[order] for key in ("excess", "excess_low", "excess_high"))
        verdicts = np.array([str(one) for one in at["verdict"].values[order]])
        band = Series("margin", "null", x, 0 * y, np.full(len(x), -margin), np.full(len(x), margin))
        series = [band]
        for words, role, chosen in (
            ("explained by a null", "measured", np.char.startswith(verdicts, "explained")),
            ("above every null", "jacobian", verdicts == "above every null"),
            ("undecided", "shuffled", verdicts == "undecided"),
        ):
            if chosen.any():
                series.append(Series(words, role, x[chosen], y[chosen], low[chosen], high[chosen]))
        grid = np.array([[found[axis].values[one] == value for one in order] for axis, value in choices], float)
        names = tuple(WORDS.get(value, str(value)) for _, value in choices)
        place = {"grid": grid, "grid_x": x, "grid_y": np.arange(len(choices))}
        panels.append(
            Panel(f"specification_{name}", name, "", "excess", series=tuple(series), zero=True, names=names, **place)
        )
    caption = captions.join(
        data_words(found),
        f"{found.sizes['convention']} conventions: every combination of the choices below the curves. Excess over the "
        "null of N0 and N1 that decides, else the nearest, with its 95 % interval (where the Jacobians are averaged "
        "first, of a single number beside its draws); grey: the claim's margin. Alignment by its three definitions: "
        "subspaces (primary), pairs of vectors, trace.",
    )
    lead = "Every defensible way to compute the number, in order of its excess. A claim that matters stays on one side."
    return Chart("specification", "The specification curve", "specification", caption, tuple(panels), (), lead)
