"""One process of a sweep: it takes units, writes them, and stays until every store is complete.

What is done is what the stores' markers say: killed at any moment, the same command goes on from there.
"""

import time
from collections.abc import Callable

from jaxdyn_kernels import cores

from jaxdyn.pipeline.progress import Progress
from jaxdyn.store import StoreError

from . import worker
from .claiming import Claiming
from .claims import Claims
from .lockstep import Lockstep
from .log import Log
from .manifest import Manifest, check_manifest, read_manifest, write_manifest
from .outcome import SweepOutcome
from .plan import TOGETHER, Plan
from .presence import STALE, Presence
from .presets import strategy
from .strict_yaml import PAGE


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
    plan : from `load_plan`. Called again with the same plan it goes on, with any number of processes; with "fsdp" and
        "tensor", as many as it was made with.
    process, processes : this one's number and their count; they share the folder `plan.out`.
    retry_failed : first take back the units that hold a matrix whose status is not OK.
    stale : seconds without a heartbeat after which a process on another host counts as dead.
    progress : bars that process 0 moves.
    origin : kept with a new store's provenance: `command`, `corpus`.
    leave : where the processes have joined in a runtime: called at the end, while this process still counts as at
        work; in process 0, which the others are connected to, when they have gone. At an error too, but with "fsdp" and
        "tensor", whose processes cannot go on without each other: the caller then ends this process at once.

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
            chosen = strategy(plan, process=process, processes=processes)
            manifest = settle(plan, claims)
            own = (Lockstep if plan.mesh in TOGETHER else Claiming)(
                chosen, plan, manifest, presence, claims, log, progress, origin or {}, process, processes
            )
            if retry_failed and process == 0:
                own.retry_failed()
            own.work()
        except BaseException as error:
            log.say(f"stopped by {type(error).__name__}: {error}")
            if leave is not None and plan.mesh not in TOGETHER:
                _leave(leave, presence, log)
            raise  # in lockstep nobody waits for the others: they end when this process does
        if leave is not None and plan.mesh in TOGETHER:
            leave()  # which waits for all
        elif leave is not None:
            _leave(leave, presence, log)
        return own.outcome()


def _leave(leave: Callable[[], None], presence: Presence, log: Log) -> None:
    """Part from the others; process 0, which they are connected to, when they have gone."""
    if presence.process == 0:
        log.say("waiting for the other processes to go")
        while any(other["process"] != 0 for other in presence.others()):
            time.sleep(worker.POLL)
    leave()


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
            time.sleep(worker.POLL)
    check_manifest(manifest, plan)
    if cores() != manifest.threads:
        msg = (
            f"threads: this process may use {cores()} cores, the sweep in {plan.out} was made with {manifest.threads} "
            "a process, on which its bits depend; give a process as many, or choose another out"
        )
        raise StoreError(msg, page=PAGE)
    return manifest
