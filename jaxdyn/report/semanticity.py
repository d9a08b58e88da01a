"""Stage 7 of 7: the fronts of generalisation and identification, a model's layers and a toy network on them.

Reads `semanticity.zarr` and `semanticity-toy.zarr` beside a run; both are written by `jaxdyn semanticity`.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from jaxdyn.errors import InputError
from jaxdyn.store import open_tree

from . import captions
from .alone import write_alone
from .chart import Chart, Panel, Series

STORE, TOY, GROUP = "semanticity.zarr", "semanticity-toy.zarr", "semanticity"
MARKS = {"trained": ("measured", "layers, trained"), "random": ("N5", "layers, random initialisation"),
         "rotated": ("rotated", "layers, rotated basis")}  # fmt: skip
PROBE = (
    "Measured: the two tests on relu-cosine similarities of the residual stream at the last token, centred and "
    "standardised with the stimuli that fit the kernel, on the other half; two items are enumerated, n items sampled. "
    "Bars: 95 % bootstrap over probes. Controls: random initialisation (one seed); a random orthogonal basis."
)
LAWS = (
    "Fronts: two items in a homogeneous space; of these only the constant kernel's is free of geometry, and kernels "
    "that are sharper inside their ball lie above it."
)


def semanticity_charts(folders: Sequence[Path]) -> list[Chart]:
    """Return the figures of the stores that lie in these folders; none where there is none, or none is finished."""
    probes = [(folder.resolve().name, found) for folder in folders if (found := _group(folder / STORE)) is not None]
    toys = [(folder.resolve().name, found) for folder in folders if (found := _group(folder / TOY)) is not None]
    charts = []
    if probes or toys:
        charts.append(_plane(probes, toys))
    if probes:
        charts += [_layers(probes), _collapse(probes)]
    return charts


def write_semanticity(folder: str | Path, *, formats: Sequence[str] = ("png", "svg")) -> list[Path]:
    """Write a page of these figures alone, and the figure files, for a folder that holds no results.zarr.

    Returns
    -------
    The files written, the page first.

    Raises
    ------
    InputError : nothing finished to show. StoreError : the folder cannot be written.
    """
    folder = Path(folder)
    drawn = semanticity_charts([folder])
    if not drawn:
        msg = f"folder: {folder} holds no finished {STORE} or {TOY}; run `jaxdyn semanticity --out {folder}` first"
        raise InputError(msg)
    return write_alone(
        folder,
        drawn,
        formats,
        heading="Generalisation and identification",
        lines=_lines(folder),
        footer="Numbers carry 9 significant digits. Laws of Nurisso, Fernando, Deshpande et al. (arXiv 2506.14797).",
        stores=[folder.resolve().name],
        commands=_commands(folder),
    )


def _plane(probes, toys) -> Chart:
    panels = []
    for name, found in probes:
        series = _fronts(found)
        for control in found["control"].values.tolist():
            role, label = MARKS[control]
            at = found.sel(control=control)
            bars = (at["p_s_low"].values, at["p_s_high"].values) if role == "measured" else (None, None)
            series.append(Series(label, role, at["p_i"].values, at["p_s"].values, *bars))
        panels.append(_on_plane(f"layers_{len(panels)}", f"{_titled(probes, name)}layers", series))
    for name, found in toys:
        series = _fronts(found)
        p_i, p_s = found["p_i"].values, found["p_s"].values
        series += [Series(f"network {i}", "fan", p_i[:, i], p_s[:, i]) for i in range(p_s.shape[1])]
        series.append(Series("training steps, mean of the networks", "measured", p_i.mean(axis=1), p_s.mean(axis=1)))
        panels.append(_on_plane(f"toy_{len(panels)}", f"{_titled(toys, name)}toy network in training", series))
    toy = (
        "Toy network: one ReLU layer trained on similarity judgements alone, exact over all triples and pairs; the "
        "mean starts at the lower left." if toys else ""
    )  # fmt: skip
    joined = "Lines join the layers in order."
    caption = captions.join(*_data(probes), f"{PROBE} {joined}" if probes else "", toy, LAWS)
    lead = "To the right: telling stimuli apart. Upwards: choosing the nearer. A finite resolution bounds both at once."
    return Chart(
        "semanticity_plane", "Generalisation against identification", "plane", caption, tuple(panels), (), lead
    )


def _layers(probes) -> Chart:
    panels = []
    for name, found in probes:
        layer = found["layer"].values
        for measure, words in (("p_s", "p_S, generalisation"), ("p_i", "p_I, identification")):
            series = []
            for control in found["control"].values.tolist():
                role, label = MARKS[control]
                at = found.sel(control=control)
                bars = (
                    (at[f"{measure}_low"].values, at[f"{measure}_high"].values) if role == "measured" else (None, None)
                )
                series.append(Series(label.replace("layers, ", ""), role, layer, at[measure].values, *bars))
            laws = found[f"{measure}_law"].sel(control="trained", items=2)
            for law, role, label in (
                ("constant", "front", "predicted, constant kernel"),
                ("linear", "linear", "predicted, linear kernel"),
                ("table", "means", "predicted, similarity by distance"),
            ):
                series.append(Series(label, role, layer, laws.sel(law=law).values))
            title = f"{_titled(probes, name)}{words}"
            panels.append(Panel(f"{measure}_{name}", title, "layer", series=tuple(series)))
    caption = captions.join(
        *_data(probes),
        PROBE,
        "Predicted: from resolution and floor fitted to the other half (constant, linear), and from the mean "
        "similarity at each distance, whatever its shape. All three hold similarity to be a function of distance. "
        "Layer l is the entry of block l, the last one the state after the last block.",
    )
    lead = "Where measured and predicted part, the similarity is not a function of the distance, or not of that shape."
    return Chart("semanticity_layers", "The two tests by layer", "lines", caption, tuple(panels), (), lead)


def _collapse(probes) -> Chart:
    panels = []
    for name, found in probes:
        x = np.log10(found["load"].values)
        series = [
            Series("1/(1 + x): no kernel is below", "floor", x, 1 / (1 + found["load"].values)),
            Series("constant kernel, small b", "front", x, found["limit_p_i"].sel(kernel="constant").values),
            Series("linear kernel, small b", "linear", x, found["limit_p_i"].sel(kernel="linear").values),
        ]
        at = found.sel(control="trained")
        load = (at["items"].values - 1) * at["mean_g"].values[:, None]
        points, p_i = load.ravel(), at["p_i_items"].values.ravel()
        shown = points > 0
        series.append(Series("all layers, all numbers of items", "points", np.log10(points[shown]), p_i[shown]))
        panels.append(
            Panel(f"collapse_{name}", f"{_titled(probes, name)}p_I of n items", "log10 x, x = (n - 1) mean similarity",
                  "p_I", series=tuple(series), log=True)
        )  # fmt: skip
    caption = captions.join(
        *_data(probes),
        "Identification among n items against the load x = (n - 1) times the mean similarity of two different stimuli. "
        "By Jensen's inequality p_I is at least 1/(1 + x), and in a homogeneous space it comes to that for large n "
        "whatever the kernel: p_I falls like 1/n. Curves: the laws for small balls at a given n b, x = n b (constant) "
        "and n b/2 (linear); a floor of the similarity brings points closer to the bound.",
    )
    lead = "However sharp a layer is, telling one among n items fails like 1/n: the curves of all layers fall on one."
    return Chart("semanticity_collapse", "The 1/n collapse", "plane", caption, tuple(panels), (), lead)


def _fronts(found: xr.Dataset) -> list[Series]:
    words = {"constant": ("front", "front, constant kernel"), "linear": ("linear", "front, linear kernel")}
    return [
        Series(label, role, found["front_p_i"].sel(kernel=kernel).values, found["front_p_s"].sel(kernel=kernel).values)
        for kernel, (role, label) in words.items()
    ]


def _on_plane(key: str, title: str, series: list[Series]) -> Panel:
    return Panel(key, title, "p_I, identification", "p_S, generalisation", series=tuple(series))


def _group(path: Path) -> xr.Dataset | None:
    """Return the results of a store, None where it is absent or not finished."""
    if not path.exists():
        return None
    tree = open_tree(path)
    if GROUP not in tree.children:
        return None
    return tree[GROUP].to_dataset().load().assign_attrs(tree.attrs)


def _data(probes) -> list[str]:
    return [
        f"{_titled(probes, name)}{found.attrs.get('model', captions.UNKNOWN)}; stimuli: {found.attrs.get('stimuli')} "
        f"({found.attrs.get('metric')}); BOS: {found.attrs.get('bos')}; seed {found.attrs.get('seed')}."
        for name, found in probes
    ]


def _commands(folder: Path) -> list[str]:
    """Return the command lines that made the stores; one written from Python says so."""
    found = [one for name in (STORE, TOY) if (one := _group(folder / name)) is not None]
    made = [json.loads(str(one.attrs.get("provenance", "{}"))).get("command") for one in found]
    return [str(command or "# written from Python by jaxdyn.semanticity") for command in made]


def _lines(folder: Path) -> list[str]:
    found = _group(folder / STORE)
    lines = (
        []
        if found is None
        else [f"{found.attrs.get('model')} · {found.attrs.get('stimuli')}, {found.attrs.get('metric')}"]
    )
    return [*lines, *(["toy network"] if (folder / TOY).exists() else [])]


def _titled(several: list, name: str) -> str:
    return f"{name}: " if len(several) > 1 else ""
