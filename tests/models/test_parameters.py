"""Random initialisation: each family's rule, held against a model that transformers has initialised."""

import jax
import numpy as np
import pytest
import torch

from jaxdyn.models import parameters
from tests.models.tiny import SETTINGS, TINY, ours

LARGER = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "initializer_range": 0.05,
    "layer_types": ["sliding_attention", "full_attention"] * 3,
}
SIZES = {family: LARGER for family in SETTINGS} | {
    "gpt2": {"vocab_size": 300, "n_embd": 64, "n_layer": 6, "n_head": 4, "initializer_range": 0.05},
    "llama": LARGER | {"attention_bias": True, "mlp_bias": True},
    "gemma4_text": LARGER | {"vocab_size_per_layer_input": 300, "num_kv_shared_layers": 2},
}


@pytest.mark.parametrize("family", SIZES)
def test_deviations_are_those_of_transformers(family):
    """Same mean and deviation leaf by leaf, within five standard errors of both samples."""
    kind, config, sizes = SETTINGS[family]
    torch.manual_seed(0)
    windows = "layer_types" in sizes or family.startswith("qwen")
    larger = {name: value for name, value in SIZES[family].items() if windows or name != "layer_types"}
    theirs = ours(kind(config(**(sizes | larger))).double())
    mine = parameters.flatten(theirs.initialised(3).params)
    assert set(mine) == set(parameters.flatten(theirs.params))
    scaled = 0
    for path, leaf in parameters.flatten(theirs.params).items():
        assert mine[path].shape == leaf.shape
        want, got = np.std(leaf), np.std(mine[path])
        if want == 0 or path.endswith("scale"):
            np.testing.assert_array_equal(mine[path], leaf)
        else:
            np.testing.assert_array_equal(mine[path] == 0, leaf == 0)  # what pads smaller layers
            # Of a deviation: s / sqrt(2 n), of the difference: s / sqrt(n).
            error = 5 * want * np.sqrt(2 / np.count_nonzero(leaf))
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
