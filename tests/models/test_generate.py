"""Generation: greedy against transformers and against the path without a cache; sampling against its distribution."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
import torch

import jaxdyn.models as models
from jaxdyn.errors import InputError
from jaxdyn.models.generate import _continue, generate
from tests.models.tiny import TINY

SEEDS = {"smollm3": 1, "phi3": 1}  # with the weights of seed 0 they repeat two tokens


def continued(model, prompt, count, **options):
    return generate(model.architecture, model.params, prompt, max_new_tokens=count, **options)


def without_cache(model, prompt, count):
    """Run the whole sequence again for each token, padded on the right to one length."""
    ids = np.zeros((1, model.architecture.context), np.int32)
    ids[0, : len(prompt)] = prompt
    for end in range(len(prompt), len(prompt) + count):
        ids[0, end] = np.argmax(model.logits(ids)[0, end - 1])
    return ids[0, len(prompt) : len(prompt) + count].tolist()


@pytest.mark.parametrize("family", TINY)
def test_greedy_agrees_with_transformers_and_without_a_cache(family):
    hf, model = TINY[family](seed=SEEDS.get(family, 0))
    hf.config.eos_token_id = hf.generation_config.eos_token_id = None
    prompt = [5, 17, 40, 3, 3]
    with torch.no_grad():
        theirs = hf.generate(torch.tensor([prompt]), max_new_tokens=30, do_sample=False, pad_token_id=0)[0, 5:].tolist()
    found = continued(model, prompt, 30)
    assert found == theirs
    assert found == without_cache(model, prompt, 30)
    assert len(set(found)) > 5 or family == "gpt2"


def test_bfloat16_and_the_whole_context():
    _, model = TINY["llama"](dtype="bfloat16")
    assert continued(model, [1], 63) == without_cache(model, [1], 63)


def test_it_stops_after_the_first_stop_id():
    _, model = TINY["llama"]()
    free = continued(model, [5, 17, 40], 20)
    stop = free[7]
    cut = free.index(stop)
    assert continued(model, [5, 17, 40], 20, stop_ids=(stop,)) == free[: cut + 1]
    assert continued(model, [5, 17, stop], 3, stop_ids=(stop,))  # one in the prompt does not count
    stopped = dataclasses.replace(model, stop_ids=(stop,))
    assert stopped.generate([5, 17, 40], 20) == [5, 17, 40, *free[: cut + 1]]


def test_one_program_for_a_buffer():
    _, model = TINY["llama"](vocab_size=67)  # an architecture of no other test
    continued(model, [5, 17, 40], 20)
    jitted: Any = _continue
    before = jitted._cache_size()
    for prompt, count, options in (
        ([1], 9, {}),
        ([4, 5, 6, 7], 28, {"temperature": 0.7, "seed": 3}),
        ([4, 5], 2, {"temperature": 1.3, "top_k": 4, "stop_ids": (1, 2)}),
    ):
        continued(model, prompt, count, **options)
    assert jitted._cache_size() == before
    # The buffer of the next power of two is another program.
    continued(model, [4, 5], 31)
    assert jitted._cache_size() == before + 1


def test_sampling_follows_the_distribution():
    """First new tokens over many seeds: frequencies within five standard errors of softmax(logits / temperature)."""
    _, model = TINY["llama"](dtype="float32")
    prompt, temperature, draws = [5, 17, 40], 1.5, 600
    logits = np.asarray(model.logits([prompt])[0, -1], np.float64) / temperature

    def frequencies(**options):
        first = [continued(model, prompt, 1, temperature=temperature, seed=seed, **options)[0] for seed in range(draws)]
        return np.bincount(first, minlength=61) / draws

    full = np.exp(logits - logits.max())
    full /= full.sum()
    limit = 5 * np.sqrt(full * (1 - full) / draws) + 1 / draws
    assert (np.abs(frequencies() - full) < limit).all()
    top = np.argsort(logits)[-3:]
    among = frequencies(top_k=3)
    assert set(np.flatnonzero(among)) == set(top)
    expected = full[top] / full[top].sum()
    assert (np.abs(among[top] - expected) < 5 * np.sqrt(expected * (1 - expected) / draws)).all()


def test_seed_and_temperature_change_the_draw():
    _, model = TINY["llama"]()
    one = continued(model, [5], 30, temperature=1.0, seed=1)
    assert one == continued(model, [5], 30, temperature=1.0, seed=1)
    assert one != continued(model, [5], 30, temperature=1.0, seed=2)
    assert one != continued(model, [5], 30, temperature=3.0, seed=1)
    assert continued(model, [5], 30, temperature=1.0, seed=1, top_k=1) == continued(model, [5], 30)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens: got 0 after a prompt of 2 tokens, allowed 1 to 62"),
        ({"max_new_tokens": 63}, "max_new_tokens: got 63 after a prompt of 2 tokens, allowed 1 to 62"),
        ({"temperature": -1.0}, "temperature: got -1.0"),
        ({"temperature": float("nan")}, "temperature: got nan"),
        ({"top_k": 3}, "top_k: got 3 at temperature 0.0"),
        ({"top_k": 62, "temperature": 1.0}, "top_k: got 62 at temperature 1.0, allowed 1 to 61"),
        ({"top_k": 0, "temperature": 1.0}, "top_k: got 0"),
    ],
)
def test_bad_options(options, message):
    _, model = TINY["llama"]()
    with pytest.raises(InputError) as error:
        model.generate([1, 2], **({"max_new_tokens": 4} | options))
    assert message in str(error.value)


def test_a_trained_model_tells_a_story(shared):
    model = models.load(shared / "models" / "stories260k")
    text = model.generate("Once upon a time", 40)
    assert text.startswith("Once upon a time, there was a little")
    ids = model.encode(["Once upon a time"])[0]
    assert model.decode(model.generate(ids, 40)) == text
    assert jax.tree.leaves(model.params)[0].dtype == np.float32
