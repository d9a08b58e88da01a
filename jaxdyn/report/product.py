"""Stage 7 of 7: the data of the bottleneck figure: rank of the running product of blocks, beside its laws."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import xarray as xr

from . import captions
from .chart import Chart, Panel, Series
from .depth import MARK_N5, band
from .initial import product_level
from .source import Source, differences

MEASURES = ("effective_rank", "participation_ratio")
MAX_PROMPTS = 200
"""Most single samples in the fan."""

LAWS = {"free_product_": ("N3", "free-product law (N3)"), "ginibre_": ("N0", "Ginibre (N0)")}
"""Analytic lines: prefix of the variable, role, label."""

BEYOND = "{} not shown: the course with depth is not attributed to {}."
ROTATED, INITIAL = "N2 (rotated layers)", "N5 (random initialisation)"


def product_chart(sources: Sequence[Source]) -> Chart | None:
    """Rank of J_l ... J_first against the number of factors; None where no store has a running product."""
    groups = [(number, source, _finished(source)) for number, source in enumerate(sources)]
    kept = [(number, source, group) for number, source, group in groups if group is not None]
    if not kept:
        return None
    measures = [name for name in MEASURES if name in kept[0][2]]
    panels, said, laws = [], [], []
    for measure in measures:
        series = []
        for number, source, group in kept:
            name = source.suffix
            series += _fan(source, group, measure, number)
            if (at_init := product_level(source, group, measure)) is not None:
                drawn = band(f"N5, initialisation{name}", at_init, group["depth"].values, "", number)
                series.append(replace(drawn, low=np.maximum(at_init.low, 1.0)))  # a rank is no less
            series += _curves(group, measure, name, number)
        panels.append(Panel(measure, measure.replace("_", " "), "blocks multiplied", series=tuple(series), log=True))
    for _, source, group in kept:
        truncate = captions.setting(source.root, "truncate")
        cut = f"cut to rank {truncate} at each step." if truncate else "without truncation."
        rows = group.sizes["prompt_sample"]
        shown = min(MAX_PROMPTS, rows)
        fan = f"Thin lines: {shown} of {rows} samples." if shown < rows else "Thin lines: each sample."
        said.append(f"Running product J_l ⋯ J_first {cut} {fan}")
        laws += _law_sentences(group, measures)
    has_n1 = any(_has_n1(group) for *_, group in kept)
    caption = captions.join(
        captions.data_captions(sources),
        differences(sources),
        *dict.fromkeys(said),
        "Thick line: mean over samples.",
        captions.null_caption(
            kept[0][1].root, {"N1"} if has_n1 else set(), {"N1": "grey band, factors replaced, mean ± 2 sd"}
        ),
        *dict.fromkeys(laws),
        captions.initial_captions(sources, MARK_N5),
        _beyond(panels),
        captions.energy_captions(sources),
        captions.failure_captions(sources),
    )
    lead = (
        "A product of unrelated matrices loses rank with depth all by itself: read the measured lines against the "
        "free-product and Ginibre lines, not against the width."
    )
    return Chart("bottleneck", "Rank of the running product of blocks", "lines", caption, tuple(panels), (), lead)


def _beyond(panels: Sequence[Panel]) -> str:
    """Say which rungs that would explain the course are missing."""
    if any(one.role == "N5" for panel in panels for one in panel.series):
        return BEYOND.format(f"Rung {ROTATED} is", "alignment between layers")
    return BEYOND.format(f"Rungs {ROTATED} and {INITIAL} are", "alignment between layers or to training")


def _finished(source: Source) -> xr.Dataset | None:
    """Samples of the group that are written; those of an unfinished run are fill values."""
    group = source.group("cumulative")
    if group is None or "effective_rank" not in group:
        return None
    rows = np.flatnonzero(np.isfinite(group["effective_rank"].values).any(axis=1))
    return group.isel(prompt_sample=rows) if len(rows) else None


def _fan(source: Source, group: xr.Dataset, measure: str, store: int) -> list[Series]:
    values = group[measure].transpose("prompt_sample", "depth").values
    chosen = np.unique(np.linspace(0, len(values) - 1, min(MAX_PROMPTS, len(values))).round().astype(int))
    names = _sample_names(source.root) if source.root.sizes["sample"] == len(values) else None
    depth = group["depth"].values
    return [Series(names[row] if names else f"sample {row}", "fan", depth, values[row], store=store) for row in chosen]


def _sample_names(root: xr.Dataset) -> list[str]:
    prompts = root["prompt"].values if "prompt" in root.coords else np.arange(root.sizes["sample"])
    if "token_text" not in root.coords:
        return [f"prompt {prompt}" for prompt in prompts]
    return [f"prompt {p}, token {t!r}" for p, t in zip(prompts, map(str, root["token_text"].values), strict=True)]


def _curves(group: xr.Dataset, measure: str, name: str, store: int) -> list[Series]:
    depth, series = group["depth"].values, []
    if _has_n1(group):
        mean, sd = _over_prompts(group[f"{measure}_null"]), _over_prompts(group[f"{measure}_null_sd"])
        spread = 2 * np.nan_to_num(sd)
        low = np.maximum(mean - spread, 1.0)
        series.append(Series(f"N1 in every layer{name}", "N1", depth, mean, low, mean + spread, store=store))
    for prefix, (role, label) in LAWS.items():
        if prefix + measure in group:
            series.append(Series(label + name, role, depth, _over_prompts(group[prefix + measure]), store=store))
    if f"mean_{measure}" in group:
        values = _over_prompts(group[f"mean_{measure}"])
        series.append(Series(f"product of the mean Jacobians{name}", "means", depth, values, store=store))
    mean = _over_prompts(group[measure])
    return [*series, Series(f"measured, mean over samples{name}", "measured", depth, mean, store=store)]


def _has_n1(group: xr.Dataset) -> bool:
    return "effective_rank_null" in group and bool(np.isfinite(group["effective_rank_null"]).any())


def _law_sentences(group: xr.Dataset, measures: Sequence[str]) -> list[str]:
    """Return what the store says its analytic lines are."""
    names = [(label, prefix + measure) for prefix, (_, label) in LAWS.items() for measure in measures]
    return [
        f"{label}: {group[name].attrs['long_name']}."
        for label, name in names
        if name in group and "long_name" in group[name].attrs
    ]


def _over_prompts(array: xr.DataArray) -> np.ndarray:
    return array.mean("prompt_sample").values if "prompt_sample" in array.dims else array.values
