"""Stage 7 of 7: decoded directions as a matplotlib Figure: words, of which the font may lack some letters."""

import unicodedata
from functools import cache

import matplotlib
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

from .averaged import KINDS
from .chart import Chart, Direction
from .clouds import early_middle_late
from .drawing import finished
from .palette import colour

SHOWN = 5
"""Tokens of each sign in the file; the page shows all."""

LENGTH = 68
"""Letters of a list of tokens in the file."""


def draw_directions(chart: Chart) -> Figure:
    """List the leading directions of an early, a middle and a late layer of each store."""
    stores = sorted({group.split("/")[0] for group in chart.groups})
    groups = []
    for store in stores:
        own = [group for group in chart.groups if group.split("/")[0] == store]
        groups += [own[index] for index in early_middle_late(range(len(own)))]
    rows = [_line(row) for group in groups for row in [group, *_of(chart, group)]]
    height = 0.2 * len(rows) + 1.9
    figure = Figure(figsize=(13.0, height))
    ax = figure.subplots()
    ax.set_axis_off()
    ax.set(xlim=(0, 1), ylim=(len(rows), 0))
    for number, cells in enumerate(rows):
        heading = len(cells) == 1
        for (x, tint), text in zip(_COLUMNS, [chart.groups[cells[0]]] if heading else cells, strict=False):
            ax.text(x, number + 0.5, text, fontsize=8, color="#000000" if heading else tint, parse_math=False,
                    weight="bold" if heading else "normal", va="center")  # fmt: skip
    return finished(figure, chart.title, chart.caption)


_COLUMNS = ((0.0, "#000000"), (0.11, "#000000"), (0.17, colour("measured")), (0.59, colour("measured", 1)))


def _of(chart: Chart, group: str) -> list[Direction]:
    return [row for row in chart.rows if row.group == group and row.kind in KINDS]


def _line(row: Direction | str) -> list[str]:
    if isinstance(row, str):
        return [row]
    plus, minus = (_fitted("  ".join(map(printable, words[:SHOWN]))) for words in (row.plus, row.minus))
    return [f"{row.kind} {row.index + 1}", f"{row.size:.3g}", f"+  {plus}", f"\N{MINUS SIGN}  {minus}"]


def _fitted(text: str) -> str:
    return text if len(text) <= LENGTH else f"{text[: LENGTH - 1]}…"


def printable(text: str) -> str:
    """Replace letters that the font lacks, and control characters, by their code; an empty token by ∅."""
    return "".join(_letter(letter) for letter in text) or "∅"


@cache
def _letter(letter: str) -> str:
    if letter == " ":
        return "␣" if _has("␣") else "_"
    if not unicodedata.category(letter).startswith(("C", "Z")) and _has(letter):
        return letter
    return letter.encode("unicode_escape").decode("ascii")


@cache
def _has(letter: str) -> bool:
    font = get_font(findfont(FontProperties(family=matplotlib.rcParams["font.family"])))
    return bool(font.get_char_index(ord(letter)))
