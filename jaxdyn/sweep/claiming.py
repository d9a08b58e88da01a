"""A process that takes units by itself: its own first (the preset deals them), then those that nobody is at.

Who is at a unit is a claim (`claims.py`), and the claims of a dead process are free: the others do its work. When all
units of a store are done, one process merges their sums in the order of the units and marks it complete.
"""

import time

from jaxdyn.pipeline.run import finish
from jaxdyn.store import StoreError, done_units, open_for_resume

from . import worker
from .presets import Alone
from .units import Run
from .worker import Worker


class Claiming(Worker):
    """The loop of one process of the presets "one" and "data"."""

    @property
    def strategy(self) -> Alone:
        """What the preset decides."""
        assert isinstance(self._strategy, Alone)
        return self._strategy

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
                time.sleep(worker.POLL)
        self._show("done")
        self.log.say(f"complete; {self.own_units} units here")

    def _visit(self, run: Run, *, own: bool) -> bool:
        """Do what there is to do in one run, this process's units or anyone's; whether anything was done."""
        moved = False
        if run not in self._open and not own and run.store.exists():  # what others did, before a model is loaded
            self._done[run] = set(done_units(run.store))
        taken: list[int] = []
        try:
            for unit in range(run.units):
                if unit in self._done[run] or (own and not self.strategy.deal(run.first + unit)):
                    continue
                piece = self._piece(run, f"unit-{unit:07d}")
                if self._already(run, unit) or not self.claims.free(piece):
                    continue
                if not self._ready(run):
                    return moved
                if not self.claims.take(piece):
                    continue
                taken.append(unit)
                if len(taken) == self.strategy.together:
                    moved = self._compute(run, taken) or moved
            moved = self._compute(run, taken) or moved
        finally:
            self._let_go(run, taken)
        return (self._finish(run) if not own else False) or moved

    def _compute(self, run: Run, taken: list[int]) -> bool:
        """Compute and write those claimed units that nobody has done, and let go of all; whether there were any."""
        units = [unit for unit in taken if not self._already(run, unit)]
        if units:
            self._write(run, units, self.strategy.compute(self._open[run][0], units))
        self._let_go(run, taken)
        return bool(units)

    def _let_go(self, run: Run, taken: list[int]) -> None:
        while taken:
            self.claims.release(self._piece(run, f"unit-{taken.pop():07d}"))

    def _finish(self, run: Run) -> bool:
        """Merge the sums and complete the store, if all its units are done and nobody is at it."""
        piece = self._piece(run, "finish")
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
                try:
                    finish(store, work.model, work.settings, work.layers, lambda: None)
                except StoreError:  # this process was thought dead, and another has finished the store meanwhile
                    if not self._is_complete(run):
                        raise
                self.log.say(f"{run.folder}: complete")
        finally:
            self.claims.release(piece)
        return True

    def _ready(self, run: Run) -> bool:
        """Have the run's model loaded and its store open; False while another process is making the store."""
        if run in self._open:
            return True
        work, fixed = self._work(run)
        if not run.store.exists():
            piece = self._piece(run, "create")
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
