"""The processes of a sweep whose devices hold one model together: all go through the same rounds, in one order.

Process 0 reads which units are missing and tells the others, so that all run the same programs. A round is one unit a
device, the same units at every start: what was done before is computed once more where another unit of its round is
missing, and only what is missing is measured and stored. So every unit has the same bits however often the sweep was
stopped. When one process ends, all end.
"""

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from jaxdyn.errors import InputError
from jaxdyn.models.model import Model
from jaxdyn.pipeline.run import finish
from jaxdyn.store import StoreError, open_for_resume

from . import worker
from .presets import Together
from .strict_yaml import PAGE
from .units import Run
from .worker import Worker

GROUP = "group"
"""The claim of the processes that are at a sweep."""


class Lockstep(Worker):
    """The loop of one process of the presets "fsdp" and "tensor"."""

    @property
    def strategy(self) -> Together:
        """What the preset decides."""
        assert isinstance(self._strategy, Together)
        return self._strategy

    def work(self) -> None:
        """Go through all rounds of all runs."""
        if self.process == 0 and not self.claims.take(GROUP):
            msg = (
                f"out: processes are at work in {self.plan.out} (mesh {self.plan.mesh}, which allows one group at a "
                "time); wait for them, or choose another out"
            )
            raise StoreError(msg, page=PAGE)
        try:
            for run in self.manifest.runs:
                self._run(run)
        except (jax.errors.JaxRuntimeError, ValueError) as error:
            if self.processes == 1 or isinstance(error, InputError | StoreError) or not _of_exchange(error):
                raise
            first = " ".join(str(error).split())[:200]
            msg = f"mesh: another process of this sweep has ended ({first}); the same command goes on from here"
            raise StoreError(msg, page=PAGE) from error
        finally:
            if self.process == 0:
                self.claims.release(GROUP)
        self._show("done")
        self.log.say(f"complete; {self.own_units} units here")

    def _run(self, run: Run) -> None:
        """Do what is missing of one run."""
        if self._agreed(self._is_complete(run)):
            return
        missing = self._begin(run)
        together = self.strategy.together
        for first in range(0, run.units, together):
            if missing[first : first + together].any():
                self._round(run, first, missing)
        self._end(run)

    def _begin(self, run: Run) -> np.ndarray:
        """Load the model, open the store, which process 0 makes, and return which units are missing."""
        work, fixed = self._work(run)
        if self.process == 0 and not run.store.exists():
            self._create(run, work, fixed)
        self._agreed(True)
        store = open_for_resume(run.store, fixed, alone=self.process == 0)
        self._open[run] = work, store
        missing = np.ones(run.units, np.int32)
        missing[store.done_units()] = 0
        missing = self._agreed(missing)
        self._done[run] = set(np.flatnonzero(missing == 0).tolist())
        return missing

    def _round(self, run: Run, first: int, missing: np.ndarray) -> None:
        """Compute one round; beyond the last unit its devices repeat that."""
        work, _ = self._open[run]
        numbers = [first + k for k in range(self.strategy.together)]
        units = [min(number, run.units - 1) for number in numbers]
        own = [numbers[k] for k in self.strategy.local]
        wanted = [unit for unit in own if unit < run.units and missing[unit]]
        pieces = self.strategy.compute(work, units, wanted)
        if wanted:
            self._write(run, wanted, pieces)
        else:
            for _ in pieces:  # the others need this process's devices
                pass

    def _end(self, run: Run) -> None:
        """Complete the store: process 0, when all units are there."""
        work, store = self._open[run]
        model = with_whole_unembedding(work.model) if "averages" in work.settings.outputs else work.model
        if self.process == 0:
            while len(store.done_units()) < run.units:
                time.sleep(worker.POLL / 10)
            self.presence.tell(doing=f"{run.model.name} {run.operator} averages")
            finish(store, model, work.settings, work.layers, lambda: None)
            self.log.say(f"{run.folder}: complete")
        while not self._is_complete(run):
            time.sleep(worker.POLL)

    def _agreed(self, value: Any) -> Any:
        """Return process 0's value in every process; none goes on before all are here."""
        found = np.asarray(multihost_utils.broadcast_one_to_all(np.asarray(value, np.int32)))
        return found if found.ndim else int(found)


def _of_exchange(error: Exception) -> bool:
    """Whether an error is that of an exchange between processes: gloo's comes as a ValueError."""
    return isinstance(error, jax.errors.JaxRuntimeError) or "Gloo" in str(error)


def with_whole_unembedding(model: Model) -> Model:
    """Gather what turns directions into tokens, in every process; the rest of the model is left out."""
    names = ("embed", "final_norm") if model.architecture.tied_head else ("head", "final_norm")
    params: Mapping[str, Any] = {name: model.params[name] for name in names}
    if "embed" in params:
        params = {**params, "embed": {"tokens": params["embed"]["tokens"]}}
    gathered = jax.tree.map(lambda leaf: jnp.asarray(_whole(leaf)), params)
    return dataclasses.replace(model, params=gathered)


def _whole(leaf: jax.Array) -> np.ndarray:
    return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
