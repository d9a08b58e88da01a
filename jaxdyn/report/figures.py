"""Stage 7 of 7: figures of a results store. Each function reads the store and returns a matplotlib Figure.

Figure objects are made without pyplot, so no global state is left behind. Colours are from Okabe and Ito's palette,
which readers with any colour vision can tell apart; measured data are solid and blue, N1 grey, N0 thin and dashed.
The caption is part of the figure: what a reader must know to judge it travels with the file.
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import Formatter, MaxNLocator

from . import captions
from .profiles import PART_TITLES, available_parts, done_samples, profile

BLUE, SKY, GREEN, VERMILLION = "#0072B2", "#56B4E9", "#009E73", "#D55E00"
GREY, BLACK = "#8A8A8A", "#000000"
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
"""Measures of the depth figure; four a row, each for block and update."""

MAX_POINTS = 20_000
"""Most eigenvalues in one cloud; above it, fewer samples are shown and the caption says how many."""

MAX_PROMPTS = 200
"""Most single prompts in the fan of the product figure."""

DPI = 150

LAWS = {"free_product_": "free-product law (N3)", "ginibre_": "Ginibre (N0)"}
"""Analytic lines of the product figure: prefix of the variable, label."""


def save_all(tree: xr.DataTree, folder: str | Path, *, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Write every figure the store has data for.

    Parameters
    ----------
    tree : a store opened by `jaxdyn.store.open_tree`.
    folder : existing folder for depth_profiles, eigenvalues and bottleneck.
    formats : file endings, any of "png", "svg".

    Returns
    -------
    The files written. The eigenvalue figure needs part block, the product figure the group `cumulative`.

    Raises
    ------
    InputError : no sample of the store is done.
    """
    figures = {"depth_profiles": depth_profiles(tree)}
    if available_parts(tree.to_dataset(), ("block",)):
        figures["eigenvalues"] = eigenvalues(tree)
    if "cumulative" in tree.children:
        figures["bottleneck"] = bottleneck(tree)
    written = []
    for name, figure in figures.items():
        for ending in formats:
            file = Path(folder) / f"{name}.{ending}"
            figure.savefig(file, dpi=DPI, metadata={"Date": None} if ending == "svg" else None)
            written.append(file)
    return written


def depth_profiles(tree: xr.DataTree, *, measures: Sequence[str] = PROFILES) -> Figure:
    """Measures against layer: mean over samples with its interval, on the N1 band, N0 dashed; block and update."""
    root = done_samples(tree)
    parts = available_parts(root, ("block", "update")) or root["part"].values.tolist()[:2]
    chosen = [measure for measure in measures if measure in root]
    columns = min(4, len(chosen))
    bands = [chosen[start : start + columns] for start in range(0, len(chosen), columns)]
    figure = Figure(figsize=(3.0 * columns + 0.6, 2.3 * len(parts) * len(bands) + 1.6))
    axes = figure.subplots(len(bands) * len(parts), columns, squeeze=False, sharex=True)
    rungs: set[str] = set()
    for row, (band, part) in enumerate((band, part) for band in bands for part in parts):
        for column in range(columns):
            ax = axes[row, column]
            if column >= len(band):
                ax.set_axis_off()
                continue
            shown = profile(root, band[column], part)
            rungs |= shown.nulls.keys()
            _draw_profile(ax, shown)
            if part == parts[0]:
                ax.set_title(shown.title, fontsize=10)
            if column == 0:
                ax.set_ylabel(PART_TITLES.get(part, part), fontsize=10)
            if row == len(axes) - 1:
                ax.set_xlabel("layer")
    caption = captions.join(
        captions.data_caption(tree, root),
        "Line: mean over samples; bars: its 95 % interval, articles as replicates (none with a single article).",
        captions.null_caption(root, rungs, {"N1": "grey band, mean ± 2 sd over draws", "N0": "thin dashed line"}),
        "Depth profiles are descriptive.",
        captions.energy_caption(tree),
        captions.failure_caption(root),
    )
    _legend(figure)
    return _finished(figure, "Spectra of the blocks by depth", caption)


def eigenvalues(tree: xr.DataTree, *, layers: Sequence[int] | None = None) -> Figure:
    """Eigenvalues of the block Jacobian over those of one N1 draw a sample, at an early, a middle and a late layer.

    Parameters
    ----------
    tree : the store.
    layers : block numbers to show; None takes the first, the middle and the last that the store has.
    """
    root = done_samples(tree)
    present = root["layer"].values.tolist()
    chosen = list(layers) if layers is not None else sorted({present[0], present[len(present) // 2], present[-1]})
    kept = max(1, min(root.sizes["sample"], MAX_POINTS // root.sizes["eig"]))
    samples = np.unique(np.linspace(0, root.sizes["sample"] - 1, kept).round().astype(int))
    block = root.isel(sample=samples).sel(part="block")
    figure = Figure(figsize=(max(3.9 * len(chosen) + 0.3, 6.0), 5.5))
    axes = figure.subplots(1, len(chosen), squeeze=False)[0]
    has_null = "eigenvalues_null" in block and bool(np.isfinite(block["eigenvalues_null"].sel(layer=chosen)).any())
    for ax, layer in zip(axes, chosen, strict=True):
        at = block.sel(layer=layer)
        _draw_clouds(ax, _points(at["eigenvalues"]), _points(at["eigenvalues_null"]) if has_null else None)
        ax.set_title(f"layer {layer}", fontsize=10)
    axes[0].set_ylabel("Im λ")
    thinned = len(samples) < root.sizes["sample"]
    null_mark = {"N1": "grey, one draw a sample"}
    caption = captions.join(
        captions.data_caption(tree, root),
        f"Eigenvalues of {len(samples)} of the {root.sizes['sample']} samples, evenly spaced." if thinned else "",
        captions.null_caption(root, {"N1"} if has_null else set(), null_mark),
        "The eigenvalues of the update J - I are these less one.",
        captions.energy_caption(tree),
        captions.failure_caption(root),
    )
    _legend(figure)
    return _finished(figure, "Eigenvalues of the block Jacobian", caption)


def bottleneck(tree: xr.DataTree) -> Figure:
    """Effective rank and participation ratio of the running product of blocks, each prompt and the product of means."""
    root = done_samples(tree)
    group = tree["cumulative"].to_dataset()
    rows = np.flatnonzero(np.isfinite(group["effective_rank"].values).any(axis=1))
    group = group.isel(prompt_sample=rows)
    measures = [name for name in ("effective_rank", "participation_ratio") if name in group]
    figure = Figure(figsize=(5.4 * len(measures) + 0.4, 5.9))
    axes = figure.subplots(1, len(measures), squeeze=False, sharex=True)[0]
    for ax, measure in zip(axes, measures, strict=True):
        _draw_product(ax, group, measure)
    with_n1 = "effective_rank_null" in group and bool(np.isfinite(group["effective_rank_null"]).any())
    truncate = captions.setting(root, "truncate")
    shown = min(MAX_PROMPTS, len(rows))
    caption = captions.join(
        captions.data_caption(tree, root),
        "Running product J_l ⋯ J_first "
        + (f"cut to rank {truncate} at each step." if truncate else "without truncation."),
        f"Thin lines: {shown} of {len(rows)} samples." if shown < len(rows) else "Thin lines: each sample.",
        captions.null_caption(root, {"N1"} if with_n1 else set(), {"N1": "grey band, factors replaced, mean ± 2 sd"}),
        *_law_sentences(group, measures),
        "Rungs N2 (rotated layers) and N5 (random initialisation) are not shown: the course with depth is not "
        "attributed to alignment between layers or to training.",
        captions.energy_caption(tree),
        captions.failure_caption(root),
    )
    _legend(figure)
    return _finished(figure, "Rank of the running product of blocks", caption)


def _draw_profile(ax, shown):
    layer = shown.layer
    if "N1" in shown.nulls:
        null = shown.nulls["N1"]
        _band(ax, layer, null.mean, null.sd, "N1, mean ± 2 sd")
    if "N0" in shown.nulls:
        ax.plot(*_wide(layer, shown.nulls["N0"].mean), "--", color=BLACK, linewidth=0.9, label="N0, closed form")
    half = np.where(np.isfinite(shown.high), shown.high - shown.mean, 0.0)
    ax.errorbar(
        layer, shown.mean, half, color=BLUE, marker="o", markersize=3, linewidth=1.5, elinewidth=1.2, label="measured"
    )
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
    ax.yaxis.set_major_locator(MaxNLocator(nbins=5))
    ax.tick_params(labelsize=8)
    ax.margins(y=0.12)
    if shown.units not in ("", "1"):
        ax.text(0.02, 0.97, shown.units, transform=ax.transAxes, fontsize=7, va="top", color=GREY)


def _band(ax, x, mean, sd, label, floor=-np.inf):
    spread = np.where(np.isfinite(sd), sd, 0.0)
    x, low, middle, high = _wide(x, np.maximum(mean - 2 * spread, floor), mean, np.maximum(mean + 2 * spread, floor))
    ax.fill_between(x, low, high, color=GREY, alpha=0.35, linewidth=0, label=label)
    ax.plot(x, middle, color=GREY, linewidth=1.0)


def _wide(x, *values):
    """Give a line of a single point some width, so that it is seen."""
    if len(x) > 1:
        return (x, *values)
    return (np.array([x[0] - 0.3, x[0] + 0.3]), *(np.repeat(value, 2) for value in values))


def _points(values):
    points = np.asarray(values.values).ravel()
    return points[np.isfinite(points)]


def _draw_clouds(ax, measured, null):
    """Scatter both clouds in a square view of their bulk and the unit circle; what lies outside is counted."""
    clouds = {"measured": (measured, BLUE, 5, 2)} | ({} if null is None else {"N1": (null, GREY, 12, 1)})
    left, right, top = -1.0, 1.0, 1.0
    for points, *_ in clouds.values():
        if points.size:
            left, right = min(left, np.quantile(points.real, 0.005)), max(right, np.quantile(points.real, 0.995))
            top = max(top, np.quantile(np.abs(points.imag), 0.995))
    middle, half = (left + right) / 2, 1.08 * max((right - left) / 2, top)
    outside = []
    for name, (points, colour, size, order) in clouds.items():
        label = "N1, one draw a sample" if name == "N1" else name
        alpha = 0.6 if points.size < 5000 else 0.3
        ax.scatter(points.real, points.imag, s=size, color=colour, alpha=alpha, linewidths=0, label=label, zorder=order)
        beyond = np.maximum(np.abs(points.real - middle), np.abs(points.imag)) > half
        if beyond.any():
            outside.append(f"{beyond.sum()} {name}")
    turn = np.linspace(0, 2 * np.pi, 361)
    ax.plot(np.cos(turn), np.sin(turn), color=VERMILLION, linewidth=1.0, label="unit circle", zorder=3)
    ax.axhline(0, color=BLACK, linewidth=0.4, zorder=0)
    ax.axvline(0, color=BLACK, linewidth=0.4, zorder=0)
    ax.set(xlim=(middle - half, middle + half), ylim=(-half, half), aspect="equal", xlabel="Re λ")
    ax.tick_params(labelsize=8)
    if outside:
        ax.text(0.02, 0.02, f"outside: {', '.join(outside)}", transform=ax.transAxes, fontsize=8)


def _draw_product(ax, group, measure):
    depth = group["depth"].values
    values = group[measure].transpose("prompt_sample", "depth").values
    step = np.unique(np.linspace(0, len(values) - 1, min(MAX_PROMPTS, len(values))).round().astype(int))
    alpha = max(0.15, min(0.7, 10 / len(step)))
    for line in values[step]:
        ax.plot(*_wide(depth, line), color=SKY, linewidth=0.6, alpha=alpha)
    ax.plot([], [], color=SKY, linewidth=0.8, label="measured, each sample")
    null = group.get(f"{measure}_null")
    if null is not None and np.isfinite(null).any():
        _band(
            ax, depth, _over_prompts(null), _over_prompts(group[f"{measure}_null_sd"]), "N1 in every layer", floor=1.0
        )
    curves = (
        (measure, "measured, mean over samples", {"color": BLUE, "linewidth": 2.0, "marker": "o", "markersize": 4}),
        (
            f"mean_{measure}",
            "product of the mean Jacobians",
            {"color": VERMILLION, "linewidth": 1.8, "marker": "s", "markersize": 4},
        ),
        (f"free_product_{measure}", LAWS["free_product_"], {"color": GREEN, "linewidth": 1.4, "linestyle": "-."}),
        (f"ginibre_{measure}", LAWS["ginibre_"], {"color": BLACK, "linewidth": 1.0, "linestyle": "--"}),
    )
    for name, label, style in curves:
        if name in group:
            line = (depth, _over_prompts(group[name]))
            ax.plot(*(line if "marker" in style else _wide(*line)), label=label, **style)
    ax.set_yscale("log")
    ax.set_xlabel("blocks multiplied")
    ax.set_title(measure.replace("_", " "), fontsize=10)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    ax.yaxis.set_major_formatter(_SparseFormatter(every=True))
    ax.yaxis.set_minor_formatter(_SparseFormatter(every=ax.get_ylim()[1] < 6 * ax.get_ylim()[0]))
    ax.tick_params(labelsize=8, which="both")
    ax.grid(axis="y", which="both", linewidth=0.3, alpha=0.5)


def _law_sentences(group, measures):
    """Return what the store says its analytic lines are."""
    said = []
    for prefix, label in LAWS.items():
        for name in (prefix + measure for measure in measures if prefix + measure in group):
            if "long_name" in group[name].attrs:
                said.append(f"{label}: {group[name].attrs['long_name']}.")
    return said


def _over_prompts(array):
    return array.mean("prompt_sample").values if "prompt_sample" in array.dims else array.values


class _SparseFormatter(Formatter):
    """Label 2 and 5 of each decade of a log axis, or with `every` all ticks of a short one."""

    def __init__(self, *, every):
        self.every = every

    def __call__(self, x, pos=None):
        return f"{x:g}" if self.every or f"{x:.0e}"[0] in "25" else ""


def _legend(figure):
    """One legend for all panels, under the title."""
    entries = {}
    for ax in figure.axes:
        handles, labels = ax.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    place = {"loc": "upper left", "bbox_to_anchor": (0.0, 1 - 0.28 / figure.get_size_inches()[1])}
    figure.legend(
        list(entries.values()), list(entries), ncols=len(entries), fontsize=8, frameon=False, markerscale=1.5, **place
    )


def _finished(figure, title, caption):
    """Put title and caption, and keep the room they need free of axes."""
    width, height = figure.get_size_inches()
    lines = textwrap.wrap(caption, width=int(width * 16.5))
    bottom = (0.145 * len(lines) + 0.15) / height
    top = 1 - 0.6 / height
    figure.set_layout_engine("constrained", rect=(0.005, bottom, 0.99, top - bottom))
    figure.text(0.01, 0.07 / height, "\n".join(lines), fontsize=8, va="bottom", linespacing=1.25, parse_math=False)
    figure.text(0.01, 1 - 0.1 / height, title, fontsize=12, va="top", weight="bold", parse_math=False)
    return figure
