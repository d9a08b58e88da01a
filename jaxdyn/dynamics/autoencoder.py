"""D9: the compressing autoencoder D -> 2 -> D, several trained side by side, with early stopping (methods.md 2.2).

Hidden widths are the paper's 1024, 256 and 64 for 4096 units, scaled with D, at least 16. Inputs are standardised unit
by unit with the training samples. A checkpoint every few epochs lets a killed training go on, to the same bits.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import nnx
from jax import Array

LEARNING_RATE = 1e-3
BATCH = 256
CODE = 2
NARROWEST = 16
SAVE_EVERY = 10


def widths(inputs: int) -> tuple[int, ...]:
    """Layer widths of the encoder: D, D/4, D/16, D/64, at least 16 each but D, and 2."""
    return (inputs, *(max(NARROWEST, inputs // 4**power) for power in (1, 2, 3)), CODE)


class Autoencoder(nnx.Module):
    """Dense layers with GELU between them, none on the code and on the output."""

    def __init__(self, inputs: int, *, rngs: nnx.Rngs) -> None:
        sizes = widths(inputs)
        self.encoder = nnx.List([nnx.Linear(a, b, rngs=rngs) for a, b in pairwise(sizes)])
        back = sizes[::-1]
        self.decoder = nnx.List([nnx.Linear(a, b, rngs=rngs) for a, b in pairwise(back)])

    def encode(self, x: Array) -> Array:
        """Compress (..., D) to (..., 2)."""
        return _through(self.encoder, x)

    def __call__(self, x: Array) -> Array:
        """Reconstruct (..., D)."""
        return _through(self.decoder, self.encode(x))


@dataclass(frozen=True)
class Trained:
    """Autoencoders after their training.

    Attributes
    ----------
    parameters : each network's best by validation loss, leading axis S.
    loss, validation : (E, S), mean squared error of every epoch; NaN after a network has stopped.
    epochs : int (S,), the epoch of each network's best.
    """

    parameters: Any
    loss: np.ndarray
    validation: np.ndarray
    epochs: np.ndarray


def train(
    batches: Callable[[int], Any],
    validation: np.ndarray,
    *,
    inputs: int,
    networks: int,
    epochs: int,
    seed: int,
    patience: int = 10,
    folder: Path | None = None,
    tick: Callable[[int], None] = lambda epoch: None,
) -> Trained:
    """Train networks side by side on the mean squared error, with Adam at 1e-3.

    Parameters
    ----------
    batches : gives an epoch's data by its number: an iterable of (steps, batch, D), float32, standardised. The same
        for the same number, or a resumed training would differ.
    validation : (n, D), float32; the best epoch is chosen by it.
    inputs : D.
    networks : S, of the seeds `seed`, `seed` + 1, ...
    epochs : most epochs.
    seed : of the initial weights.
    patience : a network stops after so many epochs without a better validation loss.
    folder : of the checkpoints; a training that is there is gone on with. None keeps nothing.
    tick : called after each epoch with its number, from 1.

    Notes
    -----
    Float32. Memory: an epoch's piece of data, and 4 copies of the parameters.
    """
    optimizer = optax.adam(LEARNING_RATE)
    begin = [nnx.state(Autoencoder(inputs, rngs=nnx.Rngs(params=seed + i)), nnx.Param) for i in range(networks)]
    pure: Any = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[nnx.to_pure_dict(one) for one in begin])
    state = {
        "parameters": pure,
        "memory": jax.vmap(optimizer.init)(pure),
        "best": pure,
        "best_loss": jnp.full(networks, jnp.inf, jnp.float32),
        "best_epoch": jnp.zeros(networks, jnp.int32),
        "loss": jnp.full((epochs, networks), jnp.nan, jnp.float32),
        "validation": jnp.full((epochs, networks), jnp.nan, jnp.float32),
        "epoch": jnp.zeros((), jnp.int32),
    }
    held = jnp.asarray(validation)
    with _Checkpoints(folder) as kept:
        state = kept.restore(state)
        while int(state["epoch"]) < epochs and _going(state, patience).any():
            number = int(state["epoch"])
            parameters, memory, losses = state["parameters"], state["memory"], []
            for piece in batches(number):
                parameters, memory, loss = _epoch(inputs, parameters, memory, jnp.asarray(piece))
                losses.append(loss)
            state = {**state, "parameters": parameters, "memory": memory}
            state = _judge(inputs, state, held, jnp.stack(losses), patience)
            if number % SAVE_EVERY == SAVE_EVERY - 1:
                kept.save(number + 1, state)
            tick(number + 1)
        kept.save(int(state["epoch"]), state)
    done = int(state["epoch"])
    loss, validated = np.asarray(state["loss"])[:done], np.asarray(state["validation"])[:done]
    return Trained(state["best"], loss, validated, np.asarray(state["best_epoch"]))


def reconstruct(parameters: Any, x: np.ndarray, inputs: int) -> np.ndarray:
    """Reconstruct (n, D) by every network, (S, n, D)."""
    return np.asarray(_reconstruct(inputs, parameters, jnp.asarray(x)))


def _through(layers: Any, x: Array) -> Array:
    for layer in layers[:-1]:
        x = nnx.gelu(layer(x))
    return layers[-1](x)


def _network(inputs: int, pure: Any) -> Any:
    """Return the network with these parameters, a pure dict."""
    graph, state = nnx.split(nnx.eval_shape(lambda: Autoencoder(inputs, rngs=nnx.Rngs(0))))
    nnx.replace_by_pure_dict(state, pure)
    return nnx.merge(graph, state)


def _error(pure: Any, x: Array, inputs: int) -> Array:
    return jnp.mean((_network(inputs, pure)(x) - x) ** 2)


@partial(jax.jit, static_argnums=0)
def _epoch(inputs, parameters, memory, piece):
    """One pass over a piece of data (steps, batch, D); the mean loss (S,)."""
    optimizer = optax.adam(LEARNING_RATE)

    def one(parameters, memory):
        def step(carry, x):
            parameters, memory = carry
            loss, slope = jax.value_and_grad(_error)(parameters, x, inputs)
            update, memory = optimizer.update(slope, memory, parameters)
            return (optax.apply_updates(parameters, update), memory), loss

        (parameters, memory), losses = jax.lax.scan(step, (parameters, memory), piece)
        return parameters, memory, jnp.mean(losses)

    return jax.vmap(one)(parameters, memory)


@partial(jax.jit, static_argnums=(0, 4))
def _judge(inputs, state, held, losses, patience):
    """Write the epoch's losses down and keep each network's best; one that has stopped keeps what it has."""
    number = state["epoch"]
    going = _going(state, patience)
    loss = jax.vmap(lambda pure: _error(pure, held, inputs))(state["parameters"])
    better = going & (loss < state["best_loss"])

    def choose(new: Array, old: Array) -> Array:
        return jnp.where(better.reshape(-1, *([1] * (new.ndim - 1))), new, old)

    return {
        **state,
        "best": jax.tree.map(choose, state["parameters"], state["best"]),
        "best_loss": jnp.where(better, loss, state["best_loss"]),
        "best_epoch": jnp.where(better, number + 1, state["best_epoch"]),
        "loss": state["loss"].at[number].set(jnp.where(going, jnp.mean(losses, axis=0), jnp.nan)),
        "validation": state["validation"].at[number].set(jnp.where(going, loss, jnp.nan)),
        "epoch": number + 1,
    }


def _going(state, patience):
    return state["epoch"] - state["best_epoch"] < patience


@partial(jax.jit, static_argnums=0)
def _reconstruct(inputs, parameters, x):
    return jax.vmap(lambda pure: _network(inputs, pure)(x))(parameters)


class _Checkpoints:
    """The newest state of one training, by orbax; nothing without a folder."""

    def __init__(self, folder: Path | None) -> None:
        options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
        self._manager = None if folder is None else ocp.CheckpointManager(folder.resolve(), options=options)

    def __enter__(self) -> "_Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._manager is not None:
            self._manager.close()

    def restore(self, like: Any) -> Any:
        """Return the state that is kept, or `like` where there is none."""
        if self._manager is None or (step := self._manager.latest_step()) is None:
            return like
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, _flat(like))
        kept: Any = self._manager.restore(step, args=ocp.args.StandardRestore(abstract))  # pyright: ignore[reportCallIssue]
        return jax.tree.unflatten(jax.tree.structure(like), [kept[name] for name in sorted(kept)])

    def save(self, step: int, state: Any) -> None:
        """Keep a state; durable on return."""
        if self._manager is not None and self._manager.latest_step() != step:
            self._manager.save(step, args=ocp.args.StandardSave(_flat(state)))  # pyright: ignore[reportCallIssue]
            self._manager.wait_until_finished()


def _flat(state: Any) -> dict[str, Any]:
    return {f"{number:04}": leaf for number, leaf in enumerate(jax.tree.leaves(state))}
