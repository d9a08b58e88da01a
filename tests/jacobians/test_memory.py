"""What a Jacobian holds while it is made, from the compiler's own account, and how often it is compiled."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdyn.activations import context_at
from jaxdyn.jacobians import OPERATORS, Request, api, jacobian, sample_jacobians
from jaxdyn.models import Architecture, Rope, decoder, parameters
from tests.jacobians.cases import PROMPT, case, compilations
from tests.models.tiny import random_ids

WIDTH, FF, HEADS, KV_HEADS, HEAD_DIM = 128, 320, 8, 4, 16
SAMPLES, PROMPTS, TOKENS = 8, 4, 32
COMMON = {"width": WIDTH, "layers": 2, "heads": HEADS, "head_dim": HEAD_DIM, "ff_dim": FF, "vocab": 50, "context": 64}
RANDOM = {"norm_eps": 1e-5, "tied_head": True, "initializer_range": 0.02, "initializer": "normal"}
ARCHITECTURES = {
    "llama": Architecture(
        **COMMON,
        **RANDOM,
        family="llama",
        kv_heads=KV_HEADS,
        norm="rms",
        activation="silu",
        gated=True,
        qkv_bias=False,
        output_bias=False,
        mlp_bias=False,
        position="rope",
        rope=Rope(10000.0),
    ),
    "gpt2": Architecture(
        **COMMON,
        **RANDOM,
        family="gpt2",
        kv_heads=HEADS,
        norm="layer",
        activation="gelu_tanh",
        gated=False,
        qkv_bias=True,
        output_bias=True,
        mlp_bias=True,
        position="learned",
        rope=None,
    ),
}


def temporaries(name, operator, part="update", method="closed-form", batch_size=None):
    """Floats of temporaries beside the K, V and states of the prompts and, if isolated, the layer's W_O W_V."""
    arch = ARCHITECTURES[name]
    leaves: dict[str, Any] = {
        path: jax.ShapeDtypeStruct(shape, jnp.float32) for path, shape in parameters.shapes(arch).items()
    }
    weights = jax.eval_shape(decoder.layer_weights, parameters.nest(leaves), 0)
    rows, tokens = (SAMPLES, 1) if operator == "isolated" else (PROMPTS, TOKENS)
    contexts = jax.ShapeDtypeStruct((rows, tokens, WIDTH), jnp.float32)
    index = jax.ShapeDtypeStruct((SAMPLES,), jnp.int32)
    source = index if operator == "cross" else None
    if batch_size is None:
        request = Request(operator)
        lowered = api._parts.lower(arch, request, part, method, 64, weights, contexts, index, index, source)
    else:
        take = partial(sample_jacobians, arch, Request(operator), keep=("block",), batch_size=batch_size)
        lowered = jax.jit(lambda *arrays: take(*arrays).block).lower(weights, contexts, index, index)
    memory = lowered.compile().memory_analysis()
    if memory is None:
        pytest.skip("this backend's compiler gives no memory account")
    stated = rows * tokens * (WIDTH + 2 * arch.kv_heads * HEAD_DIM) + WIDTH**2 * (operator == "isolated")
    return memory.temp_size_in_bytes / 4 - stated


BUDGET = 4 * WIDTH**2 + FF * WIDTH


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_closed_form_temporaries(name, operator):
    assert 0.2 * BUDGET < temporaries(name, operator) < BUDGET


def test_the_budget_is_for_one_sample_at_a_time():
    """The control: four samples assembled at once need more than one sample may."""
    assert temporaries("llama", "in-context", batch_size=4) > 2 * BUDGET
    assert temporaries("llama", "in-context", batch_size=1) < BUDGET


@pytest.mark.parametrize("operator", ["in-context", "isolated"])
def test_one_compilation_serves_all_layers(operator, capture_ids):
    model = case("llama-mha").model
    acts = capture_ids(model, random_ids(model, len(PROMPT), 5, seed=11))
    counts = []
    layers: tuple[Any, ...] = (0, 1, np.int64(0))
    for layer in layers:
        jacobian(model, acts, layer=layer, operator=operator)
        counts.append((compilations(api._parts), compilations(context_at)))
    assert counts[0] == counts[1] == counts[2]
    jacobian(model, acts, layer=0, operator=operator, part="attention")
    assert compilations(api._parts) == counts[0][0] + 1, "the count does see a compilation"
