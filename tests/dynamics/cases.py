"""Stored states without a model, and a small model that reads characters."""

import dataclasses
from pathlib import Path

import numpy as np

from jaxdyn.dynamics.settings import DynamicsSettings
from jaxdyn.dynamics.stages import Inputs, chosen
from jaxdyn.dynamics.state import Points
from jaxdyn.dynamics.stored import KEY, States
from jaxdyn.models import Architecture, Rope, random_model
from jaxdyn.store import Coordinate, Schema, Variable, create


def stored(folder: Path, states: np.ndarray, settings: DynamicsSettings) -> States:
    """Write states (W, S, P, D) as a run would and return what reads them."""
    weights, samples, points, width = states.shape
    assert weights == len(settings.weights)
    unit = min(settings.unit, samples)
    schema = Schema(
        sizes={"weights": weights, "point": points, "sample": samples, "coordinate": width, "step": points - 1,
               "control": len(settings.rows)},
        units={"sample": unit},
        variables=(Variable(KEY, ("weights", "point", "sample", "coordinate"), "float64", split=("weights", "point")),),
        coordinates=(Coordinate("control", ("control",), list(settings.rows)),),
    )  # fmt: skip
    store = create(folder / "dynamics.zarr", schema, {})
    for number in range(store.unit_count):
        part = np.moveaxis(states[:, store.unit_slice(number)], 1, 2)
        store.write_unit(number, {KEY: part.astype(np.float64)})
    return States(store, settings, samples, points, width)


def inputs(folder: Path, states: np.ndarray, settings: DynamicsSettings) -> Inputs:
    """Return what a stage gets, without model and prompts."""
    read = stored(folder, states, settings)
    points = states.shape[2]
    along = Points(np.arange(points) // 2, tuple(("attention", "mlp")[i % 2] for i in range(points)))
    return Inputs(None, None, read, along, settings, folder, lambda *_: None)


def run_stage(name: str, given: Inputs):
    """Run one stage as a run would."""
    (stage,) = chosen((name,))
    return stage.run(given)


class Letters:
    """A tokenizer of single characters, without BOS."""

    bos_token_id = None

    def encode(self, text: str, **_: object) -> list[int]:
        """Give one id a character."""
        return [ord(letter) % 64 for letter in text]


def small_model(**options):
    """Build a random model of three blocks that reads characters."""
    arch = Architecture(
        family="llama", width=16, layers=3, heads=2, kv_heads=1, head_dim=8, ff_dim=24, vocab=64, context=40,
        norm="rms", norm_eps=1e-5, activation="silu", gated=True, qkv_bias=False, output_bias=False, mlp_bias=False,
        position="rope", rope=Rope(10000.0), tied_head=True, initializer_range=0.3, initializer="normal",
    )  # fmt: skip
    arch = dataclasses.replace(arch, **options)
    return dataclasses.replace(random_model(arch, seed=7), tokenizer=Letters())


TEXTS = [f"the {animal} saw {number} hills" for animal in ("cat", "old dog", "hen", "fox") for number in range(12, 17)]
"""Twenty short texts of different lengths."""
