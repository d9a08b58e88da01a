"""Stage 7 of 7: the figures of a study and of a trajectory: the claims first, then what each verdict rests on.

Reads `study/*.zarr` (`jaxdyn study`) and `trajectory.zarr` (`jaxdyn trajectory`) in a folder.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from jaxdyn.errors import InputError
from jaxdyn.store import describe, open_tree
from jaxdyn.store.dataset import read_dataset

from . import captions
from .alone import write_alone
from .chart import Chart, Panel, Series
from .measures_table import measures_chart
from .specification import specification_chart
from .surrogates import functional_chart as functional
from .surrogates import order_chart, surrogate_chart
from .topology import blocks_chart, coupling_chart, scatter_chart
from .trajectory import trajectory_charts

STAGES, TRAJECTORY = "study", "trajectory"
SHOWN = ("number", "null", "excess", "excess_low", "excess_high")


def open_study(folder: str | Path) -> dict[str, xr.Dataset]:
    """Read the finished stages in a folder by name, `claims` and `trajectory` among them; empty where there is none."""
    folder = Path(folder)
    places = {path.stem: path for path in sorted((folder / STAGES).glob("*.zarr"))}
    places[TRAJECTORY] = folder / f"{TRAJECTORY}.zarr"
    done = {name: path for name, path in places.items() if path.exists() and describe(path).complete}
    told = {name: str(open_tree(path).attrs.get("provenance", "{}")) for name, path in done.items()}
    return {name: read_dataset(path, name).assign_attrs(provenance=told[name]) for name, path in done.items()}


def study_charts(folders: Sequence[Path]) -> list[Chart]:
    """Return the figures of the first of these folders that holds a study or a trajectory."""
    return charts_of(next((found for folder in folders if (found := open_study(folder))), {}))


def charts_of(stages: dict[str, xr.Dataset]) -> list[Chart]:
    """Return the figures of a study's stages, as `open_study` gives them."""
    charts = []
    if "claims" in stages:
        charts += [claims_chart(stages["claims"]), rungs_chart(stages["claims"])]
    if "conventions" in stages:
        charts += [specification_chart(stages["conventions"]), survival_chart(stages["conventions"])]
    if "ladder" in stages:
        charts.append(profile_chart(stages["ladder"]))
    if "measures" in stages:
        charts.append(measures_chart(stages["measures"], data_words(stages["measures"])))
    if TRAJECTORY in stages:
        charts += trajectory_charts(stages[TRAJECTORY])
    if "surrogates" in stages:
        found = stages["surrogates"]
        charts.append(surrogate_chart(found, data_words(found)))
    if "order_effective_rank" in stages.get("surrogates", {}):
        found = stages["surrogates"]
        orders = found[["order_effective_rank", "normal_effective_rank"]].drop_vars("alpha", errors="ignore")
        orders = orders.rename({"order_effective_rank": "effective_rank", "order_alpha": "alpha"})
        charts.append(order_chart(orders, data_words(found)))
    if "functional" in stages:
        charts.append(functional(stages["functional"], data_words(stages["functional"])))
    if "topology" in stages:
        found = stages["topology"]
        charts += [coupling_chart(found), blocks_chart(found), scatter_chart(found)]
    return charts


def write_study(
    folder: str | Path, formats: Sequence[str] = ("png", "svg"), *, stages: dict[str, xr.Dataset] | None = None
) -> list[Path]:
    """Write `report.html` and the figure files for a study or a trajectory.

    Parameters
    ----------
    folder : where to; made where it is missing.
    formats : endings of the figure files.
    stages : from `open_study`; default those in the folder.

    Returns
    -------
    The files written, the page first.

    Raises
    ------
    InputError : nothing finished to show. StoreError : the folder cannot be written.
    """
    folder = Path(folder)
    stages = open_study(folder) if stages is None else stages
    if not stages:
        msg = f"folder: {folder} holds no finished study; run `jaxdyn study --out {folder}` first"
        raise InputError(msg, page="docs/study.md")
    found = stages.get("claims", next(iter(stages.values())))
    told = [json.loads(str(one.attrs["provenance"])) for one in stages.values()]
    commands = dict.fromkeys(str(one.get("command") or "# written from Python by jaxdyn.study") for one in told)
    return write_alone(
        folder,
        charts_of(stages),
        formats,
        heading="Which null first explains each claim" if "claims" in stages else "The claims over training",
        lines=[data_words(found)],
        footer=f"jaxdyn {told[0].get('version_jaxdyn', captions.UNKNOWN)}, jax "
        f"{told[0].get('version_jax', captions.UNKNOWN)}. Numbers carry 9 significant digits. Claims of Fernando and "
        "Guitchounts (arXiv 2605.14258).",
        stores=[folder.resolve().name],
        commands=[*commands, f"jaxdyn report {folder}"],
    )


def data_words(found: xr.Dataset) -> str:
    """Say what was measured on what."""
    said = found.attrs
    operator = captions.OPERATORS.get(str(said.get("operator")), captions.UNKNOWN)
    return captions.join(
        f"{operator[0].upper()}{operator[1:]}; metric: raw; model: {_model(said)}; "
        f"{said.get('texts', captions.UNKNOWN)} texts, each an article, the last token of each"
        f"{_cut(said.get('max_tokens'))}; BOS: {said.get('bos', captions.UNKNOWN)}; seed {said.get('seed', 0)}."
    )


def claims_chart(found: xr.Dataset) -> Chart:
    """List the claims: primary statistic, number, null, excess with interval, verdict, and the excess in margins."""
    rows = [("claim", "primary statistic", "number", "null", "excess [95 %]", "verdict")]
    names = [str(name) for name in found["claim"].values]
    for name in names:
        at = found.sel(claim=name)
        number, null, excess, low, high = (float(at[key]) for key in SHOWN)
        because = str(at["because"].values)
        rows.append(
            (
                f"{name}: {_claim(found, name)}",
                f"{at['text'].item()} ({at['formula'].item()})",
                _number(number),
                f"{_number(null)} ({at['rung'].item()})" if at["rung"].item() else "",
                f"{_number(excess, sign=True)} [{_number(low, sign=True)}, {_number(high, sign=True)}]"
                if np.isfinite(low) else _number(excess, sign=True),
                str(at["verdict"].values) + (f": {because}" if because else ""),
            )
        )  # fmt: skip
    margin = found["margin"].values.astype(float)
    own = np.array([name != "coupling" for name in names])
    y, low, high = (np.where(own, found[key].values / margin, np.nan) for key in SHOWN[2:])
    panel = Panel("excess_in_margins", "excess in margins", "", series=(
        Series("excess", "measured", np.arange(len(names)), y, low, high),))  # fmt: skip
    caption = captions.join(
        data_words(found),
        "Statistic, margin and ladder of each claim are fixed in claims.json before any run and stored with it. Null: "
        "the rung that decides, else the nearest. Interval: articles as replicates and the draws of the null. A null "
        "explains a number whose whole interval lies within the margin (grey: from -1 to 1 in units of it); above "
        "every null: beyond all by more than the margin and twice the sampling floor N6. The coupling is judged by p "
        "values and has no margin. Verdicts are computed.",
    )
    lead = "What the source paper claims, and the first null that gives the same number. Excess: measured less null."
    return Chart("claims", "The claims", "table", caption, (panel,), (), lead, table=tuple(rows))


def rungs_chart(found: xr.Dataset) -> Chart:
    """Excess of every claim's number over each rung of its ladder, on the band of its margin."""
    panels = []
    for name in (str(one) for one in found["claim"].values):
        at = found.sel(claim=name)
        values = at["by_rung"].values
        rungs = [rung for rung in _ladder(found, name) if np.isfinite(values[_place(found, rung)])]
        if not rungs:
            continue
        x, margin = np.arange(len(rungs)), float(at["margin"])
        y = np.array([values[_place(found, rung)] for rung in rungs])
        series = [Series("excess over the rung", "points", x, y)]
        if name != "coupling":
            series.insert(0, Series("margin", "null", x, 0 * y, np.full(len(x), -margin), np.full(len(x), margin)))
        panels.append(Panel(f"rungs_{name}", name, "", series=tuple(series), names=tuple(rungs), zero=True))
    caption = captions.join(
        data_words(found),
        "Measured less the mean of each rung's draws, lowest rung first. N0: dimension and norm. N1: trace and "
        "singular values. N2: each layer turned. N4: spectra of the weights. N5: random initialisation. n1-of-normal: "
        "trace and moduli of the eigenvalues of the normal end. Of the coupling: see the topology.",
    )
    lead = "The first rung inside the band explains the claim; the rungs after it cannot add anything."
    return Chart("study_rungs", "How far each null is away", "lines", caption, tuple(panels), (), lead)


def survival_chart(conventions: xr.Dataset) -> Chart:
    """List which verdicts survive: of the conventions that change one choice, or all, how many give the same kind."""
    words = {"definition": "definition of the number", "all": "everything at once", "target": "block or update",
             "average": "average first", "operator": "operator", "metric": "metric", "corpus": "corpus"}  # fmt: skip
    rows = [("claim", "kind at the primary convention", *(words[str(one)] for one in conventions["changed"].values))]
    for name in conventions["judged"].values:
        at, cells = conventions.sel(judged=name), []
        for changed in conventions["changed"].values:
            same, other, open_ = (int(at[key].sel(changed=changed)) for key in ("same", "other", "undecided"))
            total = same + other + open_
            cells.append(f"{same} of {total}" + (f", {other} opposed" if other else "") if total else "-")
        rows.append((str(name), str(at["primary"].item()), *cells))
    caption = captions.join(
        data_words(conventions),
        "How many conventions give a verdict of the same kind (explained by some null of N0 and N1; above both; "
        "undecided) when one choice is changed and the others stay primary, and over all combinations. Opposed: the "
        "other decided kind; the rest are undecided.",
    )
    lead = "A verdict that one convention gives and another takes away says something of the convention."
    return Chart("survival", "Which verdicts survive", "table", caption, (), (), lead, table=tuple(rows))


def profile_chart(found: xr.Dataset) -> Chart:
    """Mean profiles along depth of the two measures with a trend, on N1; which layers leave it, by max-T."""
    titles = {"henrici": "Henrici departure (normalised)", "alignment": "self-alignment"}
    panels = []
    for name in found["series"].values.tolist():
        at = found.sel(series=name)
        x, null = np.arange(at.sizes["layer"]), at["profile_n1"].values
        series = (
            Series("N1, one draw a matrix", "N1", x, null, null, null),
            Series("measured", "measured", x, at["profile"].values),
        )
        out = np.flatnonzero(at["profile_p"].values < 0.05)
        note = f"leaves N1 in layers {_runs(out)}" if len(out) else "leaves N1 in no layer"
        trend, p = float(at["trend"]), float(at["trend_p"])
        note += f"; Spearman with depth {trend:+.2f}, p {p:.2g} against walks"
        panels.append(Panel(f"profile_{name}", titles[str(name)], "layer", series=series, note=note))
    caption = captions.join(
        data_words(found),
        "Means over samples of each block. A layer leaves N1 where the mean of measured less N1 is not zero: max-T "
        "over the layers, signs of whole articles flipped, family-wise level .05; a departure may be small. Trend: "
        "against walks of the same steps (N7).",
    )
    lead = "The profile that N1 draws needs no structure beyond each block's trace and singular values."
    return Chart("study_profiles", "Along depth, beside N1", "lines", caption, tuple(panels), (), lead)


def _runs(layers: np.ndarray) -> str:
    """Write ascending numbers with what is consecutive as a run: 0, 2 to 5."""
    runs = np.split(layers, np.flatnonzero(np.diff(layers) > 1) + 1)
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)


def _ladder(found: xr.Dataset, name: str) -> list[str]:
    return next(one["ladder"] for one in json.loads(found.attrs["claims"]) if one["name"] == name)


def _claim(found: xr.Dataset, name: str) -> str:
    return next(one["claim"] for one in json.loads(found.attrs["claims"]) if one["name"] == name)


def _place(found: xr.Dataset, rung: str) -> int:
    return found["rung_of"].values.tolist().index(rung)


def _number(value: Any, *, sign: bool = False) -> str:
    if not np.isfinite(value):
        return ""
    return (f"{value:+.3f}" if sign else f"{value:.3f}").replace("-", "\N{MINUS SIGN}")


def _model(said: dict[str, Any]) -> str:
    """Last part of a local folder, or the hub id as it is."""
    source = str(said.get("model", captions.UNKNOWN))
    return Path(source).name if source.startswith((".", "/", "~")) else source


def _cut(most: Any) -> str:
    return f" cut to {most} tokens" if most not in (None, "None") else ""
