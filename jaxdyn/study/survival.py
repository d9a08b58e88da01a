"""Which verdicts survive: the kind of a claim's verdict on N0 and N1 when one convention is changed, and in all."""

from typing import Any

import numpy as np
import xarray as xr

from jaxdyn.nulls.verdict import UNDECIDED

from .conventions import AXES, OWN
from .verdict import kind

CHANGED = (*AXES, "definition", "all")
"""What is changed: one axis with the others at the primary convention, or everything at once."""


def survival(found: xr.Dataset, operator: str) -> xr.Dataset:
    """Count, for each claim, the conventions that give the verdict's kind again.

    A verdict's kind is "explained" (by whichever rung), "above every null" or "undecided".

    Parameters
    ----------
    found : the stage `conventions`.
    operator : of the primary statistics.

    Returns
    -------
    `primary` (judged), the kind of each claim at the primary convention; `same`, `other`, `undecided` (judged,
    changed): how many of the changed conventions give the same kind, the other decided one, none. Where `primary` is
    undecided, every decided verdict counts as other.
    """
    names = list(dict.fromkeys(found["of_claim"].values.tolist()))
    rows = [_of_claim(found, name, operator) for name in names]
    counts = {
        key: (("judged", "changed"), np.array([[row[changed].count(key) for changed in CHANGED] for _, row in rows]))
        for key in ("same", "other", "undecided")
    }
    primary = ("judged", [first for first, _ in rows])
    return xr.Dataset({**counts, "primary": primary}, {"judged": names, "changed": list(CHANGED)})


def _of_claim(found: xr.Dataset, name: str, operator: str) -> tuple[str, dict[str, list[str]]]:
    rows = found.isel(claim=np.flatnonzero(found["of_claim"].values == name))
    chosen = {"operator": operator, "target": "J", "metric": "raw", "average": "samples", "corpus": OWN}
    columns: dict[str, Any] = {axis: rows[axis].values for axis in AXES}
    is_own = {axis: columns[axis] == chosen[axis] for axis in AXES}
    kinds = np.vectorize(lambda text: kind(str(text)))(rows["verdict"].values)  # (convention, definition)
    at = int(np.flatnonzero(np.logical_and.reduce(list(is_own.values())))[0])
    first = str(kinds[at, 0])

    def compared(values) -> list[str]:
        values = [str(value) for value in np.ravel(values)]
        return ["same" if value == first else UNDECIDED if value == UNDECIDED else "other" for value in values]

    changed = {}
    for axis in AXES:
        others = np.logical_and.reduce([is_own[one] for one in AXES if one != axis]) & ~is_own[axis]
        changed[axis] = compared(kinds[others, 0])
    changed["definition"] = compared(kinds[at, 1:])
    everything = np.ones(kinds.shape, bool)
    everything[at, 0] = False
    changed["all"] = compared(kinds[everything])
    return first, changed
