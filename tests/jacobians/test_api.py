"""The public function: its parts and options, and what it does with input it cannot use."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

import jaxdyn.jacobians
from jaxdyn.activations import capture, pad
from jaxdyn.errors import InputError
from jaxdyn.jacobians import PARTS, Request, jacobian
from jaxdyn.jacobians.request import METHODS, Derivative, Part
from tests.jacobians.cases import LAYER, PROMPT, TOKENS, case, relative
from tests.models.tiny import random_ids

NAME = "llama-gqa-llama3"
LAST = TOKENS - 1
SPOILED: tuple[tuple[Part, Derivative], ...] = (("block", "exact"), ("attention", "frozen"))


@pytest.fixture(scope="module")
def model():
    return case(NAME).model


@pytest.fixture(scope="module")
def acts(model):
    """Last two positions of two prompts of different lengths."""
    ids = random_ids(model, 2, TOKENS, seed=3)
    return capture(model, pad([ids[0], ids[1, : TOKENS - 1]], bos=False), tokens="last:2")


def test_parts(model, acts):
    """The six parts are three matrices and their updates; the sequence's own differentiation gives the three."""
    found = {part: np.asarray(jacobian(model, acts, layer=LAYER, part=part)) for part in PARTS}
    assert all(matrix.shape == (4, 16, 16) and matrix.dtype == np.float64 for matrix in found.values())
    for part, whole in (("update", "block"), ("attention-update", "attention"), ("mlp-update", "mlp")):
        assert relative(found[part] + np.eye(16), found[whole]) < 1e-15
    assert relative(found["mlp"] @ found["attention"], found["block"]) < 1e-13
    for i, one in enumerate(PARTS):
        assert all(relative(found[one], found[other]) > 1e-2 for other in PARTS[:i])


def test_cross_has_no_skip(model, acts):
    cross = {
        part: np.asarray(jacobian(model, acts, layer=LAYER, operator="cross", source=1, part=part))
        for part in ("block", "update", "attention", "attention-update")
    }
    np.testing.assert_array_equal(cross["block"], cross["update"])
    np.testing.assert_array_equal(cross["attention"], cross["attention-update"])
    assert relative(cross["block"], cross["attention"]) > 1e-2
    source = np.array([1, 1, 0, 1])
    each = np.asarray(jacobian(model, acts, layer=LAYER, operator="cross", source=source))
    np.testing.assert_array_equal(each[[0, 1, 3]], cross["block"][[0, 1, 3]])
    assert relative(each[2], cross["block"][2]) > 1e-2


def test_isolated_takes_activations_or_their_array(model, acts):
    from_capture = jacobian(model, acts, layer=LAYER, operator="isolated")
    for array in (acts.inputs[LAYER], np.asarray(acts.inputs[LAYER])):
        np.testing.assert_array_equal(jacobian(model, array, layer=LAYER, operator="isolated"), from_capture)
    assert relative(jacobian(model, acts.inputs[0], layer=LAYER, operator="isolated"), from_capture) > 1e-2


def test_layer_derivative_and_method_reach_the_computation(model, acts):
    one = jacobian(model, acts, layer=LAYER)
    assert relative(jacobian(model, acts, layer=0), one) > 1e-2
    assert relative(jacobian(model, acts, layer=LAYER, derivative="frozen"), one) > 1e-2
    assert relative(jacobian(model, acts, layer=LAYER, operator="ov"), one) > 1e-2
    auto = np.asarray(jacobian(model, acts, layer=LAYER, method="autodiff", chunk=5))
    assert relative(auto, one) < 1e-12
    assert not np.array_equal(auto, one), "the closed form ran in place of autodiff"


def test_selected_samples_give_the_same_matrices(model, acts):
    """Prompts that no selected sample needs are not run, and the samples keep their own prompts."""
    whole = np.asarray(jacobian(model, acts, layer=LAYER))
    chosen = acts.select(np.array([3, 2]))
    assert relative(jacobian(model, chosen, layer=LAYER), whole[[3, 2]]) < 1e-13


def test_activations_that_are_not_finite_spoil_their_own_sample_only(model, acts):
    array = np.array(acts.inputs[LAYER])
    clean = np.asarray(jacobian(model, array, layer=LAYER, operator="isolated"))
    for sample, value in ((0, np.nan), (1, np.inf), (2, -np.inf), (3, 1e200)):
        bad = array.copy()
        bad[sample, 3] = value
        for method in METHODS:
            for part, derivative in SPOILED:
                found = np.asarray(
                    jacobian(
                        model, bad, layer=LAYER, operator="isolated", part=part, derivative=derivative, method=method
                    )
                )
                assert np.isnan(found[sample]).all(), (value, method, part)
                assert np.isfinite(np.delete(found, sample, axis=0)).all()
                if (part, method) == ("block", "closed-form"):
                    np.testing.assert_array_equal(np.delete(found, sample, 0), np.delete(clean, sample, 0))


def test_a_spoiled_prompt_spoils_its_own_samples_only():
    c = case(NAME)
    contexts = c.x.at[0, 1, 0].set(jnp.nan)
    samples = jnp.asarray(PROMPT), jnp.asarray([LAST, 1, LAST, 1])
    found = jaxdyn.jacobians.sample_jacobians(c.arch, Request(), c.weights, contexts, *samples, keep=("block",)).block
    assert np.isnan(found[:2]).all()
    assert np.isfinite(found[2:]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": 2}, r"^layer: got 2; allowed 0 to 1: the model has 2 blocks, counted from 0"),
        ({"layer": -1}, r"^layer: got -1; allowed 0 to 1"),
        ({"layer": 0.5}, r"^layer: got 0\.5; allowed 0 to 1"),
        ({"operator": "isolate"}, r"^operator: got 'isolate'; allowed 'in-context', 'isolated', 'ov', 'cross'"),
        ({"part": "blocks"}, r"^part: got 'blocks'; allowed 'block', 'update', 'attention'"),
        ({"derivative": "detached"}, r"^derivative: got 'detached'; allowed 'exact', 'frozen'"),
        ({"method": "vmap"}, r"^method: got 'vmap'; allowed 'closed-form', 'autodiff'"),
        ({"chunk": 0}, r"^chunk: got 0; allowed 1 or more"),
        ({"operator": "cross"}, r"^source: got None with operator 'cross'"),
        ({"source": 0}, r"^source: got 0 with operator 'in-context'"),
        ({"operator": "cross", "source": LAST}, rf"^source: got {LAST} for sample 0, .*; allowed 0 to {LAST - 2}"),
        (
            {"operator": "cross", "source": [0, LAST, 0, 0]},
            rf"^source: got {LAST} for sample 1, whose position is {LAST}",
        ),
        ({"operator": "cross", "source": -1}, r"^source: got -1 for sample 0"),
        ({"operator": "cross", "source": 0.0}, r"^source: got float64 of shape \(\); allowed one integer, or one for"),
        ({"operator": "cross", "source": [0, 0]}, r"^source: got int64 of shape \(2,\); .* the 4 samples"),
        ({"operator": "cross", "source": 0, "part": "mlp-update"}, r"^part: got 'mlp-update' with operator 'cross'"),
    ],
)
def test_bad_options(model, acts, options, message):
    with pytest.raises(InputError, match=message) as caught:
        jacobian(model, acts, **({"layer": LAYER} | options))
    assert "\n" not in str(caught.value)


def test_the_first_position_has_no_source(model, acts):
    first = replace(acts, position=np.zeros(4, int))
    with pytest.raises(InputError, match=r"^source: got 0 for sample 0, .* the first position has none before it"):
        jacobian(model, first, layer=0, operator="cross", source=0)


def test_bad_activations(model, acts):
    with pytest.raises(
        InputError, match=r"^activations: got a plain array with operator 'in-context'; only 'isolated'"
    ):
        jacobian(model, acts.inputs[0], layer=0)
    for shape in ((4, 15), (16,), (1, 4, 16)):
        with pytest.raises(InputError, match=r"^activations: got an array of shape .*; allowed \(samples, 16\)"):
            jacobian(model, np.zeros(shape), layer=0, operator="isolated")
    with pytest.raises(InputError, match=r"^activations: got 1 blocks of width 16; allowed 2 of width 16"):
        jacobian(model, replace(acts, inputs=acts.inputs[:1]), layer=0, operator="isolated")
