"""Stage 7 of 7: each quantity of `dynamics.zarr` in a line, beside its null and controls, for the terminal and JSON.

To add a stage's lines: a function from its dataset to `Row`s, named in `ROWS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from rich.table import Table

from .dynamics import Dynamics


@dataclass(frozen=True)
class Row:
    """One line.

    Attributes
    ----------
    quantity : what was measured.
    measured : on the trained model.
    null : its null, in words and numbers.
    controls : values of the controls, by name.
    """

    quantity: str
    measured: float
    null: str = ""
    controls: tuple[tuple[str, float], ...] = ()


def _controls(values: xr.DataArray) -> tuple[float, tuple[tuple[str, float], ...]]:
    """Split a variable over `control` into the measured value and those of the controls that apply."""
    by_name = {str(name): float(v) for name, v in zip(values["control"].values, values.values, strict=True)}
    measured = by_name.pop("trained")
    return measured, tuple((name, value) for name, value in by_name.items() if np.isfinite(value))


def density_rows(found: xr.Dataset) -> list[Row]:
    """First and last point of the scale-free estimators."""
    rows = []
    nulls = {"kurtosis": "Gaussian units 3.000", "participation": "Gaussian units .333"}
    for name, null in nulls.items():
        for at, words in ((0, "first point"), (-1, "last point")):
            rows.append(Row(f"D1 {name}, {words}", *_swap(null, found[name].isel(point=at))))
    return rows


def continuity_rows(found: xr.Dataset) -> list[Row]:
    """Unit correlation, by sublayer crossed; direction and speed."""
    rows = []
    for sublayer in ("attention", "MLP", "block"):
        crossed = found["crosses"].values == sublayer
        if crossed.any():
            mean = found["mean_correlation"].isel(step=crossed).mean("step")
            rows.append(Row(f"D2 unit correlation across {sublayer}", *_swap("see skip", mean)))
    for name, words in (("cosine", "D3 cosine with the next point"), ("relative_velocity", "D4 step / state")):
        for part, at in (("first half", slice(None, found.sizes["step"] // 2)), ("second half", slice(found.sizes["step"] // 2, None))):  # fmt: skip
            rows.append(Row(f"{words}, {part}", *_swap("see skip", found[name].isel(step=at).mean("step"))))
    return rows


ROWS: dict[str, Callable[[xr.Dataset], list[Row]]] = {
    "density": density_rows,
    "continuity": continuity_rows,
}
"""Lines of every stage, by its name."""


def rows(one: Dynamics) -> list[Row]:
    """Return all lines of the finished stages."""
    return [row for name, make in ROWS.items() if (found := one.get(name)) is not None for row in make(found)]


def table(one: Dynamics) -> Table:
    """Lay the lines out for the terminal."""
    shown = Table(title=f"{one.root.attrs.get('model')}, {one.root.attrs.get('samples')} texts, last token")
    shown.add_column("quantity")
    shown.add_column("measured", justify="right")
    shown.add_column("null")
    controls = [name for name in one.root["control"].values.tolist() if name != "trained"]
    for name in controls:
        shown.add_column(name, justify="right")
    for row in rows(one):
        beside = dict(row.controls)
        cells = (_text(beside[name]) if name in beside else "" for name in controls)
        shown.add_row(row.quantity, _text(row.measured), row.null, *cells)
    return shown


def as_dict(one: Dynamics) -> list[dict[str, Any]]:
    """Give the lines as JSON values."""
    return [
        {"quantity": row.quantity, "measured": _plain(row.measured), "null": row.null,
         "controls": {name: _plain(value) for name, value in row.controls}}
        for row in rows(one)
    ]  # fmt: skip


def _swap(null: str, values: xr.DataArray) -> tuple[float, str, tuple[tuple[str, float], ...]]:
    measured, controls = _controls(values)
    return measured, null, controls


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _text(value: float) -> str:
    if not np.isfinite(value):
        return "-"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
