"""The rounds of one sample joined: every measure beside N0 and N1, in both metrics, under the names of the store."""

import numpy as np
from jaxtyping import Float

from jaxdyn.measures import MEASURES

from .spectral import Measured, Plan

UNITS = {measure.name: measure.unit for measure in MEASURES}

Arrays = dict[str, np.ndarray]


def join(own: Measured, drawn: list[Measured], norms: Float[np.ndarray, "P 2"], plan: Plan) -> tuple[Arrays, Arrays]:
    """Set one sample's measures beside their nulls.

    Parameters
    ----------
    own, drawn : what round 0 and the others measured, in numpy arrays.
    norms : (P, 2), norm of the residual stream where each Jacobian enters and leaves.

    Returns
    -------
    arrays : by store key, (parts, ...): the raw metric by name, the relative one under "relative/".
    cumulative : measures of the running product, by name; empty without products.
    """
    cumulative = {}
    if plan.block is not None:
        for name, value in own.cumulative.items():
            cumulative[name] = value
            if drawn:
                mean, sd = _summarise([one.cumulative[name] for one in drawn])
                cumulative |= {f"{name}_null": mean, f"{name}_null_sd": sd, f"{name}_excess": value - mean}
        cumulative["single_participation_ratio"] = own.single[plan.block]
        cumulative["single_update_norm"] = own.views["update_norm"][
            [view.index for view in plan.views].index(plan.block)
        ]
    return _arrays(own, drawn, norms, plan), cumulative


def _arrays(own: Measured, drawn: list[Measured], norms: np.ndarray, plan: Plan) -> Arrays:
    ratio, parts, out = norms[:, 0] / norms[:, 1], plan.parts, {}
    for name, value in own.views.items():
        if name not in UNITS:
            out[name] = value[:parts]
            continue
        n0 = own.closed[name][: len(value)].astype(value.dtype)
        arrays = _beside_nulls(name, value, n0, [one.views[name] for one in drawn])
        out |= {key: array[:parts] for key, array in arrays.items()}
        if name in relative_measures(plan):
            out |= {f"relative/{key}": _relative(UNITS[name], array, ratio, plan) for key, array in arrays.items()}
    if drawn:
        out["eigenvalues_null"] = drawn[0].views["eigenvalues"][:parts]
    where = [view.index for view in plan.views[:parts]]
    return out | {"input_norm": norms[where, 0], "output_norm": norms[where, 1]}


def relative_measures(plan: Plan) -> tuple[str, ...]:
    """Names of the measures that are stored in the relative metric: the gains, and all where there is an update.

    The Kreiss constant is left out: it is dear, and does not change with the scale of a block.
    """
    shifted = any(view.shift for view in plan.views)
    return tuple(name for name, unit in UNITS.items() if (shifted or unit == "gain") and name != "kreiss_scaled")


def _beside_nulls(name: str, value: np.ndarray, n0: np.ndarray, draws: list[np.ndarray]) -> Arrays:
    """One measure (views,) with N0 and, where it was drawn, N1 along the last axis."""
    if not draws:
        return {name: value, f"{name}_null": n0[:, None], f"{name}_excess": (value - n0)[:, None]}
    mean, sd = _summarise(draws)
    null = np.stack([n0, mean], axis=-1)
    return {
        name: value,
        f"{name}_null": null,
        f"{name}_null_sd": np.stack([np.where(np.isnan(n0), np.nan, 0).astype(sd.dtype), sd], axis=-1),
        f"{name}_excess": value[:, None] - null,
    }


def _summarise(draws: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over the draws; a failed draw (NaN) makes both NaN: none is left out."""
    values = np.stack(draws)
    return np.mean(values, axis=0), np.std(values, axis=0, ddof=1)


def _relative(unit: str, array: np.ndarray, ratio: np.ndarray, plan: Plan) -> np.ndarray:
    """Return the parts of one array (views, ...) in the relative metric, the unshifted ones by their scale."""
    rows, own = [], iter(range(plan.parts, len(plan.views)))
    for view in plan.views[: plan.parts]:
        scaled = array[view.part] * (ratio[view.index] if unit == "gain" else 1)
        rows.append(array[next(own)] if view.shift else scaled)
    return np.stack(rows).astype(array.dtype)
