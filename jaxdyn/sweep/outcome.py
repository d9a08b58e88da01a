"""What a sweep holds when it is complete."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any


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
