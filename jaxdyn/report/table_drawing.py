"""Stage 7 of 7: tables and specification curves as matplotlib Figures."""

import textwrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .chart import Chart, Panel
from .drawing import LINES, finished, legend
from .palette import colour

INCH = 0.074
"""Width of a letter of size 8."""

LINE = 0.155
"""Height of a line of text."""

WIDEST = 40
"""Letters of a cell before it is broken."""


def draw_table(chart: Chart) -> Figure:
    """Draw the rows as text, and the panel, where there is one, as intervals to their right."""
    cells = [[textwrap.wrap(cell, WIDEST) or [""] for cell in row] for row in chart.table]
    widths = [INCH * (2 + max(len(line) for row in cells for line in row[k])) for k in range(len(cells[0]))]
    heights = [LINE * (0.7 + max(map(len, row))) for row in cells]
    beside = 2.4 if chart.panels else 0.0
    figure = Figure(figsize=(max(sum(widths) + beside + 0.2, 8.0), sum(heights) + 1.9))
    axes = figure.subplots(1, 2 if beside else 1, squeeze=False, sharey=True,
                           width_ratios=[sum(widths), beside] if beside else None)[0]  # fmt: skip
    tops = np.concatenate([[0.0], np.cumsum(heights)])
    ax = axes[0]
    ax.set_axis_off()
    ax.set(xlim=(0, sum(widths)), ylim=(tops[-1], 0))
    for number, row in enumerate(cells):
        ax.axhline(tops[number + 1], color="#C9C9C9" if number else "#5A626B", linewidth=0.6)
        for k, lines in enumerate(row):
            bold = "bold" if number == 0 or k == 0 else "normal"
            ax.text(sum(widths[:k]), tops[number] + LINE * 0.35, "\n".join(lines), fontsize=8, va="top", weight=bold,
                    linespacing=1.25, parse_math=False)  # fmt: skip
    if beside:
        _intervals(axes[1], chart.panels[0], (tops[1:-1] + tops[2:]) / 2, tops)
    return finished(figure, chart.title, chart.caption, legend_rows=0)


def _intervals(ax: Axes, panel: Panel, middle: np.ndarray, tops: np.ndarray) -> None:
    one = panel.series[0]
    assert one.low is not None
    assert one.high is not None
    ends = np.concatenate([one.low, one.high, one.y])
    most = max(1.5, 1.15 * float(np.nanmax(np.abs(ends), initial=0.0)))
    ax.axvspan(-1, 1, color=colour("null"), alpha=0.35, linewidth=0)
    ax.axvline(0, color="#000000", linewidth=0.5)
    half = np.stack([one.y - one.low, one.high - one.y])
    ax.errorbar(one.y, middle, xerr=np.where(np.isfinite(half), np.maximum(half, 0), 0), color=colour(one.role),
                marker="o", markersize=4, linewidth=0, elinewidth=1.4)  # fmt: skip
    ax.set(xlim=(-most, most), ylim=(tops[-1], 0), yticks=[])
    ax.tick_params(labelsize=8)
    ax.set_title(panel.title, fontsize=8, weight="bold")
    for side in ("left", "right", "top"):
        ax.spines[side].set_visible(False)


def draw_specification(chart: Chart, *, columns: int = 2) -> Figure:
    """Draw each panel as a curve of intervals over a matrix of dots, a row a choice."""
    rows = -(-len(chart.panels) // columns)
    choices = max(len(panel.names) for panel in chart.panels)
    figure = Figure(figsize=(6.4 * columns + 0.4, rows * (2.6 + 0.17 * choices) + 1.6))
    axes = figure.subplots(2 * rows, columns, squeeze=False, sharex=False,
                           height_ratios=[2.0, 0.17 * choices + 0.1] * rows)  # fmt: skip
    for place in range(rows * columns):
        curve, dots = axes[2 * (place // columns), place % columns], axes[2 * (place // columns) + 1, place % columns]
        if place >= len(chart.panels):
            curve.set_axis_off()
            dots.set_axis_off()
            continue
        _specification(curve, dots, chart.panels[place])
    return finished(figure, chart.title, chart.caption, legend_rows=legend(figure))


def _specification(curve: Axes, dots: Axes, panel: Panel) -> None:
    assert panel.grid is not None
    for one in panel.series:
        tint = colour(one.role)
        if one.role == "null":
            edge = np.concatenate([one.x - 0.5, one.x[-1:] + 0.5])
            assert one.low is not None
            assert one.high is not None
            curve.fill_between(edge, one.low[0], one.high[0], color=tint, alpha=0.35, linewidth=0, label=one.label)
            continue
        assert one.low is not None
        assert one.high is not None
        half = np.stack([one.y - one.low, one.high - one.y])
        style = {"marker": LINES[one.role]["marker"], "markersize": 4, "linewidth": 0, "elinewidth": 1.0}
        curve.errorbar(one.x, one.y, np.where(np.isfinite(half), np.maximum(half, 0), 0), color=tint, label=one.label,
                       **style)  # fmt: skip
    curve.axhline(0, color="#000000", linewidth=0.5)
    curve.set_title(panel.title, fontsize=10, parse_math=False)
    curve.set_ylabel(panel.y_label)
    curve.tick_params(labelsize=8, labelbottom=False)
    y, x = np.nonzero(panel.grid)
    dots.scatter(x, y, s=9, color="#16191D", linewidths=0)
    dots.set_yticks(range(len(panel.names)), panel.names, fontsize=7)
    for tick in dots.get_yticklabels():
        tick.set_parse_math(False)
    dots.set_xticks([])
    dots.set_ylim(len(panel.names) - 0.5, -0.5)
    for ax in (curve, dots):
        ax.set_xlim(-0.7, panel.grid.shape[1] - 0.3)
    for side in ("top", "right", "bottom", "left"):
        dots.spines[side].set_visible(False)
