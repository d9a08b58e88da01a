"""Stage 7 of 7: coupling of boundary position and gain over depth on the bands of its nulls; who acts on whom.

Reads `topology.zarr` beside a run, or any dataset that `jaxdyn.topology` made. What is drawn as a community is a part
of the correlation graph; whether it is more than any basis would show, the first panel says.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from jaxdyn.store import open_tree

from . import captions
from .chart import Chart, Panel, Series

STORE, GROUP = "topology.zarr", "topology"
NULLS = {
    "rotated": "rotated basis, everything anew",
    "labels": "labels permuted among nodes",
    "rewired": "rewired, signed degrees kept",
    "permuted": "samples of each unit permuted",
    "moments": "correlations of matched moments",
    "moran": "gains as smooth over the graph",
    "shuffled": "gains permuted among nodes",
    "initial": "random initialisation",
}
GAINS = {
    "gain": "column norm of the mean J",
    "row_gain": "row norm of the mean J",
    "update_gain": "column norm of A = J - I",
    "update_row_gain": "row norm of A = J - I",
    "self_gain": "size of A_ii",
    "export": "column norm of A off its diagonal",
    "import": "row norm of A off its diagonal",
}
BOUNDARIES = {
    "participation": "participation", "participation_positive": "participation of positive edges",
    "participation_negative": "participation of negative edges", "participation_signed": "signed participation",
    "participation_z": "participation z", "external_share": "external share",
}  # fmt: skip
PRIMARY = ("participation", "gain")
SHOWN = (PRIMARY, ("participation", "update_gain"))
"""The couplings that have a figure: of J, as published, and of A, where the skip adds nothing."""


def topology_charts(folders: Sequence[Path]) -> list[Chart]:
    """Return the figures of the stores that lie in these folders; none where there is none, or none is finished."""
    found = [(folder.resolve().name, one) for folder in folders if (one := _group(folder / STORE)) is not None]
    charts = []
    for name, one in found:
        prefix = f"{name}: " if len(found) > 1 else ""
        ending = f"_{len(charts)}" if charts else ""
        charts += [
            *(coupling_chart(one, pair, title=prefix, ending=ending) for pair in SHOWN),
            blocks_chart(one, title=prefix, ending=ending),
            scatter_chart(one, title=prefix, ending=ending),
        ]
    return charts


def coupling_chart(found: xr.Dataset, pair: tuple[str, str] = PRIMARY, *, title: str = "", ending: str = "") -> Chart:
    """Coupling by layer, a panel for each null that was drawn: its mean and the band of its central 95 %.

    Parameters
    ----------
    found : what `jaxdyn.topology.topology` returned, or stored.
    pair : boundary position and amplification.
    title, ending : before the title, and behind the name.
    """
    at = found.sel(boundary=pair[0], amplification=pair[1])
    layer, y = found["layer"].values, at["coupling"].values
    measured = Series("measured", "measured", layer, y, at["coupling_low"].values, at["coupling_high"].values)
    partial = Series("measured, given all covariates", "linear", layer, at["coupling_partial"].values)
    panels = []
    for name, words in NULLS.items():
        null = at.sel(topology_null=name)
        if not np.isfinite(null["coupling_null_mean"]).any():
            continue
        mean, low, high = (null[f"coupling_null_{one}"].values for one in ("mean", "low", "high"))
        band = Series("null: mean and 95 %", "null", layer, mean, low, high)
        panels.append(Panel(f"{name}_{pair[1]}", words, "layer", series=(band, measured, partial)))
    if not panels:
        panels.append(Panel(f"coupling_{pair[1]}", "no null was drawn", "layer", series=(measured, partial)))
    caption = captions.join(
        _data(found),
        f"Spearman correlation over coordinates of {BOUNDARIES[pair[0]]} and {GAINS[pair[1]]}. Bars: 95 % bootstrap "
        "over "
        "coordinates, which are not independent, so it is too narrow. Band: central 95 % of the null's draws"
        f"{_draws(found)}; of the initialisations, where one more seed is expected.",
        f"Verdict, the first null that explains it, by layer: {_verdicts(at)}.",
        _modular(found),
    )
    lead = (
        "A coupling says something of these coordinates only where it leaves the band of the rotated basis, and "
        "something of amplification only where it leaves all others."
    )
    heading = f"{title}Boundary position and {GAINS[pair[1]]}, by depth"
    name = "topology_coupling" if pair == PRIMARY else f"topology_coupling_{pair[1]}"
    return Chart(name + ending, heading, "lines", caption, tuple(panels), (), lead)


def blocks_chart(found: xr.Dataset, *, layers: Sequence[int] | None = None, title: str = "", ending: str = "") -> Chart:
    """Community block matrix of A at an early, a middle and a late layer, in doublings of the mean block.

    Parameters
    ----------
    found : what `jaxdyn.topology.topology` returned, or stored.
    layers : block numbers; None takes the first, the middle and the last.
    title, ending : before the title, and behind the name.
    """
    panels = []
    for layer in _three(found) if layers is None else layers:
        at = found.sel(layer=layer)
        sizes = at["community_size"].values
        count = int(np.isfinite(sizes).sum())
        if count == 0:
            continue
        sizes = sizes[:count]
        entries = np.outer(sizes, sizes) - np.diag(sizes)
        squares = at["block_export"].values[:count, :count] ** 2 * sizes
        with np.errstate(divide="ignore"):
            grid = np.log2(squares / entries / (squares.sum() / entries.sum())) / 2
        panels.append(
            Panel(
                f"blocks_{layer}", f"layer {layer}: {count} communities", "from community", "to community",
                grid=np.where(np.isfinite(grid), grid, np.nan), grid_x=np.arange(count), grid_y=np.arange(count),
            )
        )  # fmt: skip
    caption = captions.join(
        _data(found),
        "Root mean square of the entries of A = mean J - I off its diagonal, from one community to another, as log2 of "
        "its ratio to that of all of them: blue above, vermillion below. Communities are parts of the signed "
        "correlation graph with 5 coordinates "
        "or more, by falling size.",
        _modular(found),
    )
    lead = "A bright diagonal: communities act on themselves. A bright column: a community acts on all."
    return Chart(
        f"topology_blocks{ending}", f"{title}Which community acts on which", "matrix", caption, tuple(panels), (), lead
    )


def scatter_chart(
    found: xr.Dataset,
    pair: tuple[str, str] = PRIMARY,
    *,
    layer: int | None = None,
    title: str = "",
    ending: str = "",
) -> Chart:
    """Boundary position against log gain of every coordinate of one layer (None: the middle one)."""
    layer = _three(found)[len(_three(found)) // 2] if layer is None else layer
    at = found.sel(layer=layer)
    x = at["boundary_position"].sel(boundary=pair[0]).values
    panels = []
    for gain in dict.fromkeys((pair[1], "update_gain")):
        y = at["log_gains"].sel(amplification=gain).values
        shown = np.isfinite(x) & np.isfinite(y)
        one = at.sel(boundary=pair[0], amplification=gain)
        note = f"Spearman {float(one['coupling']):+.2f}; verdict: {one['explained_by'].item()}"
        points = Series("coordinates", "points", x[shown], y[shown])
        panels.append(Panel(f"scatter_{gain}", f"layer {layer}: {GAINS[gain]}", BOUNDARIES[pair[0]], "log gain",
                            series=(points,), note=note))  # fmt: skip
    caption = captions.join(
        _data(found),
        "One point a coordinate that has an edge above the floor. Massive coordinates are shown where they are; the "
        "coupling counts ranks.",
    )
    lead = "Each point is one coordinate of the residual stream: how its edges spread, and how much it amplifies."
    return Chart(f"topology_scatter{ending}", f"{title}Boundary position and gain, one layer", "plane", caption,
                 tuple(panels), (), lead)  # fmt: skip


def _group(path: Path) -> xr.Dataset | None:
    """Return the results of a store, None where it is absent or not finished."""
    if not path.exists():
        return None
    tree = open_tree(path)
    if GROUP not in tree.children:
        return None
    return tree[GROUP].to_dataset().load()


def _three(found) -> list[int]:
    layers = found["layer"].values.tolist()
    return sorted({layers[0], layers[len(layers) // 2], layers[-1]})


def _verdicts(at) -> str:
    layers, said = at["layer"].values.tolist(), at["explained_by"].values.tolist()
    by: dict[str, list[str]] = {}
    for layer, verdict in zip(layers, said, strict=True):
        by.setdefault(str(verdict), []).append(str(layer))
    return "; ".join(f"{verdict} ({', '.join(which)})" for verdict, which in by.items())


def _modular(found) -> str:
    """Say whether the graph is more modular than in a rotated basis: without that nothing is said of communities."""
    null = found["modularity_null_p"].sel(topology_null="rotated")
    if not np.isfinite(null).any():
        return "The rotated basis was not drawn, so nothing here speaks of communities of these coordinates."
    above = found["modularity"] > found["modularity_null_mean"].sel(topology_null="rotated")
    out = int(((null < _setting(found, "alpha", 0.05)) & above).sum())
    return f"Modularity above that in a rotated basis: {out} of {found.sizes['layer']} layers."


def _data(found) -> str:
    said = found.attrs
    operator = captions.OPERATORS.get(str(said.get("operator")), captions.UNKNOWN)
    kept = (found["edges_kept"] / found["edges"]).values
    floors, ratios = found["floor"].values, found["ratio"].values
    sentences = [
        f"{operator[0].upper()}{operator[1:]}, part {said.get('part')}; derivative: {said.get('derivative')}; metric: "
        f"{said.get('metric')}; model: {said.get('model', captions.UNKNOWN)}.",
        f"Graph: {said.get('samples_graph')} samples of {said.get('articles_graph')} articles, tokens: "
        f"{said.get('tokens')}; mean Jacobian: {said.get('samples_jacobian')} samples of "
        f"{said.get('articles_jacobian')} other articles, tokens: {said.get('jacobian_tokens')}; BOS: "
        f"{said.get('bos')}; "
        f"seed {said.get('seed')}.",
        f"Top-{said.get('k')} graph, D/N = {ratios.max():.2g}; noise floor of |r| {_span(floors)}, edges kept "
        f"{_span(kept)}.",
    ]
    if "surviving_energy" in found:
        sentences.append(f"norm(mean A)² / mean norm(A)²: {_span(found['surviving_energy'].values)}.")
    return " ".join(sentences)


def _draws(found) -> str:
    draws, refits = _setting(found, "draws", None), _setting(found, "refits", None)
    if draws is None:
        return ""
    return f" ({refits} where communities are found anew, else {draws})"


def _setting(found, name, default):
    return json.loads(found.attrs.get("settings", "{}")).get(name, default)


def _span(values) -> str:
    values = values[np.isfinite(values)]
    if not len(values):
        return "none"
    low, high = f"{values.min():.2f}", f"{values.max():.2f}"
    return low if low == high else f"{low} to {high}"
