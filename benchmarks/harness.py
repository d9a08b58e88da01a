"""Timing that can be compared: candidates take turns, results are waited for, compilation is counted apart.

A shared machine drifts, so one candidate is never timed after the other is done: every round runs each of them once, in
an order that turns round, and a ratio is the median over rounds of the ratio within a round.
"""

import json
import os
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import Any

import jax

from jaxdyn.provenance import provenance


@dataclass(frozen=True)
class Candidate:
    """Something to time.

    Attributes
    ----------
    name : what it is called in the table.
    call : does the work once; what it returns is waited for.
    compile_seconds : what it took to prepare `call`, kept out of the timing.
    note : the setting that it runs at.
    """

    name: str
    call: Callable[[], Any]
    compile_seconds: float = 0.0
    note: str = ""


@dataclass(frozen=True)
class Row:
    """One line of a result: a time with the error of what was computed, or a ratio or size with its target.

    Attributes
    ----------
    benchmark, name : which number this is.
    value, unit : the median, and its unit: "ms", "x", "GB", "share".
    minimum : the smallest of the repeats, for times.
    compile_seconds : time to prepare it, for times.
    error : largest difference from a float64 reference over its largest value, for times.
    target : what it should be, such as ">= 3", for ratios and sizes.
    note : settings that a reader needs to repeat it.
    """

    benchmark: str
    name: str
    value: float
    unit: str
    minimum: float | None = None
    compile_seconds: float | None = None
    error: float | None = None
    target: str | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None without one."""
        if self.target is None:
            return None
        relation, bound = self.target.split()
        return self.value >= float(bound) if relation == ">=" else self.value <= float(bound)


class Timings:
    """Seconds of each candidate in each round."""

    def __init__(self, candidates: Iterable[Candidate], *, repeats: int, warm_up: int = 1) -> None:
        """Run them: `warm_up` calls each that are not counted, then `repeats` rounds.

        What each candidate returned last is kept in `results`, and the time of its first call, which includes what
        `call` itself compiles, in `warm_up_seconds`.
        """
        self.candidates = {one.name: one for one in candidates}
        self.seconds: dict[str, list[float]] = {name: [] for name in self.candidates}
        self.results: dict[str, Any] = {}
        self.warm_up_seconds: dict[str, float] = {}
        for one in self.candidates.values():
            for _ in range(warm_up):
                start = time.perf_counter()
                jax.block_until_ready(one.call())
                self.warm_up_seconds.setdefault(one.name, time.perf_counter() - start)
        names = list(self.candidates)
        for turn in range(repeats):
            shift = turn % len(names)
            for name in names[shift:] + names[:shift]:
                start = time.perf_counter()
                self.results[name] = jax.block_until_ready(self.candidates[name].call())
                self.seconds[name].append(time.perf_counter() - start)

    def median(self, name: str) -> float:
        """Median seconds of a candidate."""
        return statistics.median(self.seconds[name])

    def ratio(self, slow: str, fast: str) -> float:
        """Median over the rounds of seconds of `slow` over seconds of `fast`."""
        return statistics.median(a / b for a, b in zip(self.seconds[slow], self.seconds[fast], strict=True))

    def row(self, benchmark: str, name: str, *, per: int = 1, error: float | None = None, note: str = "") -> Row:
        """One candidate's time in milliseconds, divided by `per` (samples a call, say)."""
        one, scale = self.candidates[name], 1e3 / per
        fastest = min(self.seconds[name]) * scale
        return Row(
            benchmark, name, self.median(name) * scale, "ms", fastest, one.compile_seconds, error, note=note or one.note
        )


def best_of(name: str, settings: Iterable[Candidate], *, repeats: int = 2) -> Candidate:
    """Return the fastest of a peer's settings under the peer's name, before it is compared with anything."""
    timings = Timings(settings, repeats=repeats)
    best = min(timings.candidates.values(), key=lambda one: min(timings.seconds[one.name]))
    return replace(best, name=name, note=f"best setting: {best.name}")


def compiled(name: str, function: Callable[..., Any], *arrays: Any) -> Candidate:
    """Compile a function for these arrays ahead of time, and time only its runs."""
    start = time.perf_counter()
    program = jax.jit(function).lower(*arrays).compile()
    return Candidate(name, lambda: program(*arrays), time.perf_counter() - start)


def environment() -> dict[str, Any]:
    """Return versions (the peers' too), device, commit, cores and the load of the machine now."""
    peers = {f"version_{name}": version(name) for name in ("torch", "transformers")}
    return provenance(load=[round(one, 2) for one in os.getloadavg()], **peers)


def as_json(row: Row) -> str:
    """One row as one line of JSON."""
    return json.dumps(asdict(row) | {"met": row.met})


def as_text(row: Row) -> str:
    """One row as one line of a table."""
    columns = [f"{row.benchmark:<10} {row.name:<44} {row.value:>9.3f} {row.unit:<6}"]
    if row.minimum is not None:
        columns.append(f"min {row.minimum:.3f}")
    if row.compile_seconds:
        columns.append(f"compile {row.compile_seconds:.1f} s")
    if row.error is not None:
        columns.append(f"error {row.error:.1e}")
    if row.target is not None:
        columns.append(f"target {row.target}: {'met' if row.met else 'MISSED'}")
    return "  ".join([*columns, row.note]).rstrip()
