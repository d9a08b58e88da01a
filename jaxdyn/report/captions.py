"""Stage 7 of 7: the words under every figure and table: what was measured, on what, beside which null.

A caption names operator, derivative, metric, prompts and articles, token rule, BOS, null rung with draws and seed, the
interval, the energy that survives averaging, and what is missing. What the store does not record is said to be so.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

if TYPE_CHECKING:
    from .source import Source

OPERATORS = {
    "in-context": "in-context Jacobian (block inputs at other positions held fixed)",
    "isolated": "isolated Jacobian (each token alone, not in its context)",
    "ov": "OV Jacobian (attention pattern frozen at the observed self weight)",
}
RUNGS = {
    "N0": "N0 (closed form for the dimension)",
    "N1": "N1 (t I + U S V: t = tr M / n and the singular values S of M - t I kept, U and V random)",
}
ENERGIES = {
    "surviving_energy_split": "tr(mean₁ Aᵀ mean₂ A) / mean norm(A)² of two halves of the articles",
    "surviving_energy": "norm(mean A)² / mean norm(A)²",
}
NO_N1 = "N1 was not computed, so nothing here speaks of structure beyond the mean scaling t and the singular values."
INTERVAL = "Line: mean over samples; bars: its 95 % interval, articles as replicates (none with a single article)."
UNKNOWN = "not recorded"


def setting(root: xr.Dataset, name: str) -> object:
    """Look a name up among the root's attributes, then among the stored settings; None where it is in neither."""
    if name in root.attrs:
        return root.attrs[name]
    stored = json.loads(root.attrs.get("settings", "{}"))
    nested = [value for value in stored.values() if isinstance(value, dict)]
    return next((place[name] for place in (stored, *nested) if name in place), None)


def data_caption(tree: xr.DataTree, root: xr.Dataset) -> str:
    """Say what was measured on what: operator, derivative, metric, model, prompts, articles, tokens, BOS.

    Parameters
    ----------
    tree : the whole store.
    root : its samples that are shown (see `profiles.done_samples`).
    """
    operator = OPERATORS.get(str(setting(root, "operator")), UNKNOWN)
    samples = root.sizes["sample"]
    prompts, articles = _count(root, "prompt"), _count(root, "article")
    sentences = [
        f"{operator[0].upper()}{operator[1:]}; derivative: {_said(root, 'derivative')}; metric: "
        f"{_said(root, 'metric')}; model: {_said(root, 'model')}.",
        f"Samples: {samples}; prompts: {prompts}; articles: {articles}; tokens: {_said(root, 'tokens')}; "
        f"BOS: {_said(root, 'bos')}.",
    ]
    total = tree.to_dataset().sizes["sample"]
    if samples < total:
        sentences.append(f"The run is not finished: {samples} of {total} samples.")
    return " ".join(sentences)


def data_captions(sources: "Sequence[Source]") -> str:
    """Say what was measured on what in each of the stores; two stores are told apart by their labels."""
    said = [data_caption(source.tree, source.root) for source in sources]
    if len(said) == 1:
        return said[0]
    return " ".join(f"{source.label}. {one}" for source, one in zip(sources, said, strict=True))


def energy_captions(sources: "Sequence[Source]") -> str:
    """Say how much energy survives averaging in each of the stores."""
    return _labelled([(source.tag, energy_caption(source.tree)) for source in sources])


def initial_captions(sources: "Sequence[Source]", mark: str) -> str:
    """Say what N5 is and how many seeds it has in each of the stores; `mark` says how it is drawn."""
    return _labelled([(source.tag, source.init.caption(mark) if source.init else "") for source in sources])


def failure_captions(sources: "Sequence[Source]") -> str:
    """Say how many decompositions failed in each of the stores."""
    return _labelled([(source.tag, failure_caption(source.root)) for source in sources])


def _labelled(said: list[tuple[str, str]]) -> str:
    if len(said) == 1:
        return said[0][1]
    return " ".join(f"{label}: {one}" for label, one in said if one)


def null_caption(root: xr.Dataset, rungs: set[str], shown: dict[str, str]) -> str:
    """Say which null rungs are shown and how; `shown` gives the mark of each rung ("band: mean ± 2 sd")."""
    sentences = [f"{RUNGS[rung]}: {mark}." for rung, mark in shown.items() if rung in rungs]
    if "N1" in shown and "N1" not in rungs:
        return " ".join([*sentences, NO_N1])
    if "N1" in shown:
        sentences.append(f"N1 has {_said(root, 'null_draws')} draws a matrix, seed {_said(root, 'seed')}.")
    return " ".join(sentences)


def energy_caption(tree: xr.DataTree) -> str:
    """Say how much of the update's energy survives averaging; empty where no averaged Jacobian is stored.

    Prefers `surviving_energy_split` of the group `mean` (two halves of the articles, unbiased; NaN where a half is
    empty) to `surviving_energy`.
    """
    stored = tree["mean"].to_dataset() if "mean" in tree.children else xr.Dataset()
    for name, formula in ENERGIES.items():
        energy = stored.get(name)
        if energy is not None and "part" in energy.dims:
            energy = energy.sel(part="update") if "update" in energy["part"].values.tolist() else None
        if energy is not None and np.isfinite(energy.values).any():
            span = _span(energy.values[np.isfinite(energy.values)])
            return f"Energy of the update A = J - I that survives averaging, {formula}: {span} over the layers."
    return ""


def failure_caption(root: xr.Dataset) -> str:
    """Say how many decompositions failed; empty where none did."""
    if "status" not in root:
        return ""
    status = np.asarray(root["status"].values)
    failed = int((status != 0).sum())
    return f"{failed} of {status.size} matrices did not decompose and are left out." if failed else ""


def join(*sentences: str) -> str:
    """Put the sentences that are not empty on one line."""
    return " ".join(sentence for sentence in sentences if sentence)


def _said(root, name):
    value = setting(root, name)
    return UNKNOWN if value is None or value == "" else str(value)


def _count(root, name):
    return len(np.unique(root[name].values)) if name in root.coords else UNKNOWN


def _span(values):
    low, high = f"{values.min():.2f}", f"{values.max():.2f}"
    return low if low == high else f"{low} to {high}"
