"""Stage 7 of 7: the data of the page's table: every measure with its nulls, excess, interval and floor."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from jaxdyn.measures import MEASURES

from . import captions
from .chart import numbers
from .initial import Initial, level
from .profiles import LARGE, PART_TITLES, TITLES, Profile, available_parts, profile
from .source import Source, differences

PARTS = ("block", "update", "attention", "mlp")
MARK_N5 = (
    "column N5, mean and sd over the seeds; less N5: measured less that mean, in the raw metric, with the 95 % "
    "interval of both uncertainties, the spread of one seed and the articles; ▲: it leaves out 0"
)
METRICS = {"raw": "raw metric", "relative": "relative metric (norms divided out)"}


def summary(sources: Sequence[Source]) -> dict[str, Any]:
    """Give the table as JSON values.

    Returns
    -------
    "stores", "parts", "metrics" : what the selectors offer.
    "layers" : per store, block numbers; index 0 of every column is the mean over them, index k + 1 layer k.
    "measures" : key, title, definition, formula id and unit, and what N0 is.
    "values" : per store, metric, part and measure the columns mean, low, high, n0, n1, sd, excess, excessLow,
        excessHigh, floor and out (whether the excess stands out, see `profiles.Null.stands_out`); with initialisations
        n5, n5Sd, n5Excess, n5ExcessLow, n5ExcessHigh and n5Out (see `initial.Level`).
    "caption" : what to know.
    """
    first = sources[0].root
    measures = measure_names(first)
    values, layers = [], []
    for source in sources:
        layers.append(source.root["layer"].values.tolist())
        by_metric = {
            metric: _by_part(root, measures, source.init if metric == "raw" else None)
            for metric, root in _metrics(source).items()
        }
        values.append(by_metric)
    parts = [part for part in PARTS if part in values[0]["raw"]]
    rungs = set(first["rung"].values.tolist())
    return {
        "stores": [source.label for source in sources],
        "parts": {part: PART_TITLES[part] for part in parts},
        "metrics": {metric: METRICS[metric] for metric in values[0]},
        "layers": layers,
        "measures": [_described(first, name) for name in measures],
        "values": values,
        "caption": captions.join(
            captions.data_captions(sources),
            differences(sources),
            "Excess: measured less N1, with its 95 % interval, articles as replicates. Floor (N6): half the difference "
            "of the excess between two halves of the articles. ●: the excess is beyond the floor and 2 sd of the N1 "
            "draws, and its interval leaves out 0; the rows are not corrected for their number."
            if "N1" in rungs
            else captions.NO_N1,
            captions.null_caption(first, rungs, {"N0": "column N0", "N1": "column N1, mean ± sd of one draw"}),
            captions.initial_captions(sources, MARK_N5),
            captions.energy_captions(sources),
            captions.failure_captions(sources),
        ),
    }


def measure_names(root: xr.Dataset) -> list[str]:
    """Names of the measures that a store has beside a null, in the order of the methods."""
    names = [str(name)[: -len("_null")] for name in root.data_vars if str(name).endswith("_null")]
    order = [measure.name for measure in MEASURES]
    found = [name for name in names if name in root and root[name].dims == ("part", "layer", "sample")]
    return sorted(found, key=lambda name: order.index(name) if name in order else len(order))


def _metrics(source: Source) -> dict[str, xr.Dataset]:
    """Return the root, and the group of the relative metric as a root of its own."""
    found = {"raw": source.root}
    relative = source.group("relative")
    if relative is not None and measure_names(relative):
        done = np.flatnonzero(np.asarray(source.tree.to_dataset()["done"].values))
        kept = relative.drop_vars([name for name in relative.data_vars if LARGE & set(relative[name].dims)])
        found["relative"] = kept.isel(sample=done).load().assign_coords(article=source.root["article"])
    return found


def _by_part(root: xr.Dataset, measures: list[str], init: Initial | None) -> dict[str, dict[str, Any]]:
    present = [name for name in measures if name in root]
    return {
        part: {
            name: _columns(profile(root, name, part, pooled=True), profile(root, name, part))
            | _initial_columns(root, init, name, part)
            for name in present
        }
        for part in available_parts(root, PARTS)
    }


def _columns(pooled: Profile, by_layer: Profile) -> dict[str, list]:
    both = (pooled, by_layer)
    columns = {name: _joined([getattr(one, name) for one in both]) for name in ("mean", "low", "high")}
    for rung, key in (("N0", "n0"), ("N1", "n1")):
        if rung in by_layer.nulls:
            columns[key] = _joined([one.nulls[rung].mean for one in both])
    if "N1" in by_layer.nulls:
        nulls = [one.nulls["N1"] for one in both]
        named = {"sd": "sd", "excess": "excess", "excessLow": "low", "excessHigh": "high", "floor": "floor"}
        columns |= {key: _joined([getattr(null, name) for null in nulls]) for key, name in named.items()}
        columns["out"] = np.concatenate([null.stands_out for null in nulls]).tolist()
    return columns


def _initial_columns(root: xr.Dataset, init: Initial | None, name: str, part: str) -> dict[str, list]:
    both = [level(init, root, name, part, pooled=pooled) for pooled in (True, False)]
    kept = [one for one in both if one is not None]
    if not kept:
        return {}
    named = {
        "n5": "mean",
        "n5Sd": "sd",
        "n5Excess": "excess",
        "n5ExcessLow": "excess_low",
        "n5ExcessHigh": "excess_high",
    }
    columns = {key: _joined([getattr(one, name) for one in kept]) for key, name in named.items()}
    return columns | {"n5Out": np.concatenate([one.stands_out for one in kept]).tolist()}


def _described(root: xr.Dataset, name: str) -> dict[str, str]:
    attributes = root[name].attrs
    return {
        "key": name,
        "title": TITLES.get(name, str(attributes.get("long_name", name))),
        "definition": str(attributes.get("definition", attributes.get("long_name", ""))),
        "formula": str(attributes.get("formula", "")),
        "unit": str(attributes.get("units", "1")),
        "null": str(attributes.get("null", "")),
    }


def _joined(columns: list[np.ndarray]) -> list:
    return numbers(np.concatenate(columns))
