"""D5 of a model: the information a unit keeps from a point to the next, beside its floors and the controls.

Floors: a Gaussian of the same correlation, which a linear dependence has too; the same samples shuffled, which share
nothing, so that what the estimator gives there is its bias.
"""

import numpy as np
import xarray as xr

from .correlation import pair_correlation
from .exact import finite_mean
from .information import binned_information, gaussian_information, ksg_information
from .stages import Inputs, labelled

NAMES = {
    "binned": "I of a unit at a point and at the next, equal-count bins, Miller-Madow",
    "ksg": "I of a unit at a point and at the next, KSG",
    "gaussian": "floor: I of a Gaussian of the same correlation",
    "binned_shuffled": "floor: the binned estimate with samples shuffled",
    "ksg_shuffled": "floor: the KSG estimate with samples shuffled",
}


def stage(inputs: Inputs) -> xr.Dataset:
    """Measure the chosen units at every step, for the model and every control; the shuffle floor for the model."""
    settings, states = inputs.settings, inputs.states
    units = chosen_units(states.width, settings.information_units, settings.seed)
    shuffle = np.random.default_rng([settings.seed, 4]).permutation(states.samples)
    rows = inputs.rows()
    found: dict[str, dict[str, np.ndarray]] = {name: {} for name in NAMES}
    for row in rows:
        pieces: dict[str, list[np.ndarray]] = {name: [] for name in NAMES}
        for _, (before, after) in states.columns(units, row):
            shape = before.shape[1:]
            x, y = before.reshape(len(before), -1), after.reshape(len(after), -1)
            measured = {
                "binned": binned_information(x, y, bins=settings.bins),
                "ksg": ksg_information(x, y, k=settings.neighbours),
                "gaussian": gaussian_information(pair_correlation(lambda x=x, y=y: [(x, y)], len(x))),
            }
            if row == "trained":
                measured["binned_shuffled"] = binned_information(x, y[shuffle], bins=settings.bins)
                measured["ksg_shuffled"] = ksg_information(x, y[shuffle], k=settings.neighbours)
            for name, values in measured.items():
                pieces[name].append(values.reshape(shape))
        for name, parts in pieces.items():
            if parts:
                found[name][row] = np.concatenate(parts, axis=-1)
        inputs.tick("mutual information", rows.index(row) + 1, len(rows))
    data = {}
    for name, text in NAMES.items():
        values = inputs.by_control(found[name])
        data[name] = labelled(text, ("control", "step", "measured_unit"), values, "D5", "nat")
        mean = finite_mean(values)
        data[f"mean_{name}"] = labelled(f"{text}, mean over units", ("control", "step"), mean, "D5", "nat")
    about = {"bins": min(settings.bins, states.samples), "k": settings.neighbours, "units": len(units)}
    return xr.Dataset(data, {"measured_unit": units}).assign_attrs(about)


def chosen_units(width: int, count: int, seed: int) -> np.ndarray:
    """Draw the units that are measured, ascending; all where `count` is 0 or no fewer than the width."""
    if count == 0 or count >= width:
        return np.arange(width)
    return np.sort(np.random.default_rng([seed, 5]).choice(width, count, replace=False))
