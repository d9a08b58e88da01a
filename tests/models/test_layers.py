"""The parts of a block against their equations; the frozen derivative against the affine map it should be."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxdyn.models import decoder, layers
from jaxdyn.models import stream as streams
from jaxdyn.models.architecture import LinearScaling, Llama3Scaling, Rope
from tests.models.tiny import TINY, random_ids, tiny_gpt2, tiny_llama

TORCH_ACTIVATIONS = {
    "silu": torch.nn.functional.silu,
    "gelu": torch.nn.functional.gelu,
    "gelu_tanh": lambda z: torch.nn.functional.gelu(z, approximate="tanh"),
    "relu": torch.nn.functional.relu,
}
HF_NAMES = {"silu": "silu", "gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu"}


@pytest.mark.parametrize("name", TORCH_ACTIVATIONS)
def test_activation_is_gate_times_argument(name):
    _, model = tiny_llama(hidden_act=HF_NAMES[name])
    z = np.linspace(-12, 12, 401)
    want = TORCH_ACTIVATIONS[name](torch.as_tensor(z)).numpy()
    np.testing.assert_allclose(layers.activation(model.architecture, jnp.asarray(z)), want, rtol=1e-12, atol=1e-15)
    gate = layers.activation_gate(model.architecture, jnp.asarray(z))
    np.testing.assert_allclose(z * gate, want, rtol=1e-12, atol=1e-15)
    slope = jax.grad(lambda z: layers.activation(model.architecture, z))(1.3)
    step = 1e-5
    pair = [float(layers.activation(model.architecture, jnp.float64(1.3 + s))) for s in (step, -step)]
    assert slope == pytest.approx((pair[0] - pair[1]) / (2 * step), abs=1e-9)


def test_frequencies_at_the_edges_of_the_llama3_ramp():
    plain = Rope(10000.0).frequencies(64)
    scaling = Llama3Scaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=64)
    scaled = Rope(10000.0, scaling).frequencies(64)
    turns = 64 * plain / (2 * math.pi)
    assert (turns > 4).any()
    assert ((turns > 1) & (turns < 4)).any()
    assert (turns < 1).any()
    np.testing.assert_array_equal(scaled[turns > 4], plain[turns > 4])
    np.testing.assert_allclose(scaled[turns < 1], plain[turns < 1] / 8, rtol=1e-15)
    middle = (turns > 1) & (turns < 4)
    assert ((scaled < plain) & (scaled > plain / 8))[middle].all()
    np.testing.assert_array_equal(Rope(10000.0, LinearScaling(4.0)).frequencies(64), plain / 4)


@pytest.mark.parametrize("position", [0, 1, 1000, 131071, 2**20 - 1])
def test_rotation_is_accurate_in_float32(position):
    _, model = tiny_llama(head_dim=64)
    x = np.random.default_rng(0).normal(size=(1, 4, 64)).astype(np.float32)
    assert model.architecture.rope is not None
    angles = position * model.architecture.rope.frequencies(64)  # float64
    a, b = np.split(x.astype(np.float64), 2, axis=-1)
    want = np.concatenate([a * np.cos(angles) - b * np.sin(angles), b * np.cos(angles) + a * np.sin(angles)], axis=-1)
    got = layers.rotate(model.architecture, {"index": 0}, jnp.asarray(x), jnp.asarray([position]))
    assert got.dtype == jnp.float32
    # An angle of up to pi is held to pi eps / 2, a pair of entries of up to 4 in size turns by that.
    np.testing.assert_allclose(got, want, rtol=0, atol=4 * math.pi * 2.0**-23)


def test_rotation_needs_rope():
    _, model = tiny_gpt2()
    with pytest.raises(ValueError, match=r"arch\.position: got 'learned'"):
        layers.rotate(model.architecture, {"index": 0}, jnp.ones((1, 4, 8)), jnp.arange(1))


def test_patterns_depend_on_distance_only():
    """RoPE: all positions shifted by one number leave the attention pattern as it is."""
    _, model = tiny_llama()
    layer = decoder.layer_weights(model.params, 1)
    n = jnp.asarray(np.random.default_rng(0).normal(size=(7, 32)))

    def pattern(positions):
        q = layers.queries(model.architecture, layer, n, positions)
        k, _ = layers.keys_values(model.architecture, layer, n, positions)
        return layers.attention_pattern(model.architecture, layer, q, k, positions, positions)

    here, there = pattern(jnp.arange(7)), pattern(jnp.arange(7) + 40)
    np.testing.assert_allclose(here, there, atol=1e-13)
    np.testing.assert_allclose(here.sum(-1), 1.0, atol=1e-14)
    assert (np.triu(here, 1) == 0).all()
    assert np.abs(pattern(2 * jnp.arange(7)) - here).max() > 1e-3


@pytest.mark.parametrize("family", TINY)
def test_norm_is_invariant_to_scale(family):
    names = {"gpt2": "layer_norm_epsilon", "gpt_neox": "layer_norm_eps"}
    _, model = TINY[family](**{names.get(family, "rms_norm_eps"): 1e-30})
    layer = decoder.layer_weights(model.params, 0)
    weights = layer["attention_post_norm" if model.architecture.norm_placement == "post" else "attention_norm"]
    x = jnp.asarray(np.random.default_rng(0).normal(size=(32,)))
    n = layers.norm(model.architecture, weights, x)
    np.testing.assert_allclose(layers.norm(model.architecture, weights, 7 * x), n, rtol=1e-12)
    shifted = layers.norm(model.architecture, weights, x + 3.0)
    assert np.allclose(shifted, n, rtol=1e-9) == (family in names)


@pytest.mark.parametrize("part", ["attention", "mlp"])
@pytest.mark.parametrize("family", TINY)
def test_frozen_sublayers_are_affine_and_reproduce_the_output(family, part):
    """The value is unchanged to the last bit, and it is the frozen Jacobian in (x, biases) times (x, biases)."""
    _, model = TINY[family]()
    arch, positions = model.architecture, jnp.arange(6)
    layer = decoder.layer_weights(model.params, 1)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(6, 32)))
    stream = decoder.begin(arch, model.params, jnp.asarray(random_ids(model, 1, 6)))
    beside = jax.tree.map(lambda leaf: leaf[0], streams.beside(arch, layer, stream))
    biases, others = [
        {
            group: {name: leaf for name, leaf in leaves.items() if ("bias" in name) == chosen}
            for group, leaves in layer.items()
            if group != "index"
        }
        for chosen in (True, False)
    ]

    def sublayer(x, biases, derivative):
        both = {group: others[group] | biases[group] for group in others} | {"index": layer["index"]}
        if part == "attention":
            return decoder.attention_sublayer(arch, both, x, positions, derivative=derivative, beside=beside)
        return decoder.mlp_sublayer(arch, both, x, derivative=derivative, layer_input=beside.layer_input)

    value = {d: sublayer(x, biases, d) for d in ("exact", "frozen")}
    np.testing.assert_array_equal(value["exact"], value["frozen"])
    pushed = {d: jax.jvp(lambda x, b, d=d: sublayer(x, b, d), (x, biases), (x, biases))[1] for d in value}
    np.testing.assert_allclose(pushed["frozen"], value["exact"], rtol=0, atol=1e-12)
    assert np.abs(pushed["exact"] - value["exact"]).max() > 1e-2


def test_frozen_gate_and_frozen_norm_are_two_switches():
    _, model = tiny_llama()
    layer = decoder.layer_weights(model.params, 0)
    n = jnp.asarray(np.random.default_rng(1).normal(size=(32,)))
    for function, weights in ((layers.norm, layer["mlp_norm"]), (layers.mlp, layer["mlp"])):
        exact = jax.jacfwd(lambda n, f=function, w=weights: f(model.architecture, w, n))(n)
        frozen = jax.jacfwd(lambda n, f=function, w=weights: f(model.architecture, w, n, derivative="frozen"))(n)
        assert np.abs(exact - frozen).max() > 1e-2
        np.testing.assert_allclose(frozen @ n, function(model.architecture, weights, n), rtol=1e-10, atol=1e-12)
