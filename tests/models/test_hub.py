"""Hub ids: one clear line for each error of huggingface_hub; test_hub_server.py has what it asks of a real server."""

import huggingface_hub
import pytest
from huggingface_hub import errors

import jaxdyn.models as models
from jaxdyn.errors import InputError

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
    "offline": (errors.LocalEntryNotFoundError("off"), "not in the local cache, and the hub cannot be reached"),
    "forbidden": (errors.HfHubHTTPError("no", response=response(403)), "status 403; set HF_TOKEN"),
    "unauthorised": (
        caused(errors.LocalEntryNotFoundError("off"), errors.HfHubHTTPError("no", response=response(401))),
        "status 401; set HF_TOKEN",
    ),
    "down": (errors.HfHubHTTPError("down", response=response(503)), "status 503; try again later"),
    "no hub": (ValueError("Expecting value: line 1"), "does not answer as a Hugging Face hub does (ValueError"),
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


def test_offline_and_not_cached(monkeypatch, tmp_path):
    """The library itself, offline: no stand-in."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="not in the local cache, and HF_HUB_OFFLINE is set"):
        models.load("owner/name")
    with pytest.raises(InputError, match="not a hub id"):
        models.load("owner/na me")
