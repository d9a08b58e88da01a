"""What the Jacobians must satisfy whatever the numbers: homogeneity, factors, the frozen sum, the chain along depth."""

from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdyn.errors import InputError
from jaxdyn.jacobians import DERIVATIVES as BOTH
from jaxdyn.jacobians import OPERATORS, Request, jacobian, sample_jacobians
from jaxdyn.models import decoder, layers
from jaxdyn.models import stream as streams
from tests.jacobians.cases import (
    MODELS,
    PARTS,
    POSITION,
    PROMPT,
    TOKENS,
    case,
    position_of,
    relative,
    routes,
)
from tests.models.tiny import random_ids

METHODS = ("closed-form", "autodiff")
LLAMAS = [name for name in MODELS if name.startswith("llama")]
# Norms before the sublayers, and nothing in them that is not behind one.
HOMOGENEOUS = [name for name in MODELS if not name.startswith(("olmo", "gemma4"))]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("operator", ["in-context", "isolated"])
@pytest.mark.parametrize("name", HOMOGENEOUS)
def test_sublayers_do_not_see_the_length_of_the_state(name, operator, method):
    """A norm is homogeneous of degree 0 but for its epsilon: Dn c = (eps / variance) gamma c / sqrt(variance).

    Hence A_attention x = (eps / rho^2) M n, where M n is the attention's own derivative in the direction n, and the
    same for the MLP; c = x under RMSNorm, c = x - mean(x) under LayerNorm, and there A 1 = 0 too.
    """
    c = case(name)
    found = routes(name, operator, "exact")[method]
    slopes = radial_slopes(name, operator)
    for i in range(len(PROMPT)):
        for part, state in (("attention", found.x[i]), ("mlp", _entry(c, found)[i])):
            update = getattr(found, part)[i] - np.eye(c.arch.width)
            centre = state - state.mean() if c.arch.norm == "layer" else state
            wanted = c.arch.norm_eps / (np.mean(centre**2) + c.arch.norm_eps) * slopes[part][i]
            # The small vector is the sum of D = 16 terms of the size of the update: c n eps norm with c = 20.
            bound = 20 * 16 * np.finfo(np.float64).eps * np.linalg.norm(update) * np.linalg.norm(centre)
            assert np.linalg.norm(update @ centre - wanted) < bound, (part, i)
            assert np.linalg.norm(wanted) > 10 * bound, "too small an epsilon to be seen"
            if c.arch.norm == "layer":
                assert np.linalg.norm(update @ np.ones(c.arch.width)) < bound


@pytest.mark.parametrize("operator", ["in-context", "isolated"])
@pytest.mark.parametrize("name", LLAMAS)
def test_without_epsilon_the_updates_annihilate_the_state(name, operator):
    c = case(name)
    arch = replace(c.arch, norm_eps=1e-30)
    take = jax.jit(partial(sample_jacobians, arch, Request(operator)))
    found = take(c.weights, c.x, jnp.asarray(PROMPT), jnp.asarray(POSITION["other"]))
    for update, state in ((found.attention, found.x), (found.mlp, found.h)):
        update = update - np.eye(arch.width)
        left = np.linalg.norm(update @ state[:, :, None], axis=(1, 2))
        assert np.all(left < 1e-13 * np.linalg.norm(update, axis=(1, 2)) * np.linalg.norm(state, axis=1))
    frozen = routes(name, operator, "frozen")["closed-form"] if name == "llama-gqa-llama3" else None
    if frozen is not None:
        moved = (frozen.attention - np.eye(arch.width)) @ frozen.x[:, :, None]
        assert np.linalg.norm(moved) > 0.1 * np.linalg.norm(frozen.x), "the frozen map does see the length"


@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_frozen_jacobians_reproduce_the_output(family, biases):
    """h_t = sum_s J_ts x_s + constant over s <= t, exactly, and y_t likewise: the frozen map is affine."""
    name = {("llama", False): "llama-gqa-llama3", ("llama", True): "llama-mqa-biases"}.get((family, biases), "gpt2")
    c = case(name)
    weights = c.weights if biases or family == "llama" else _without_biases(c.weights)
    t = TOKENS - 1
    take = partial(sample_jacobians, c.arch, weights=weights, contexts=c.x[:1])

    @jax.jit
    def every_source():
        own = take(Request("in-context", "frozen"), prompt=jnp.zeros(1, int), position=jnp.full(1, t))
        others = take(
            Request("cross", "frozen"), prompt=jnp.zeros(t, int), position=jnp.full(t, t), source=jnp.arange(t)
        )
        return own, others

    own, others = jax.tree.map(np.asarray, every_source())
    h = np.asarray(decoder.attention_sublayer(c.arch, weights, c.x[0], jnp.arange(TOKENS)))[t]
    y = np.asarray(decoder.block(c.arch, weights, c.x[0], jnp.arange(TOKENS)))[t]
    constant_h, constant_y = _frozen_constants(c.arch, weights, h)
    for part, output, constant in (("attention", h, constant_h), ("block", y, constant_y)):
        linear = getattr(own, part)[0] @ np.asarray(c.x[0, t]) + sum(
            matrix @ np.asarray(x) for matrix, x in zip(getattr(others, part), c.x[0, :t], strict=True)
        )
        assert relative(linear + constant, output) < 1e-13
        assert (np.abs(constant).max() > 1e-2) == biases
        assert relative(getattr(own, part)[0] @ np.asarray(c.x[0, t]) + constant, output) > 1e-2, "the others matter"


@pytest.mark.parametrize("name", ["llama-gqa-llama3", "gpt2"])
def test_every_choice_changes_the_result(name):
    """No two of the operators, and no derivative, give the same matrices, at a position that sees others."""
    block = {
        (operator, derivative): routes(name, operator, derivative)["closed-form"].block
        for operator in OPERATORS
        for derivative in BOTH
    }
    sees_others = position_of("in-context") > 0
    for one in block:
        for other in block:
            if one < other and not {one, other} == {("in-context", "frozen"), ("ov", "frozen")}:
                assert relative(block[one][sees_others], block[other][sees_others]) > 1e-2, (one, other)
    # With pattern and norm held there is nothing but the value path left: the two operators are one map.
    assert relative(block["in-context", "frozen"], block["ov", "frozen"]) < 1e-13
    first = position_of("in-context") == 0
    for operator in ("in-context", "ov"):  # the first token attends only to itself: it is isolated
        assert relative(block[operator, "exact"][first], block["isolated", "exact"][first]) < 1e-12


@pytest.mark.parametrize("name", ["llama-gqa-llama3", "gpt2"])
def test_in_context_jacobians_compose_along_depth(name, capture_ids):
    """By causality a position's stream moves no earlier one: d x_L[t] / d x_0[t] is the product over the blocks."""
    c = case(name)
    ids = random_ids(c.model, 1, TOKENS, seed=5)
    acts = capture_ids(c.model, ids, tokens="last:4")  # the last position, and three that later ones depend on

    @jax.jit
    def through_all_blocks(x):
        def last(z, t):
            moved = x.at[t].set(z)
            for layer in range(c.arch.layers):
                moved = decoder.block(c.arch, decoder.layer_weights(c.model.params, layer), moved, jnp.arange(TOKENS))
            return moved[t]

        return jax.vmap(lambda t: jax.jacfwd(last)(x[t], t))(jnp.arange(TOKENS - 4, TOKENS))

    start = jax.vmap(partial(decoder.embed, c.arch, c.model.params))(jnp.asarray(ids), jnp.arange(TOKENS)[None])[0]
    wanted = through_all_blocks(start)
    first, second = (np.asarray(jacobian(c.model, acts, layer=layer)) for layer in range(2))
    alone = [np.asarray(jacobian(c.model, acts, layer=layer, operator="isolated")) for layer in range(2)]
    for i in range(4):
        assert relative(second[i] @ first[i], wanted[i]) < 1e-12
        assert relative(first[i] @ second[i], wanted[i]) > 1e-2
        assert relative(alone[1][i] @ alone[0][i], wanted[i]) > 1e-2, "only the in-context operator composes"


def _entry(c, found):
    """What the MLP reads."""
    return found.x if c.arch.parallel_residual else found.h


@cache
def radial_slopes(name, operator):
    """M n: the sublayers' own derivatives in the direction of the scaled centre, past their norm; (S, D) each."""
    c = case(name)

    def attention(rows, at, n):
        w, positions = c.weights, jnp.arange(len(rows))
        normed = layers.norm(c.arch, c.weights["attention_norm"], rows).at[at].set(n)
        keys, values = layers.keys_values(c.arch, w, normed, positions)
        q = layers.queries(c.arch, w, normed, positions)
        pattern = layers.attention_pattern(c.arch, w, q, keys, positions, positions)
        return layers.leave(c.arch, w, "attention", layers.attention_output(c.arch, w, pattern, values)[at])

    def mlp(n):
        return layers.leave(c.arch, c.weights, "mlp", layers.mlp(c.arch, c.weights["mlp"], n))

    def direction(part, state):
        weights = c.weights[f"{part}_norm"]
        n = layers.norm(c.arch, weights, state)
        return n, n - weights.get("bias", 0.0)

    @jax.jit
    @jax.vmap
    def slopes(rows, at):
        n, along = direction("attention", rows[at])
        h, slope = jax.jvp(partial(attention, rows, at), (n,), (along,))
        n, along = direction("mlp", rows[at] if c.arch.parallel_residual else rows[at] + h)
        return {
            "attention": slope,
            "mlp": jax.jvp(mlp, (n,), (along,))[1],
        }

    t = POSITION["other"]
    if operator == "isolated":
        return jax.tree.map(np.asarray, slopes(c.x[PROMPT, t][:, None], jnp.zeros(len(t), int)))
    return jax.tree.map(np.asarray, slopes(c.x[PROMPT], jnp.asarray(t)))


def _without_biases(weights):
    return {
        part: {name: leaf * 0 if name.endswith("bias") else leaf for name, leaf in leaves.items()}
        if part != "index"
        else leaves
        for part, leaves in weights.items()
    }


def _frozen_constants(arch, weights, h):
    """The constants of the affine maps by hand: biases pushed through the held factors (rows of a pattern sum to 1)."""
    w = jax.tree.map(np.asarray, weights)
    a, m = w["attention"], w["mlp"]

    def bias(leaves, name, size):
        return leaves.get(f"{name}_bias", np.zeros(size))

    def shift(part):
        return w[part].get("bias", np.zeros(arch.width))

    value = a["v"] @ shift("attention_norm") + bias(a, "v", arch.kv_heads * arch.head_dim)
    per_head = np.repeat(value.reshape(arch.kv_heads, arch.head_dim), arch.heads // arch.kv_heads, axis=0)
    constant_h = a["o"] @ per_head.reshape(-1) + bias(a, "o", arch.width)

    def centred(x):
        return x - x.mean() if arch.norm == "layer" else x

    scale = w["mlp_norm"]["scale"] / np.sqrt(np.mean(centred(h) ** 2) + arch.norm_eps)
    n = scale * centred(h) + shift("mlp_norm")
    held = (
        np.asarray(layers.activation(arch, m["gate"] @ n + bias(m, "gate", arch.ff_dim)))
        if arch.gated
        else np.asarray(layers.activation_gate(arch, m["up"] @ n + bias(m, "up", arch.ff_dim)))
    )
    inner = m["up"] @ (scale * centred(constant_h) + shift("mlp_norm")) + bias(m, "up", arch.ff_dim)
    return constant_h, constant_h + m["down"] @ (held * inner) + bias(m, "down", arch.width)


def test_shared_keys_and_values_carry_what_the_product_does_not(capture_ids):
    """A block that reads another's keys and values is differentiated with those held.

    So the product of in-context Jacobians is the derivative along the residual stream alone: the whole derivative has
    paths through the shared keys and values beside it.
    """
    c = case("gemma4-local")
    ids, positions, t = c.ids[:1], jnp.arange(TOKENS), TOKENS - 1
    start = decoder.begin(c.arch, c.model.params, jnp.asarray(ids))
    weights = [decoder.layer_weights(c.model.params, layer) for layer in range(c.arch.layers)]

    def last(z, hold):
        stream = replace(start, x=start.x.at[0, t].set(z))
        for layer in weights:
            seen = jax.lax.stop_gradient(stream) if hold else stream
            beside = jax.tree.map(lambda leaf: leaf[0], streams.beside(c.arch, layer, seen))
            y = decoder.block(c.arch, layer, stream.x[0], positions, beside=beside)
            own = layers.keys_values(c.arch, layer, layers.enter(c.arch, layer, "attention", stream.x[0]), positions)
            stream = streams.step(c.arch, layer, stream, y[None], own[0][None], own[1][None])
        return stream.x[0, t]

    held, whole = (np.asarray(jax.jit(jax.jacfwd(partial(last, hold=hold)))(start.x[0, t])) for hold in (True, False))
    acts = capture_ids(c.model, ids)
    product = np.eye(c.arch.width)
    for layer in range(c.arch.layers):
        product = np.asarray(jacobian(c.model, acts, layer=layer))[0] @ product
    assert relative(product, held) < 1e-12
    assert relative(product, whole) > 1e-3


@pytest.mark.parametrize("name", ["gemma4-local", "gemma4-shared-local", "gemma4-shared-global"])
def test_a_lone_token_keeps_its_own_embedding_and_shared_keys(name, capture_ids):
    """Isolated from samples alone is isolated from whole prompts; where keys and values are shared, attention adds a
    constant, and no plain array will do.
    """
    c = case(name)
    acts = capture_ids(c.model, c.ids, tokens="all")
    samples = np.arange(len(acts.prompt))
    found = {part: np.asarray(jacobian(c.model, acts, layer=c.layer, operator="isolated", part=part)) for part in PARTS}
    prompt, position = jnp.asarray(acts.prompt), jnp.asarray(acts.position)
    whole = jax.jit(partial(sample_jacobians, c.arch, Request("isolated")))(c.weights, c.stream, prompt, position)
    for part in PARTS:
        for i in samples:
            assert relative(found[part][i], getattr(whole, part)[i]) < 1e-12
    h = np.asarray(whole.h)
    if c.arch.shares(c.layer):
        np.testing.assert_array_equal(
            found["attention"], np.broadcast_to(np.eye(c.arch.width), found["attention"].shape)
        )
        assert np.abs(h - np.asarray(whole.x)).max() > 1e-2, "the constant is there"
    else:
        assert np.abs(found["attention"] - np.eye(c.arch.width)).max() > 1e-2
    with pytest.raises(InputError, match=f"got a plain array, but block {c.layer} also reads per-layer embeddings"):
        jacobian(c.model, np.asarray(acts.inputs[c.layer]), layer=c.layer, operator="isolated")


def test_a_block_refuses_to_run_without_what_it_reads():
    c = case("gemma4-shared-local")
    with pytest.raises(ValueError, match="got no per-layer embeddings, allowed some"):
        sample_jacobians(c.arch, Request("isolated"), c.weights, c.x, jnp.arange(1), jnp.zeros(1, int))
    stream = streams.Stream(c.x, c.stream.layer_inputs)
    with pytest.raises(ValueError, match="got no shared keys and values, allowed some"):
        sample_jacobians(c.arch, Request("isolated"), c.weights, stream, jnp.arange(1), jnp.zeros(1, int))
    plain = case("llama-mha")
    with pytest.raises(ValueError, match="got some per-layer embeddings, allowed none"):
        decoder.block(
            plain.arch, plain.weights, plain.x[0], jnp.arange(TOKENS), beside=streams.Beside(jnp.ones((6, 2)))
        )
