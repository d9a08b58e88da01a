"""D1: how dense the state is, point by point, by every estimator that is in use (methods.md 2.2).

Beside each stands what a Gaussian vector of the same size would give, which a state in a random basis comes near to.
"""

import numpy as np
import xarray as xr

from .exact import exact_mean, exact_sum
from .stages import Inputs, labelled

GAUSSIAN = {
    "mean_abs_relative": np.sqrt(2 / np.pi),
    "share_above_rms": 0.31731050786291415,
    "kurtosis": 3.0,
    "participation": 1 / 3,
}
"""Values for independent Gaussian units of mean 0, D to infinity."""

NAMES = {
    "mean_abs": "mean abs(a)",
    "share_above": "share of units with abs(a) > tau",
    "mean_abs_relative": "mean abs(a) / rms(a)",
    "share_above_rms": "share of units with abs(a) > rms(a)",
    "kurtosis": "kurtosis over units, mean (a - mean)^4 / variance^2",
    "participation": "participation ratio of a^2 over D, (sum a^2)^2 / (D sum a^4)",
}


def density(states: np.ndarray, tau: float) -> dict[str, np.ndarray]:
    """Estimate the density of every state.

    Parameters
    ----------
    states : (S, P, D).
    tau : the fixed threshold of `share_above`, in the state's own unit.

    Returns
    -------
    (S, P) by name (`NAMES`): mean_abs and share_above depend on the state's scale, the others do not. A state of zeros
    gives NaN where it divides. Sums over units have no order (`exact`).
    """
    width = states.shape[-1]
    size, square = np.abs(states), states**2
    rms = np.sqrt(exact_mean(square, -1))
    centred = (states - exact_mean(states, -1)[..., None]) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = exact_mean(size, -1)
        return {
            "mean_abs": mean,
            "share_above": (size > tau).mean(axis=-1),
            "mean_abs_relative": mean / rms,
            "share_above_rms": (size > rms[..., None]).mean(axis=-1),
            "kurtosis": exact_mean(centred**2, -1) / exact_mean(centred, -1) ** 2,
            "participation": exact_sum(square, -1) ** 2 / exact_sum(square**2, -1) / width,
        }


def stage(inputs: Inputs) -> xr.Dataset:
    """Measure every point: mean and standard deviation over samples, beside the controls and the Gaussian value."""
    states, rows = inputs.states, inputs.rows("shuffled")
    middle = np.concatenate([exact_mean(np.abs(chunk), -1) for chunk in states.chunks()])
    tau = float(exact_mean(middle, (0, 1)))
    mean: dict[str, dict[str, np.ndarray]] = {name: {} for name in NAMES}
    spread: dict[str, dict[str, np.ndarray]] = {name: {} for name in NAMES}
    for row in rows:
        pieces = [density(chunk, tau) for chunk in states.chunks(row)]
        for name in NAMES:
            every = np.concatenate([piece[name] for piece in pieces])
            mean[name][row] = exact_mean(every, 0)
            spread[name][row] = np.sqrt(exact_mean((every - mean[name][row]) ** 2, 0))
        inputs.tick("density", rows.index(row) + 1, len(rows))
    dims, found = ("control", "point"), {}
    for name, text in NAMES.items():
        found[name] = labelled(f"{text}, mean over samples", dims, inputs.by_control(mean[name]), "D1")
        found[f"{name}_sd"] = labelled(f"{text}, sd over samples", dims, inputs.by_control(spread[name]), "D1")
    return xr.Dataset(found).assign_attrs(tau=tau, tau_rule="mean abs(a) of the trained model, all points and samples")
