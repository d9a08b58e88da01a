"""The ways to compute the same numbers that the source leaves open: a list of specifications, as data."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdyn.jacobians.request import Operator

OWN = "the study's texts"
"""Name of the corpus of the primary statistics."""

AXES = ("operator", "target", "metric", "average", "corpus")
"""What a convention chooses."""

AVERAGES = {"samples": "mean of the statistic over samples", "mean": "statistic of the averaged Jacobian"}
TARGETS = {"J": "the block", "A": "the update J - I"}
METRICS = {"raw": "as it is", "relative": "each norm divided out: J times norm(input) / norm(output)"}


@dataclass(frozen=True)
class Convention:
    """One way: which Jacobian, of it or of its update, in which metric, averaged before or after, on which texts."""

    operator: Operator
    target: str = "J"
    metric: str = "raw"
    average: str = "samples"
    corpus: str = OWN

    def __str__(self) -> str:
        short = f"{self.operator}, {self.target}, {self.metric}, {self.average}"
        return short if self.corpus == OWN else f"{short}, {self.corpus}"

    def matrices(self, blocks: Float[Array, "L S n n"], ratio: Float[Array, "L S"]) -> Float[Array, "L s n n"]:
        """Return the matrices that are measured, a J or a J - I, averaged where the convention says so.

        Parameters
        ----------
        blocks : (L, S, n, n), J.
        ratio : (L, S), norm(input) / norm(output) of the residual stream at each block: a in the relative metric.
        """
        scaled = blocks * self.scale(ratio)[..., None, None]
        if self.average == "mean":
            scaled = jnp.mean(scaled, axis=1, keepdims=True)
        return scaled - jnp.eye(blocks.shape[-1], dtype=blocks.dtype) if self.target == "A" else scaled

    def scale(self, ratio: Float[Array, "L S"]) -> Float[Array, "L S"]:
        """Return a."""
        return ratio if self.metric == "relative" else jnp.ones_like(ratio)

    def shift(self, ratio: Float[Array, "L S"]) -> Float[Array, "L s"]:
        """Return c of N0, which is c I plus noise: a for blocks, 0 for updates."""
        scale = self.scale(ratio) if self.target == "J" else jnp.zeros_like(ratio)
        return jnp.mean(scale, axis=1, keepdims=True) if self.average == "mean" else scale


def every_convention(operators: tuple[Operator, ...], corpora: Sequence[str] = (OWN,)) -> list[Convention]:
    """Return all combinations, corpora outermost, then operators."""
    return [Convention(*one, corpus) for corpus in corpora for one in product(operators, TARGETS, METRICS, AVERAGES)]
