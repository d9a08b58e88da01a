"""Stage 7 of 7: a flow in a plane in matplotlib: arrows from where points were put to where they went."""

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from .chart import Series
from .palette import colour


def draw_flow(ax: Axes, series: list[Series]) -> None:
    """Draw series with ends as arrows, the others as dots; the role "measured" above the rest."""
    for one in series:
        tint, order = colour(one.role, one.store), 4 if one.role == "measured" else 3
        if one.to_x is None or one.to_y is None:
            size = 30 if len(one.x) == 1 else 5
            ax.scatter(one.x, one.y, s=size, color=tint, linewidths=0, label=one.label, zorder=5 if size > 5 else 1)
            continue
        ax.quiver(one.x, one.y, one.to_x - one.x, one.to_y - one.y, color=tint, angles="xy", scale_units="xy", scale=1,
                  width=0.005, headwidth=3.5, headlength=4, headaxislength=3.5, zorder=order)  # fmt: skip
        ax.add_line(Line2D([], [], color=tint, label=one.label))  # what the legend shows
