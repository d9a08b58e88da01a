"""What follows for each claim: computed from the numbers and the margins of `claims.json`, never written by hand.

A rung explains a number whose excess over it lies within the claim's margin, interval and all (`nulls.explain`). The
verdict is the first rung that does, "above every null" where none does and all are passed, "convention-dependent" where
another metric, the update in place of the block, the average taken first, another definition of the number or another
corpus gives the other of these two, "undecided" else. For a claim about depth a trend that N7 does not tell from a walk
is not above every null either: it is undecided.
"""

from typing import Any

import numpy as np
import xarray as xr

from jaxdyn.nulls import Null, explain
from jaxdyn.nulls.null import LEVEL
from jaxdyn.nulls.verdict import ABOVE_ALL, UNDECIDED
from jaxdyn.topology.verdict import against, explained_by

from .ladder import from_arrays

CONVENTION, NOT_RUN = "convention-dependent", "not run"
ALPHA = 1 - LEVEL
NUMBERS = ("number", "null", "excess", "excess_low", "excess_high", "floor", "trend_p")

Row = dict[str, Any]


def judge(claim: dict[str, Any], stages: dict[str, xr.Dataset]) -> Row:
    """Return a claim's row: its number, the deciding null, excess with interval, verdict.

    Parameters
    ----------
    claim : of `settings.claims`.
    stages : the datasets of the stages that ran, by name.
    """
    if claim["statistic"] == "coupling":
        return _coupling(claim, stages["topology"]) if "topology" in stages else _missing()
    if claim["statistic"] == "schur_effect":
        return _intervention(claim, stages["surrogates"]) if "surrogates" in stages else _missing()
    if "ladder" not in stages:
        return _missing()
    found = stages["ladder"]
    rungs = [one for one in from_arrays(found, claim["statistic"]) if one.rung in claim["ladder"]]
    if not rungs:
        return _missing()
    measured = found["number"].sel(statistic=claim["statistic"]).values
    floor = float(found["floor"].sel(statistic=claim["statistic"]))
    row = _row(measured, rungs, claim["margin"]) | {"floor": floor}
    if "series" in claim:
        row["trend_p"] = float(found["trend_p"].sel(series=claim["series"]))
        if row["verdict"] == ABOVE_ALL and not row["trend_p"] < ALPHA:
            row |= {"verdict": UNDECIDED, "because": "N7: a walk over so few layers has such a trend"}
    if "conventions" in stages and row["verdict"] != UNDECIDED:
        row |= _survival(claim, stages["conventions"], row["verdict"], str(found.attrs["operator"]))
    return row


def specification(measured: np.ndarray, ladder: list[Null], margin: float) -> Row:
    """Return the row of one convention: samples on the last axis of the number and of each draw, or a single number."""
    return _row(measured, ladder, margin)


def _row(measured, ladder, margin) -> Row:
    finite = np.isfinite(measured).all() and all(np.isfinite(one.draws).all() for one in ladder)
    if not finite:
        return _missing() | {"verdict": UNDECIDED, "because": "not every number is finite"}
    many = measured.shape[-1] > 1
    labels = np.arange(measured.shape[-1]) if many else None
    one, rungs = (measured, ladder) if many else (measured[0], [_single(null) for null in ladder])
    found = explain(one, rungs, margin=margin, replicates=labels)
    verdict = str(found["verdict"].values)
    decisive = next((k for k, null in enumerate(ladder) if verdict.endswith(f"by {null.rung}")), None)
    if decisive is None:  # the rung that comes nearest
        decisive = int(np.argmin(np.abs(found["excess"].values)))
    at = found.isel(rung=decisive)
    values = {name: float(at[name]) for name in ("null", "excess", "excess_low", "excess_high")}
    return {"number": float(found["measured"]), **values, "rung": ladder[decisive].rung, "verdict": verdict,
            "by_rung": {null.rung: float(found["excess"][k]) for k, null in enumerate(ladder)}}  # fmt: skip


def _single(null: Null) -> Null:
    return Null(null.rung, null.draws[..., 0], exact=null.exact, shared=null.shared)


def _intervention(claim, found) -> Row:
    """The effect of deleting N, beside those of two controls that follow from singular values alone.

    n1-of-normal: the trace and moduli of the eigenvalues of the normal end, with Haar vectors. N2: every layer turned
    by itself, before and after.
    """
    chosen = found.sel(site="all")
    measured = chosen["effect"].sel(surrogate="normal").values
    control = chosen["effect"].sel(surrogate="n1-of-normal")
    drawn = {"n1-of-normal": control, "N2": chosen["effect_single"].sel(surrogate="normal")}
    ladder = [Null(rung, drawn[rung].values[None], exact=True) for rung in claim["ladder"]]
    return _row(measured, ladder, claim["margin"])


def _coupling(claim, found) -> Row:
    """The mean over layers, beside the draws of every null; the first in the order of the ladder that explains it."""
    pair = {"boundary": "participation", "amplification": "gain"}
    number = float(found["coupling"].sel(pair).mean("layer"))
    draws = found["coupling_draws"].sel(pair).mean("layer", skipna=False)
    held = {}
    for name in claim["ladder"]:
        one = draws.sel(topology_null=name).values
        if np.isfinite(one).any():
            held[name] = {key: float(value) for key, value in against(np.array(number), one).items()}
    if not held:
        return _missing()
    verdict = explained_by({name: one["p"] for name, one in held.items()}, alpha=ALPHA)
    rung = verdict if verdict in held else next(iter(held))
    null = held[rung]
    words = {"none": ABOVE_ALL, "no coupling": "explained by shuffled", "undecided": UNDECIDED}
    return {
        "number": number,
        "null": null["mean"],
        "excess": number - null["mean"],
        "excess_low": number - null["high"],
        "excess_high": number - null["low"],
        "rung": rung,
        "verdict": words.get(verdict, f"explained by {verdict}"),
        "by_rung": {name: number - one["mean"] for name, one in held.items()},
    }


def _survival(claim, found, verdict, operator) -> Row:
    """Whether the verdict on N0 and N1 is of one kind in every convention and definition of this operator."""
    own = found["of_claim"].values == claim["name"]
    if not own.any():
        return {}
    rows = found["verdict"].values[found["operator"].values == operator][:, own]
    kinds = {kind(str(one)) for one in rows.ravel()} - {UNDECIDED}
    return {"verdict": CONVENTION, "because": f"without conventions: {verdict}"} if len(kinds) > 1 else {}


def kind(verdict: str) -> str:
    """Explained, above every null, or undecided: what has to be the same for a verdict to survive."""
    return "explained" if verdict.startswith("explained") else verdict if verdict == ABOVE_ALL else UNDECIDED


def _missing() -> Row:
    return {name: np.nan for name in NUMBERS} | {"rung": "", "verdict": NOT_RUN, "by_rung": {}}
