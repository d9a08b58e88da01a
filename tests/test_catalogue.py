"""`jaxdyn models`: families from the parity tests' table, a checkpoint from its headers, the cost of an analysis."""

import dataclasses
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxdyn import catalogue
from jaxdyn.errors import InputError
from jaxdyn.models import Architecture, Rope, convert, hub, load
from jaxdyn.models.families import FAMILIES
from jaxdyn.pipeline import Settings
from jaxdyn.pipeline.estimate import Rates, Work, estimate, measure_rates
from tests.models.hub_server import HubServer, Repo
from tests.models.parity_table import PLACE, as_text, parity_table
from tests.models.tiny import TINY

RATES = Rates(schur_seconds=0.02, flops=1e11, cores=4, device="a device")


def test_the_families_are_those_of_the_parity_tests():
    table = parity_table()
    assert PLACE.read_text(encoding="utf-8") == as_text(table), "run python -m tests.models.parity_table"
    assert catalogue.families() == json.loads(as_text(table))
    assert {FAMILIES[name] for name in table["families"]} == set(FAMILIES.values())


def test_a_head_that_is_stored_and_tied_is_not_counted(tmp_path):
    hf, _ = TINY["llama"](tie_word_embeddings=True)
    hf.save_pretrained(tmp_path)
    work, file = Work(Settings(), 4, 16), tmp_path / "model.safetensors"
    before = catalogue.describe(tmp_path, work, RATES)
    tensors = load_file(file)
    save_file(tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"]}, file)
    assert catalogue.describe(tmp_path, work, RATES) == before


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", TINY)
def test_a_folder_is_described_without_being_loaded(tmp_path, monkeypatch, family, tied):
    hf, model = TINY[family](tie_word_embeddings=tied)
    hf.save_pretrained(tmp_path)
    monkeypatch.setattr("jaxdyn.models.checkpoint.read_tensor", None)  # no tensor can be read
    found = catalogue.describe(tmp_path, Work(Settings(), 4, 1000), RATES)
    count = sum(parameter.numel() for parameter in hf.parameters())  # a tied head is one parameter
    count += sum(buffer.numel() for name, buffer in hf.named_buffers() if name.endswith("layer_scalar"))
    assert found["parameters"] == count
    assert found["checkpoint"] == {"bytes": 8 * count, "numbers": {"F64": count}}
    assert found["family"] == model.architecture.family
    assert found["architecture"] == dataclasses.asdict(model.architecture)
    assert found["analysis"]["length"] == model.architecture.context
    json.dumps(found)


def test_a_copy_is_described_as_its_source(tmp_path):
    hf, _ = TINY["llama"]()
    hf.float().save_pretrained(tmp_path / "source")
    copy = convert(tmp_path / "source", tmp_path / "copy")
    one, two = (catalogue.describe(path, Work(Settings(), 4, 16), RATES) for path in (tmp_path / "source", copy))
    assert one.pop("checkpoint")["numbers"] == {"F32": one["parameters"]}
    assert two.pop("checkpoint")["numbers"] == {"float32": two["parameters"]}
    assert one == two


def test_what_cannot_be_loaded_is_refused_before(tmp_path):
    hf, _ = TINY["llama"]()
    hf.save_pretrained(tmp_path)
    config, file = tmp_path / "config.json", tmp_path / "model.safetensors"
    described, tensors = json.loads(config.read_text()), load_file(file)
    work = Work(Settings(), 4, 16)
    for changed, message in (
        ({"num_hidden_layers": 4}, r"do not fit the config of this llama model; missing: layers\.3\."),
        ({"quantization_config": {"quant_method": "gptq"}}, "has a quantization_config of method 'gptq'; quantised"),
        (
            {"compression_config": {"format": "x"}},
            "has a compression_config; quantised weights are not supported, only",
        ),
        ({"model_type": "mixtral"}, "model_type 'mixtral', supported families are"),
    ):
        config.write_text(json.dumps(described | changed))
        for call in (lambda: catalogue.describe(tmp_path, work, RATES), lambda: load(tmp_path)):
            with pytest.raises(InputError, match=message):
                call()
    config.write_text(json.dumps(described))
    quantised = tensors["model.layers.0.mlp.up_proj.weight"].astype(np.int8)
    save_file(tensors | {"model.layers.0.mlp.up_proj.weight": quantised}, file)
    with pytest.raises(InputError, match=r"holds model\.layers\.0\.mlp\.up_proj\.weight I8; allowed are F64, F32, F16"):
        catalogue.describe(tmp_path, work, RATES)
    save_file(tensors, file)
    with pytest.raises(InputError, match="layers: got 9; allowed 0 to 2"):
        catalogue.describe(tmp_path, Work(Settings(layers=(9,)), 4, 16), RATES)


def test_of_the_hub_only_headers_are_fetched(tmp_path, monkeypatch):
    hf, _ = TINY["llama"](vocab_size=3000)  # a header is at most the first 100 kB, which is what is asked for
    hf.save_pretrained(tmp_path / "sharded", max_shard_size="600KB")
    hf.save_pretrained(tmp_path / "single")
    repos = {
        f"owner/{name}": Repo({"main": {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}})
        for name in ("sharded", "single")
    }
    only = {"config.json": (tmp_path / "single" / "config.json").read_bytes(), "pytorch_model.bin": b""}
    repos["owner/pickles"] = Repo({"main": only})
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with HubServer(repos) as server:
        official = hub.constants.ENDPOINT
        for name in ("ENDPOINT", "HUGGINGFACE_CO_URL_TEMPLATE"):
            monkeypatch.setattr(hub.constants, name, getattr(hub.constants, name).replace(official, server.url))
        work = Work(Settings(), 4, 16)
        for name in ("sharded", "single"):
            found = catalogue.describe(f"owner/{name}", work, RATES)
            local = catalogue.describe(tmp_path / name, work, RATES)
            assert found["parameters"] == local["parameters"]
            assert found["revision"] == repos[f"owner/{name}"].commit("main")
            asked = [one for one in server.asked(f"owner/{name}") if str(one.file).endswith(".safetensors")]
            assert len(asked) == len(list((tmp_path / name).glob("*.safetensors")))
            assert {one.range for one in asked} == {"bytes=0-100000"}
        with pytest.raises(
            InputError, match=r"found no model\.safetensors, but only pickle files \(pytorch_model\.bin\)"
        ):
            catalogue.describe("owner/pickles", work, RATES)


ARCH = Architecture(
    family="llama", width=256, layers=4, heads=8, kv_heads=8, head_dim=32, ff_dim=1024, vocab=1000, context=512,
    norm="rms", norm_eps=1e-5, activation="silu", gated=True, qkv_bias=False, output_bias=False, mlp_bias=False,
    position="rope", rope=Rope(10000.0), tied_head=True, initializer_range=0.02, initializer="normal",
)  # fmt: skip


def test_the_estimate_follows_its_model():
    base = Work(Settings(draws=8), prompts=8, length=64)
    found = estimate(ARCH, base, RATES)
    assert (found["samples"], found["matrices"]) == (8, 8 * 4 * 3)
    seconds, taken = found["seconds"], found["bytes"]
    one = 0.02 * (2.0 + 256 / 200) * 2  # Kreiss constant included
    assert seconds["decompositions"] == pytest.approx(2 * 4 * 3 * 9 * one)  # eight samples on four cores, nine rounds
    assert seconds["averages"] == pytest.approx(4 * 3 * 9 * one)
    assert seconds["forward"] == pytest.approx(2 * 4 * (4 * 256**2 + 3 * 256 * 1024 + 512) * 64 * 8 / 1e11)
    assert seconds["jacobians"] == pytest.approx(2 * 256**2 * (1024 + 256 + 256) * 8 * 4 / 1e11)
    parts = ("forward", "jacobians", "decompositions", "averages", "start")
    assert seconds["total"] == pytest.approx(sum(seconds[name] for name in parts))
    assert taken["jacobians"] == 4 * 8 * (4 * 256**2 + 256 * 1024)
    assert taken["weights"] == 4 * (1000 * 256 + 256 + 4 * (4 * 256**2 + 3 * 256 * 1024 + 512))
    assert taken["total"] == sum(value for name, value in taken.items() if name != "total")

    def of(**changes):
        settings = {name: changes.pop(name) for name in list(changes) if name in Settings.__dataclass_fields__}
        work = dataclasses.replace(base, settings=dataclasses.replace(base.settings, **settings), **changes)
        return estimate(ARCH, work, RATES)

    cheaper = [of(draws=0), of(kreiss=False), of(parts=("block",)), of(layers=(1,)), of(prompts=2)]
    assert all(one["seconds"]["total"] < seconds["total"] for one in cheaper)
    assert of(tokens="last:3")["samples"] == 24
    assert of(tokens="all")["samples"] == 512
    assert of(length=32)["seconds"]["forward"] == pytest.approx(seconds["forward"] / 2)
    assert of(weights_dtype="bfloat16")["bytes"]["weights"] == taken["weights"] / 2
    assert of(dtype="float64")["bytes"]["jacobians"] == 2 * taken["jacobians"]
    assert of(unit=4)["bytes"]["jacobians"] == taken["jacobians"] / 2
    with pytest.raises(InputError, match="tokens: got 'first'"):
        of(tokens="first")


def test_rates_are_measured():
    start = time.perf_counter()
    rates = measure_rates()
    assert time.perf_counter() - start < 30
    assert 1e-3 < rates.schur_seconds < 10
    assert 1e8 < rates.flops < 1e16
    assert rates.cores >= 1


@pytest.mark.skipif(not os.environ.get("JAXDYN_TEST_TIME"), reason="depends on load; set JAXDYN_TEST_TIME=1 to run it")
def test_the_estimate_against_a_real_run(shared, tmp_path):
    """On the trained model, within a factor of three, compiled programs at hand."""
    from jaxdyn.pipeline import analyze

    model: Path = shared / "models" / "stories260k"
    texts = json.loads((shared / "data" / "tinystories_1000.json").read_text(encoding="utf-8"))[:24]
    loaded = load(model)
    options = {"max_tokens": 128, "kreiss": False}
    analyze(loaded, texts[:8], **options)
    start = time.perf_counter()
    analyze(loaded, texts, **options)
    taken = time.perf_counter() - start
    found = catalogue.describe(model, Work(Settings(kreiss=False), 24, 128), measure_rates())["analysis"]["seconds"]
    assert 1 / 3 < taken / (found["total"] - found["start"] + 5) < 3, (taken, found)
