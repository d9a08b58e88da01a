"""The stages of `jaxdyn dynamics`: each turns stored states into one labelled group of the store.

To add one: write a module with a function `stage(inputs: Inputs) -> xarray.Dataset`, name it in `STAGES`, give its
figures in `jaxdyn/report/dynamics.py` (FIGURES) and its rows in `jaxdyn/report/dynamics_table.py` (ROWS). A dataset may
use the dimensions `point`, `step` (from a point to the next), `coordinate`, `control` (`DynamicsSettings.rows`, NaN
where a control does not apply) and `weights`; any other dimension needs a name of its own, as groups of a store share
the lengths of their dimensions.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from jaxdyn.activations import Prompts
from jaxdyn.errors import InputError
from jaxdyn.models.model import Model

from .settings import DynamicsSettings
from .state import Points
from .stored import States


@dataclass(frozen=True)
class Inputs:
    """What a stage gets.

    Attributes
    ----------
    model : the trained model; its `initialised(settings.seed)` is the random one.
    prompts : the prompts in the order of the samples, which is that of their token ids.
    states : the stored states; read in pieces.
    points : which block and site each point is.
    settings : of the run.
    folder : the run's folder, for what a stage keeps while it works (checkpoints).
    tick : called with (what, done, total) for the progress bars.
    """

    model: Model
    prompts: Prompts
    states: States
    points: Points
    settings: DynamicsSettings
    folder: Path
    tick: Callable[[str, int, int], None]

    def rows(self, *without: str) -> tuple[str, ...]:
        """The measured row and the controls that were asked for, but for some."""
        return tuple(name for name in self.settings.rows if name not in without)

    def by_control(self, found: dict[str, np.ndarray]) -> np.ndarray:
        """Stack arrays by control into the dimension `control`, NaN where one is missing."""
        like = np.asarray(next(iter(found.values())), np.float64)
        return np.stack([np.asarray(found.get(name, np.full_like(like, np.nan))) for name in self.settings.rows])


@dataclass(frozen=True)
class Stage:
    """One stage: the group's name, the module that computes it, and what it is called."""

    name: str
    module: str
    title: str

    def run(self, inputs: Inputs) -> xr.Dataset:
        """Compute the group. The module is imported now: some need flax."""
        found = importlib.import_module(f"{__package__}.{self.module}").stage(inputs)
        return found.assign_coords(control=list(inputs.settings.rows)).assign_attrs(title=self.title)


STAGES = (
    Stage("density", "density", "density of the state (D1)"),
    Stage("continuity", "continuity", "continuity, direction and speed along depth (D2-D4)"),
    Stage("information", "information_stage", "mutual information between consecutive points (D5)"),
    Stage("rotation", "rotation_stage", "phase portraits and rotation counts (D6, D7)"),
    Stage("path", "path", "the mean state's path in the plane of two principal components (D8)"),
    Stage("autoencoder", "autoencoder_stage", "compressing autoencoder (D9)"),
    Stage("dimension", "intrinsic", "intrinsic dimension (two-NN)"),
    Stage("teleport", "teleport_stage", "states put elsewhere, and stretching rates (D10)"),
)


def chosen(names: Sequence[str]) -> tuple[Stage, ...]:
    """Return the stages of these names in their order; all where none are named."""
    known = [stage.name for stage in STAGES]
    if unknown := [name for name in names if name not in known]:
        msg = f"stages: got {unknown[0]!r}; allowed {', '.join(known)}"
        raise InputError(msg)
    return tuple(stage for stage in STAGES if not names or stage.name in names)


def labelled(long_name: str, dims: Sequence[str], values: np.ndarray, formula: str = "", units: str = "1") -> tuple:
    """Return a variable of a group with its attributes."""
    attrs = {"long_name": long_name, "units": units, **({"formula": formula} if formula else {})}
    return tuple(dims), np.asarray(values), attrs
