"""One process of a sweep at work: models are loaded, stores made and opened, units written, progress told.

What all presets share; which units a process takes, and when a store is completed, is in `claiming.py` (every process
by itself) and `lockstep.py` (all together).
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import yaml
from jaxdyn_kernels import Status

from jaxdyn import provenance
from jaxdyn.activations import tokenise
from jaxdyn.models.model import Model
from jaxdyn.pipeline.layout import make_schema
from jaxdyn.pipeline.progress import Progress
from jaxdyn.pipeline.run import UnitWriter, outcome
from jaxdyn.store import Coordinate, Schema, Store, StoreError, create, done_units, is_complete
from jaxdyn.store.files import reported

from .claims import Claims
from .log import Log
from .manifest import Manifest
from .models import texts_of
from .outcome import SweepOutcome
from .plan import ModelEntry, Plan
from .presence import Presence
from .presets import Alone, Pieces, Together
from .units import Run, Work, make_work, prompt_hashes, unit_ids

POLL = 0.5
"""Seconds between looks at what the other processes do."""


class Worker:
    """What a process of a sweep has at hand, and the steps that its loop is made of.

    Parameters
    ----------
    strategy : from `presets.strategy`.
    plan, manifest : what is to be done.
    presence, claims, log : of this process.
    progress, origin, process, processes : as for `jaxdyn.sweep.sweep`.
    """

    def __init__(
        self,
        strategy: Alone | Together,
        plan: Plan,
        manifest: Manifest,
        presence: Presence,
        claims: Claims,
        log: Log,
        progress: Progress | None,
        origin: dict[str, str],
        process: int,
        processes: int,
    ) -> None:
        self._strategy = strategy
        self.plan, self.manifest, self.presence, self.claims, self.log = plan, manifest, presence, claims, log
        self.process, self.processes, self.origin = process, processes, origin
        self.texts = texts_of(plan)
        self.progress = progress if process == 0 else None
        self.began, self.own_units, self._counts = time.monotonic(), 0, {}
        self._model: tuple[ModelEntry, Model, Any] | None = None
        self._open: dict[Run, tuple[Work, Store]] = {}
        self._done = {run: set(done_units(run.store)) if run.store.exists() else set() for run in manifest.runs}
        self._complete: set[Run] = set()
        self.before = sum(map(len, self._done.values()))
        self.log.say(
            f"process {process} of {processes}, {manifest.threads} threads, {self.before} of {manifest.units} units "
            f"done before, on {strategy.devices} devices, {strategy.together} units at once; {presence.name}"
        )

    def work(self) -> None:
        """Take units until every store is complete."""
        raise NotImplementedError

    def retry_failed(self) -> None:
        """Take back every unit that holds a matrix whose status is not OK."""
        for run in self.manifest.runs:
            if not run.store.exists():
                continue
            store = Store(run.store)
            status = store.read_all(["status"])["status"]
            bad = [unit for unit in store.done_units() if np.any(status[..., store.unit_slice(unit)] != Status.OK)]
            if not bad:
                continue
            piece = self._piece(run, "finish")
            while not self.claims.take(piece):
                time.sleep(POLL)
            try:
                store.reopen(bad)
            finally:
                self.claims.release(piece)
            self._done[run] -= set(bad)
            self.before -= len(bad)
            self.log.say(f"{run.folder}: {len(bad)} units taken back, to be computed again: {bad[:20]}")

    def outcome(self) -> SweepOutcome:
        """Count what the stores hold."""
        found = [outcome(Store(run.store), self.plan.settings(run.operator), {}) for run in self.manifest.runs]
        names = sorted({name for one in found for name in one.failed})
        return SweepOutcome(
            tuple(one.store for one in found),
            self.manifest.units,
            sum(one.samples for one in found),
            sum(one.matrices for one in found),
            {name: sum(one.failed.get(name, 0) for one in found) for name in names},
            self.own_units,
            round(time.monotonic() - self.began, 3),
        )

    def _write(self, run: Run, units: Sequence[int], pieces: Pieces) -> None:
        """Write units, computed side by side as their arrays come."""
        work, store = self._open[run]
        numbers = ", ".join(map(str, units))
        self.presence.tell(doing=f"{run.model.name} {run.operator} unit {numbers}")
        began, clock = time.perf_counter(), _Clock()
        writers = {unit: UnitWriter(store, unit) for unit in units}
        for found in clock.timed(pieces):
            for unit, piece in zip(units, found, strict=True):
                self._try(store, unit, lambda writer=writers[unit], piece=piece: writer.add(*piece))
        for unit, writer in writers.items():
            self._try(store, unit, writer.commit)
        seconds = (time.perf_counter() - began) / len(units)
        for unit in units:
            self._written(run, work, unit, seconds, clock.spent / len(units))

    def _try(self, store: Store, unit: int, write: Callable[[], None]) -> None:
        """Write, unless a process that was thought dead has written the unit meanwhile."""
        try:
            if not store.is_done(unit):
                write()
        except StoreError:
            if not store.is_done(unit):
                raise

    def _written(self, run: Run, work: Work, unit: int, seconds: float, spent: float) -> None:
        """Tell of a unit that is done."""
        status = self._open[run][1].read(unit, "status")
        samples, failed = status.shape[-1], int(np.sum(status != Status.OK))
        matrices = samples * run.layers * len(work.settings.matrices)
        self._done[run].add(unit)
        self.own_units += 1
        self.presence.tell(units=self.own_units)
        self.log.metric(
            model=run.model.name, operator=run.operator, unit=unit, samples=samples, matrices=matrices, failed=failed,
            seconds=round(seconds, 4), compute_seconds=round(spent, 4), units=self.own_units,
        )  # fmt: skip
        if failed:
            self.log.say(f"{run.folder}: unit {unit}: {failed} matrices did not decompose; their status says why")
        self._show("units", matrices)

    def _load(self, entry: ModelEntry) -> tuple[Model, Any]:
        """Load a model, after letting go of the one before."""
        if self._model is None or self._model[0] != entry:
            self._model, self._open = None, {}
            self.presence.tell(doing=f"loading {entry.name}")
            model = self._strategy.load(entry)
            self._model = entry, model, tokenise(model, self.texts, max_tokens=self.plan.texts.max_tokens)
            self.log.say(f"loaded {entry.name}, weights {model.weights_hash[:12]}")
        return self._model[1], self._model[2]

    def _work(self, run: Run) -> tuple[Work, dict[str, Any]]:
        """A run with its model at hand, and what fixes its bits."""
        model, prompts = self._load(run.model)
        work = make_work(self.plan, run.operator, model, self.texts, prompts)
        return work, work.fixed(self.manifest.threads)

    def _create(self, run: Run, work: Work, fixed: dict[str, Any]) -> None:
        """Create a run's store, and config.yaml beside it."""
        model = work.model
        told = provenance.provenance(
            model_source=model.source, model_revision=model.revision, model_hash=model.weights_hash,
            samples=work.samples.count, model_entry=dataclasses.asdict(run.model), **self.origin,
        )  # fmt: skip
        create(run.store, schema_of(work, unit_ids(work.samples, fixed)), fixed, provenance=told)
        config = {"model": model.source, "revision": model.revision, **fixed, "provenance": told}
        with reported(run.folder, "write"):
            (run.folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))

    def _already(self, run: Run, unit: int) -> bool:
        """Whether a unit is done; looked up in the store only where this process does not know it yet."""
        if unit not in self._done[run] and run in self._open and self._open[run][1].is_done(unit):
            self._done[run].add(unit)
        return unit in self._done[run]

    def _is_complete(self, run: Run) -> bool:
        """Whether a store is complete; once it is, it stays so."""
        if run not in self._complete and is_complete(run.store):
            self._complete.add(run)
        return run in self._complete

    def _show(self, stage: str, matrices: int = 0) -> None:
        """Process 0: units done by all, the rate and what remains, as a bar and a line of the log."""
        if self.process != 0:
            return
        for other in self.presence.others():
            self._counts[other["name"]] = other["units"]
        here = self.own_units + sum(self._counts.values())
        total = self.manifest.units
        done = min(self.before + here, total) if stage != "done" else total
        if self.progress:
            self.progress.reach("units", done, total)
        if matrices:
            seconds = time.monotonic() - self.began
            left = (total - done) * seconds / max(here, 1)
            self.log.say(f"{done} of {total} units, {here / seconds:.3g} units a second, {left:.0f} s left")

    def _piece(self, run: Run, what: str) -> str:
        """Name what is claimed."""
        return f"{self.manifest.runs.index(run):05d}-{what}"


class _Clock:
    """The time that computing takes of a unit, writing left out."""

    def __init__(self) -> None:
        self.spent = 0.0

    def timed(self, pieces: Pieces) -> Pieces:
        """Pass pieces on as they come."""
        rest: Iterator[Any] = iter(pieces)
        while True:
            began = time.perf_counter()
            piece = next(rest, None)
            self.spent += time.perf_counter() - began
            if piece is None:
                return
            yield piece


def schema_of(work: Work, ids: list[str]) -> Schema:
    """Declare the store of a run: that of `analyze`, with the address of each unit and the prompt of each sample."""
    schema = make_schema(work.model, work.settings, work.samples, work.layers)
    extra = (
        Coordinate("address", ("unit",), ids, {"long_name": "sha256 of all that the unit's bytes depend on"}, "units"),
        Coordinate(
            "prompt_hash", ("sample",), prompt_hashes(work.samples), {"long_name": "hash of the prompt's tokens"}
        ),
    )
    return Schema(
        sizes={**schema.sizes, "unit": work.samples.units},
        units={**schema.units, "unit": 1},
        variables=schema.variables,
        coordinates=(*schema.coordinates, *extra),
        attrs=schema.attrs,
        group_attrs=schema.group_attrs,
    )
