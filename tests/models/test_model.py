"""The model object: tokenizer, whether it sets a BOS, and ids that cannot be used."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from jaxdyn.errors import InputError
from jaxdyn.models import load
from tests.models.tiny import tiny_llama

WORDS = ["<unk>", "<s>", "</s>", "a", "cat", "sat", "on", "the", "mat"]


def tokenizer(*, bos, words=WORDS):
    inner = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    if bos:
        inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@pytest.fixture
def folder(tmp_path):
    hf, _ = tiny_llama()
    hf.save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("bos", [True, False])
def test_encode_decode_and_bos(folder, bos):
    tokenizer(bos=bos).save_pretrained(folder)
    model = load(folder)
    assert model.adds_bos is bos
    assert model.encode(["the cat", "a"]) == [[1] * bos + [7, 4], [1] * bos + [3]]
    assert model.decode(np.array([1, 7, 4, 2])) == "the cat"
    assert isinstance(model.generate("the cat", 3), str)


def test_without_a_tokenizer(folder):
    model = load(folder)
    assert model.tokenizer is None
    assert not model.adds_bos
    assert model.logits([[1, 2, 3]]).shape == (1, 3, 61)
    for call in (lambda: model.encode(["the cat"]), lambda: model.decode([1]), lambda: model.generate("the cat")):
        with pytest.raises(InputError, match=r"has no tokenizer \(tokenizer\.json\)"):
            call()


def test_bad_texts(folder):
    tokenizer(bos=False).save_pretrained(folder)
    model = load(folder)
    for texts, message in (
        (["the", ""], "text 1 is '', allowed strings that are not empty"),
        (["the", None], "text 1 is None"),
        ("the cat", r"got one string \('the cat'\)"),
        ([" "], "the tokenizer makes no token of ' '"),
    ):
        with pytest.raises(InputError, match=message):
            model.encode(texts)
    large = dataclasses.replace(model, tokenizer=tokenizer(bos=False, words=WORDS[:3] + [str(i) for i in range(80)]))
    assert large.encode(["5"]) == [[8]]
    with pytest.raises(InputError, match="makes ids up to 82 of '79', allowed are ids below 61"):
        large.encode(["79"])


def test_broken_tokenizer(folder):
    tokenizer(bos=False).save_pretrained(folder)
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match=r"cannot read the tokenizer in .*download it again"):
        load(folder)


def test_code_in_a_folder_is_never_run(folder, tmp_path):
    """A tokenizer that asks for its own Python file: the file is not imported, whatever becomes of the tokenizer."""
    tokenizer(bos=False).save_pretrained(folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config |= {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    mark = tmp_path / "ran"
    (folder / "evil.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass Evil: ...\n")
    with pytest.raises(InputError, match="cannot read the tokenizer"):
        load(folder)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([[1, 61]], "got 61, allowed 0 to 60"),
        ([[-1, 5]], "got -1, allowed 0 to 60"),
        ([[1.0, 2.0]], r"got float64 of shape \(1, 2\), allowed integers with 2 axes"),
        ([1, 2], r"shape \(2,\), allowed integers with 2 axes"),
        (np.zeros((1, 0), int), r"shape \(1, 0\), allowed integers with 2 axes, not empty"),
        (np.ones((1, 65), int), "got 65 tokens, the model's context is 64; shorten the text"),
    ],
)
def test_bad_ids(ids, message):
    _, model = tiny_llama()
    with pytest.raises(InputError, match=message):
        model.logits(ids)


def test_real_tokenizer(shared, tmp_path):
    source = shared / "models" / "stories260k"
    model = load(source)
    assert model.adds_bos
    assert model.decode(model.encode(["Once upon a time"])[0]) == "Once upon a time"
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(source / name, tmp_path / name)
    bare = load(tmp_path)
    assert bare.weights_hash == model.weights_hash
    assert bare.tokenizer is None
