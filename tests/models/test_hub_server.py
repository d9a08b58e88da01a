"""The hub for real: huggingface_hub's own requests, through HF_ENDPOINT, against a server on this machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from jaxdyn.models import load
from tests.models.hub_server import HubServer, Repo
from tests.models.tiny import tiny_llama

ROOT = Path(__file__).resolve().parents[2]
UNWANTED = {
    name: b"never to be fetched"
    for name in (
        "README.md", "pytorch_model.bin", "model.pt", "modeling_evil.py", "tokenizer.py", "tokenizer_code/evil.py",
        "original/consolidated.00.pth", "model.fp16.safetensors", "model-00009-of-00009.safetensors", "onnx/model.onnx",
    )
}  # fmt: skip
CHUNK = 10 * 2**20  # huggingface_hub keeps what it has received in multiples of this


def files_of(hf, folder: Path, **options) -> dict[str, bytes]:
    hf.save_pretrained(folder, **options)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Files of a model in one file, of another training step of it, and in shards; the hash of each."""
    place = tmp_path_factory.mktemp("models")
    single, sharded = tiny_llama()[0].float(), tiny_llama(seed=1)[0].float()
    files = {
        "single": files_of(single, place / "single"),
        "sharded": files_of(sharded, place / "sharded", max_shard_size="20KB"),
    }
    step = dict(files["single"])
    hf, _ = tiny_llama(seed=2)
    step |= {"model.safetensors": files_of(hf.float(), place / "step")["model.safetensors"]}
    return {**files, "step": step}, {name: load(place / name).weights_hash for name in ("single", "sharded", "step")}


@pytest.fixture(scope="module")
def large():
    """A model of one file of 13 MB, more than huggingface_hub takes at once."""
    config = {
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "vocab_size": 50000, "tie_word_embeddings": True,
    }  # fmt: skip
    block = {
        "self_attn.q_proj": (64, 64), "self_attn.k_proj": (64, 64), "self_attn.v_proj": (64, 64),
        "self_attn.o_proj": (64, 64), "mlp.gate_proj": (16, 64), "mlp.up_proj": (16, 64), "mlp.down_proj": (64, 16),
        "input_layernorm": (64,), "post_attention_layernorm": (64,),
    }  # fmt: skip
    shapes = {f"model.layers.0.{name}.weight": shape for name, shape in block.items()}
    shapes |= {"model.embed_tokens.weight": (50000, 64), "model.norm.weight": (64,)}
    rng = np.random.default_rng(0)
    tensors = {key: rng.standard_normal(shape, np.float32) for key, shape in shapes.items()}
    return {"config.json": json.dumps(config).encode(), "model.safetensors": save(tensors)}


@pytest.fixture(scope="module")
def hub(models, large):
    files, _ = models
    pickles = {"config.json": files["single"]["config.json"], "pytorch_model.bin": b"\x80"}
    bert = files["single"] | {"config.json": b'{"model_type": "bert"}'}
    only = {"main": files["single"]}
    repos = {
        "owner/single": Repo({"main": files["single"] | UNWANTED, "step143000": files["step"] | UNWANTED}),
        "owner/sharded": Repo({"main": files["sharded"] | UNWANTED}),
        "owner/offline": Repo(only),
        "owner/gated": Repo(only, token="hf_right", gated=True, refused=("hf_stranger",)),
        "owner/private": Repo(only, token="hf_right"),
        "owner/pickles": Repo({"main": pickles}),
        "owner/bert": Repo({"main": bert}),
        "owner/down": Repo(only, status=503),
        "owner/forbidden": Repo(only, status=403),
        "owner/cut-once": Repo({"main": large}, cuts={"model.safetensors": [CHUNK + 5000]}),
        "owner/cut-often": Repo({"main": large}, cuts={"model.safetensors": [CHUNK + 5000] + [0] * 5}),
    }
    with HubServer(repos) as server:
        yield server


class Worker:
    """A process with its own cache that loads from one endpoint."""

    def __init__(self, endpoint: str, cache: Path, **environment: str) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        own = {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-m", "tests.models.hub_worker"]
        self._process = subprocess.Popen(
            command, cwd=ROOT, env={**inherited, **own, **environment},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert self._read() == "ready"

    def load(self, name: str, *, revision: str | None = None, token: str | None = None) -> dict:
        assert self._process.stdin is not None
        print(json.dumps({"name": name, "revision": revision, "token": token}), file=self._process.stdin, flush=True)
        return json.loads(self._read())

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._process.stdout.close()

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def worker(hub, cache):
    one = Worker(hub.url, cache)
    yield one
    one.close()


def test_only_what_is_needed_is_fetched(hub, worker, models):
    _, hashes = models
    assert worker.load("owner/single") == {
        "hash": hashes["single"], "revision": hub.repos["owner/single"].commit("main"), "source": "owner/single",
    }  # fmt: skip
    asked = [one.file for one in hub.asked("owner/single")]
    assert sorted(asked) == ["config.json", "generation_config.json", "model.safetensors"]
    before = len(hub.asked("owner/single"))
    worker.load("owner/single")
    assert len(hub.asked("owner/single")) == before  # all of it is in the cache


def test_a_revision(hub, worker, models):
    found = worker.load("owner/single", revision="step143000")
    commit = hub.repos["owner/single"].commit("step143000")
    assert (found["hash"], found["revision"]) == (models[1]["step"], commit)
    assert worker.load("owner/single", revision=commit)["hash"] == models[1]["step"]
    assert "has no such revision" in worker.load("owner/single", revision="step1")["error"]


def test_shards_are_those_the_index_names(hub, worker, models):
    files, hashes = models
    assert worker.load("owner/sharded")["hash"] == hashes["sharded"]
    shards = {name for name in files["sharded"] if name.endswith(".safetensors")}
    assert len(shards) > 2
    asked = {one.file for one in hub.asked("owner/sharded")}
    assert asked == shards | {"config.json", "generation_config.json", "model.safetensors.index.json"}


def test_the_token_of_the_environment(hub, worker, models):
    for name in ("owner/gated", "owner/private"):
        assert worker.load(name, token="hf_right")["hash"] == models[1]["single"]
        assert {one.token for one in hub.asked(name)} == {"hf_right"}
    assert {one.token for one in hub.log if one.path.startswith("/owner/single/")} == {None}


FAILURES = {
    "gated, no token": ("owner/gated2", None, None, "gated; accept its terms on its page"),
    "gated, no access": ("owner/gated2", None, "hf_stranger", "gated; accept its terms on its page"),
    "private": ("owner/private2", None, "hf_wrong", "not on the hub, or private; check the spelling"),
    "missing": ("owner/absent", None, None, "not on the hub, or private; check the spelling"),
    "no revision": ("owner/sharded", "v9", None, "has no such revision; give a branch, a tag or a commit"),
    "only pickles": ("owner/pickles", None, None, "found only pickle files (pytorch_model.bin), which are never read"),
    "down": ("owner/down", None, None, "the hub answered with status 503; try again later"),
    "forbidden": (
        "owner/forbidden",
        None,
        None,
        "the hub answered with status 403; set HF_TOKEN to a token with access",
    ),
    "no id": ("owner/na me", None, None, "not a hub id (owner/name)"),
    "unsupported": ("owner/bert", None, None, "model_type 'bert', supported families are"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_each_failure_is_one_clear_line(hub, worker, case):
    name, revision, token, message = FAILURES[case]
    for private in ("gated", "private"):  # not fetched before, so not in the cache
        hub.repos.setdefault(f"owner/{private}2", hub.repos[f"owner/{private}"])
    error = worker.load(name, revision=revision, token=token)["error"]
    assert message in error
    assert "\n" not in error
    assert not [one for one in hub.asked(name) if str(one.file).endswith((".bin", "model.safetensors"))]


def test_a_connection_that_is_cut_is_resumed(hub, worker):
    assert "hash" in worker.load("owner/cut-once")
    ranges = [one.range for one in hub.asked("owner/cut-once") if one.file == "model.safetensors"]
    assert ranges == [None, f"bytes={CHUNK}-"]


def test_a_download_given_up_keeps_what_is_complete(hub, worker):
    """huggingface_hub gives up after five attempts without a byte; it keeps whole files, not parts of one."""
    error = worker.load("owner/cut-often")["error"]
    assert "download failed" in error
    assert "try again: files that are complete are kept" in error
    ranges = [one.range for one in hub.asked("owner/cut-often") if one.file == "model.safetensors"]
    assert ranges == [None] + [f"bytes={CHUNK}-"] * 5
    before = len(hub.asked("owner/cut-often"))
    assert worker.load("owner/cut-often")["hash"] == worker.load("owner/cut-once")["hash"]
    [request] = hub.asked("owner/cut-often")[before:]
    assert (request.file, request.range) == ("model.safetensors", None)


def test_offline_what_is_cached_loads(hub, worker, cache, models):
    assert worker.load("owner/offline")["hash"] == models[1]["single"]
    before = len(hub.log)
    offline = Worker(hub.url, cache, HF_HUB_OFFLINE="1")
    assert offline.load("owner/offline")["hash"] == models[1]["single"]
    absent = offline.load("owner/never")["error"]
    offline.close()
    assert absent == (
        "model 'owner/never': not in the local cache, and HF_HUB_OFFLINE is set; unset it, or give a local folder"
    )
    assert len(hub.log) == before


def test_a_wrong_endpoint(hub, tmp_path):
    nowhere = "http://127.0.0.1:9"
    unreachable = Worker(nowhere, tmp_path / "one")
    error = unreachable.load("owner/single")["error"]
    unreachable.close()
    assert f"the hub cannot be reached at {nowhere}; connect, correct HF_ENDPOINT, or give a local folder" in error
    # A server that is no hub: this one, asked below a path where it answers 404 without the hub's error codes.
    other = Worker(f"{hub.url}/mirror", tmp_path / "two")
    error = other.load("owner/single")["error"]
    other.close()
    assert "does not answer as a Hugging Face hub does (status 404)" in error
    assert "correct HF_ENDPOINT" in error
