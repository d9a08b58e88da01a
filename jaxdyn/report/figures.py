"""Stage 7 of 7: figures of a results store as files. Each has one data function, which the page uses too."""

from collections.abc import Sequence
from pathlib import Path

import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from .averaged import direction_chart, energy_chart, pseudospectra_chart
from .budget import budget_chart
from .card import draw_card
from .chart import EXCESS, RAW, Chart
from .clouds import cloud_chart
from .depth import PROFILES, depth_chart
from .drawing import draw
from .dynamics import dynamics_charts
from .listing import draw_directions
from .product import product_chart
from .semanticity import semanticity_charts
from .source import FORMATS, Source, of_tree

DPI = 150
BY_GROUP = ("teleport_flow", "teleport_return")
"""Charts whose files have a row of panels for each group, a column for each start."""


def charts(sources: Sequence[Source]) -> list[Chart]:
    """Return every figure the stores have data for, in the order of the page."""
    found = [
        depth_chart(sources),
        budget_chart(sources),
        product_chart(sources),
        cloud_chart(sources),
        direction_chart(sources),
        energy_chart(sources),
        pseudospectra_chart(sources),
        *dynamics_charts([source.folder for source in sources if source.folder is not None]),
        *semanticity_charts([source.folder for source in sources if source.folder is not None]),
    ]
    return [chart for chart in found if chart is not None]


def draw_all(drawn: Sequence[Chart]) -> dict[str, Figure]:
    """Draw charts, by file name; the depth profiles twice, raw and as excess."""
    figures = {}
    for chart in drawn:
        if chart.kind == "directions":
            figures[chart.name] = draw_directions(chart)
        elif chart.name == "depth_profiles":
            groups = tuple(chart.groups)[:2]
            for view in chart.views:
                name = chart.name if view == RAW else "depth_excess"
                figures[name] = draw(chart, view=view, groups=groups)
        elif chart.name in BY_GROUP:
            figures[chart.name] = draw(chart, groups=tuple(chart.groups), columns=5)
        else:
            figures[chart.name] = draw(chart, columns=_columns(chart))
    return figures


def save_all(
    source: xr.DataTree | Sequence[Source],
    folder: str | Path,
    *,
    formats: Sequence[str] = FORMATS,
    drawn: Sequence[Chart] | None = None,
) -> list[Path]:
    """Write every figure the store has data for, and the card.

    Parameters
    ----------
    source : a store opened by `jaxdyn.store.open_tree`, or the sources of an overlay.
    folder : existing folder; files are named after their charts, the card `card.png`.
    formats : file endings, any of "png", "svg".
    drawn : the charts, where the caller has them already.

    Returns
    -------
    The files written.

    Raises
    ------
    InputError : no sample of the store is done.
    """
    sources = [of_tree(source)] if isinstance(source, xr.DataTree) else list(source)
    drawn = charts(sources) if drawn is None else drawn
    written = []
    for name, figure in draw_all(drawn).items():
        written += save_figure(figure, [Path(folder) / f"{name}.{ending}" for ending in formats])
    return [*written, *save_figure(draw_card(drawn[0], sources), [Path(folder) / "card.png"], dpi=100)]


def _columns(chart: Chart) -> int:
    """Most panels a row: three where they are planes, two of four paths, else four."""
    if chart.kind == "path" and len(chart.panels) == 4:
        return 2
    if chart.name == "teleport_linear":  # a panel for each start
        return 5
    return 3 if chart.kind in ("clouds", "field", "heat", "path") else 4


def save_figure(figure: Figure, files: list[Path], *, dpi: int = DPI) -> list[Path]:
    """Lay a figure out once and draw it once a file; `Figure.savefig` would draw it twice each time."""
    if engine := figure.get_layout_engine():
        engine.execute(figure)
        figure.set_layout_engine("none")
    for file in files:
        figure.dpi = dpi  # an SVG leaves its own behind
        if file.suffix == ".png":
            FigureCanvasAgg(figure).print_png(file)
        else:
            FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None})
    return files


def depth_profiles(tree: xr.DataTree, *, measures: Sequence[str] = PROFILES, excess: bool = False) -> Figure:
    """Measures against layer: mean over samples with its interval, on the N1 band, N0 dashed; block and update."""
    chart = depth_chart([of_tree(tree)], measures=measures)
    return draw(chart, view=EXCESS if excess else RAW, groups=tuple(chart.groups)[:2])


def eigenvalues(tree: xr.DataTree, *, layers: Sequence[int] | None = None, max_points: int | None = None) -> Figure:
    """Eigenvalues of the block Jacobian over those of one N1 draw a sample, at an early, a middle and a late layer.

    Parameters
    ----------
    tree : the store, with part block.
    layers : block numbers to show; None takes the first, the middle and the last that the store has.
    max_points : most eigenvalues in one cloud; above it, fewer samples are shown and the caption says how many.
    """
    chart = cloud_chart([of_tree(tree)], layers=layers, max_points=max_points)
    assert chart is not None
    return draw(chart, columns=3)


def bottleneck(tree: xr.DataTree) -> Figure:
    """Effective rank and participation ratio of the running product of blocks, each prompt and the product of means."""
    chart = product_chart([of_tree(tree)])
    assert chart is not None
    return draw(chart)
