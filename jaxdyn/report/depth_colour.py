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
    _bar(ax, image)


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
            _bar(ax, dots, "point")
        else:
            ax.plot(one.x, one.y, color=tint, label=one.label, zorder=1, **style(one))


def _bar(ax: Axes, coloured: Any, words: str = "") -> None:
    """Put a colour bar beside the axes, as high as they are whatever their aspect."""
    bar = ax.figure.colorbar(coloured, cax=ax.inset_axes((1.03, 0.0, 0.04, 1.0)))
    bar.ax.tick_params(labelsize=7)
    bar.set_label(words, fontsize=7)
