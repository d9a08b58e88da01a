"""Who computes a unit and how: the one place where the mesh preset of a plan decides.

"one" is a single process. With "data" the units are dealt over the processes, each of which holds all weights on its
own device; nothing is reduced between processes, since the sums of the units are merged from the store. A preset whose
units several processes compute together deals a unit to all of them and runs a program over their devices: it takes
another `compute` here, and `deal` then gives every unit to every process.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from jaxdyn.errors import InputError
from jaxdyn.models.model import Model
from jaxdyn.pipeline.unit import Arrays, run_unit

from .models import load
from .plan import ModelEntry, Plan
from .strict_yaml import PAGE

Compute = Callable[..., Iterator[tuple[int | None, Arrays]]]


@dataclass(frozen=True)
class Strategy:
    """What a preset decides.

    Attributes
    ----------
    load : the weights, where this process needs them.
    compute : one unit's arrays, as `pipeline.unit.run_unit` yields them.
    deal : whether a unit, by its number in the whole sweep, is this process's own. Others are taken when these are
        done.
    """

    load: Callable[[ModelEntry], Model]
    compute: Compute
    deal: Callable[[int], bool]


def strategy(plan: Plan, *, process: int, processes: int) -> Strategy:
    """Return what the plan's preset means for one process of several.

    Raises
    ------
    InputError : "one" in several processes.
    """
    if plan.mesh == "one" and processes > 1:
        msg = (
            f"mesh: got one with {processes} processes; allowed: data, which deals the units over them; or one process"
        )
        raise InputError(msg, page=PAGE)
    if plan.mesh not in ("one", "data"):
        msg = f"mesh: got {plan.mesh!r}; allowed: one, data"
        raise InputError(msg, page=PAGE)

    def compute(*work: Any) -> Iterator[tuple[int | None, Arrays]]:
        return run_unit(*work)

    def whole(entry: ModelEntry) -> Model:
        return load(entry, dtype=plan.dtype, weights_dtype=plan.weights_dtype)

    return Strategy(whole, compute, lambda unit: unit % processes == process)
