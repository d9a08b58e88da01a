"""Random initialisation: each family's rule, held against a model that transformers has initialised."""

import jax
import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from jaxdyn.models import parameters
from tests.models.tiny import TINY, ours

SIZES = {
    "llama": (
        LlamaForCausalLM,
        LlamaConfig(
            vocab_size=300,
            hidden_size=64,
            intermediate_size=160,
            num_hidden_layers=6,
            num_attention_heads=4,
            num_key_value_heads=2,
            attention_bias=True,
            mlp_bias=True,
            initializer_range=0.05,
            pad_token_id=None,
        ),
    ),
    "gpt2": (GPT2LMHeadModel, GPT2Config(vocab_size=300, n_embd=64, n_layer=6, n_head=4, initializer_range=0.05)),
}


@pytest.mark.parametrize("family", SIZES)
def test_deviations_are_those_of_transformers(family):
    """Same mean and deviation leaf by leaf, within five standard errors of both samples."""
    kind, config = SIZES[family]
    torch.manual_seed(0)
    theirs = ours(kind(config).double())
    mine = parameters.flatten(theirs.initialised(3).params)
    assert set(mine) == set(parameters.flatten(theirs.params))
    scaled = 0
    for path, leaf in parameters.flatten(theirs.params).items():
        assert mine[path].shape == leaf.shape
        want, got = np.std(leaf), np.std(mine[path])
        if want == 0:
            np.testing.assert_array_equal(mine[path], leaf)
        else:
            error = 5 * want * np.sqrt(2 / leaf.size)  # of a deviation: s / sqrt(2 n), of the difference: s / sqrt(n)
            assert abs(got - want) < error, path
            assert abs(np.mean(mine[path])) < error, path
            scaled += want < 0.02
    assert scaled == (2 if family == "gpt2" else 0)  # 0.05 / sqrt(12) for the two maps into the stream


def test_seeds_and_dtypes():
    _, model = TINY["gpt2"](dtype="float32")
    one, again, other = model.initialised(1), model.initialised(1), model.initialised(2)
    assert one.weights_hash == again.weights_hash
    assert len({one.weights_hash, other.weights_hash, model.weights_hash}) == 3
    assert one.architecture == model.architecture
    assert "seed 1" in one.source
    double = parameters.initialise(model.architecture, 1, dtype="float64")
    jax.tree.map(np.testing.assert_array_equal, double, one.params)
    leaves = parameters.flatten(double)
    assert not np.array_equal(leaves["blocks/attention/q"], leaves["blocks/attention/k"])


def test_nest_and_flatten_are_inverse():
    _, model = TINY["llama"]()
    flat = parameters.flatten(model.params)
    assert jax.tree.structure(parameters.nest(flat)) == jax.tree.structure(model.params)
    assert {path: leaf.shape for path, leaf in flat.items()} == parameters.shapes(model.architecture)
