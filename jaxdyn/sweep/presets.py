"""Who computes a unit and how: the one place where the mesh preset of a plan decides.

"one" is a single process on one device. With "data" the units are dealt over the processes; each holds all weights on
each of its own devices, and computes as many units at once as it has devices. Nothing is reduced between processes,
since the sums of the units are merged from the store.

With "fsdp" and "tensor" all devices of all processes hold one model and work in lockstep: a *round* is one unit a
device, by programs over the whole mesh, and each process measures and stores the units of its own devices.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from jaxdyn.errors import InputError
from jaxdyn.models.model import Model
from jaxdyn.pipeline.unit import Arrays, measure_units, run_units
from jaxdyn.sharding import LAYOUTS, mesh_for

from .models import load
from .plan import TOGETHER, ModelEntry, Plan
from .stages import make_stages, round_jacobians
from .strict_yaml import PAGE
from .units import Work

Pieces = Iterator[list[tuple[int | None, Arrays]]]


class Alone:
    """The presets whose units a device computes by itself.

    Attributes
    ----------
    together, devices : units that this process computes side by side, one on each of its devices.
    """

    def __init__(self, plan: Plan, *, process: int, processes: int) -> None:
        self._plan, self._process, self._processes = plan, process, processes
        self._devices = jax.local_devices()[: 1 if plan.mesh == "one" else None]
        self._copies: tuple[Model | None, list[Model]] = None, []
        self.together = self.devices = len(self._devices)

    def load(self, entry: ModelEntry) -> Model:
        """Load the weights, all of them."""
        return load(entry, dtype=self._plan.dtype, weights_dtype=self._plan.weights_dtype)

    def deal(self, unit: int) -> bool:
        """Say whether a unit, by its number in the whole sweep, is this process's own; others are taken after these."""
        return unit // self.together % self._processes == self._process

    def compute(self, work: Work, units: Sequence[int]) -> Pieces:
        """Compute units, as many as `together` at most: what `pipeline.unit.run_units` yields."""
        if self._copies[0] is not work.model:
            self._copies = None, []
            rest = [jax.device_put(work.model.params, device) for device in self._devices[1:]]
            copies = [work.model, *(dataclasses.replace(work.model, params=params) for params in rest)]
            self._copies = work.model, copies
        copies = self._copies[1][: len(units)]
        yield from run_units(copies, work.settings, work.samples, work.layers, units, _nothing)


class Together:
    """The presets whose units all devices compute in lockstep.

    Attributes
    ----------
    mesh : all devices.
    together, devices : units of a round, one on each device of all processes.
    local : which of them are this process's.
    """

    def __init__(self, plan: Plan, *, processes: int) -> None:
        if jax.process_count() != processes:
            msg = (
                f"mesh: got {plan.mesh} with {processes} processes that have not joined in jax's runtime; start them "
                "with --processes, by a launcher that jax knows, or with --coordinator"
            )
            raise InputError(msg, page=PAGE)
        self._plan, self.mesh = plan, group_mesh(plan)
        self.together = self.devices = self.mesh.devices.size
        own = jax.process_index()
        self.local = [k for k, device in enumerate(self.mesh.devices.flat) if device.process_index == own]

    def load(self, entry: ModelEntry) -> Model:
        """Load this process's parts of the weights."""
        plan = self._plan
        return load(
            entry, dtype=plan.dtype, weights_dtype=plan.weights_dtype, mesh=self.mesh, layout=LAYOUTS[plan.mesh]
        )

    def compute(self, work: Work, units: Sequence[int], wanted: Sequence[int]) -> Pieces:
        """Compute a round: `units`, one a device of the mesh; yields the arrays of those that are `wanted` here."""
        arch, settings = work.model.architecture, work.settings
        stages = make_stages(arch, self.mesh, self._plan.mesh, settings.request, settings.matrices)
        own = [units[k] for k in self.local]
        chosen = [own.index(unit) for unit in wanted]
        rounds = round_jacobians(stages, work.model, work.samples, work.layers, units)
        found = ([pieces[k] for k in chosen] for pieces in rounds)
        yield from measure_units(arch, settings, work.samples, work.layers, wanted, found, _nothing)


def strategy(plan: Plan, *, process: int, processes: int) -> Alone | Together:
    """Return what the plan's preset means for one process of several.

    Raises
    ------
    InputError : "one" in several processes; "fsdp" or "tensor" in processes that have not joined, or on devices that
        its `model-devices` do not divide.
    """
    if plan.mesh in TOGETHER:
        return Together(plan, processes=processes)
    if plan.mesh == "one" and processes > 1:
        msg = (
            f"mesh: got one with {processes} processes; allowed: data, which deals the units over them; or one process"
        )
        raise InputError(msg, page=PAGE)
    return Alone(plan, process=process, processes=processes)


def group_mesh(plan: Plan) -> Mesh:
    """Arrange all devices in the mesh of "fsdp" or "tensor"."""
    devices = jax.devices()
    model = (plan.model_devices or len(devices)) if plan.mesh == "tensor" else 1
    return mesh_for(plan.mesh, devices, model=model)


def mesh_told(plan: Plan) -> dict[str, Any] | None:
    """Say what of the mesh the bits of a sweep depend on: the preset and the axes with "fsdp" and "tensor", else None.

    Starts jax's devices, with these presets.
    """
    if plan.mesh not in TOGETHER:
        return None
    return {"preset": plan.mesh, "axes": dict(group_mesh(plan).shape), "processes": jax.process_count()}


def _nothing() -> None:
    """Take the place of a bar's tick: progress is shown by the unit."""
