"""A minimal ReLU network trained on similarity judgements alone, and its way through the plane of p_I and p_S.

One weight W (m, N) embeds N one-hot stimuli in m dimensions; g(i, j) = relu(w_i . w_j), and relu(W^T W e_i) is the
reconstruction of stimulus i. It sees triples of two items and a probe, drawn without replacement, and learns which item
is nearer. A resolution forms by itself: similarity falls about linearly to 0 at a distance that shrinks with training.

Source: Nurisso, Fernando, Deshpande et al. (arXiv 2506.14797); methods.md 3.3.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array

from jaxdyn.errors import InputError

from .finite import two_item_tests

LOG_FLOOR = 1e-10
EPOCHS = (0, 2, 5, 8, 10, 12, 14, 16, 18, 20, 25, 30, 40, 50, 75, 100, 150, 200, 300, 400, 500)
"""Epochs at which a trajectory is evaluated, up to those that are trained."""


@dataclass(frozen=True)
class ToySettings:
    """Everything that decides a run; the defaults are those of methods.md 3.3.

    Attributes
    ----------
    stimuli, hidden : N and m.
    space : "circle" (wrapped distance) or "segment".
    similarity_weight, reconstruction_weight : of the two losses; at 0 a loss is not computed.
    learning_rate : of Adam.
    batch, samples, epochs : triples a step, triples an epoch (drawn anew; an incomplete batch is dropped), epochs.
    seeds : networks trained side by side, seeds `seed`, `seed` + 1, ...
    """

    stimuli: int = 50
    hidden: int = 10
    space: str = "circle"
    similarity_weight: float = 0.1
    reconstruction_weight: float = 0.0
    learning_rate: float = 7e-3
    batch: int = 128
    samples: int = 2000
    epochs: int = 500
    seeds: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be trained, naming the argument."""
        if self.space not in ("circle", "segment"):
            msg = f"space: got {self.space!r}; allowed 'circle' or 'segment'"
            raise InputError(msg)
        least = {"stimuli": 3, "hidden": 1, "batch": 1, "samples": self.batch, "epochs": 0, "seeds": 1}
        for name, low in least.items():
            if getattr(self, name) < low:
                msg = f"{name}: got {getattr(self, name)}; allowed {low} or more"
                raise InputError(msg)
        if min(self.similarity_weight, self.reconstruction_weight) < 0:
            msg = (
                f"similarity_weight, reconstruction_weight: got {self.similarity_weight}, "
                f"{self.reconstruction_weight}; allowed 0 or more"
            )
            raise InputError(msg)

    def network(self, rngs: nnx.Rngs) -> "ToyNetwork":
        """Return an untrained network."""
        return ToyNetwork(self.stimuli, self.hidden, rngs=rngs)

    def inputs(self) -> np.ndarray:
        """Return the stimuli as the network sees them, (N, inputs)."""
        return np.eye(self.stimuli, dtype=np.float32)

    def distances(self) -> np.ndarray:
        """Return the distances (N, N) of equally spaced stimuli on a circle or a segment of length 1."""
        return line_distances(self.stimuli, self.space)


class ToyNetwork(nnx.Module):
    """W (m, N), uniform in (0, 2); similarity relu(W^T W), whose columns are the reconstructions of the stimuli."""

    def __init__(self, stimuli: int, hidden: int, *, rngs: nnx.Rngs) -> None:
        self.weight = nnx.Param(jax.random.uniform(rngs.params(), (hidden, stimuli), jnp.float32, 0.0, 2.0))

    def __call__(self, inputs: Array) -> Array:
        """Reconstruct one-hot (or other) inputs (..., N)."""
        return nnx.relu(jnp.einsum("mi,mj,...j->...i", self.weight[...], self.weight[...], inputs))

    def similarity(self) -> Array:
        """Return g (N, N)."""
        return nnx.relu(self.weight[...].T @ self.weight[...])


@dataclass(frozen=True)
class Trajectory:
    """Networks along their training.

    Attributes
    ----------
    epochs : (E,), the epochs that were evaluated, 0 before training.
    p_s, p_i : (E, S), exact over all triples and pairs of stimuli, for each seed.
    loss : (epochs,) by S, mean training loss of each epoch.
    similarity : (E, S, N, N), of item to probe.
    weights : the network's parameters by name, each with leading axes (E, S).
    distance : (N, N), of the stimuli.
    """

    epochs: np.ndarray
    p_s: np.ndarray
    p_i: np.ndarray
    loss: np.ndarray
    similarity: np.ndarray
    weights: dict[str, np.ndarray]
    distance: np.ndarray


def line_distances(count: int, space: str) -> np.ndarray:
    """Distances (N, N) of equally spaced points on a circle of circumference 1 or on [0, 1]."""
    place = np.arange(count)
    gap = np.abs(place[:, None] - place[None, :])
    return np.minimum(gap, count - gap) / count if space == "circle" else gap / place[-1]


def train(settings: ToySettings | None = None, *, evaluate: Sequence[int] = EPOCHS) -> Trajectory:
    """Train networks side by side in one program and evaluate them on the way.

    Parameters
    ----------
    settings : default: `ToySettings()`.
    evaluate : epochs to evaluate at; those beyond the training are left out, the last one is added.

    Returns
    -------
    Trajectory. Loss of a triple: -log((g_near + 1e-10)/(g_near + g_far + 2e-10)), of two items equally
    near the one drawn first counts as near; plus the mean squared error of the reconstructions. Float32.

    Notes
    -----
    Cost: 15 steps an epoch by default, each O(S (m N^2 + batch)); the whole run takes about 10 s on two cores.
    """
    settings = settings or ToySettings()
    at = np.array(sorted({int(e) for e in evaluate if 0 <= e <= settings.epochs} | {settings.epochs}))
    distance = settings.distances()
    keys = jnp.stack([jax.random.key(settings.seed + i) for i in range(settings.seeds)])
    weights, similarity, loss = _train(keys, jnp.asarray(distance, jnp.float32), settings, tuple(int(e) for e in at))
    p_s, p_i = two_item_tests(similarity, distance)
    p_s, p_i, loss, similarity = (np.asarray(value) for value in (p_s, p_i, loss, similarity))
    return Trajectory(at, p_s, p_i, loss, similarity, {k: np.asarray(v) for k, v in weights.items()}, distance)


@partial(jax.jit, static_argnames=("settings", "at"))
def _train(keys, distance, settings, at):
    optimizer = optax.adam(settings.learning_rate)
    graph, _ = nnx.split(nnx.eval_shape(lambda: settings.network(nnx.Rngs(0))))
    steps, inputs = settings.samples // settings.batch, jnp.asarray(settings.inputs())

    def loss(state, triples):
        model = nnx.merge(graph, state)
        total = 0.0
        if settings.similarity_weight:
            total += settings.similarity_weight * _similarity_loss(model.similarity(), distance, triples)
        if settings.reconstruction_weight:
            total += settings.reconstruction_weight * jnp.mean((model(inputs) - inputs) ** 2)
        return total

    def step(carry, triples):
        state, memory = carry
        value, slope = jax.value_and_grad(loss)(state, triples)
        update, memory = optimizer.update(slope, memory, state)
        return (optax.apply_updates(state, update), memory), value

    def epoch(carry, key):
        triples = _triples(key, steps * settings.batch, len(inputs)).reshape(steps, settings.batch, 3)
        carry, values = jax.lax.scan(step, carry, triples)
        return carry, (nnx.to_pure_dict(cast(nnx.State, carry[0])), jnp.mean(values))

    def one(key):
        begin, order = jax.random.split(key)
        state = nnx.state(settings.network(nnx.Rngs(params=begin)), nnx.Param)
        _, (weights, losses) = jax.lax.scan(
            epoch, (state, optimizer.init(state)), jax.random.split(order, settings.epochs)
        )
        kept = jax.tree.map(
            lambda first, rest: jnp.concatenate([first[None], rest])[jnp.asarray(at)],
            nnx.to_pure_dict(state),
            weights,
        )
        return kept, jax.vmap(lambda pure: _with(graph, state, pure).similarity())(kept), losses

    weights, similarity, losses = jax.vmap(one)(keys)
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1), weights), jnp.moveaxis(similarity, 0, 1), losses.T


def _with(graph, state, pure):
    """Return the network with these parameters."""
    filled = jax.tree.map(lambda leaf: leaf, state)
    nnx.replace_by_pure_dict(filled, pure)
    return nnx.merge(graph, filled)


def _similarity_loss(g, distance, triples):
    """Mean over triples of -log of the share of the nearer item; of two equally near ones the first drawn is right."""
    first, second, probe = triples[:, 0], triples[:, 1], triples[:, 2]
    a, b = (g[item, probe] + LOG_FLOOR for item in (first, second))
    right = distance[first, probe] <= distance[second, probe]
    return jnp.mean(jnp.log(a + b) - jnp.log(jnp.where(right, a, b)))


def _triples(key, count, stimuli):
    """Draw (item, item, probe) without replacement, int (count, 3)."""
    keys = jax.random.split(key, 3)
    a, b, c = (jax.random.randint(k, (count,), 0, stimuli - i) for i, k in enumerate(keys))
    b = b + (b >= a)
    low, high = jnp.minimum(a, b), jnp.maximum(a, b)
    c = c + (c >= low)
    c = c + (c >= high)
    return jnp.stack([a, b, c], axis=-1)
