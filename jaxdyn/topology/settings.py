"""What the study of one layer, or of a model, does: one frozen record, checked once."""

from dataclasses import dataclass

from jaxdyn.errors import InputError
from jaxdyn.jacobians import OPERATORS

from .correlation import SHRINKAGES
from .noise import FLOORS, QUANTILE

PAGE = "docs/topology.md"

REFITS = ("rotated", "rewired", "permuted", "moments")
"""Nulls that find communities again in every draw."""

NULLS = ("rotated", "labels", "rewired", "permuted", "moments", "moran", "shuffled")
"""The ladder of a coupling, in the order in which it is asked which null explains it."""


@dataclass(frozen=True)
class TopologySettings:
    """What to compute.

    Attributes
    ----------
    k : neighbours each coordinate chooses in the graph.
    sweep : other k for which the measured coupling is given too (without nulls), such as (10, 20, 40, 100).
    shrinkage : "none", "linear" or "clip"; see `correlation.shrink`.
    floor : what noise is, "permutation" of the states or "gaussian"; edges below its quantile are dropped. "none" keeps
        all edges (the noise's edges are reported all the same, for Gaussian noise).
    floor_quantile : of the edges that noise makes; 1 drops all edges that it reached.
    seeds, iterations, gamma : of Leiden; see `communities.find_communities`.
    partition : which division everything else uses, "best" or "consensus".
    z_draws : rewired graphs behind `participation_z`; 0 leaves it out.
    nulls : any of `NULLS`.
    draws : of the nulls that keep the graph: labels, moran, shuffled.
    refits : of the nulls that make a new one and divide it: rotated, rewired, permuted, moments.
    null_seeds : Leiden seeds in each refit, the best of them taken.
    alpha : a null explains a coupling whose p is at or above it; 1 / (1 + draws) must be below it.
    seed : of every random number.
    layers : blocks of a model; empty takes all.
    operator, part : of the Jacobian, as in `jaxdyn.jacobian`; the part is "block", "attention" or "mlp".
    tokens, jacobian_tokens : token rules of the states that the graph is made of and of the Jacobians' samples.
    max_tokens : tokens kept of each text; None keeps all.
    batch : texts run, and Jacobians held, at once.
    """

    k: int = 20
    sweep: tuple[int, ...] = ()
    shrinkage: str = "none"
    floor: str = "permutation"
    floor_quantile: float = QUANTILE
    seeds: int = 20
    iterations: int = 2
    gamma: float = 1.0
    partition: str = "best"
    z_draws: int = 20
    nulls: tuple[str, ...] = NULLS
    draws: int = 499
    refits: int = 39
    null_seeds: int = 4
    alpha: float = 0.05
    seed: int = 0
    layers: tuple[int, ...] = ()
    operator: str = "in-context"
    part: str = "block"
    tokens: str = "last"
    jacobian_tokens: str = "last"
    max_tokens: int | None = None
    batch: int = 16

    def __post_init__(self) -> None:
        """Refuse what cannot be run, naming the argument."""
        _allowed("shrinkage", self.shrinkage, SHRINKAGES)
        _allowed("floor", self.floor, FLOORS)
        _allowed("partition", self.partition, ("best", "consensus"))
        _allowed("operator", self.operator, tuple(name for name in OPERATORS if name != "cross"))
        _allowed("part", self.part, ("block", "attention", "mlp"))
        for name in self.nulls:
            _allowed("nulls", name, NULLS)
        for name in ("seeds", "iterations", "draws", "refits", "null_seeds", "batch"):
            if getattr(self, name) < 1:
                msg = f"{name}: got {getattr(self, name)}; allowed 1 or more"
                raise InputError(msg, page=PAGE)
        if self.z_draws < 0 or self.z_draws == 1:
            msg = f"z_draws: got {self.z_draws}; allowed 0, or 2 or more"
            raise InputError(msg, page=PAGE)
        if not 0 < self.alpha < 1:
            msg = f"alpha: got {self.alpha}; allowed between 0 and 1"
            raise InputError(msg, page=PAGE)
        for name in ("draws", "refits") if self.nulls else ():
            count = getattr(self, name)
            if 1 / (1 + count) >= self.alpha:  # such a null could never be left behind, and would explain everything
                msg = (
                    f"{name}: got {count}, whose smallest p is {1 / (1 + count):.3g}; allowed {int(1 / self.alpha)} or "
                    f"more at alpha = {self.alpha:g}, or a larger alpha"
                )
                raise InputError(msg, page=PAGE)


def _allowed(argument: str, got: str, allowed: tuple[str, ...]) -> None:
    if got not in allowed:
        msg = f"{argument}: got {got!r}; allowed {', '.join(map(repr, allowed))}"
        raise InputError(msg, page=PAGE)
