"""The one-row pass against whole forward passes of transformers, and its derivative against the Jacobians."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax import lax

from jaxdyn.activations import Activations, Prompts, pad
from jaxdyn.dynamics.flow import Frame, Observed, follow
from jaxdyn.dynamics.flow_decoder import Context, DecoderSystem, data_of, read_context
from jaxdyn.jacobians import jacobian
from jaxdyn.models import Model
from tests.jacobians.cases import MODELS, relative
from tests.models.tiny import blocks, random_ids

FAMILIES = ("gpt-neox", "olmo3-yarn", "gemma2", "gemma4-shared-local")
PARITY = 1e-10
LENGTHS = np.array([6, 4])
POINTS = 3


def replaced(hf, ids, layer: int, row: np.ndarray) -> np.ndarray:
    """The stream of one prompt's last token after the last block of the torch model, its input to a block replaced."""
    left = []

    def put(_module, args, kwargs):
        states = (args[0] if args else kwargs["hidden_states"]).clone()
        states[:, -1] = torch.as_tensor(row)
        return ((states, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": states})

    def keep(_module, _args, out):
        left.append(out[0] if isinstance(out, tuple) else out)

    stack = blocks(hf.base_model)
    hooks = [stack[layer].register_forward_pre_hook(put, with_kwargs=True), stack[-1].register_forward_hook(keep)]
    try:
        with torch.no_grad():
            hf(torch.as_tensor(ids)[None], use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return left[0][0, -1].numpy()


@dataclass(frozen=True)
class Case:
    """A tiny model, two prompts, what their last tokens see, and the two programs, each compiled once."""

    hf: Any
    model: Model
    given: Prompts
    context: Context
    through: Callable
    along: Callable

    @property
    def activations(self) -> Activations:
        """The last tokens as `capture` gives them; the in-context Jacobian recomputes their contexts."""
        states = self.context.states
        return Activations(self.given, np.arange(2), LENGTHS - 1, "last", states[:-1], states[:-1], states[-1])

    def ended(self, first: int, x, attention: str = "free", context: Context | None = None) -> np.ndarray:
        """The points x, put in at block `first`, after the last block."""
        data = data_of(self.model.params, context or self.context, attention)
        return np.asarray(self.through(first, jnp.asarray(x), data))

    def tangents(self, first: int, offset, axes, attention: str = "free") -> Observed:
        natural = self.context.states[first]
        frame = Frame(jnp.zeros(16), jnp.ones(16), jnp.asarray(axes))
        data, points = data_of(self.model.params, self.context, attention), natural[:, None] + jnp.asarray(offset)
        return jax.tree.map(np.asarray, self.along(data, jnp.asarray(first), natural, points, frame))


@cache
def case(name: str) -> Case:
    hf, model = MODELS[name]()
    ids = random_ids(model, 2, 6, seed=5)
    given = pad([ids[0], ids[1, :4]])
    read = jax.jit(partial(read_context.__wrapped__, model.architecture))
    context = read(model.params, jnp.asarray(given.token_ids), jnp.asarray(given.lengths))
    system = DecoderSystem(model.architecture)

    @jax.jit
    def through(first, x, data):
        state = lax.fori_loop(first, system.depth, partial(system.step, data), system.begin(data, first, x))
        return system.read(state)

    return Case(hf, model, given, context, through, jax.jit(partial(follow.__wrapped__, system)))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_replaced_last_token_ends_where_the_whole_forward_pass_of_transformers_ends(name, rng):
    c = case(name)
    natural = np.asarray(c.context.states)
    inside = 2 if name.startswith("gemma4") else 1  # there blocks 2 and 3 read the keys and values of 1 and 0
    for start in (0, inside):
        offset = np.concatenate([np.zeros((2, 1, 16)), 3 * rng.normal(size=(2, POINTS, 16))], axis=1)
        points = natural[start][:, None] + offset
        found = c.ended(start, points)
        for prompt, length in enumerate(LENGTHS):
            wanted = [replaced(c.hf, c.given.token_ids[prompt, :length], start, point) for point in points[prompt]]
            assert relative(found[prompt], np.array(wanted)) < PARITY
        assert relative(found[:, 0], natural[-1]) < PARITY
        assert relative(found[:, 1], natural[-1]) > 1e-2


@pytest.mark.parametrize(
    ("name", "first", "attention", "operator"),
    [
        ("gemma2", 0, "free", "in-context"),
        ("gemma2", 0, "frozen", "ov"),
        ("gemma4-shared-local", 2, "free", "in-context"),
    ],
)
def test_the_tangents_are_the_product_of_the_jacobians(name, first, attention, operator, rng):
    c = case(name)
    acts = c.activations
    offset = rng.normal(size=(2, POINTS, 16))
    axes = np.linalg.qr(rng.normal(size=(16, 2)))[0].T
    found = c.tangents(first, offset, axes, attention)
    moved = offset
    for layer in range(first, c.model.architecture.layers):
        moved = np.einsum("cij,cpj->cpi", jacobian(c.model, acts, layer=layer, operator=operator), moved)
        assert relative(found.tangent[layer + 1], np.linalg.norm(moved, axis=-1)) < PARITY
        plane = np.asarray(found.tangent_plane - found.natural_plane[:, :, None])[layer + 1]
        assert relative(plane, moved @ axes.T) < PARITY
    assert np.isnan(found.tangent[:first]).all()


def test_shared_keys_and_values_are_part_of_the_derivative_where_the_start_lies_before_their_source(rng):
    """The in-context Jacobian holds them, so that its product is not the derivative of the path there."""
    c = case("gemma4-shared-local")
    acts = c.activations
    offset = rng.normal(size=(2, POINTS, 16))
    found = c.tangents(0, offset, np.eye(2, 16))
    product = offset
    for layer in range(c.model.architecture.layers):
        product = np.einsum("cij,cpj->cpi", jacobian(c.model, acts, layer=layer), product)
    assert relative(found.tangent[-1], np.linalg.norm(product, axis=-1)) > 1e-2
    states, small = np.asarray(c.context.states), 1e-6
    change = c.ended(0, states[0][:, None] + small * offset) - c.ended(0, states[0][:, None] - small * offset)
    assert relative(found.tangent[-1], np.linalg.norm(change, axis=-1) / (2 * small)) < 1e-7


def test_attention_that_is_held_adds_the_context_as_it_was_and_ablation_takes_it_away(rng):
    c = case("gpt-neox")
    natural = np.asarray(c.context.states)
    offset = np.concatenate([np.zeros((2, 1, 16)), 3 * rng.normal(size=(2, POINTS, 16))], axis=1)
    points = natural[0][:, None] + offset
    free, frozen, ablated = (c.ended(0, points, attention) for attention in ("free", "frozen", "ablated"))
    assert relative(frozen[:, 0], natural[-1]) < PARITY
    assert relative(frozen[:, 1], free[:, 1]) > 1e-3
    assert relative(ablated[:, 0], natural[-1]) > 1e-2
    lone = replace(c.context, mixed=jnp.zeros_like(c.context.mixed))
    np.testing.assert_array_equal(ablated, c.ended(0, points, "frozen", lone))
