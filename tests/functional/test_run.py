"""The functional test: displacements, divergences, the scale from J to I, and no claim where J does not beat I."""

from functools import cache

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import rel_entr, softmax

import jaxdyn
from jaxdyn import functional
from jaxdyn.activations import capture, pad
from jaxdyn.functional import FunctionalSettings
from jaxdyn.models import decoder
from tests.models.tiny import random_ids, tiny_llama

SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_key_value_heads": 2}
SETTINGS = FunctionalSettings(names=("normal",), radii=(0.003, 0.01, 0.3), count=2)


@cache
def model_and_states():
    _, model = tiny_llama(**SIZES)
    ids = random_ids(model, 5, 7)
    return model, capture(model, pad([*ids[:4], ids[4][:4]], bos=False))


@cache
def results(kind):
    model, acts = model_and_states()
    return functional.functional_test(model, acts, FunctionalSettings(**vars(SETTINGS) | {"kind": kind}))


def test_states_of_other_prompts_at_the_same_position():
    model, acts = model_and_states()
    found = functional.displacements(model, acts, count=4) + np.asarray(acts.inputs)[:, :, None]
    assert found.shape == (2, 5, 4, 16)
    everywhere = capture(model, acts.prompts, tokens="all")
    at = {(p, t): s for s, (p, t) in enumerate(zip(everywhere.prompt, everywhere.position, strict=True))}
    others = np.asarray(everywhere.inputs)[:, [at[p, 6] for p in range(1, 4)]]
    assert np.isfinite(found[:, 0]).all(axis=(0, 2)).tolist() == [True] * 3 + [False]  # prompt 4 is too short
    for partner in range(3):
        distance = np.abs(others - found[:, 0, partner][:, None]).max(axis=(0, 2))
        assert np.sort(distance)[0] < 1e-12
    short = np.asarray(everywhere.inputs)[:, [at[p, 3] for p in range(4)]]
    assert np.abs(short - found[:, 4, 0][:, None]).max(axis=(0, 2)).min() < 1e-12
    again, other = (functional.displacements(model, acts, count=4, seed=seed) for seed in (0, 5))
    assert np.array_equal(again + np.asarray(acts.inputs)[:, :, None], found, equal_nan=True)
    assert not np.array_equal(again, other, equal_nan=True)
    lone = capture(model, pad([acts.prompts.token_ids[0]], bos=False))
    with pytest.raises(ValueError, match="finds no partner"):
        functional.displacements(model, lone)
    with pytest.raises(ValueError, match="kind, count: got 'noise', 4"):
        functional.displacements(model, acts, kind="noise")


def test_states_after_another_last_token():
    model, acts = model_and_states()
    found = functional.displacements(model, acts, kind="token-swap", count=3)
    assert np.isfinite(found).all()
    state = found + np.asarray(acts.inputs)[:, :, None]
    seen = set()
    for token in np.unique(acts.prompts.token_ids):
        row = acts.prompts.token_ids[0].copy()
        row[-1] = token
        swapped = np.asarray(capture(model, pad([row], bos=False)).inputs)[:, 0]
        seen |= {k for k in range(3) if np.allclose(state[:, 0, k], swapped, atol=1e-12)}
    assert seen == {0, 1, 2}
    assert np.all(np.linalg.norm(found, axis=-1) > 0.01)
    np.testing.assert_allclose(
        functional.relative_norm(found, acts.inputs),
        np.linalg.norm(found, axis=-1) / np.linalg.norm(np.asarray(acts.inputs), axis=-1)[..., None],
    )


def test_divergences_are_those_of_the_definition_and_keep_small_ones(rng):
    model, acts = model_and_states()
    p = acts.final[:3]
    q = p[:, None] + jnp.asarray([1.0, 0.03, 1e-5])[:, None] * rng.standard_normal((3, 3, 16))

    def of(x):
        return softmax(np.asarray(decoder.unembed(model.architecture, model.params, x)), axis=-1)

    expected = rel_entr(of(p)[:, None], of(q)).sum(axis=-1)
    # atol: the reference sums terms of 1e-6 of either sign, so its own rounding is of order 1e-16.
    np.testing.assert_allclose(functional.divergences(model, p, q), expected, rtol=1e-5, atol=1e-15)
    single = model.astype("float32")
    small = functional.divergences(single, p.astype(jnp.float32), q.astype(jnp.float32))
    assert small.dtype == jnp.float32
    np.testing.assert_allclose(small[:, 1], expected[:, 1], rtol=1e-3)
    assert np.all(small >= 0)


@pytest.mark.parametrize("kind", functional.KINDS)
def test_the_jacobian_is_right_to_second_order_and_nothing_else_is(kind):
    table = results(kind)
    kl = table["mean_kl"].sel(layer=0)
    order = np.log(kl.sel(radius=0.01) / kl.sel(radius=0.003)) / np.log(0.01 / 0.003)
    found = dict(zip(order["operator"].values.tolist(), order.values, strict=True))
    assert found["J"] == pytest.approx(4, abs=0.3)  # the error is of second order, the divergence of its square
    for name in ("I", "0", "random", "normal"):
        assert found[name] == pytest.approx(2, abs=0.2), name
    score = table["score"].sel(layer=0, radius=0.01)
    np.testing.assert_allclose(score.sel(operator=["J", "I"]), [0, 1], atol=1e-12)
    assert table["claim"].sel(radius=0.01).values.all()
    assert table.attrs["failed"] == 0


def test_a_displaced_run_is_the_whole_model_run_from_there():
    """M = 0 puts F(x) there: the divergence of the displaced run from the run as it is, by whole sequences."""
    model, acts = model_and_states()
    table = results("same-position")
    delta = functional.displacements(model, acts, count=2)[1, 0, 1]
    state = np.asarray(acts.inputs)[1, 0]
    moved = state + 0.3 * np.linalg.norm(state) * delta / np.linalg.norm(delta)
    inputs, *_ = decoder.residual_stream(model.architecture, model.params, jnp.asarray(acts.prompts.token_ids[:1]))
    weights = decoder.layer_weights(model.params, 1)
    final = decoder.block(model.architecture, weights, inputs[1, 0].at[6].set(moved), jnp.arange(7))[6]
    p, q = (
        softmax(np.asarray(decoder.unembed(model.architecture, model.params, one))) for one in (final, acts.final[0])
    )
    expected = rel_entr(p, q).sum()
    found = table["kl"].sel(layer=1, operator="0", radius=0.3).isel(sample=0, displacement=1)
    assert float(found) == pytest.approx(expected, rel=1e-8)


def test_no_claim_where_the_jacobian_does_not_win(rng):
    radii = np.array([0.1, 0.3, 1.0])
    identity = np.ones((3, 20, 2))
    own = identity * np.array([0.1, 0.5, 2.0])[:, None, None] * np.exp(0.1 * rng.standard_normal((3, 20, 2)))
    own[:, 3, 1] = np.nan
    claim, ratio = functional.beats(own, identity, np.arange(20))
    assert claim.tolist() == [True, True, False]
    np.testing.assert_allclose(ratio[:, 0], np.log([0.1, 0.5, 2.0]), atol=0.1)
    assert functional.radius_of(claim, radii) == 0.3
    assert functional.radius_of(np.array([True, False, True]), radii) == 0.1
    assert functional.radius_of(np.array([True, False, True]), radii[::-1]) == 0.1
    assert np.isnan(functional.radius_of(np.array([False, True, True]), radii))
    mean = np.array([[0.2, 0.6, 1.5], [1.0, 1.0, 1.0]])
    score = functional.normalised(mean, np.array([0.1, 0.5, 2.0]), np.ones(3), claim)
    np.testing.assert_allclose(score, [[0.1 / 0.9, 0.2, np.nan], [1, 1, np.nan]])
    assert not functional.beats(own, identity, np.zeros(20))[0].any()  # a single article carries no claim


def test_the_same_twice_and_refusals():
    model, acts = model_and_states()
    settings = FunctionalSettings(**vars(SETTINGS) | {"layers": (1,)})
    table = functional.functional_test(model, acts, settings)
    assert table.identical(functional.functional_test(model, acts, settings))
    np.testing.assert_allclose(table["kl"], results("same-position")["kl"].sel(layer=[1]), rtol=1e-9)
    noise = functional.operator_matrices(jaxdyn.jacobian(model, acts, layer=1), SETTINGS)
    np.testing.assert_allclose(*(np.linalg.norm(noise[at], axis=(-2, -1)) for at in (0, 3)), rtol=1e-12)
    whole = FunctionalSettings(names=("schur",), alpha=1.0)
    np.testing.assert_allclose(*functional.operator_matrices(noise[0], whole)[jnp.asarray([0, 4])], atol=1e-12)
    for options, said in (
        ({"names": ("complex-normal",)}, "names: got 'complex-normal'"),
        ({"radii": (0.1, 0.1)}, "radii: got"),
        ({"radii": ()}, "radii: got"),
    ):
        with pytest.raises(ValueError, match=said):
            FunctionalSettings(**options)
    with pytest.raises(ValueError, match="layer: got 2"):
        functional.functional_test(model, acts, FunctionalSettings(layers=(2,)))
