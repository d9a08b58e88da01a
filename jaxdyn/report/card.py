"""Stage 7 of 7: the hero figure as a card of 1200 x 630 pixels, the size that links are previewed in."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from .chart import RAW, Chart
from .drawing import draw_panel
from .palette import colour
from .source import Source

SIZE = (12.0, 6.3)
"""Inches; at 100 dots an inch 1200 x 630 pixels."""


def draw_card(chart: Chart, sources: Sequence[Source]) -> Figure:
    """Draw the first profile of the first part large, with what was measured above it and the marks named beside it.

    Parameters
    ----------
    chart : the depth profiles.
    sources : the stores, for their names and sizes.
    """
    panel = chart.panels[0]
    figure = Figure(figsize=SIZE, facecolor="white")
    ax = figure.add_axes((0.075, 0.13, 0.7, 0.6))
    draw_panel(ax, panel, "lines", RAW)
    ax.set_title("")
    ax.tick_params(labelsize=14)
    ax.set_xlabel(panel.x_label, fontsize=15)
    ax.spines[["top", "right"]].set_visible(False)
    part = chart.groups.get(panel.group, panel.group)
    names = "   ".join(source.label for source in sources)
    size, length = (30, 46) if len(sources) == 1 else (19, 82)
    samples = ", ".join(str(source.root.sizes["sample"]) for source in sources)
    operator = " and ".join(dict.fromkeys(str(source.root.attrs.get("operator", "")) for source in sources))
    figure.text(0.04, 0.93, _fitted(names, length), fontsize=size, weight="bold", va="center", parse_math=False)
    figure.text(0.04, 0.85, f"{panel.title}, {part}, by depth", fontsize=19, va="center", parse_math=False)
    small = f"{operator} Jacobian · {samples} samples · mean with 95 % interval"
    figure.text(0.04, 0.785, small, fontsize=14, va="center", color="#555555", parse_math=False)
    shown = [one for one in panel.series if one.view in ("", RAW)]
    height = 0.7
    for one in reversed(shown):
        tint = colour(one.role, one.store)
        figure.text(0.79, height, _fitted(one.label, 22), fontsize=14, color=tint, va="center", parse_math=False)
        height -= 0.06
    figure.text(0.97, 0.05, "jaxdyn", fontsize=16, ha="right", va="center", color="#555555")
    return figure


def _fitted(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
