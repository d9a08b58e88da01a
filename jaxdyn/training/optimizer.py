"""AdamW with a warm-up and a cosine, and the step that applies it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxdyn.models import parameters
from jaxdyn.models.architecture import Architecture
from jaxdyn.models.decoder import Params
from jaxdyn.training.forward import token_losses
from jaxdyn.training.settings import TrainSettings

BETAS = (0.9, 0.95)
FINAL_SHARE = 0.1  # of the peak learning rate, at the last step

State = dict[str, Any]
"""{"params": the decoder's parameters, "optimizer": optax's state}."""


def schedule(settings: TrainSettings) -> Callable[[Any], Any]:
    """Return the learning rate of a 0-based step: linear from 0 over the warm-up, a cosine to a tenth of the peak."""
    peak = settings.learning_rate
    return optax.warmup_cosine_decay_schedule(
        0.0 if settings.warmup else peak, peak, settings.warmup, settings.steps, FINAL_SHARE * peak
    )


def make(settings: TrainSettings) -> optax.GradientTransformation:
    """Return AdamW (arXiv 1711.05101) behind a clip of the gradient's norm; `decays` says which parameters decay."""
    return optax.chain(
        optax.clip_by_global_norm(settings.clip),
        optax.adamw(schedule(settings), b1=BETAS[0], b2=BETAS[1], weight_decay=settings.weight_decay, mask=decays),
    )


def decays(params: Params) -> dict:
    """Return a tree of booleans: True for matrices and the embedding, False for norm scales and biases."""
    flat = parameters.flatten(params)
    return parameters.nest({path: not path.endswith(("scale", "bias")) for path in flat})  # pyright: ignore[reportArgumentType]


def start(arch: Architecture, settings: TrainSettings) -> State:
    """Return the state before the first step: parameters drawn by the family's rule, moments zero."""
    params = parameters.initialise(arch, settings.seed)
    return {"params": params, "optimizer": make(settings).init(params)}


def make_step(arch: Architecture, settings: TrainSettings) -> Callable[[State, Any], tuple[State, jax.Array]]:
    """Return the jitted step: (state, windows (B, S)) to (new state, mean loss in nats before it); state is donated."""
    optimizer = make(settings)

    @partial(jax.jit, donate_argnums=0)
    def step(state, windows):
        def loss(params):
            return jnp.mean(token_losses(arch, params, windows, dtype=settings.dtype))

        value, gradient = jax.value_and_grad(loss)(state["params"])
        updates, moments = optimizer.update(gradient, state["optimizer"], state["params"])
        return {"params": optax.apply_updates(state["params"], updates), "optimizer": moments}, value

    return step
