"""The decoder as a whole: causality, padding, layers taken one by one, and the size of what it forms."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdyn.models import decoder
from jaxdyn.models import stream as streams
from tests.models.tiny import TINY, random_ids


@pytest.mark.parametrize("family", TINY)
def test_padding_on_the_right_and_the_batch_change_nothing(family):
    _, model = TINY[family]()
    ids = random_ids(model, 3, 20)
    padded = np.concatenate([ids, random_ids(model, 3, 9, seed=5)], axis=1)
    whole = decoder.residual_stream(model.architecture, model.params, jnp.asarray(padded))
    for row in range(3):
        alone = decoder.residual_stream(model.architecture, model.params, jnp.asarray(ids[row : row + 1]))
        for name, many, one in zip(("inputs", "middle", "final"), whole, alone, strict=True):
            scale = np.abs(one).max()
            error = np.abs(np.asarray(many)[..., row, :20, :] - np.asarray(one)[..., 0, :, :]).max()
            assert error < 1e-12 * scale, name


@pytest.mark.parametrize("family", TINY)
def test_scan_agrees_with_blocks_one_by_one(family):
    _, model = TINY[family]()
    ids = jnp.asarray(random_ids(model, 2, 12))
    inputs, middle, final = decoder.residual_stream(model.architecture, model.params, ids)
    assert inputs.shape == middle.shape == (3, 2, 12, 32)
    positions, stream = jnp.arange(12), decoder.begin(model.architecture, model.params, ids)
    for index in range(3):
        layer = decoder.layer_weights(model.params, index)
        beside = jax.tree.map(lambda leaf: leaf[0], streams.beside(model.architecture, layer, stream))
        x = inputs[index, 0]
        h = decoder.attention_sublayer(model.architecture, layer, x, positions, beside=beside)
        np.testing.assert_allclose(h, middle[index, 0], rtol=0, atol=1e-12)
        after = inputs[index + 1, 0] if index < 2 else final[0]
        got = decoder.block(model.architecture, layer, x, positions, beside=beside)
        np.testing.assert_allclose(got, after, rtol=0, atol=1e-12)
        tiled, stream = decoder.advance(model.architecture, layer, stream, jnp.full(2, 12))
        np.testing.assert_allclose(tiled, middle[index], rtol=0, atol=1e-12)
        np.testing.assert_allclose(stream.x[0], after, rtol=0, atol=1e-12)


def test_layer_weights_take_a_traced_index():
    _, model = TINY["llama"](dtype="bfloat16")
    traced = jax.jit(lambda index: decoder.layer_weights(model.params, index))(2)
    plain = jax.tree.map(lambda leaf: leaf[2].astype(jnp.float32), model.params["blocks"]) | {"index": 2}
    jax.tree.map(np.testing.assert_array_equal, traced, plain)


def _shapes(jaxpr: Any) -> set[tuple[int, ...]]:
    """Return the shapes of all intermediate values, those of inner programs included."""
    found = set()
    for equation in jaxpr.eqns:
        found |= {var.aval.shape for var in equation.outvars}
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                if hasattr(inner, "jaxpr"):
                    found |= _shapes(inner.jaxpr)
                elif hasattr(inner, "eqns"):
                    found |= _shapes(inner)
    return found


@pytest.mark.parametrize("family", TINY)
def test_nothing_of_the_vocabulary_s_size_without_logits(family):
    own = {"vocab_size_per_layer_input": 1009} if family == "gemma4_text" else {}
    _, model = TINY[family](vocab_size=997, **own)
    ids = jnp.asarray(random_ids(model, 2, 12))
    stream, logits = (
        _shapes(jax.make_jaxpr(f, static_argnums=0)(model.architecture, model.params, ids).jaxpr)
        for f in (decoder.residual_stream, decoder.logits)
    )
    assert any(997 in shape for shape in logits)
    assert not any(997 in shape for shape in stream)
    assert (3, 2, 12, 32) in stream  # the walk does look inside the jit and the scan


def test_logits_do_not_keep_the_stream():
    """The compiled program's temporaries are far below the L B T D floats of the residual stream."""
    _, model = TINY["llama"](num_hidden_layers=24, dtype="float32")
    compiled = decoder.logits.lower(model.architecture, model.params, jnp.zeros((4, 64), jnp.int32)).compile()
    stream = 24 * 4 * 64 * 32 * 4
    # One layer's working set: 4 heads x 64 x 64 scores a sequence, twice, and a few (B, T, F) arrays.
    analysis = compiled.memory_analysis()
    assert analysis is not None
    assert analysis.temp_size_in_bytes < stream


def test_one_program_for_all_models_of_one_architecture():
    _, one = TINY["llama"](seed=1)
    _, two = TINY["llama"](seed=2)
    assert one.architecture == two.architecture
    ids = random_ids(one, 1, 17)
    one.logits(ids)
    jitted: Any = decoder.logits
    before = jitted._cache_size()
    two.logits(ids)
    assert jitted._cache_size() == before
    two.logits(ids[:, :-1])
    assert jitted._cache_size() == before + 1
