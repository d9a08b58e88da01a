"""Null N5: the run once more with random weights, so that what training made is told from what the architecture is.

The same architecture, tokens, operator and settings go through the same code for several seeds (methods.md 1.7). Each
seed is a store of its own, `init.zarr/seed-K`, the one that `analyze` of that random model writes: a prompt is not a
replicate of a seed, so the two are never put on one axis. `init.zarr` is a Zarr group that names its seeds; a killed
run leaves whole seeds, one that is resumed, and seeds that are not there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxdyn.errors import InputError
from jaxdyn.models.model import Model
from jaxdyn.store import StoreError
from jaxdyn.store.initial import INIT, member, seeds_of, write_seeds

from .progress import Progress
from .run import Outcome, run
from .settings import Settings

FEWEST = 5
"""Seeds below which the spread between them says too little: a 95 % interval of 4 is 3.6 sd wide to each side."""


@dataclass(frozen=True)
class Initial:
    """What the runs at random initialisation did: the outcome of each seed."""

    store: Path
    outcomes: dict[int, Outcome]

    @property
    def failed(self) -> dict[str, int]:
        """Matrices whose status is not OK, by status name, over all seeds."""
        names = sorted({name for one in self.outcomes.values() for name in one.failed})
        return {name: sum(one.failed.get(name, 0) for one in self.outcomes.values()) for name in names}

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        matrices = sum(one.matrices for one in self.outcomes.values())
        seconds = sum(sum(one.seconds.values()) for one in self.outcomes.values())
        seeds = list(self.outcomes)
        return {
            "store": str(self.store), "seeds": seeds, "matrices": matrices, "failed": self.failed, "seconds": seconds
        }  # fmt: skip

    def summary(self) -> str:
        """Return one line for the terminal."""
        told = self.as_dict()
        bad = ", ".join(f"{count} {name}" for name, count in self.failed.items())
        verdict = f"{sum(self.failed.values())} failed ({bad})" if bad else "all decomposed"
        return f"N5: {len(told['seeds'])} seeds, {told['matrices']} matrices, {verdict}; {told['seconds']:.1f} s"


def check_init(out: Path, settings: Settings, count: int, *, resume: bool) -> None:
    """Refuse, before a long run, a number of seeds that says nothing and what is in the way of `out/init.zarr`.

    Raises
    ------
    InputError : fewer than `FEWEST` seeds.
    StoreError : something is there and `resume` is not set, or it holds other seeds, or more.
    """
    if count < FEWEST:
        msg = f"init-seeds: got {count}; allowed {FEWEST} or more, or the spread between the seeds says too little"
        raise InputError(msg, page="docs/nulls.md")
    place = out / INIT
    stored = seeds_of(place)
    if stored and not resume:
        msg = f"{place} already holds {len(stored)} seeds; resume them (--resume) or choose another --out"
        raise StoreError(msg)
    wanted = _seeds(settings, count)
    if stored != wanted[: len(stored)]:
        msg = (
            f"init-seeds: got the seeds {_short(wanted)}, {place} holds {_short(stored)}; allowed the same, or more "
            "that go on from them: repeat with the stored --seed and number, or choose another --out"
        )
        raise StoreError(msg, page="docs/store.md")


def run_init(
    outline: Model,
    texts: list[str],
    settings: Settings,
    count: int,
    *,
    out: Path,
    resume: bool,
    progress: Progress,
    origin: Mapping[str, str] | None = None,
) -> Initial:
    """Run the seeds `settings.seed`, `settings.seed + 1`, ... into `out/init.zarr`.

    Parameters
    ----------
    outline : the trained model without its weights (`Model.outline`), so that only one seed's are held at a time.
    texts, settings, resume, progress, origin : as for the run of the trained model.
    count : number of seeds, at least `FEWEST`.

    Raises
    ------
    InputError, StoreError : as `check_init` and `run`.
    """
    check_init(out, settings, count, resume=resume)
    place, seeds = out / INIT, _seeds(settings, count)
    write_seeds(place, seeds)
    outcomes = {}
    for number, seed in enumerate(seeds):
        outcomes[seed] = run(
            outline.initialised(seed), texts, settings, out=place, name=member(seed), resume=resume, origin=origin,
            progress=progress, title=f"N5 {number + 1}/{count} ",
        )  # fmt: skip
    return Initial(place, outcomes)


def _seeds(settings: Settings, count: int) -> list[int]:
    return list(range(settings.seed, settings.seed + count))


def _short(seeds: list[int]) -> str:
    return f"{seeds[0]} to {seeds[-1]}"
