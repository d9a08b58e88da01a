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
from .painter import Painter
from .product import product_chart
from .semanticity import semanticity_charts
from .source import FORMATS, Source, of_tree
from .study import study_charts
from .surrogates import surrogate_charts
from .table_drawing import draw_specification, draw_table
from .topology import topology_charts

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
        *surrogate_charts(sources),
        *dynamics_charts([source.folder for source in sources if source.folder is not None]),
        *semanticity_charts([source.folder for source in sources if source.folder is not None]),
        *topology_charts([source.folder for source in sources if source.folder is not None]),
        *study_charts([source.folder for source in sources if source.folder is not None]),
    ]
    return [chart for chart in found if chart is not None]


def names(drawn: Sequence[Chart]) -> dict[str, tuple[Chart, str]]:
    """Chart and view of every figure, by file name; the depth profiles come twice, raw and as excess."""
    found = {}
    for chart in drawn:
        for view in chart.views if chart.name == "depth_profiles" else (RAW,):
            found[chart.name if view == RAW else "depth_excess"] = chart, view
    return found


def draw_one(chart: Chart, view: str = RAW) -> Figure:
    """Draw a chart the way that suits its kind."""
    if chart.kind == "directions":
        return draw_directions(chart)
    if chart.kind == "table":
        return draw_table(chart)
    if chart.kind == "specification":
        return draw_specification(chart)
    if chart.name == "depth_profiles":
        return draw(chart, view=view, groups=tuple(chart.groups)[:2])
    if chart.name in BY_GROUP:
        return draw(chart, groups=tuple(chart.groups), columns=5)
    return draw(chart, columns=_columns(chart))


def draw_all(drawn: Sequence[Chart]) -> dict[str, Figure]:
    """Draw charts, by file name."""
    return {name: draw_one(chart, view) for name, (chart, view) in names(drawn).items()}


def save_all(
    source: xr.DataTree | Sequence[Source],
    folder: str | Path,
    *,
    formats: Sequence[str] = FORMATS,
    drawn: Sequence[Chart] | None = None,
    painter: Painter | None = None,
) -> list[Path]:
    """Write every figure the store has data for, and the card.

    Parameters
    ----------
    source : a store opened by `jaxdyn.store.open_tree`, or the sources of an overlay.
    folder : existing folder; files are named after their charts, the card `card.png`.
    formats : file endings, any of "png", "svg".
    drawn : the charts, where the caller has them already.
    painter : draws every other figure at the same time; the sources then need folders.

    Returns
    -------
    The files written.

    Raises
    ------
    InputError : no sample of the store is done.
    """
    sources = [of_tree(source)] if isinstance(source, xr.DataTree) else list(source)
    drawn, folder = charts(sources) if drawn is None else drawn, Path(folder)
    wanted = list(names(drawn))
    stores = [one.folder for one in sources]
    helped = painter is not None and painter.draw(stores, folder, formats, wanted[1::2])
    files = save_some(drawn, folder, formats, wanted[:: 2 if helped else 1])
    card = save_figure(draw_card(drawn[0], sources), [folder / "card.png"], dpi=100)
    if painter is not None and helped:
        files |= painter.files()
        files |= save_some(drawn, folder, formats, [name for name in wanted if name not in files])
    return [*(file for name in wanted for file in files[name]), *card]


def save_some(
    drawn: Sequence[Chart], folder: Path, formats: Sequence[str], wanted: Sequence[str]
) -> dict[str, list[Path]]:
    """Write the figures of these names; return the files of each."""
    known = names(drawn)
    return {
        name: save_figure(draw_one(*known[name]), [folder / f"{name}.{ending}" for ending in formats])
        for name in wanted
    }


def _columns(chart: Chart) -> int:
    """Most panels a row: three where they are planes, two of four paths, else four."""
    if chart.kind == "path" and len(chart.panels) == 4:
        return 2
    if chart.name == "teleport_linear":  # a panel for each start
        return 5
    return 3 if chart.kind in ("clouds", "field", "heat", "matrix", "path") else 4


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
