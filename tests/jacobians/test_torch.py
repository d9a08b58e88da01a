"""The autodiff route against torch.func.jacrev on the Hugging Face layer, with eager attention in float64."""

from functools import cache

import numpy as np
import pytest
import torch

from tests.jacobians.cases import MODELS, POSITION, PROMPT, SOURCE, case, relative, routes
from tests.models.tiny import blocks

TOLERANCE = 1e-10


def hf_given(c, ids):
    """Return what the Hugging Face model gives its block for these tokens, beside the residual stream."""
    given = {}
    hook = blocks(c.hf.base_model)[c.layer].register_forward_pre_hook(
        lambda _m, args, kwargs: given.update(rest=args[1:], options=dict(kwargs)), with_kwargs=True
    )
    with torch.no_grad():
        c.hf(torch.as_tensor(ids)[None], use_cache=False)
    hook.remove()
    given["options"].pop("hidden_states", None)
    return given


def hf_block(c, given):
    """Return the Hugging Face block as a function of one sequence (T, D), all else given."""

    def run(x):
        out = blocks(c.hf.base_model)[c.layer](x[None], *given["rest"], **given["options"])
        return (out[0] if isinstance(out, tuple) else out)[0]

    return run


@cache
def sequence_jacobian(name):
    """d y[b,t] / d x[b,s] of both prompts, (B, T, D, T, D)."""
    c = case(name)
    rows = [(hf_block(c, hf_given(c, ids)), torch.tensor(np.asarray(x))) for ids, x in zip(c.ids, c.x, strict=True)]
    with torch.no_grad():
        return np.stack([torch.func.jacrev(block)(x).numpy() for block, x in rows])


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
    x = torch.tensor(np.asarray(c.x))
    for i, (b, t) in enumerate(zip(PROMPT, POSITION["other"], strict=True)):
        given = hf_given(c, c.ids[b, t : t + 1])
        if c.arch.donors:  # a lone token sees the keys and values that the other block made of its observed state
            seen = hf_given(c, c.ids[b])["options"]["shared_kv_states"]
            given["options"]["shared_kv_states"] = {
                kind: tuple(kept[:, :, t : t + 1] for kept in pair) for kind, pair in seen.items()
            }
        alone = hf_block(c, given)
        with torch.no_grad():
            wanted = torch.func.jacrev(alone)(x[b, t][None])[0, :, 0].numpy()
        assert relative(found[i], wanted) < TOLERANCE
