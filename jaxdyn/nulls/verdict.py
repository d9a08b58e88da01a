"""Stage 5 of 7: which rung of the ladder first explains a number - an equivalence test, not a missing star.

A rung *explains* a number when the whole interval of the excess lies within +- margin: the number is shown to be, to
that margin, what the null gives. It does *not* when the interval lies wholly beyond the margin (and beyond twice the
sampling floor). Everything else is *undecided*: more samples or draws are needed, and no claim follows.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from jaxdyn.errors import InputError

from .null import LEVEL, Null, excess

EXPLAINED, BEYOND, UNDECIDED = "explained", "beyond", "undecided"
ABOVE_ALL = "above every null"


def explain(
    measured: Float[np.ndarray, "..."],
    ladder: Sequence[Null],
    *,
    margin: Float[np.ndarray, "..."] | float,
    replicates: Sequence[int] | np.ndarray | None = None,
    floor: Null | None = None,
    level: float = LEVEL,
    dims: Sequence[str] | None = None,
) -> xr.Dataset:
    """Find the first rung that explains a number.

    Parameters
    ----------
    measured : (...), the numbers; samples last where replicates are given.
    ladder : the rungs, lowest first, of the same measure and operator.
    margin : largest difference that does not matter, in the unit of the measure: a number or one for each element.
        Fix it before looking; methods 1.7 calls a Henrici departure within .03 of N1 reproduced.
    replicates : (S,), the article of each sample, as in `excess`; None where each number stands alone.
    floor : N6 of the same numbers (`n6`): a number is never beyond a rung by less than twice its sd.
    level : of the intervals. Both tests use this one interval, so equivalence is held at (1 - level) / 2.
    dims : names of the dimensions of the elements (without samples); default element_0, ...

    Returns
    -------
    Dataset over (rung, elements): null, null_sd, seeds, excess, excess_low, excess_high, state ("explained", "beyond",
    "undecided"; the last where a number is NaN); and over the elements measured and verdict: "explained by N1" for
    the first rung that explains it, "above every null" where all are beyond, else "undecided".

    Raises
    ------
    InputError : no rung, a margin that is not positive, shapes that do not agree.

    References
    ----------
    1.7, 1.8 (equivalence test, verdicts). D. J. Schuirmann, "A comparison of the two one-sided tests procedure and the
    power approach", 1987.
    """
    measured = np.asarray(measured, dtype=float)
    if not ladder or not np.all(np.asarray(margin) > 0):
        msg = f"ladder, margin: got {len(ladder)} rungs, margin {margin}; allowed at least one rung, margins above 0"
        raise InputError(msg)
    found = [excess(measured, null, replicates=replicates, level=level) for null in ladder]
    own = measured if replicates is None else measured.mean(axis=-1)
    least = np.maximum(np.broadcast_to(margin, own.shape), 0.0 if floor is None else 2 * floor.sd)
    states = np.array([_state(one, np.broadcast_to(margin, own.shape), least) for one in found])
    names = list(dims) if dims is not None else [f"element_{axis}" for axis in range(own.ndim)]
    if len(names) != own.ndim:
        msg = f"dims: got {names}; allowed {own.ndim} names, one for each dimension of the elements {own.shape}"
        raise InputError(msg)
    reduce = (lambda one: one) if replicates is None else (lambda one: one.mean(axis=-1))
    rows = {
        "null": np.stack([reduce(null.mean) for null in ladder]),
        "null_sd": np.stack([reduce(null.sd) for null in ladder]),
        "excess": np.stack([one.value for one in found]),
        "excess_low": np.stack([one.low for one in found]),
        "excess_high": np.stack([one.high for one in found]),
        "state": states,
    }
    rungs = [null.rung for null in ladder]
    arrays: dict[str, Any] = {name: (("rung", *names), row) for name, row in rows.items()}
    arrays["seeds"] = ("rung", np.array([null.seeds for null in ladder]))
    return xr.Dataset(
        {**arrays, "measured": (names, own), "verdict": (names, _verdict(states, rungs))},
        coords={"rung": rungs},
        attrs={"level": level, "margin": str(margin)},
    )


def _state(one, margin, least):
    within = (one.low >= -margin) & (one.high <= margin)
    beyond = (one.low > least) | (one.high < -least)
    return np.where(within, EXPLAINED, np.where(beyond, BEYOND, UNDECIDED))


def _verdict(states, rungs):
    """The first rung in whose row the state is explained; above all where every row is beyond."""
    verdict = np.full(states.shape[1:], UNDECIDED, dtype=object)
    verdict[np.all(states == BEYOND, axis=0)] = ABOVE_ALL
    for row, rung in reversed(list(zip(states, rungs, strict=True))):
        verdict[row == EXPLAINED] = f"explained by {rung}"
    return verdict.astype(str)
