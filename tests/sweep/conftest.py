"""A tiny model as a folder, and stub units in this process."""

from pathlib import Path

import jax
import numpy as np
import pytest

from jaxdyn.models import parameters
from jaxdyn.training import export
from jaxdyn.training.settings import TrainSettings
from tests.sweep import stub

TINY = TrainSettings(width=16, layers=2, heads=4, kv_heads=2, ff_dim=24, context=32, steps=1, warmup=0)


def write_model(settings: TrainSettings, vocab: int, path: Path) -> None:
    """Write a random model as a Hugging Face folder without a tokenizer."""
    arch = settings.architecture(vocab)
    rng, drawn = np.random.default_rng(0), {}  # jax's own draws would be compiled, leaf by leaf
    for name, shape in parameters.shapes(arch).items():
        drawn[name] = np.ones(shape) if name.endswith("scale") else 0.3 * rng.standard_normal(shape)
    params = {name: jax.numpy.asarray(leaf, jax.numpy.float32) for name, leaf in drawn.items()}
    export.export(arch, parameters.nest(params), settings.config(vocab), path)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model as a Hugging Face folder, with a word-level tokenizer of the words w2, w3 ..."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("tiny") / "model"
    write_model(TINY, 61, path)
    vocab = {"<s>": 0, "<unk>": 1} | {f"w{i}": i for i in range(2, 61)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(path)
    return path


@pytest.fixture
def stubbed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stub units in this process, for one test."""
    for module, name, value in stub.PATCHES:
        monkeypatch.setattr(module, name, value)
