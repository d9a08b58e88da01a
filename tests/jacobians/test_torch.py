"""The autodiff route against torch.func.jacrev on the Hugging Face layer, with eager attention in float64."""

from functools import cache

import numpy as np
import pytest
import torch

from tests.jacobians.cases import LAYER, MODELS, POSITION, PROMPT, SOURCE, TOKENS, case, relative, routes

TOLERANCE = 1e-10


def hf_block(hf, length):
    """Return the Hugging Face block as a function of one sequence (length, D), causal mask and positions given."""
    base = hf.base_model
    mask = torch.full((length, length), -torch.inf, dtype=torch.float64).triu(1)[None, None]
    if hasattr(base, "h"):
        return lambda x: base.h[LAYER](x[None], attention_mask=mask)[0]
    at = torch.arange(length)[None]
    turns = base.rotary_emb(torch.zeros(1, length, 1, dtype=torch.float64), position_ids=at)
    return lambda x: base.layers[LAYER](x[None], attention_mask=mask, position_ids=at, position_embeddings=turns)[0]


@cache
def sequence_jacobian(name):
    """d y[b,t] / d x[b,s] of both prompts, (B, T, D, T, D)."""
    c = case(name)
    block, x = hf_block(c.hf, TOKENS), torch.tensor(np.asarray(c.x))
    with torch.no_grad():
        return np.stack([torch.func.jacrev(block)(row).numpy() for row in x])


@pytest.mark.parametrize("name", MODELS)
def test_in_context(name):
    found, wanted = routes(name, "in-context", "exact")["autodiff"].block, sequence_jacobian(name)
    for i, (b, t) in enumerate(zip(PROMPT, POSITION["other"], strict=True)):
        assert relative(found[i], wanted[b, t, :, t]) < TOLERANCE


@pytest.mark.parametrize("name", MODELS)
def test_cross(name):
    found, wanted = routes(name, "cross", "exact")["autodiff"].block, sequence_jacobian(name)
    for i, (b, t, s) in enumerate(zip(PROMPT, POSITION["cross"], SOURCE, strict=True)):
        assert relative(found[i], wanted[b, t, :, s]) < TOLERANCE
        assert np.all(wanted[b, s, :, t] == 0), "the oracle itself is not causal"


@pytest.mark.parametrize("name", MODELS)
def test_isolated(name):
    c = case(name)
    found = routes(name, "isolated", "exact")["autodiff"].block
    alone, x = hf_block(c.hf, 1), torch.tensor(np.asarray(c.x))
    for i, (b, t) in enumerate(zip(PROMPT, POSITION["other"], strict=True)):
        with torch.no_grad():
            wanted = torch.func.jacrev(alone)(x[b, t][None])[0, :, 0].numpy()
        assert relative(found[i], wanted) < TOLERANCE
