"""Stage 7 of 7: what is coloured by a number in matplotlib: heat maps, and paths whose colour is depth."""

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from .chart import Panel, Series
from .palette import colour

COLOURS = "viridis"


def draw_heat(ax: Axes, panel: Panel) -> None:
    """Draw the panel's grid with a colour bar; y grows downwards from the first row, as in a matrix."""
    assert panel.grid is not None
    grid = np.ma.masked_invalid(panel.grid)
    image = ax.imshow(grid, cmap=COLOURS, vmin=heat_low(panel.grid), vmax=1.0, interpolation="nearest")
    ax.figure.colorbar(image, ax=ax, shrink=0.85, pad=0.02).ax.tick_params(labelsize=7)


def heat_low(grid: np.ndarray) -> float:
    """Lowest value of a heat map of correlations: 0, or -1 where some are far below it."""
    finite = grid[np.isfinite(grid)]
    return -1.0 if finite.size and finite.min() < -0.2 else 0.0


def draw_path(ax: Axes, series: list[Series], style: Callable[[Series], dict[str, Any]]) -> None:
    """Draw paths: of role "measured" with a dot a point, coloured by depth, the others as lines."""
    for one in series:
        tint = colour(one.role, one.store)
        if one.role == "measured":
            ax.plot(one.x, one.y, color=tint, linewidth=0.7, alpha=0.6, label=one.label, zorder=2)
            dots = ax.scatter(one.x, one.y, c=np.arange(len(one.x)), cmap=COLOURS, s=16, zorder=3, linewidths=0)
            bar = ax.figure.colorbar(dots, ax=ax, shrink=0.85, pad=0.02)
            bar.ax.tick_params(labelsize=7)
            bar.set_label("point", fontsize=7)
        else:
            ax.plot(one.x, one.y, color=tint, label=one.label, zorder=1, **style(one))
