"""The closed form against autodiff, and parts against the block: every operator, derivative and kind, in float64."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdyn.jacobians import DERIVATIVES, Request, sample_jacobians
from jaxdyn.models import decoder
from tests.jacobians.cases import COMBINATIONS, LAYER, PARTS, PROMPT, case, position_of, relative, routes

# Sums of at most n = 24 products, a few in a row: n eps = 5e-15, and some 20 of these for the chain.
TOLERANCE = 1e-12


@pytest.mark.parametrize(("name", "operator", "derivative"), COMBINATIONS)
def test_closed_form_is_autodiff(name, operator, derivative):
    closed, auto = (routes(name, operator, derivative)[method] for method in ("closed-form", "autodiff"))
    for field in (*PARTS, "x", "h", "y"):
        found, wanted = getattr(closed, field), getattr(auto, field)
        if wanted is None:
            assert (operator, field, found) == ("cross", "mlp", None)
            continue
        for sample in range(len(PROMPT)):
            assert relative(found[sample], wanted[sample]) < TOLERANCE, (field, sample)
    if operator == "cross" and case(name).arch.shares(case(name).layer):
        assert not closed.block.any(), "other positions act through the keys and values of another block alone"
        return
    assert not np.array_equal(closed.block, auto.block), "one route ran twice: different sums differ in some last bit"


@pytest.mark.parametrize("method", ["closed-form", "autodiff"])
@pytest.mark.parametrize(("name", "operator", "derivative"), [c for c in COMBINATIONS if c[1] != "cross"])
def test_block_is_mlp_times_attention(name, operator, derivative, method):
    found = routes(name, operator, derivative)[method]
    if case(name).arch.parallel_residual:
        assert relative(found.mlp + found.attention - np.eye(found.mlp.shape[-1]), found.block) < 1e-13
        assert relative(found.mlp @ found.attention, found.block) > 1e-3, "neither sees what the other adds"
        return
    assert relative(found.mlp @ found.attention, found.block) < 1e-13
    if case(name).arch.shares(case(name).layer) and (operator, derivative) != ("in-context", "exact"):
        np.testing.assert_array_equal(found.attention, np.broadcast_to(np.eye(16), found.attention.shape))
        return  # the keys and values are another block's, and the pattern is held
    assert relative(found.attention @ found.mlp, found.block) > 1e-3, "the order matters"


@pytest.mark.parametrize("activation", ["gelu", "relu"])  # silu and gelu_tanh are in the cases above
@pytest.mark.parametrize("name", ["llama-mqa-biases", "gpt2"])
def test_other_activations(name, activation):
    c = case(name)
    arch = replace(c.arch, activation=activation)

    @jax.jit
    def mlp(weights, x):
        samples = jnp.arange(2), jnp.zeros(2, int)
        return {
            (derivative, method): sample_jacobians(
                arch, Request("isolated", derivative), weights, x, *samples, keep=("mlp",), method=method
            ).mlp
            for derivative in DERIVATIVES
            for method in ("closed-form", "autodiff")
        }

    found = mlp(c.weights, c.x[:, 2:3])
    for derivative in DERIVATIVES:
        assert relative(found[derivative, "closed-form"], found[derivative, "autodiff"]) < TOLERANCE


@pytest.mark.parametrize("operator", ["isolated", "in-context"])
def test_float32_is_the_float64_result_rounded(operator):
    c = case("llama-gqa-llama3")
    weights = decoder.layer_weights(jax.tree.map(lambda leaf: leaf.astype(jnp.float32), c.model.params), LAYER)
    x = c.x.astype(jnp.float32)
    samples = jnp.asarray(PROMPT), jnp.asarray(position_of(operator))
    take = jax.jit(partial(sample_jacobians, c.arch, Request(operator), keep=("block",)))
    found = take(weights, x, *samples).block
    assert found.dtype == jnp.float32
    wanted = routes("llama-gqa-llama3", operator, "exact")["closed-form"].block
    # Some 8 roundings of sums of n <= 24 terms in a row, of random sign: 8 sqrt(24) eps.
    error = relative(found, wanted)
    assert 1e-9 < error < 8 * 24**0.5 * np.finfo(np.float32).eps


def test_low_precision_weights_compute_in_float32():
    c = case("gpt2")
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), c.model.params)
    weights = decoder.layer_weights(params, LAYER)
    x = c.x[:, :1].astype(jnp.float32)
    samples = jnp.arange(2), jnp.zeros(2, int)
    block = {
        method: jax.jit(partial(sample_jacobians, c.arch, Request("isolated"), keep=("block",), method=method))(
            weights, x, *samples
        ).block
        for method in ("closed-form", "autodiff")
    }
    assert block["closed-form"].dtype == jnp.float32
    assert relative(block["closed-form"], block["autodiff"]) < 8 * 24**0.5 * np.finfo(np.float32).eps
