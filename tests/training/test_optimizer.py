"""The loss and the step against independent oracles: the decoder, transformers with torch's AdamW."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxdyn.errors import InputError
from jaxdyn.models import parameters
from jaxdyn.training import optimizer
from jaxdyn.training.forward import logits, token_losses
from jaxdyn.training.settings import TrainSettings
from tests.models.tiny import TINY, ours, random_ids, tiny_llama

SETTINGS = TrainSettings(steps=8, warmup=2, learning_rate=3e-3, weight_decay=0.3, clip=0.5)


PLAIN = ("gpt2", "llama", "mistral", "qwen2", "smollm3", "phi3")


@pytest.mark.parametrize("family", sorted(set(TINY) - set(PLAIN)))
def test_blocks_that_training_does_not_compute_are_refused(family: str) -> None:
    _, model = TINY[family]()
    with pytest.raises(InputError, match=f"got a {model.architecture.family} decoder with .*; allowed for training"):
        logits(model.architecture, model.params, jnp.zeros((1, 4), int))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("family", PLAIN)
def test_the_forward_pass_is_the_decoders(family: str, dtype: str) -> None:
    _, model = TINY[family](dtype=dtype)
    ids = random_ids(model, 2, 40)
    want = np.asarray(model.logits(ids))
    got = np.asarray(logits(model.architecture, model.params, jnp.asarray(ids), dtype=dtype))
    assert got.dtype == dtype
    # The same products in another order: a few eps of the largest, times the depth of the sums.
    assert np.abs(want - got).max() < 100 * np.finfo(dtype).eps * np.abs(want).max()


def test_bfloat16_rounds_the_linear_maps_and_no_more() -> None:
    _, model = tiny_llama(dtype="float32")
    windows = jnp.asarray(random_ids(model, 4, 33))
    exact, rounded = (
        np.asarray(token_losses(model.architecture, model.params, windows, dtype=dtype))
        for dtype in ("float32", "bfloat16")
    )
    assert exact.dtype == rounded.dtype == np.float32
    error = np.abs(exact - rounded).mean()
    assert 1e-3 < error < 0.1  # eps of bfloat16 is 8e-3, the logits spread over several units


def test_the_loss_is_the_cross_entropy_of_the_next_token() -> None:
    hf, model = tiny_llama()
    windows = random_ids(model, 3, 20)
    got = np.asarray(token_losses(model.architecture, model.params, jnp.asarray(windows), dtype="float64"))
    assert got.shape == (3, 19)
    with torch.no_grad():
        scores = hf(torch.as_tensor(windows[:, :-1])).logits
    want = torch.nn.functional.cross_entropy(scores.flatten(0, 1), torch.as_tensor(windows[:, 1:]).flatten())
    assert abs(got.mean() - want.item()) < 1e-10


def rate(step: int) -> float:
    """The schedule, written again."""
    peak, final = 3e-3, 3e-4
    if step < 2:
        return peak * step / 2
    return final + (peak - final) * 0.5 * (1 + math.cos(math.pi * (step - 2) / (8 - 2)))


def test_the_schedule_rises_and_falls() -> None:
    schedule = optimizer.schedule(SETTINGS)
    assert [float(schedule(step)) for step in range(9)] == pytest.approx([rate(step) for step in range(9)])
    assert rate(8) == pytest.approx(3e-4)


@pytest.mark.parametrize("tied", [True, False])
def test_five_steps_are_those_of_torch(tied: bool) -> None:
    """AdamW, clip, decay mask and schedule in float64: every parameter after five steps."""
    hf, model = tiny_llama(tie_word_embeddings=tied)
    settings = TrainSettings(steps=8, warmup=2, learning_rate=3e-3, weight_decay=0.3, clip=0.5)
    object.__setattr__(settings, "dtype", "float64")  # not offered to users; makes the comparison exact
    params = jax.tree.map(jnp.copy, dict(model.params))
    state = {"params": params, "optimizer": optimizer.make(settings).init(params)}
    step = optimizer.make_step(model.architecture, settings)
    groups = [
        {"params": [p for p in hf.parameters() if p.ndim > 1], "weight_decay": 0.3},
        {"params": [p for p in hf.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8)
    schedule, clipped, differences = optimizer.schedule(settings), 0, []
    for number in range(5):
        windows = random_ids(model, 4, 25, seed=number)
        state, loss = step(state, jnp.asarray(windows))
        scores = hf(torch.as_tensor(windows[:, :-1])).logits
        wanted = torch.nn.functional.cross_entropy(scores.flatten(0, 1), torch.as_tensor(windows[:, 1:]).flatten())
        adamw.zero_grad()
        wanted.backward()
        gradients = [p.grad for p in hf.parameters() if p.grad is not None]
        norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
        clipped += bool(norm > 0.5)
        for gradient in gradients:
            gradient.mul_(min(1.0, 0.5 / norm.item()))
        for group in adamw.param_groups:
            group["lr"] = float(
                schedule(jnp.int32(number))
            )  # tested by itself; its rounding to float32 is not the matter here
        adamw.step()
        differences.append(abs(float(loss) - wanted.item()))
    assert clipped
    assert max(differences) < 1e-9, differences
    found, want = parameters.flatten(state["params"]), parameters.flatten(ours(hf).params)
    before = parameters.flatten(model.params)
    assert found.keys() == want.keys()
    for path in want:
        moved = np.abs(np.asarray(want[path] - before[path])).max()
        assert moved > 1e-4, path
        assert np.abs(np.asarray(found[path] - want[path])).max() < 1e-7 * moved, path


def test_norms_and_biases_do_not_decay() -> None:
    _, model = tiny_llama(attention_bias=True, mlp_bias=True)
    mask = parameters.flatten(optimizer.decays(model.params))
    kept = {path for path, decayed in mask.items() if not decayed}
    assert kept == {path for path in mask if "norm" in path or "bias" in path}
    assert {"embed/tokens", "head", "blocks/mlp/down"} <= mask.keys() - kept
