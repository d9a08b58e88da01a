"""N4 and N5: weights without their directions, and random initialisation, through the same operator."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdyn import nulls
from jaxdyn.activations import capture, pad
from jaxdyn.jacobians import jacobian, jacobian_stack
from jaxdyn.models import parameters
from tests.models.tiny import TINY, random_ids, tiny_llama

SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}


@cache
def model_and_states():
    _, model = tiny_llama(**SIZES)
    return model, capture(model, pad(list(random_ids(model, 3, 6)), bos=False))


@pytest.mark.parametrize("kind", ["rotated", "shuffled"])
def test_matrices_of_blocks_change_and_keep_what_the_null_keeps(kind):
    model, _ = model_and_states()
    old = parameters.flatten(model.params)
    new = parameters.flatten(nulls.replaced_weights(model, kind=kind, seed=1).params)
    again = parameters.flatten(nulls.replaced_weights(model, kind=kind, seed=1).params)
    for path, leaf in old.items():
        assert np.array_equal(new[path], again[path])
        if not (path.startswith("blocks/") and leaf.ndim == 3):
            assert np.array_equal(leaf, new[path]), path
            continue
        assert not np.any(np.isclose(leaf, new[path], rtol=1e-9).all(axis=(1, 2))), path
        if kind == "rotated":
            kept = [np.linalg.svd(one, compute_uv=False) for one in (leaf, new[path])]
        else:
            kept = [np.sort(np.asarray(one).reshape(len(one), -1)) for one in (leaf, new[path])]
        np.testing.assert_allclose(*kept, rtol=1e-10, atol=1e-13)
    with pytest.raises(ValueError, match="kind: got 'other'"):
        nulls.replaced_weights(model, kind="other")


def test_padding_of_smaller_layers_stays_zero():
    _, model = TINY["gemma4_text"]()
    new = parameters.flatten(nulls.replaced_weights(model, kind="shuffled").params)
    smaller = 0
    for path, leaf in parameters.flatten(model.params).items():
        if path.startswith("blocks/") and leaf.ndim == 3:
            smaller += np.any(np.asarray(leaf) == 0)
            assert np.array_equal(np.asarray(leaf) == 0, np.asarray(new[path]) == 0), path
    assert smaller


def test_replaced_blocks_see_the_trained_states():
    model, acts = model_and_states()
    other = nulls.replaced_weights(model)
    isolated = {"layer": 1, "operator": "isolated"}  # in context below, by the model itself
    first = jacobian(model, acts, weights_of=other, **isolated)
    auto = jacobian(model, acts, weights_of=other, method="autodiff", **isolated)
    np.testing.assert_allclose(first, auto, atol=1e-12)
    assert np.max(np.abs(first - jacobian(model, acts, **isolated))) > 1e-3
    # block 1 alone replaced in the model itself: the stream that enters it is the trained one's
    mixed = jax.tree.map(lambda a, b: a.at[1].set(b[1]), model.params["blocks"], other.params["blocks"])
    hybrid = type(model)(model.architecture, dict(model.params) | {"blocks": mixed}, None, "", None, "")
    np.testing.assert_allclose(
        jacobian(hybrid, capture(hybrid, acts.prompts), layer=1),
        jacobian(model, acts, layer=1, weights_of=other),
        atol=1e-12,
    )
    _, wider = tiny_llama(**SIZES | {"hidden_size": 32})
    with pytest.raises(ValueError, match="weights_of: got a llama model of 2 blocks and width 32"):
        jacobian(model, acts, layer=1, weights_of=wider)


def test_rungs_of_a_model_are_measures_of_those_jacobians():
    model, acts = model_and_states()
    null = nulls.n4(model, acts, "product_effective_rank", draws=2, seed=5, kind="shuffled")
    other = nulls.replaced_weights(model, kind="shuffled", seed=6)
    expected = nulls.measured(jacobian_stack(model, acts, weights_of=other), "product_effective_rank")
    np.testing.assert_allclose(null.draws[1], expected, rtol=1e-12)
    assert null.shared
    assert null.draws.shape == (2, 2, 3)
    start = nulls.n5(model, acts.prompts, "effective_rank", operator="isolated", seed=2)
    random = model.initialised(4)
    expected = jacobian_stack(random, capture(random, acts.prompts), operator="isolated")
    np.testing.assert_allclose(start.draws[2], nulls.measured(expected, "effective_rank"), rtol=1e-12)
    assert start.seeds == 5
    assert start.shared
    with pytest.raises(ValueError, match="seeds: got 4; allowed 5"):
        nulls.n5(model, acts.prompts, "henrici", seeds=4)


def test_a_stack_takes_the_layers_asked_for():
    model, acts = model_and_states()
    turned = jacobian_stack(model, acts, layers=[1, 0], part="update", derivative="frozen")
    single = jacobian(model, acts, layer=0, part="update", derivative="frozen")
    assert jnp.array_equal(turned[1], single)
    assert turned.shape == (2, 3, 16, 16)
