"""Stage 7 of 7: the data of the hero figure: measures against layer on their N1 band, raw and as excess over N1."""

from collections.abc import Sequence

import numpy as np

from . import captions
from .chart import EXCESS, RAW, Chart, Panel, Series
from .initial import Level, level
from .profiles import PART_TITLES, Profile, available_parts, profile
from .source import Source, differences

PROFILES = (
    "henrici_normalized",
    "complex_fraction",
    "mean_rotation_angle",
    "self_alignment",
    "symmetry_gap",
    "effective_rank",
    "spectral_radius",
    "numerical_abscissa",
)
"""Measures of the figure, the hero first."""

PARTS = ("block", "update", "attention", "mlp")

MARKS = {
    "N1": "grey band, mean ± 2 sd over draws (in the excess view around 0)",
    "N0": "thin dashed line",
}

MARK_N5 = "dotted line, mean over the seeds, and coloured band, where one more seed is expected with 95 %"


def depth_chart(sources: Sequence[Source], *, measures: Sequence[str] = PROFILES) -> Chart:
    """Put the profiles of one or two stores into panels, a group a part.

    Parameters
    ----------
    sources : the stores; of the second, measures and parts that the first lacks are left out.
    measures : names; those that the first store lacks are left out.
    """
    first = sources[0]
    parts = available_parts(first.root, PARTS)
    panels, rungs = [], set()
    for part in parts:
        for measure in (name for name in measures if name in first.root):
            series, units = [], ""
            for number, source in enumerate(sources):
                if measure not in source.root or part not in source.root["part"].values.tolist():
                    continue
                shown = profile(source.root, measure, part)
                units, rungs = shown.units, rungs | shown.nulls.keys()
                name = source.suffix
                series += _series(shown, name, number)
                series += _at_init(source, shown, name, number)
            titled = shown.title if units in ("", "1") else f"{shown.title} ({units})"
            panels.append(Panel(measure, titled, "layer", group=part, series=tuple(series)))
    caption = captions.join(
        captions.data_captions(sources),
        differences(sources),
        captions.INTERVAL,
        captions.null_caption(first.root, rungs, MARKS),
        captions.initial_captions(sources, MARK_N5),
        "Depth profiles are descriptive.",
        captions.energy_captions(sources),
        captions.failure_captions(sources),
    )
    lead = (
        "A profile says something about structure only where it leaves the grey band. Switch to excess to see the "
        "distance from N1."
        if "N1" in rungs
        else captions.NO_N1
    )
    titles = {part: PART_TITLES.get(part, part) for part in parts}
    return Chart("depth_profiles", "Spectra of the blocks by depth", "lines", caption, tuple(panels), (), lead, titles)


def _series(shown: Profile, name: str, store: int) -> list[Series]:
    x, series = shown.layer, []
    if null := shown.nulls.get("N1"):
        spread = 2 * np.nan_to_num(null.sd)
        label = f"N1, mean ± 2 sd{name}"
        low, high = null.mean - spread, null.mean + spread
        series.append(Series(label, "N1", x, null.mean, low, high, RAW, store))
        series.append(Series(label, "N1", x, 0 * null.mean, -spread, spread, EXCESS, store))
    if null := shown.nulls.get("N0"):
        series.append(Series(f"N0, closed form{name}", "N0", x, null.mean, view=RAW, store=store))
    series.append(Series(f"measured{name}", "measured", x, shown.mean, shown.low, shown.high, RAW, store))
    if null := shown.nulls.get("N1"):
        label = f"measured less N1{name}"
        series.append(Series(label, "measured", x, null.excess, null.low, null.high, EXCESS, store))
    return series


def _at_init(source: Source, shown: Profile, name: str, store: int) -> list[Series]:
    """N5 of one measure, and of its excess over N1, which the random model has too."""
    label, found = f"N5, initialisation{name}", []
    own = level(source.init, source.root, shown.measure, shown.part)
    if own is not None:
        found.append((label, own, RAW))
    if "N1" in shown.nulls:
        rung = source.root["rung"].values.tolist().index("N1")
        own = level(source.init, source.root, f"{shown.measure}_excess", shown.part, rung=rung)
        if own is not None:
            found.append((f"{label} less its N1", own, EXCESS))
    return [band(label, one, shown.layer, view, store) for label, one, view in found]


def band(label: str, shown: Level, x: np.ndarray, view: str, store: int) -> Series:
    """Return the mean over the seeds with the band of one more."""
    return Series(label, "N5", x, shown.mean, shown.low, shown.high, view, store)
