"""Hub ids: what is asked of huggingface_hub, and one clear line for each of its errors."""

import huggingface_hub
import pytest
from huggingface_hub import errors

import jaxdyn.models as models
from jaxdyn.errors import InputError
from tests.models.tiny import tiny_llama

httpx = pytest.importorskip(errors.HfHubHTTPError.__mro__[1].__module__.split(".")[0])


def response(status):
    return httpx.Response(status, request=httpx.Request("GET", "https://huggingface.co/api/models/a/b"))


def caused(error, cause):
    error.__cause__ = cause
    return error


FAILURES = {
    "bad id": (errors.HFValidationError("bad"), "not a hub id"),
    "gated": (errors.GatedRepoError("gated", response=response(403)), "gated; accept its terms"),
    "not found": (errors.RepositoryNotFoundError("none", response=response(404)), "not on the hub, or private"),
    "no revision": (errors.RevisionNotFoundError("none", response=response(404)), "no such revision"),
    "offline": (errors.LocalEntryNotFoundError("off"), "not in the local cache and the hub cannot be reached"),
    "forbidden": (errors.HfHubHTTPError("no", response=response(403)), "status 403; set HF_TOKEN"),
    "unauthorised": (
        caused(errors.LocalEntryNotFoundError("off"), errors.HfHubHTTPError("no", response=response(401))),
        "status 401; set HF_TOKEN",
    ),
    "down": (errors.HfHubHTTPError("down", response=response(503)), "status 503; try again later"),
    "disk": (OSError(28, "No space left on device"), "No space left on device"),
    "proxy": (httpx.ProxyError("refused"), "ProxyError: refused"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_each_failure_is_one_clear_line(monkeypatch, case):
    error, message = FAILURES[case]

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(InputError) as raised:
        models.load("owner/name", revision="v2")
    assert str(raised.value).startswith("model 'owner/name' at revision 'v2': ")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_is_downloaded(monkeypatch, tmp_path):
    hf, model = tiny_llama()
    hf.save_pretrained(tmp_path / "0123abc")
    calls = []

    def snapshot(name, **options):
        calls.append((name, options))
        return str(tmp_path / "0123abc")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    loaded = models.load("owner/name", dtype="float64", revision="main")
    assert (loaded.source, loaded.revision) == ("owner/name", "0123abc")
    assert loaded.weights_hash == model.weights_hash
    [(name, options)] = calls
    assert (name, options["revision"]) == ("owner/name", "main")
    wanted = ["config.json", "model-00001-of-00002.safetensors", "model.safetensors.index.json", "tokenizer.json"]
    refused = ["pytorch_model.bin", "modeling_llama.py", "original/consolidated.00.pth", "tf_model.h5", "model.pt"]
    kept = huggingface_hub.utils.filter_repo_objects(wanted + refused, allow_patterns=options["allow_patterns"])
    assert list(kept) == wanted


def test_offline_and_not_cached(monkeypatch, tmp_path):
    """The library itself, offline: no stand-in."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="not in the local cache and the hub cannot be reached"):
        models.load("owner/name")
    with pytest.raises(InputError, match="not a hub id"):
        models.load("owner/na me")
