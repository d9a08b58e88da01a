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
    half = found.sizes["step"] // 2
    parts = (("first half", slice(None, half)), ("second half", slice(half, None)))
    for name, words in (("cosine", "D3 cosine with the next point"), ("relative_velocity", "D4 step / state")):
        for part, at in parts:
            rows.append(Row(f"{words}, {part}", *_swap("see skip", found[name].isel(step=at).mean("step"))))
    return rows


def information_rows(found: xr.Dataset) -> list[Row]:
    """Mean information by both estimators, with the floors."""
    rows = []
    for name, words in (("ksg", f"KSG k={found.attrs['k']}"), ("binned", f"{found.attrs['bins']} bins")):
        gaussian = float(found["mean_gaussian"].sel(control="trained").mean("step"))
        shuffled = float(found[f"mean_{name}_shuffled"].sel(control="trained").mean("step"))
        null = f"Gaussian {gaussian:.3f}, shuffled {shuffled:.3f}"
        rows.append(Row(f"D5 information, {words} (nat)", *_swap(null, found[f"mean_{name}"].mean("step"))))
    return rows


def rotation_rows(found: xr.Dataset) -> list[Row]:
    """Mean count, and the units that differ from their own random walk."""
    rows = []
    for kind, words in (("mean", "mean trajectory"), ("sample", "samples")):
        at = found["average"].sel(rotation_test=f"{kind}_walk", control="trained")
        _, null, sd, p = (float(value) for value in at.values)
        null = f"own walk {null:.3f} ± {sd:.3f}, p {p:.2g}"
        rows.append(Row(f"D7 turns R, {words}", *_swap(null, found[f"count_{kind}"].mean("coordinate"))))
    units = found.sizes["coordinate"]
    for test, words in (
        ("mean_walk", "mean trajectory"),
        ("mean_flip", "mean, flipped increments"),
        ("sample_walk", "samples"),
    ):
        at = found["units"].sel(rotation_test=test)
        chance = float(at.sel(control="trained", outcome="chance_bh"))
        for outcome, side in (("more_bh", "more"), ("less_bh", "less")):
            null = f"by chance {chance:.2f} more or less" if outcome == "more_bh" else ""
            rows.append(
                Row(f"D7 units of {units} that turn {side}, BH, {words}", *_swap(null, at.sel(outcome=outcome)))
            )
        rows.append(
            Row(
                f"D7 units of {units} by max-T, {words}",
                *_swap("by chance 1 in 20 runs", at.sel(outcome="found_max_t")),
            )
        )
    return rows


def path_rows(found: xr.Dataset) -> list[Row]:
    """Straightness and first component."""
    null = f"orthogonal steps {float(found['walk_straightness'].sel(control='trained')):.3f}"
    walk = f"walk {float(found['walk_variance_share'].sel(control='trained', component=1)):.3f}"
    return [
        Row("D8 end-to-end / arc length, mean path", *_swap(null, found["straightness"])),
        Row("D8 variance on PC 1", *_swap(walk, found["variance_share"].sel(component=1))),
    ]


def autoencoder_rows(found: xr.Dataset) -> list[Row]:
    """Pooled R^2 and that of the last point."""
    pooled = f"PCA-2 {float(found['pca_pooled_r2'].sel(control='trained')):.3f}"
    last = f"PCA-2 {float(found['pca_r2'].sel(control='trained').isel(point=-1)):.3f}"
    return [
        Row("D9 held-out R², all points", *_swap(pooled, found["pooled_r2"].mean("network"))),
        Row("D9 held-out R², last point", *_swap(last, found["r2"].isel(point=-1).mean("network"))),
    ]


def dimension_rows(found: xr.Dataset) -> list[Row]:
    """Intrinsic dimension at the middle and the last point."""
    rows = []
    for at, words in ((found.sizes["point"] // 2, "middle point"), (-1, "last point")):
        null = f"matched Gaussian {float(found['gaussian_dimension'].sel(control='trained').isel(point=at)):.1f}"
        rows.append(Row(f"two-NN dimension, {words}", *_swap(null, found["dimension"].isel(point=at))))
    return rows


def teleport_rows(found: xr.Dataset) -> list[Row]:
    """Distance and inward share at the end from the first and the middle start; reach of the Jacobians; top rate."""
    rows = []
    mean = found.isel(stop=-1).mean("context")
    controls = found["teleport_control"].values.tolist()
    for at in sorted({0, found.sizes["start"] // 2}):
        block, here = int(found["start"][at]), mean.isel(start=at)
        constant = float((here["contraction_relative"] / here["contraction"]).sel(teleport_control="grid"))
        for name, words, null in (
            ("contraction_relative", "distance / norm(h) at the end", f"constant flow {_text(constant)}"),
            ("inward_moving", "inward share, natural step off", "constant flow 0"),
        ):
            value = {control: float(here[name].sel(teleport_control=control)) for control in controls}
            short = {"random-plane": "plane", "random-displacement": "directions", "context-frozen": "attention held",
                     "context-ablated": "context cut"}  # fmt: skip
            beside = ", ".join(f"{text} {_text(value[key])}" for key, text in short.items() if key in value)
            initial = (("random", value["random-init"]),) if "random-init" in value else ()
            rows.append(Row(f"D10 {words}, from block {block}", value["grid"], f"{null}; {beside}", initial))
        reach = float(found["linear_radius_update"].isel(stop=-1, start=at).median("context"))
        rows.append(Row(f"D10 reach of J in grid displacements, skip off, from block {block}", reach))
    nulls = found["stretching_rate_null"].isel(stretch=0).mean("context")
    told = ", ".join(f"{name} {_text(float(nulls.sel(rate_null=name)))}" for name in found["rate_null"].values.tolist())
    rows.append(
        Row("D10 largest stretching rate (nat a block)", float(found["stretching_rate"].isel(stretch=0).mean()), told)
    )
    return rows


ROWS: dict[str, Callable[[xr.Dataset], list[Row]]] = {
    "density": density_rows,
    "continuity": continuity_rows,
    "information": information_rows,
    "rotation": rotation_rows,
    "path": path_rows,
    "autoencoder": autoencoder_rows,
    "dimension": dimension_rows,
    "teleport": teleport_rows,
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
    if float(value).is_integer():
        return f"{value:.0f}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
