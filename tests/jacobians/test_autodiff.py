"""The autodiff route against routes that share none of its code: whole sequences, central differences, a formula."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdyn.jacobians.autodiff import columns
from jaxdyn.jacobians.closed_form import make_context
from jaxdyn.models import decoder, layers
from tests.jacobians.cases import (
    BOTH,
    DERIVATIVES,
    MODELS,
    POSITION,
    PROMPT,
    SOURCE,
    case,
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

    @jax.jit
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
    """By hand: attention in numpy, its pattern held, by a complex step, which has no truncation error."""
    c, step = case(name), 1e-30
    found = routes(name, "ov", derivative)["autodiff"]
    for i, (b, t) in enumerate(zip(PROMPT, POSITION["other"], strict=True)):
        moved = np.asarray(c.x)[b, t][:, None] + 1j * step * np.eye(c.arch.width)  # column j: a step along j
        h = attention_by_hand(name, b, t, moved, frozen=derivative == "frozen")
        assert relative(found.attention[i], h.imag / step) < TOLERANCE
        assert relative(found.h[i], h.real[:, 0]) < TOLERANCE


def attention_by_hand(name, b, t, z, *, frozen):
    """Attention with its skip at one position, as a function of the state there (D, m), the pattern held."""
    c = case(name)
    arch, w = c.arch, jax.tree.map(np.asarray, c.weights)
    pattern, values = seen(name)
    pattern, values = pattern[b, :, t], values[b]
    group, size = arch.heads // arch.kv_heads, arch.kinds[c.layer].head_dim

    def held(variance):
        return variance.real if frozen else variance

    def norm(leaves, x):
        centre = x - x.mean(axis=0) if arch.norm == "layer" else x
        scaled = centre / np.sqrt(held(np.mean(centre**2, axis=0)) + arch.norm_eps)
        return (arch.norm_offset + leaves["scale"])[:, None] * scaled + leaves.get("bias", np.zeros(len(x)))[:, None]

    n = z if arch.norm_placement == "post" else norm(w["attention_norm"], z)
    own = w["attention"]["v"] @ n + w["attention"].get("v_bias", np.zeros(len(w["attention"]["v"])))[:, None]
    own = own.reshape(arch.kv_heads, arch.head_dim, -1)
    if arch.v_norm:
        own = own / np.sqrt(held(np.sum(own**2, axis=1, keepdims=True)) / size + arch.norm_eps)
    if arch.shares(c.layer):
        own = np.broadcast_to(values[t][:, :, None], own.shape)
    mixed = [
        pattern[head, t] * own[head // group] + (pattern[head, :t] @ values[:t, head // group])[:, None]
        for head in range(arch.heads)
    ]
    u = w["attention"]["o"] @ np.concatenate(mixed) + w["attention"].get("o_bias", np.zeros(arch.width))[:, None]
    return z + (u if arch.norm_placement == "pre" else norm(w["attention_post_norm"], u))


@cache
def seen(name):
    """Every position's attention pattern (B, H, T, T), and the values (B, T, G, K) it mixes."""
    c = case(name)
    positions = jnp.arange(c.x.shape[1])

    @jax.jit
    @jax.vmap
    def look(x, beside):
        context = make_context(c.arch, c.weights, x, beside)
        q = layers.queries(c.arch, c.weights, layers.enter(c.arch, c.weights, "attention", x), positions)
        return layers.attention_pattern(c.arch, c.weights, q, context.keys, positions, positions), context.values

    return jax.tree.map(np.asarray, look(c.x, c.beside))


@pytest.mark.parametrize("name", MODELS)
def test_central_differences(name):
    """(f(x + e) - f(x - e)) / 2 e with e = 1e-5: an error of about e^2 = 1e-10 and a noise of eps / e = 1e-11."""
    c = case(name)
    found = {operator: routes(name, operator, "exact")["autodiff"].block for operator in ("in-context", "isolated")}
    crossed = routes(name, "cross", "exact")["autodiff"].block
    step = 1e-5
    moves = step * np.concatenate([np.eye(c.arch.width), -np.eye(c.arch.width)])

    @jax.jit
    def slopes(x, s, t, beside):
        def output(move):
            return decoder.block(c.arch, c.weights, x.at[s].add(move), jnp.arange(len(x)), beside=beside)[t]

        y = jax.vmap(output)(moves)
        plus, minus = jnp.split(y, 2)
        return (plus - minus).T / (2 * step)

    for i, b in enumerate(PROMPT):
        t, t_cross, s = POSITION["other"][i], POSITION["cross"][i], SOURCE[i]
        beside = jax.tree.map(lambda leaf, b=b: leaf[b], c.beside)
        assert relative(found["in-context"][i], slopes(c.x[b], t, t, beside)) < 1e-8
        assert relative(crossed[i], slopes(c.x[b], s, t_cross, beside)) < 1e-8
    at = POSITION["other"][:1]
    beside = jax.tree.map(lambda leaf: leaf[PROMPT[0], at], c.beside)
    assert relative(found["isolated"][0], slopes(c.x[PROMPT[0], at], 0, 0, beside)) < 1e-8


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
