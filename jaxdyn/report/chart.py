"""Stage 7 of 7: what one figure shows, as plain numbers: the data function of a figure returns a `Chart`.

The files (matplotlib) and the page (SVG) are drawn from the same chart, so they cannot disagree. A series has a *role*,
and a role has one colour and one mark wherever it appears.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Kind = Literal["lines", "budget", "clouds", "field", "directions", "plane", "heat", "matrix", "path", "flow", "table",
               "specification"]  # fmt: skip

RAW, EXCESS = "raw", "excess"
"""The two positions of the switch; a series without a view is shown in both."""

ROLES = (
    "measured",
    "fan",
    "means",
    "trace",
    "singular",
    "orientation",
    "biased",
    "floor",
    "N0",
    "N1",
    "N3",
    "N5",
    "front",
    "linear",
    "rotated",
    "points",
    "null",
    *(f"variant{number}" for number in range(1, 7)),
    "skip",
    "shuffled",
    "walk",
    "jacobian",
    "displaced",
    "frozen",
    "ablated",
    "N2",
)
"""Everything a series can be: measured data, what they are split into, the null ladder, laws with their control, and up
to six variants side by side."""

DIGITS = 9
"""Significant digits of the numbers on the page: enough to give every float32 back bit for bit."""


@dataclass(frozen=True)
class Series:
    """One line, band, cloud or set of bars.

    Attributes
    ----------
    label : its name in legends, read-outs and the downloaded numbers.
    role : one of `ROLES`; decides colour and mark.
    x, y : same length.
    low, high : the interval of y (a band for nulls, bars for measurements); None where there is none.
    view : `RAW` or `EXCESS`, or "" for both.
    store : 0 or 1, which of two overlaid stores.
    to_x, to_y : where the arrows from (x, y) end, in a flow; None for dots.
    """

    label: str
    role: str
    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    view: str = ""
    store: int = 0
    to_x: np.ndarray | None = None
    to_y: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Hold our own invariants: a known role, equal lengths."""
        assert self.role in ROLES, self.role
        every = (self.x, self.y, self.low, self.high, self.to_x, self.to_y)
        columns = [column for column in every if column is not None]
        assert len({len(column) for column in columns}) == 1, self.label


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes
    ----------
    key : identifies the panel in the numbers, such as a measure's name.
    title, x_label, y_label : words on the axes.
    group : what the figure's selector chooses, such as the part; "" where there is none.
    series : what is drawn.
    log : whether y is logarithmic.
    zero : whether y shows 0.
    window : (x low, x high, y low, y high) for clouds and fields, else None.
    note : one short line inside the axes.
    names : what stands at x = 0, 1, ... in place of numbers, such as interventions; empty for numbers. Of a
        specification: the choices, one a row of the grid.
    grid : for a field or a heat map, the values (rows of y, columns of x) with their axes `grid_x` and `grid_y`.
    """

    key: str
    title: str
    x_label: str
    y_label: str = ""
    group: str = ""
    series: tuple[Series, ...] = ()
    log: bool = False
    zero: bool = False
    window: tuple[float, float, float, float] | None = None
    note: str = ""
    names: tuple[str, ...] = ()
    grid: np.ndarray | None = None
    grid_x: np.ndarray | None = None
    grid_y: np.ndarray | None = None


@dataclass(frozen=True)
class Direction:
    """One decoded direction: the tokens it raises most with either sign.

    Attributes
    ----------
    kind : "output", "input" or "eigenvector".
    index : 0 is the leading one.
    size : its singular value or abs(lambda).
    plus, minus : tokens, strongest first.
    """

    group: str
    kind: str
    index: int
    size: float
    plus: tuple[str, ...]
    minus: tuple[str, ...]


@dataclass(frozen=True)
class Chart:
    """One figure.

    Attributes
    ----------
    name : file name without ending.
    title : what it shows.
    kind : how its panels are drawn.
    caption : everything a reader must know to judge and cite it.
    panels : for all kinds but "directions".
    rows : for "directions".
    lead : one or two sentences above the figure: how to read it.
    table : for "table", rows of text, the header first; a panel, where there is one, is drawn beside the rows.
    """

    name: str
    title: str
    kind: Kind
    caption: str
    panels: tuple[Panel, ...] = ()
    rows: tuple[Direction, ...] = ()
    lead: str = ""
    groups: dict[str, str] = field(default_factory=dict)
    """What the selector says for each `group`, in order."""
    table: tuple[tuple[str, ...], ...] = ()

    @property
    def views(self) -> tuple[str, ...]:
        """Positions of the switch that any series has, `RAW` first."""
        used = {series.view for panel in self.panels for series in panel.series}
        return tuple(view for view in (RAW, EXCESS) if view in used)


def as_plain(chart: Chart) -> dict[str, Any]:
    """Give a chart as JSON values; NaN becomes None, a series' x is left out where it is that of its panel."""
    return {
        "name": chart.name,
        "title": chart.title,
        "kind": chart.kind,
        "caption": chart.caption,
        "lead": chart.lead,
        "groups": chart.groups,
        "views": list(chart.views),
        "panels": [_panel(panel) for panel in chart.panels],
        "table": [list(row) for row in chart.table],
        "rows": [
            {**vars(row), "size": numbers(np.array([row.size]))[0], "plus": list(row.plus), "minus": list(row.minus)}
            for row in chart.rows
        ],
    }


def numbers(values: np.ndarray) -> list[Any]:
    """Nested lists of floats with `DIGITS` significant digits (integers as they are), None where not finite."""
    values = np.asarray(values)
    if values.dtype.kind in "iub":
        return values.tolist()
    if values.ndim > 1:
        return [numbers(row) for row in values]
    return [float(f"{value:.{DIGITS}g}") if np.isfinite(value) else None for value in values.tolist()]


def field_levels(values: np.ndarray) -> np.ndarray:
    """Contour levels at multiples of 1/2, or of 1 where the field spans more than 5; none for a flat field."""
    finite = values[np.isfinite(values)]
    if not finite.size or finite.max() == finite.min():
        return np.zeros(0)
    step = 0.5 if np.ptp(finite) <= 5 else 1.0
    return np.arange(np.ceil(finite.min() / step), np.floor(finite.max() / step) + 1) * step


def _panel(panel: Panel) -> dict[str, Any]:
    shared = panel.series[0].x if panel.series else np.zeros(0)
    plain: dict[str, Any] = {
        "key": panel.key,
        "title": panel.title,
        "group": panel.group,
        "xLabel": panel.x_label,
        "yLabel": panel.y_label,
        "log": panel.log,
        "zero": panel.zero,
        "note": panel.note,
        "x": numbers(shared),
        "series": [_series(series, shared) for series in panel.series],
    }
    if panel.names:
        plain["names"] = list(panel.names)
    if panel.window is not None:
        plain["window"] = numbers(np.array(panel.window))
    if panel.grid is not None and panel.grid_x is not None and panel.grid_y is not None:
        levels = {"levels": numbers(field_levels(panel.grid))}
        plain["grid"] = levels | {
            name: numbers(v) for name, v in zip("xyz", (panel.grid_x, panel.grid_y, panel.grid), strict=True)
        }
    return plain


def _series(series: Series, shared: np.ndarray) -> dict[str, Any]:
    plain: dict[str, Any] = {"label": series.label, "role": series.role, "y": numbers(series.y)}
    if not np.array_equal(series.x, shared):
        plain["x"] = numbers(series.x)
    if series.low is not None and series.high is not None:
        plain |= {"low": numbers(series.low), "high": numbers(series.high)}
    if series.to_x is not None and series.to_y is not None:
        plain |= {"toX": numbers(series.to_x), "toY": numbers(series.to_y)}
    if series.view:
        plain["view"] = series.view
    if series.store:
        plain["store"] = series.store
    return plain
