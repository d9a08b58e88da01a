"""One process of a sweep: it takes units, writes them, and stays until every store is complete.

A process computes its own units first (the preset deals them), then those that nobody is at. Who is at a unit is a
claim (`claims.py`), and the claims of a dead process are free: the others do its work. When all units of a store are
done, one process merges their sums in the order of the units and marks it complete. Nothing is sent between processes,
and what is done is what the stores' markers say: killed at any moment, the same command goes on from there.
"""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jaxdyn_kernels import Status, cores

from jaxdyn import provenance
from jaxdyn.activations import tokenise
from jaxdyn.models.model import Model
from jaxdyn.pipeline.layout import make_schema
from jaxdyn.pipeline.progress import Progress
from jaxdyn.pipeline.run import finish, outcome, store_unit
from jaxdyn.store import Coordinate, Schema, Store, StoreError, create, done_units, is_complete, open_for_resume
from jaxdyn.store.files import reported

from .claims import Claims
from .log import Log
from .manifest import Manifest, check_manifest, read_manifest, write_manifest
from .models import texts_of
from .plan import ModelEntry, Plan
from .presence import STALE, Presence
from .presets import strategy
from .strict_yaml import PAGE
from .units import Run, Work, make_work, prompt_hashes, unit_ids

POLL = 0.5
"""Seconds between looks at what the other processes do."""


@dataclass(frozen=True)
class SweepOutcome:
    """What a sweep holds when it is complete, over all its stores, and what this process did of it.

    Attributes
    ----------
    stores : folders, one a model and operator.
    units, samples, matrices : how many there are in all.
    failed : matrices whose status is not OK, by status name.
    own_units : units that this process computed now.
    seconds : its wall time.
    """

    stores: tuple[Path, ...]
    units: int
    samples: int
    matrices: int
    failed: dict[str, int]
    own_units: int
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**vars(self), "stores": [str(store) for store in self.stores]}

    def summary(self) -> str:
        """Return one line for the terminal."""
        bad = ", ".join(f"{count} {name}" for name, count in self.failed.items())
        verdict = (
            f"{sum(self.failed.values())} failed ({bad}); --retry-failed repeats them" if bad else "all decomposed"
        )
        return (
            f"{len(self.stores)} stores, {self.units} units, {self.matrices} matrices, {verdict}; "
            f"{self.own_units} units here in {self.seconds:.1f} s"
        )


def sweep(
    plan: Plan,
    *,
    process: int = 0,
    processes: int = 1,
    retry_failed: bool = False,
    stale: float = STALE,
    progress: Progress | None = None,
    origin: dict[str, str] | None = None,
    leave: Callable[[], None] | None = None,
) -> SweepOutcome:
    """Do a process's part of a sweep and return when the whole is complete.

    Parameters
    ----------
    plan : from `load_plan`. Called again with the same plan it goes on, with any number of processes.
    process, processes : this one's number and their count; they share the folder `plan.out`.
    retry_failed : first take back the units that hold a matrix whose status is not OK.
    stale : seconds without a heartbeat after which a process on another host counts as dead.
    progress : bars that process 0 moves.
    origin : kept with a new store's provenance: `command`, `corpus`.
    leave : where the processes have joined in a runtime: called at the end, whatever that is, while this process still
        counts as at work; in process 0, which the others are connected to, when they have gone.

    Raises
    ------
    StoreError : the folder holds a sweep of another plan, machine or code, or the disk refuses; what is done stays.
    InputError : what cannot be loaded or run.
    """
    with Presence(plan.out / "processes", process=process, processes=processes, stale=stale) as presence:
        presence.forget_the_dead()
        claims = Claims(plan.out / "claims", presence)
        log = Log(plan.out, process)
        try:
            manifest = settle(plan, claims)
            worker = Worker(plan, manifest, presence, claims, log, progress, origin or {}, process, processes)
            if retry_failed and process == 0:
                worker.retry_failed()
            worker.work()
        except BaseException as error:
            log.say(f"stopped by {type(error).__name__}: {error}")
            raise
        finally:
            if leave is not None:
                if process == 0:
                    log.say("waiting for the other processes to go")
                    while any(other["process"] != 0 for other in presence.others()):
                        time.sleep(POLL)
                leave()
        return worker.outcome()


def settle(plan: Plan, claims: Claims) -> Manifest:
    """Return the manifest of the sweep, written by one process where there is none, and checked against the plan."""
    while (manifest := read_manifest(plan.out)) is None:
        if claims.take("sweep"):
            try:
                if read_manifest(plan.out) is None:
                    write_manifest(plan, plan.threads or cores())
            finally:
                claims.release("sweep")
        else:
            time.sleep(POLL)
    check_manifest(manifest, plan)
    if cores() != manifest.threads:
        msg = (
            f"threads: this process may use {cores()} cores, the sweep in {plan.out} was made with {manifest.threads} "
            "a process, on which its bits depend; give a process as many, or choose another out"
        )
        raise StoreError(msg, page=PAGE)
    return manifest


class Worker:
    """The loop of one process. Its methods name the steps; `sweep` puts them together."""

    def __init__(
        self,
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
        self.plan, self.manifest, self.presence, self.claims, self.log = plan, manifest, presence, claims, log
        self.strategy = strategy(plan, process=process, processes=processes)
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
            f"done before; {presence.name}"
        )

    def work(self) -> None:
        """Take units until every store is complete."""
        own, waited = True, False
        while any(not self._is_complete(run) for run in self.manifest.runs):
            moved = [self._visit(run, own=own) for run in self.manifest.runs if not self._is_complete(run)]
            if own:
                own = False
                self.log.say("own units done; taking what is left")
            elif not any(moved):
                if not waited:
                    self.log.say("nothing left to take; waiting for the other processes")
                waited = True
                self._show("waiting")
                time.sleep(POLL)
        self._show("done")
        self.log.say(f"complete; {self.own_units} units here")

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
            piece = f"{_key(self.manifest, run)}-finish"
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

    def _visit(self, run: Run, *, own: bool) -> bool:
        """Do what there is to do in one run, this process's units or anyone's; whether anything was done."""
        moved = False
        if run not in self._open and not own and run.store.exists():  # what others did, before a model is loaded
            self._done[run] = set(done_units(run.store))
        for unit in range(run.units):
            if unit in self._done[run] or (own and not self.strategy.deal(run.first + unit)):
                continue
            piece = f"{_key(self.manifest, run)}-unit-{unit:07d}"
            if self._already(run, unit) or not self.claims.free(piece):
                continue
            if not self._ready(run):
                return moved
            if not self.claims.take(piece):
                continue
            try:
                if not self._already(run, unit):
                    self._compute(run, unit)
                    moved = True
            finally:
                self.claims.release(piece)
        return (self._finish(run) if not own else False) or moved

    def _compute(self, run: Run, unit: int) -> None:
        """Compute one unit and write it."""
        work, store = self._open[run]
        self.presence.tell(doing=f"{run.model.name} {run.operator} unit {unit}")
        began, spent = time.perf_counter(), 0.0

        def timed() -> Any:
            nonlocal spent
            pieces = iter(self.strategy.compute(work.model, work.settings, work.samples, work.layers, unit, _nothing))
            while True:
                clock = time.perf_counter()
                piece = next(pieces, None)
                spent += time.perf_counter() - clock
                if piece is None:
                    return
                yield piece

        try:
            store_unit(store, unit, timed())
        except StoreError:
            if not store.is_done(unit):  # else a process that was thought dead has written it meanwhile
                raise
        seconds = time.perf_counter() - began
        status = store.read(unit, "status")
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

    def _finish(self, run: Run) -> bool:
        """Merge the sums and complete the store, if all its units are done and nobody is at it."""
        piece = f"{_key(self.manifest, run)}-finish"
        if not all(self._already(run, unit) for unit in range(run.units)) or not self.claims.free(piece):
            return False
        if not self._ready(run) or not self.claims.take(piece):
            return False
        try:
            work, store = self._open[run]
            self._done[run] = set(store.done_units())
            if len(self._done[run]) < run.units:  # another process took failed units back
                return False
            if not self._is_complete(run):
                self.presence.tell(doing=f"{run.model.name} {run.operator} averages")
                finish(store, work.model, work.settings, work.layers, _nothing)
                self.log.say(f"{run.folder}: complete")
        finally:
            self.claims.release(piece)
        return True

    def _ready(self, run: Run) -> bool:
        """Have the run's model loaded and its store open; False while another process is making the store."""
        if run in self._open:
            return True
        model, prompts = self._load(run.model)
        work = make_work(self.plan, run.operator, model, self.texts, prompts)
        fixed = work.fixed(self.manifest.threads)
        if not run.store.exists():
            piece = f"{_key(self.manifest, run)}-create"
            if not self.claims.take(piece):
                return False
            try:
                if not run.store.exists():
                    self._create(run, work, fixed)
            finally:
                self.claims.release(piece)
        store = open_for_resume(run.store, fixed, alone=self.processes == 1 and not self.presence.others())
        self._open[run] = work, store
        self._done[run] = set(store.done_units())
        return True

    def _load(self, entry: ModelEntry) -> tuple[Model, Any]:
        """Load a model, after letting go of the one before."""
        if self._model is None or self._model[0] != entry:
            self._model, self._open = None, {}
            self.presence.tell(doing=f"loading {entry.name}")
            model = self.strategy.load(entry)
            self._model = entry, model, tokenise(model, self.texts, max_tokens=self.plan.texts.max_tokens)
            self.log.say(f"loaded {entry.name}, weights {model.weights_hash[:12]}")
        return self._model[1], self._model[2]

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


def _key(manifest: Manifest, run: Run) -> str:
    return f"{manifest.runs.index(run):05d}"


def _nothing() -> None:
    """Take the place of a bar's tick: progress is shown by the unit."""
