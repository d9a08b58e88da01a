"""Stage 7 of 7: the table by layer for the terminal, and the same numbers as plain values for --json."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from rich.console import Group
from rich.table import Table
from rich.text import Text

from . import captions
from .initial import Initial, Level, level
from .profiles import PART_TITLES, Profile, available_parts, done_samples, profile

COLUMNS = ("henrici_normalized", "complex_fraction", "mean_rotation_angle", "self_alignment", "effective_rank")
"""Measures of the terminal table."""

HEADERS = {
    "henrici_normalized": "Henrici dep.",
    "complex_fraction": "complex share",
    "mean_rotation_angle": "mean |arg λ|",
    "self_alignment": "self-alignment",
    "effective_rank": "effective rank",
}
WIDTH = 100
"""Columns of text the table keeps within."""


def by_layer(tree: xr.DataTree, *, measures: Sequence[str] = COLUMNS) -> Group:
    """Build one table for block and one for update: a row a layer; mean, N1 mean and excess of each measure.

    Parameters
    ----------
    tree : a store opened by `jaxdyn.store.open_tree`.
    measures : names of measures; as many a table as 100 columns of text hold, the others in further tables.

    Returns
    -------
    A rich renderable. A star marks an excess beyond 2 sd of the N1 draws.

    Raises
    ------
    InputError : no sample of the store is done.
    """
    root = done_samples(tree)
    tables, rungs = [], set()
    for part in _parts(root):
        shown = [profile(root, measure, part) for measure in measures if measure in root]
        cells = [_cells(one) for one in shown]
        rungs |= {rung for one in shown for rung in one.nulls}
        tables.extend(_table(part, *chunk) for chunk in _fitting(shown, cells))
    if "N1" in rungs:
        key = "Each cell: mean, N1 mean, excess (mean less N1 mean); *: excess beyond 2 sd of the N1 draws."
    else:
        key = f"Each cell: mean. {captions.NO_N1}"
    note = captions.join(
        key,
        captions.null_caption(root, rungs, {"N1": "second number"}) if "N1" in rungs else "",
        captions.data_caption(tree, root),
        captions.energy_caption(tree),
        captions.failure_caption(root),
    )
    return Group(*tables, Text(note))


def as_dict(tree: xr.DataTree, init: Initial | None = None) -> dict:
    """Give every measure the store has as JSON values: by part and measure, lists over layers; NaN becomes None.

    Returns
    -------
    {"layer": [...], "caption": str, "parts": {part: {measure: {"mean", "low", "high", "count", "nulls": {rung:
    {"mean", "sd", "excess"}}}}}}; low and high bound the 95 % interval of the mean, articles as replicates. With `init`
    a measure's "initial" holds N5: "mean" and "sd" over the seeds, "low" and "high" of one more, "excess" with its
    interval, "out" where that leaves out 0 (see `initial.Level`), and "seeds" beside "layer".
    """
    root = done_samples(tree)
    measures = [str(name)[: -len("_null")] for name in root.data_vars if str(name).endswith("_null")]
    measures = [name for name in measures if name in root and root[name].dims == ("part", "layer", "sample")]
    parts = {}
    for part in root["part"].values.tolist():
        parts[part] = {
            measure: _plain(profile(root, measure, part)) | _initial(level(init, root, measure, part))
            for measure in measures
        }
    caption = captions.join(
        captions.data_caption(tree, root),
        captions.null_caption(root, set(root["rung"].values.tolist()), {"N0": "nulls.N0", "N1": "nulls.N1"}),
        init.caption("initial") if init else "",
        captions.energy_caption(tree),
        captions.failure_caption(root),
    )
    seeds = {"seeds": list(init.seeds)} if init else {}
    return {"layer": root["layer"].values.tolist(), **seeds, "caption": caption, "parts": parts}


def _parts(root):
    return available_parts(root, ("block", "update")) or root["part"].values.tolist()


def _cells(one: Profile) -> list[str]:
    """One text a layer, its numbers padded so that they stand under each other."""
    columns = [[_short(value) for value in one.mean]]
    if null := one.nulls.get("N1"):
        beyond = np.abs(null.excess) > 2 * null.sd
        columns.append([_short(value) for value in null.mean])
        stars = zip(null.excess, beyond, strict=True)
        columns.append([_short(value, sign=True) + ("*" if star else " ") for value, star in stars])
    widths = [max(map(len, column)) for column in columns]
    return [" ".join(text.rjust(w) for text, w in zip(row, widths, strict=True)) for row in zip(*columns, strict=True)]


def _fitting(shown: list[Profile], cells: list[list[str]]) -> list[tuple[list[Profile], list[list[str]]]]:
    """Split the columns into groups that fit the width, each with two columns of text between cells."""
    groups: list[tuple[list[Profile], list[list[str]]]] = []
    used = WIDTH
    for one, cell in zip(shown, cells, strict=True):
        width = max(len(HEADERS.get(one.measure, one.title)), *map(len, cell)) + 2
        if used + width > WIDTH:
            groups.append(([], []))
            used = len("layer") + 2
        groups[-1][0].append(one)
        groups[-1][1].append(cell)
        used += width
    return groups


def _table(part: str, shown: list[Profile], cells: list[list[str]]) -> Table:
    table = Table(title=PART_TITLES.get(part, part), title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("layer", justify="right", no_wrap=True)
    for one in shown:
        table.add_column(Text(HEADERS.get(one.measure, one.title)), no_wrap=True)
    for row, layer in enumerate(shown[0].layer):
        table.add_row(str(layer), *(Text(cell[row]) for cell in cells))
    return table


def _short(value, *, sign=False):
    """Three significant digits in as little room as it takes: .761, 12.3, 145, -.021, 1e+06."""
    if not np.isfinite(value):
        return "-"
    if abs(value) < 0.9995:
        text = f"{value:.3f}".replace("0.", ".", 1)
        text = ".000" if text == "-.000" else text
    elif abs(value) < 99_999.5:
        text = f"{value:.{max(0, 2 - int(np.log10(abs(value)) + 1e-3))}f}"
    else:
        text = f"{value:.0e}"
    return f"+{text}" if sign and not text.startswith("-") else text


def _plain(one: Profile) -> dict:
    numbers = {name: _list(getattr(one, name)) for name in ("mean", "low", "high")}
    nulls = {
        rung: {name: _list(getattr(null, name)) for name in ("mean", "sd", "excess")}
        for rung, null in one.nulls.items()
    }
    return {**numbers, "count": one.count.tolist(), "nulls": nulls}


def _initial(found: Level | None) -> dict:
    if found is None:
        return {}
    numbers = {name: _list(values) for name, values in vars(found).items()}
    return {"initial": {**numbers, "out": found.stands_out.tolist()}}


def _list(values):
    return [float(value) if np.isfinite(value) else None for value in values]
