"""Stage 7 of 7: a chart as a matplotlib Figure, for PNG and SVG files.

Figure objects are made without pyplot, so no global state is left behind. The caption is part of the figure: what a
reader must know to judge it travels with the file.
"""

import textwrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import Formatter, MaxNLocator

from .chart import RAW, Chart, Panel, Series, field_levels
from .depth_colour import draw_heat, draw_path
from .flow_drawing import draw_flow
from .palette import colour

GREY, BLACK, UNIT_CIRCLE = "#8A8A8A", "#000000", "#D55E00"

LINES = {
    "measured": {"marker": "o", "markersize": 3.5, "linewidth": 1.6},
    "fan": {"linewidth": 0.6},
    "means": {"marker": "s", "markersize": 4, "linewidth": 1.8},
    "biased": {"marker": "o", "markersize": 3, "linewidth": 1.0},
    "floor": {"linestyle": ":", "linewidth": 1.0},
    "N0": {"linestyle": "--", "linewidth": 0.9},
    "N3": {"linestyle": "-.", "linewidth": 1.4},
    "N5": {"linestyle": ":", "marker": "^", "markersize": 3, "linewidth": 1.2},
    "front": {"linewidth": 1.2},
    "linear": {"linestyle": "--", "linewidth": 1.2},
    "rotated": {"linestyle": "-.", "marker": "v", "markersize": 3, "linewidth": 1.0},
    "points": {"linestyle": "none", "marker": "o", "markersize": 3, "linewidth": 0},
    **{f"variant{number}": {"linewidth": 1.2, "linestyle": "--" if number == 4 else "-"} for number in range(1, 7)},
    "skip": {"marker": "D", "markersize": 3, "linewidth": 1.2},
    "jacobian": {"marker": "s", "markersize": 3, "linewidth": 1.4},
    "displaced": {"marker": "D", "markersize": 3, "linewidth": 1.2},
    "frozen": {"marker": "v", "markersize": 3.5, "linewidth": 1.2},
    "ablated": {"linestyle": "--", "marker": "x", "markersize": 3.5, "linewidth": 1.0},
    "N2": {"linestyle": "-.", "linewidth": 1.4},
    "shuffled": {"linestyle": ":", "marker": "x", "markersize": 3, "linewidth": 1.0},
}
"""How a line of each role is drawn; N1 and walk are bands, N5 has one."""


def draw(chart: Chart, *, view: str = RAW, groups: tuple[str, ...] = (), columns: int = 4) -> Figure:
    """Draw a chart.

    Parameters
    ----------
    chart : all kinds but "directions"; those are in `listing.draw_directions`.
    view : position of the switch.
    groups : panels of these groups, one row of panels after the other; empty takes all panels.
    columns : most panels a row.
    """
    chosen = [panel for panel in chart.panels if not groups or panel.group in groups]
    present = list(dict.fromkeys(panel.group for panel in chosen)) if groups else [""]
    rows: list[tuple[str, list[Panel]]] = []
    by_group = {group: [panel for panel in chosen if not groups or panel.group == group] for group in present}
    longest = max(len(panels) for panels in by_group.values())
    columns = min(columns, longest)
    for start in range(0, longest, columns):  # the rows of a group stay beside those of the next
        rows += [(group, panels[start : start + columns]) for group, panels in by_group.items()]
    size, square = _size(chart, len(rows), columns)
    named = any(panel.names for panel in chosen)  # each has words of its own along x
    figure = Figure(figsize=size)
    axes = figure.subplots(len(rows), columns, squeeze=False, sharex=len(rows) > 1 and not square and not named)
    for number, (group, panels) in enumerate(rows):
        for column in range(columns):
            ax = axes[number, column]
            if column >= len(panels):
                ax.set_axis_off()
                if number:  # the axis that this one would have carried
                    axes[number - 1, column].tick_params(labelbottom=True)
                continue
            draw_panel(ax, panels[column], chart.kind, view)
            last = number == len(rows) - 1 or square or named
            if not last:
                ax.set_xlabel("")
            if group and column == 0:
                ax.set_ylabel(chart.groups[group], fontsize=10, parse_math=False)
            if group and group != present[0]:
                ax.set_title("")
    rows_of_legend = legend(figure)
    title = chart.title + ("" if view == RAW else ", excess over N1")
    return finished(figure, title, chart.caption, legend_rows=rows_of_legend)


def draw_panel(ax: Axes, panel: Panel, kind: str, view: str = RAW) -> None:
    """Draw one panel."""
    series = [one for one in panel.series if one.view in ("", view)]
    if kind == "clouds":
        _clouds(ax, series)
    elif kind == "field":
        _field(ax, panel, series)
    elif kind == "heat":
        draw_heat(ax, panel)
    elif kind == "matrix":
        _matrix(ax, panel)
    elif kind == "path":
        draw_path(ax, series, lambda one: LINES[one.role])
    elif kind == "flow":
        draw_flow(ax, series)
    elif kind == "budget":
        _bars(ax, series)
        ax.margins(y=0.05)
    else:
        _lines(ax, series, log=panel.log)
        ax.margins(y=0.12)
    if kind in ("clouds", "field", "path", "flow") and panel.window is not None:
        left, right, bottom, top = panel.window
        ax.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
    elif kind not in ("plane", "matrix", "path"):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
    if panel.names:
        ax.set_xticks(range(len(panel.names)), panel.names, rotation=60, ha="right", rotation_mode="anchor")
    if panel.log:
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter(_SparseFormatter(every=True))
        ax.yaxis.set_minor_formatter(_SparseFormatter(every=ax.get_ylim()[1] < 6 * ax.get_ylim()[0]))
        ax.grid(axis="y", which="both", linewidth=0.3, alpha=0.5)
    elif panel.zero:
        ax.set_ylim(bottom=min(0.0, *ax.get_ylim()))
    elif kind == "lines":
        ax.yaxis.set_major_locator(MaxNLocator(nbins=5))
    if view != RAW:
        ax.axhline(0, color=BLACK, linewidth=0.4, zorder=0)
    ax.set_title(panel.title, fontsize=10, parse_math=False)
    ax.set_xlabel(panel.x_label)
    ax.set_ylabel(panel.y_label)
    ax.tick_params(labelsize=8, which="both")
    if panel.note:
        back = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1}
        ax.text(0.02, 0.02, panel.note.replace("; ", "\n"), transform=ax.transAxes, fontsize=8, bbox=back, zorder=6)


def _lines(ax: Axes, series: list[Series], *, log: bool) -> None:
    fans = [one for one in series if one.role == "fan"]
    alpha = max(0.15, min(0.7, 10 / max(1, len(fans))))
    for one in fans:
        ax.plot(*_wide(one.x, one.y), color=colour("fan", one.store), alpha=alpha, **LINES["fan"])
    for store in sorted({one.store for one in fans}):
        whose = f", {'AB'[store]}" if any(one.store for one in series) else ""
        noun = "network" if fans[0].label.startswith("network") else "sample"
        ax.plot([], [], color=colour("fan", store), linewidth=0.8, label=f"measured, each {noun}{whose}")
    for one in series:
        tint, width = colour(one.role, one.store), 0.7 if one.store else 1.0
        if one.role == "fan":
            continue
        if one.role in ("N1", "null", "walk"):
            _band(ax, one, tint)
            continue
        style = LINES[one.role] | {"linewidth": LINES[one.role]["linewidth"] * width}
        if one.role == "N5" and one.low is not None:  # its spread is a null's: a band, and no label of its own
            x, low, high = _wide(one.x, one.low, one.high)
            ax.fill_between(x, low, high, color=tint, alpha=0.12 if one.store else 0.2, linewidth=0)
            ax.plot(one.x, one.y, color=tint, label=one.label, **style)
        elif one.low is not None and one.high is not None:
            sides = np.stack([one.y - one.low, one.high - one.y])
            half = np.where(np.isfinite(sides), np.maximum(sides, 0.0), 0.0)
            ax.errorbar(one.x, one.y, half, color=tint, elinewidth=1.2, label=one.label, **style)
        else:
            ax.plot(
                *((one.x, one.y) if "marker" in style else _wide(one.x, one.y)), color=tint, label=one.label, **style
            )


def _band(ax: Axes, one: Series, tint: str) -> None:
    assert one.low is not None
    assert one.high is not None
    x, low, middle, high = _wide(one.x, one.low, one.y, one.high)
    ax.fill_between(x, low, high, color=tint, alpha=0.2 if one.store else 0.35, linewidth=0, label=one.label)
    ax.plot(x, middle, color=tint, linewidth=1.0, linestyle="--" if one.store else "-")


def _bars(ax: Axes, series: list[Series]) -> None:
    bars = [one for one in series if one.role != "measured"]
    width = 0.8 / len(bars)
    for place, one in enumerate(bars):
        assert one.low is not None
        x, tint = one.x - 0.4 + width * (place + 0.5), colour(one.role, one.store)
        ax.bar(x, one.y, width * 0.94, bottom=one.low, color=tint, label=one.label)
    for one in (one for one in series if one.role == "measured"):
        assert one.high is not None
        half = np.where(np.isfinite(one.high), one.high - one.y, 0.0)
        x, tint = one.x + 0.4, colour("measured", one.store)
        ax.errorbar(
            x, one.y, half, color=tint, marker="o", markersize=3.5, linewidth=0, elinewidth=1.2, label=one.label
        )
    ax.axhline(0, color=BLACK, linewidth=0.5)
    ax.use_sticky_edges = False


def _clouds(ax: Axes, series: list[Series]) -> None:
    for one in series:
        alpha = 0.6 if len(one.x) < 5000 else 0.3
        size, order = (12, 1) if one.role == "N1" else (5, 2)
        tint = colour(one.role, one.store)
        ax.scatter(one.x, one.y, s=size, color=tint, alpha=alpha, linewidths=0, label=one.label, zorder=order,
                   rasterized=len(one.x) > 2000)  # fmt: skip
    turn = np.linspace(0, 2 * np.pi, 361)
    ax.plot(np.cos(turn), np.sin(turn), color=UNIT_CIRCLE, linewidth=1.0, label="unit circle", zorder=3)
    ax.axhline(0, color=BLACK, linewidth=0.4, zorder=0)
    ax.axvline(0, color=BLACK, linewidth=0.4, zorder=0)


def _field(ax: Axes, panel: Panel, series: list[Series]) -> None:
    assert panel.grid is not None
    assert panel.grid_x is not None
    levels = field_levels(panel.grid)
    if levels.size:
        lines = ax.contour(panel.grid_x, panel.grid_y, panel.grid, levels=levels, colors=GREY, linewidths=0.9,
                           linestyles="solid")  # fmt: skip
        ax.clabel(lines, fontsize=7, fmt="%g")
    for one in series:
        ax.scatter(one.x, one.y, s=9, color=colour(one.role, one.store), linewidths=0, label=one.label, zorder=3)
    turn = np.linspace(0, np.pi, 181)
    ax.plot(np.cos(turn), np.sin(turn), color=UNIT_CIRCLE, linewidth=1.0, label="unit circle", zorder=2)


def _matrix(ax: Axes, panel: Panel) -> None:
    """Cells of a matrix, row 0 on top: blue above 0, vermillion below, white at 0, as on the page."""
    assert panel.grid is not None
    most = max(1e-12, float(np.nanmax(np.abs(panel.grid)))) if panel.grid.size else 1.0
    map_ = LinearSegmentedColormap.from_list("heat", [colour("measured", 1), "#FFFFFF", colour("measured")])
    shown = ax.pcolormesh(np.ma.masked_invalid(panel.grid), cmap=map_, vmin=-most, vmax=most)
    ax.invert_yaxis()
    step = -(-len(panel.grid) // 12)
    at = np.arange(0, len(panel.grid), step)
    ax.set_xticks(at + 0.5, [f"{value:g}" for value in np.asarray(panel.grid_x)[at]])
    ax.set_yticks(at + 0.5, [f"{value:g}" for value in np.asarray(panel.grid_y)[at]])
    ax.set_aspect("equal")
    bar = ax.figure.colorbar(shown, ax=ax, fraction=0.05, pad=0.03, use_gridspec=False)
    bar.ax.tick_params(labelsize=8)


def _wide(x, *values):
    """Give a line of a single point some width, so that it is seen."""
    if len(x) > 1:
        return (x, *values)
    return (np.array([x[0] - 0.3, x[0] + 0.3]), *(np.repeat(value, 2) for value in values))


class _SparseFormatter(Formatter):
    """Label 2 and 5 of each decade of a log axis, or with `every` all ticks of a short one."""

    def __init__(self, *, every):
        self.every = every

    def __call__(self, x, pos=None):
        return f"{x:g}" if self.every or f"{x:.0e}"[0] in "25" else ""


def _size(chart: Chart, rows: int, columns: int) -> tuple[tuple[float, float], bool]:
    """Size in inches, and whether the panels are square (or half as high as wide) and so share no axis."""
    if chart.kind == "clouds":
        return (max(3.9 * columns + 0.3, 6.0), 3.9 * rows + 1.6), True
    if chart.kind == "flow":
        return (max(3.4 * columns + 0.3, 6.0), 3.1 * rows + 2.0), True
    if chart.kind in ("heat", "path"):
        return (max(4.3 * columns + 0.3, 6.0), 3.7 * rows + 1.9), True
    if chart.kind == "field":
        return (max(4.6 * columns + 0.3, 6.0), 3.0 * rows + 1.8), True
    if chart.kind == "matrix":
        return (max(4.4 * columns + 0.3, 6.6), 3.9 * rows + 1.6), True
    if len(chart.panels) <= 4 and not chart.groups:
        return (max(5.4 * columns + 0.4, 6.6), 4.0 * rows + 1.9), False
    return (3.0 * columns + 0.6, 2.3 * rows + 1.6), False


def legend(figure: Figure) -> int:
    """One legend for all panels, under the title; return its rows, as many as the width of the figure asks for."""
    entries = {}
    for ax in figure.axes:
        handles, labels = ax.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    if not entries:
        return 0
    widest = 0.55 + 0.068 * max(map(len, entries))
    columns = max(1, min(len(entries), int((figure.get_size_inches()[0] - 0.1) / widest)))
    place = {"loc": "upper left", "bbox_to_anchor": (0.0, 1 - 0.28 / figure.get_size_inches()[1])}
    figure.legend(
        list(entries.values()), list(entries), ncols=columns, fontsize=8, frameon=False, markerscale=1.5, **place
    )
    for text in figure.legends[-1].get_texts():
        text.set_parse_math(False)
    return -(-len(entries) // columns)


def finished(figure: Figure, title: str, caption: str, *, legend_rows: int = 1) -> Figure:
    """Put title and caption, and keep the room that they and the legend need free of axes."""
    width, height = figure.get_size_inches()
    lines = textwrap.wrap(caption, width=int(width * 16.5))
    bottom = (0.145 * len(lines) + 0.15) / height
    top = 1 - (0.42 + 0.18 * legend_rows) / height
    figure.set_layout_engine("constrained", rect=(0.005, bottom, 0.99, top - bottom))
    figure.text(0.01, 0.07 / height, "\n".join(lines), fontsize=8, va="bottom", linespacing=1.25, parse_math=False)
    figure.text(0.01, 1 - 0.1 / height, title, fontsize=12, va="top", weight="bold", parse_math=False)
    return figure
