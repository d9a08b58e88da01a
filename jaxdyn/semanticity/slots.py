"""The toy network with composite stimuli: one feature a slot, one small embedding a slot, similarity across slots.

A stimulus is a tuple of features (f_1, ..., f_K), feature f_k one of V_k places on a circle; the input is the K one-hot
vectors side by side. Slot k embeds its feature with W_k (m, V_k); the similarity of two stimuli is the largest (or the
mean) over slots of relu(w_{f_k} . w_{f'_k}). Which stimuli count as near is a choice: by their nearest feature ("min"),
their farthest ("max"), the sum ("l1") or the Euclidean norm ("l2") of the distances. Training and evaluation are those
of `toy.train`.

Source: the compositional variant of arXiv 2506.14797, whose details the paper leaves open; the choices are options.
"""

import itertools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from jaxdyn.errors import InputError

from .toy import ToySettings, line_distances

COMBINE = ("max", "mean")
METRICS = {
    "min": lambda each: each.min(axis=0),
    "max": lambda each: each.max(axis=0),
    "l1": lambda each: each.sum(axis=0),
    "l2": lambda each: np.sqrt((each**2).sum(axis=0)),
}


@dataclass(frozen=True)
class SlotSettings(ToySettings):
    """As `ToySettings`, with N = V_1 V_2 ... composite stimuli; `stimuli` is ignored and must keep its default.

    Attributes
    ----------
    vocabularies : features of each slot, V_k of 2 or more.
    combine : similarity across slots, "max" or "mean".
    metric : distance across slots, "min", "max", "l1" or "l2".
    """

    vocabularies: tuple[int, ...] = (8, 8)
    combine: str = "max"
    metric: str = "min"

    def __post_init__(self) -> None:
        """Refuse what cannot be trained, naming the argument."""
        super().__post_init__()
        if self.stimuli != ToySettings.stimuli:
            msg = f"stimuli: got {self.stimuli}; the product of vocabularies {self.vocabularies} decides; leave it out"
            raise InputError(msg)
        if not self.vocabularies or min(self.vocabularies) < 2:
            msg = f"vocabularies: got {self.vocabularies}; allowed one or more sizes of 2 or more"
            raise InputError(msg)
        for name, value, allowed in (("combine", self.combine, COMBINE), ("metric", self.metric, tuple(METRICS))):
            if value not in allowed:
                msg = f"{name}: got {value!r}; allowed {', '.join(allowed)}"
                raise InputError(msg)

    def features(self) -> np.ndarray:
        """Return the features of all stimuli, int (N, K)."""
        return np.array(list(itertools.product(*map(range, self.vocabularies))))

    def network(self, rngs: nnx.Rngs) -> "SlotNetwork":
        """Return an untrained network."""
        return SlotNetwork(self.vocabularies, self.hidden, self.combine, rngs=rngs)

    def inputs(self) -> np.ndarray:
        """Return the stimuli as the network sees them, (N, sum V_k)."""
        features = self.features()
        hot = [np.eye(size, dtype=np.float32)[features[:, k]] for k, size in enumerate(self.vocabularies)]
        return np.concatenate(hot, axis=1)

    def distances(self) -> np.ndarray:
        """Return the distances (N, N) of composite stimuli."""
        features = self.features()
        each = [
            line_distances(size, self.space)[np.ix_(features[:, k], features[:, k])]
            for k, size in enumerate(self.vocabularies)
        ]
        return METRICS[self.metric](np.stack(each))


class SlotNetwork(nnx.Module):
    """One W_k (m, V_k) a slot, uniform in (0, 2)."""

    def __init__(self, vocabularies: tuple[int, ...], hidden: int, combine: str, *, rngs: nnx.Rngs) -> None:
        self.vocabularies, self.combine = vocabularies, combine
        for k, size in enumerate(vocabularies):
            first = jax.random.uniform(rngs.params(), (hidden, size), jnp.float32, 0.0, 2.0)
            setattr(self, f"slot_{k}", nnx.Param(first))

    def __call__(self, inputs: Array) -> Array:
        """Reconstruct inputs (..., sum V_k), slot by slot."""
        parts = jnp.split(inputs, np.cumsum(self.vocabularies)[:-1], axis=-1)
        return jnp.concatenate(
            [nnx.relu(part @ w.T @ w) for part, w in zip(parts, self._weights(), strict=True)], axis=-1
        )

    def similarity(self) -> Array:
        """Return g (N, N) of all composite stimuli, in the order of `SlotSettings.features`."""
        features = np.array(list(itertools.product(*map(range, self.vocabularies))))
        grams = [nnx.relu(w.T @ w) for w in self._weights()]
        each = jnp.stack([gram[np.ix_(f, f)] for gram, f in zip(grams, features.T, strict=True)])
        return each.max(axis=0) if self.combine == "max" else each.mean(axis=0)

    def _weights(self) -> list[Array]:
        return [getattr(self, f"slot_{k}")[...] for k in range(len(self.vocabularies))]
