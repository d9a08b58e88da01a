"""Stage 5 of 7: teleport as a stage of `jaxdyn dynamics`: its samples are those that the store holds (D10)."""

from dataclasses import replace

import numpy as np
import xarray as xr

from .stages import Inputs
from .teleport import Samples, teleport

MOST_SAMPLES = 2000
"""Samples that planes and distances are taken from; of more, evenly spaced ones, so that memory stays flat."""


def stage(inputs: Inputs) -> xr.Dataset:
    """Teleport the last tokens of the stored samples; the control "random-init" runs where "random" was asked for."""
    settings = replace(inputs.settings.teleport, seed=inputs.settings.seed)

    def samples(model, weights):
        def states(layer):
            point = int(np.flatnonzero(inputs.points.block == layer)[0])
            return inputs.states.at_point(point, weights, most=MOST_SAMPLES)

        return Samples(model, inputs.prompts, states)

    initial = []
    if "random" in inputs.settings.weights and "random-init" in settings.controls:
        initial = [samples(inputs.model.initialised(inputs.settings.seed), "random")]
    return teleport(samples(inputs.model, "trained"), settings, initial=initial, progress=inputs.tick)
