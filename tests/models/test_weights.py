"""Loading: the round trip through transformers' own files, and one clear line for all that can be wrong."""

import json
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import jaxdyn.models as models
from jaxdyn.errors import InputError
from tests.models.tiny import TINY, random_ids


@pytest.fixture
def folder(tmp_path):
    """Return a function that writes a tiny model as a Hugging Face folder and gives (folder, our model of it)."""

    def write(family="llama", *, max_shard_size="1GB", **overrides):
        hf, model = TINY[family](**overrides)
        hf.save_pretrained(tmp_path / family, max_shard_size=max_shard_size)
        return tmp_path / family, model

    return write


def edit(folder, change):
    """Rewrite a folder's tensors through ``change(tensors) -> tensors``."""
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path)


def same(one, two):
    jax.tree.map(np.testing.assert_array_equal, one.params, two.params)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", TINY)
def test_round_trip(folder, family, tied):
    path, expected = folder(family, tie_word_embeddings=tied)
    model = models.load(path, dtype="float64")
    assert model.architecture == expected.architecture
    assert ("head" in model.params) == (not tied)
    same(model, expected)
    assert model.weights_hash == expected.weights_hash
    assert model.source == str(path)
    assert model.revision is None
    assert model.stop_ids == (2,)
    assert jax.tree.leaves(models.load(path).params)[0].dtype == np.float32


@pytest.mark.parametrize("family", TINY)
def test_sharded_is_the_same_model(folder, family):
    path, expected = folder(family, max_shard_size="20KB")
    assert len(list(path.glob("*.safetensors"))) > 2
    assert not (path / "model.safetensors").exists()
    model = models.load(path, dtype="float64")
    same(model, expected)
    assert model.weights_hash == expected.weights_hash


@pytest.mark.parametrize("family", TINY)
def test_keys_without_prefix_and_known_buffers(folder, family):
    path, expected = folder(family, tie_word_embeddings=True)
    prefix = {"gpt2": "transformer.", "gpt_neox": "gpt_neox."}.get(family, "model.")
    tower = {"vision_tower.encoder.weight": np.ones(2)}
    buffers = {
        "gpt2": {"h.0.attn.bias": np.ones((1, 1, 4, 4), bool), "h.2.attn.masked_bias": np.array(-1e4)},
        "gpt_neox": {"layers.1.attention.bias": np.ones((1, 1, 4, 4), bool)},
        "gemma3_text": tower,
        "gemma4_text": tower | {"layers.2.self_attn.k_proj.weight": np.ones((24, 32))},
    }.get(family, {"layers.0.self_attn.rotary_emb.inv_freq": np.ones(4)})
    edit(path, lambda tensors: {key.removeprefix(prefix): value for key, value in tensors.items()} | buffers)
    model = models.load(path, dtype="float64")
    same(model, expected)
    assert model.weights_hash == expected.weights_hash


def test_tied_checkpoint_may_hold_the_head_too(folder):
    path, expected = folder(tie_word_embeddings=True)
    edit(path, lambda tensors: tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"]})
    same(models.load(path, dtype="float64"), expected)
    edit(path, lambda tensors: tensors | {"lm_head.weight": tensors["lm_head.weight"] + 1})
    with pytest.raises(
        InputError, match=r"lm_head\.weight differs from model\.embed_tokens\.weight, but config\.json ties"
    ):
        models.load(path)


def test_bfloat16_checkpoint(tmp_path):
    hf, _ = TINY["llama"]()
    hf.to(torch.bfloat16).save_pretrained(tmp_path)
    stored, widened = models.load(tmp_path, dtype="bfloat16"), models.load(tmp_path)
    assert stored.params["embed"]["tokens"].dtype == ml_dtypes.bfloat16
    assert widened.params["embed"]["tokens"].dtype == np.float32
    assert stored.weights_hash == widened.weights_hash  # it is the checkpoint's
    ids = random_ids(stored, 1, 16)
    np.testing.assert_array_equal(stored.logits(ids), widened.logits(ids))


def test_one_error_lists_all_that_does_not_fit(folder):
    path, _ = folder()

    def damage(tensors):
        del tensors["model.layers.1.mlp.up_proj.weight"], tensors["lm_head.weight"]
        tensors["model.layers.0.self_attn.q_norm.weight"] = np.ones(8)
        tensors["model.norm.weight"] = np.ones(31)
        return tensors

    edit(path, damage)
    with pytest.raises(InputError) as error:
        models.load(path)
    text = str(error.value)
    assert "missing: layers.1.mlp.up_proj.weight, lm_head.weight" in text
    assert "left over: model.layers.0.self_attn.q_norm.weight" in text
    assert "wrong shape: model.norm.weight is (31,), the config says (32,)" in text
    assert "\n" not in text


def test_config_that_contradicts_the_weights(folder):
    path, _ = folder("gpt2")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"n_layer": 4, "n_positions": 32}))
    with pytest.raises(InputError, match=r"missing: h\.3\..*wrong shape: transformer\.wpe\.weight is \(64, 32\)"):
        models.load(path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("key", ["model.layers.2.mlp.down_proj.weight", "model.norm.weight"])
def test_not_finite_weights(folder, key, value):
    path, _ = folder()

    def spoil(tensors):
        tensors[key].flat[3] = value
        return tensors

    edit(path, spoil)
    with pytest.raises(InputError, match=rf"{key} has 1 NaN or inf of \d+ values"):
        models.load(path)


def test_float64_weights_too_large_for_float32(folder):
    path, _ = folder()
    edit(path, lambda tensors: tensors | {"model.norm.weight": np.full(32, 1e300)})
    with pytest.raises(InputError, match=r"norm\.weight has 32 NaN or inf of 32 values \(as float32\)"):
        models.load(path)
    models.load(path, dtype="float64")


def test_quantised_tensor(folder):
    path, _ = folder()
    edit(path, lambda tensors: tensors | {"model.norm.weight": np.ones(32, np.int8)})
    with pytest.raises(InputError, match=r"holds model\.norm\.weight I8; allowed are F64, F32, F16, BF16"):
        models.load(path)


@pytest.mark.parametrize("kept", [0, 4, 100, -5])
def test_truncated_file(folder, kept):
    path, _ = folder()
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"model\.safetensors \(\d+ bytes\) is truncated or damaged"):
        models.load(path)


def test_shards_that_do_not_match_their_index(folder):
    path, _ = folder(max_shard_size="20KB")
    index = path / "model.safetensors.index.json"
    intact = index.read_text()
    first = sorted(path.glob("model-*.safetensors"))[0]

    def rewritten(**changes):
        content = json.loads(intact)
        content["weight_map"] |= changes
        index.write_text(json.dumps(content))

    rewritten(**{"model.extra.weight": first.name})
    with pytest.raises(InputError, match=rf"{first.name} disagree about model\.extra\.weight"):
        models.load(path)
    rewritten(**{"model.extra.weight": "../../elsewhere.safetensors"})
    with pytest.raises(InputError, match=r"allowed are safetensors files in the same folder"):
        models.load(path)
    index.write_text("{}")
    with pytest.raises(InputError, match='has no "weight_map"'):
        models.load(path)
    index.write_text(intact)
    first.unlink()
    with pytest.raises(InputError, match=rf"names files that are not in .*{first.name}; download them"):
        models.load(path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "last.ckpt"])
def test_pickles_are_refused(folder, name):
    path, _ = folder()
    (path / name).write_bytes(b"\x80\x04.")
    models.load(path)  # beside safetensors they are not looked at
    (path / "model.safetensors").unlink()
    with pytest.raises(InputError, match=rf"only pickle files \({name}\).*safetensors"):
        models.load(path)
    with pytest.raises(InputError, match=r"a pickle file, which can run code.*safetensors"):
        models.load(path / name)


def test_folder_that_is_no_model(folder, tmp_path):
    path, _ = folder()
    with pytest.raises(InputError, match="give a hub id such as"):
        models.load("")
    with pytest.raises(InputError, match="there is no such folder"):
        models.load(tmp_path / "absent")
    with pytest.raises(InputError, match="there is no such folder"):
        models.load("./absent")
    with pytest.raises(InputError, match=r"got the file .*give its folder"):
        models.load(path / "model.safetensors")
    with pytest.raises(InputError, match="leave revision out"):
        models.load(path, revision="main")
    config = path / "config.json"
    for content, message in (("{", "not valid JSON"), ("[]", "expected an object"), (b"\xff\xfe{", "not valid JSON")):
        config.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(InputError, match=message):
            models.load(path)
    config.unlink()
    with pytest.raises(InputError, match=r"no config\.json in"):
        models.load(path)
    shutil.copy(path / "generation_config.json", config)
    with pytest.raises(InputError, match=r"supported families are gemma2, .*qwen3, smollm3"):
        models.load(path)
    empty = tmp_path / "empty"
    empty.mkdir()
    config.write_text(json.dumps({"model_type": "gpt2", "vocab_size": 9, "n_embd": 4, "n_layer": 1, "n_head": 1}))
    shutil.copy(config, empty)
    with pytest.raises(InputError, match=r"found no weights in .*need model\.safetensors"):
        models.load(empty)


def test_dtypes(folder):
    path, _ = folder()
    with pytest.raises(InputError, match="got 'float16', allowed float32, float64, bfloat16"):
        models.load(path, dtype="float16")
    with jax.enable_x64(False), pytest.raises(InputError, match=r"jax_enable_x64.*--dtype float64"):
        models.load(path, dtype="float64")


def test_end_of_sequence_ids(folder):
    path, _ = folder()
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": [5, 7]}))
    assert models.load(path).stop_ids == (5, 7)
    (path / "generation_config.json").unlink()
    assert models.load(path).stop_ids == (2,)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"eos_token_id": "</s>"}))
    with pytest.raises(InputError, match='"eos_token_id": got'):
        models.load(path)
