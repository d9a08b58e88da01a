"""The autodiff route against routes that share none of its code: whole sequences, central differences, a formula."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdyn.jacobians.autodiff import columns
from jaxdyn.models import decoder, layers
from tests.jacobians.cases import (
    BOTH,
    DERIVATIVES,
    MODELS,
    POSITION,
    PROMPT,
    SOURCE,
    case,
    jit_once,
    relative,
    routes,
    sequence_jacobians,
)

EVERY = [(name, derivative) for name in MODELS for derivative in DERIVATIVES.get(name, BOTH)]
TOLERANCE = 1e-12


@pytest.mark.parametrize(("name", "derivative"), EVERY)
def test_in_context_is_a_diagonal_block_of_the_sequence_jacobian(name, derivative):
    found = routes(name, "in-context", derivative)["autodiff"]
    wanted = sequence_jacobians(name, derivative)
    for i, (b, t) in enumerate(zip(PROMPT, POSITION["other"], strict=True)):
        assert relative(found.attention[i], wanted[0][b, t, :, t]) < TOLERANCE
        assert relative(found.block[i], wanted[1][b, t, :, t]) < TOLERANCE


@pytest.mark.parametrize(("name", "derivative"), EVERY)
def test_cross_is_an_off_diagonal_block_of_the_sequence_jacobian(name, derivative):
    found = routes(name, "cross", derivative)["autodiff"]
    wanted = sequence_jacobians(name, derivative)
    for i, (b, t, s) in enumerate(zip(PROMPT, POSITION["cross"], SOURCE, strict=True)):
        assert relative(found.attention[i], wanted[0][b, t, :, s]) < TOLERANCE
        assert relative(found.block[i], wanted[1][b, t, :, s]) < TOLERANCE


@pytest.mark.parametrize("name", ["llama-gqa-llama3", "gpt2"])
def test_isolated_is_the_block_on_a_sequence_of_one(name):
    """The frozen derivative; the exact one is compared with torch on a sequence of one."""
    c = case(name)
    found = routes(name, "isolated", "frozen")["autodiff"]

    @jit_once
    @jax.vmap
    def alone(x):
        def block(z):
            return decoder.block(c.arch, c.weights, z[None], jnp.zeros(1, int), derivative="frozen")[0]

        return jax.jacfwd(block)(x), block(x)

    wanted, y = alone(c.x[PROMPT, POSITION["other"]])
    for i in range(len(PROMPT)):
        assert relative(found.block[i], wanted[i]) < TOLERANCE
        assert relative(found.y[i], y[i]) < TOLERANCE


@pytest.mark.parametrize(("name", "derivative"), EVERY)
def test_ov_is_the_observed_self_weight_times_the_value_path(name, derivative):
    """By hand: I + sum_h p_tt W_O,h W_V,h Dn, with Dn by a complex step, which has no truncation error."""
    c = case(name)
    size, group = c.arch.head_dim, c.arch.heads // c.arch.kv_heads
    found = routes(name, "ov", derivative)["autodiff"]
    w, states, step = jax.tree.map(np.asarray, c.weights["attention"]), np.asarray(c.x), 1e-30
    for i, (b, t) in enumerate(zip(PROMPT, POSITION["other"], strict=True)):
        values = np.zeros((c.arch.width, c.arch.width))
        for h in range(c.arch.heads):
            own, shared = slice(h * size, (h + 1) * size), slice(h // group * size, (h // group + 1) * size)
            values += self_weights(name)[b, h, t] * w["o"][:, own] @ w["v"][shared]
        moved = states[b, t][:, None] + 1j * step * np.eye(c.arch.width)  # column j: a step along coordinate j
        centre = moved - moved.mean(axis=0) if c.arch.norm == "layer" else moved
        variance = np.mean(centre**2, axis=0) + c.arch.norm_eps
        variance = variance.real if derivative == "frozen" else variance
        norm = np.asarray(c.weights["attention_norm"]["scale"])[:, None] * centre / np.sqrt(variance)
        assert relative(found.attention[i], np.eye(c.arch.width) + values @ norm.imag / step) < TOLERANCE


@cache
def self_weights(name):
    """Attention weight of every position on itself, (B, H, T)."""
    c = case(name)
    positions = jnp.arange(c.x.shape[1])

    @jit_once
    @jax.vmap
    def weights(x):
        w, n = c.weights, layers.norm(c.arch, c.weights["attention_norm"], x)
        k, _ = layers.keys_values(c.arch, w, n, positions)
        pattern = layers.attention_pattern(c.arch, w, layers.queries(c.arch, w, n, positions), k, positions, positions)
        return jnp.diagonal(pattern, axis1=1, axis2=2)

    return np.asarray(weights(c.x))


@pytest.mark.parametrize("name", MODELS)
def test_central_differences(name):
    """(f(x + e) - f(x - e)) / 2 e with e = 1e-5: an error of about e^2 = 1e-10 and a noise of eps / e = 1e-11."""
    c = case(name)
    found = {operator: routes(name, operator, "exact")["autodiff"].block for operator in ("in-context", "isolated")}
    crossed = routes(name, "cross", "exact")["autodiff"].block
    step = 1e-5
    moves = step * np.concatenate([np.eye(c.arch.width), -np.eye(c.arch.width)])

    @jit_once
    def slopes(x, s, t):
        y = jax.vmap(lambda e: decoder.block(c.arch, c.weights, x.at[s].add(e), jnp.arange(len(x)))[t])(moves)
        plus, minus = jnp.split(y, 2)
        return (plus - minus).T / (2 * step)

    for i, b in enumerate(PROMPT):
        t, t_cross, s = POSITION["other"][i], POSITION["cross"][i], SOURCE[i]
        assert relative(found["in-context"][i], slopes(c.x[b], t, t)) < 1e-8
        assert relative(crossed[i], slopes(c.x[b], s, t_cross)) < 1e-8
    alone = c.x[PROMPT[0], POSITION["other"][:1]]
    assert relative(found["isolated"][0], slopes(alone, 0, 0)) < 1e-8


def test_chunk_is_the_number_of_columns_at_once():
    def longest_loop(chunk):
        jaxpr = jax.make_jaxpr(lambda x: columns(jnp.sin, x, chunk))(jnp.ones(12))
        return max((e.params["length"] for e in jaxpr.eqns if e.primitive.name == "scan"), default=1)

    assert [longest_loop(chunk) for chunk in (1, 4, 12, 64)] == [12, 3, 1, 1]
    for chunk in (1, 5, 12):
        x = jnp.linspace(0.0, 1.0, 12)
        assert (
            relative(columns(lambda z: jnp.sin(z) * z[0], x, chunk), jax.jacrev(lambda z: jnp.sin(z) * z[0])(x)) < 1e-14
        )
