"""What a study does: one frozen record, checked once, and the claims, fixed in a file before the run."""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal, get_args

from jaxdyn.errors import InputError
from jaxdyn.jacobians.request import Operator
from jaxdyn.nulls.n5_initial import FEWEST
from jaxdyn.surrogates.sites import SITES
from jaxdyn.topology.settings import NULLS

PAGE = "docs/study.md"
STAGES = ("ladder", "measures", "conventions", "surrogates", "functional", "topology")
"""What can be left out; the claims that need it are then without a verdict."""

Interventions = Literal["every", "claim"]
INTERVENTIONS = get_args(Interventions)
RUNGS = ("N0", "N1", "N2", "N4", "N5")


@dataclass(frozen=True)
class StudySettings:
    """What to compute.

    Attributes
    ----------
    operator : of the primary statistics.
    operators : that the conventions go through.
    stages : any of `STAGES`.
    rungs : of the ladder, any of `RUNGS`; N6, the sampling floor, and N7 are always there.
    draws : of N0 to N2, at least 2.
    weight_draws : of N4.
    init_seeds : of N5, 5 or more.
    interventions : "every" surrogate at every site with the sweep of eigenvalue orders, or "claim", what the claim
        about the Schur intervention needs, whatever `sites` says.
    sites : in which layers the surrogates stand, as in `surrogates.sites`: "all", "early", "late", "each".
    order_sweep : whether "every" goes through the orders of the eigenvalues too.
    displacements : of the functional test, a sample and block.
    topology_nulls, topology_draws, refits : of the coupling; see `TopologySettings`.
    max_tokens : tokens kept of each text; None keeps all.
    seed : of every random number.
    """

    operator: Operator = "in-context"
    operators: tuple[Operator, ...] = ("in-context", "isolated", "ov")
    stages: tuple[str, ...] = STAGES
    rungs: tuple[str, ...] = RUNGS
    draws: int = 8
    weight_draws: int = 5
    init_seeds: int = FEWEST
    interventions: Interventions = "every"
    sites: tuple[str, ...] = ("all", "early", "late")
    order_sweep: bool = True
    displacements: int = 2
    topology_nulls: tuple[str, ...] = NULLS
    topology_draws: int = 199
    refits: int = 39
    max_tokens: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be run, naming the argument."""
        for name, allowed in (
            ("topology_nulls", NULLS),
            ("stages", STAGES),
            ("rungs", RUNGS),
            ("operators", ("in-context", "isolated", "ov")),
            ("sites", SITES),
        ):
            if unknown := [one for one in getattr(self, name) if one not in allowed]:
                msg = f"{name}: got {unknown[0]!r}; allowed {', '.join(allowed)}"
                raise InputError(msg, page=PAGE)
        if "all" not in self.sites:
            msg = f'sites: got {", ".join(self.sites) or "none"}; allowed "all" and any others, the claim is about all'
            raise InputError(msg, page=PAGE)
        if self.operator not in self.operators:
            msg = f"operator: got {self.operator!r}; allowed one of operators, {', '.join(self.operators)}"
            raise InputError(msg, page=PAGE)
        if self.interventions not in INTERVENTIONS:
            msg = f"interventions: got {self.interventions!r}; allowed {', '.join(INTERVENTIONS)}"
            raise InputError(msg, page=PAGE)
        least = {"draws": 2, "weight_draws": 2, "init_seeds": FEWEST, "displacements": 1}
        for name, few in {**least, "topology_draws": 20, "refits": 20}.items():
            if getattr(self, name) < few:
                msg = f"{name}: got {getattr(self, name)}; allowed {few} or more"
                raise InputError(msg, page=PAGE)


@cache
def claims() -> list[dict[str, Any]]:
    """Return the claims of `claims.json`: name, claim, statistic, text, formula, margin, ladder, other definitions."""
    return json.loads(files("jaxdyn.study").joinpath("claims.json").read_text(encoding="utf-8"))


def definitions(claim: dict[str, Any]) -> dict[str, str]:
    """Give the statistics that a claim can be judged by, by name: the claim's own first, then its other definitions."""
    others = claim.get("definitions", {}).items()
    return {claim["name"]: claim["statistic"], **{f"{claim['name']}, {name}": one for name, one in others}}
