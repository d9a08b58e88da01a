"""Stage 1 of 7: a model of the Hugging Face hub, fetched in two steps: what describes it, then its weights.

The library's own means apply: ``HF_ENDPOINT``, the token of ``HF_TOKEN`` or ``hf auth login``, its cache, its
retries, ``HF_HUB_OFFLINE``. Files are asked for by name, so that no code and no pickle file is ever downloaded, and
a model that is not supported is refused before its weights are.
"""

import glob
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import huggingface_hub
from huggingface_hub import constants, errors

from jaxdyn.errors import InputError
from jaxdyn.models.checkpoint import INDEX, SINGLE, check_dtypes, describe_unread, shards_of
from jaxdyn.models.tensor_file import Entry

DESCRIPTION = (
    "config.json",
    "generation_config.json",
    INDEX,
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)
"""All that is fetched besides weights, where the model has it."""

T = TypeVar("T")


def fetch_description(name: str, *, revision: str | None = None) -> tuple[Path, str]:
    """Download a model's config, tokenizer and weight index, or find them in the cache.

    Parameters
    ----------
    name
        Hub id, such as "openai-community/gpt2".
    revision
        Branch, tag or commit; None is the default branch.

    Returns
    -------
    tuple
        The local folder and the commit it holds. Each failure of the hub is an ``InputError`` that says what to do.
    """
    folder = _ask(
        _named(name, revision),
        lambda: huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=list(DESCRIPTION)),
    )
    return Path(folder), Path(folder).name


def fetch_weights(name: str, folder: Path, commit: str) -> None:
    """Download the safetensors files of a model into the folder of its description, or find them there.

    A connection that is cut is taken up where it ended; where the library gives up (five attempts without a byte), the
    files that are complete stay in the cache, and the next call fetches the rest. A model without safetensors files is
    an ``InputError`` that names the files it has instead.
    """
    at, files = _named(name, commit), _weight_files(folder)
    patterns = [glob.escape(file) for file in files]
    _ask(at, lambda: huggingface_hub.snapshot_download(name, revision=commit, allow_patterns=patterns))
    if not any((folder / file).is_file() for file in files):
        msg = f"{at}: found {_found_instead(name, commit)} on the hub; choose a revision or a model with safetensors"
        raise InputError(msg, page="docs/models.md")


def fetch_entries(name: str, folder: Path, commit: str) -> dict[str, Entry]:
    """Fetch the headers of a model's safetensors files by byte range: every tensor's dtype and shape, no weights."""
    at, entries = _named(name, commit), {}
    api = huggingface_hub.HfApi()
    for file in _weight_files(folder):
        try:
            header = _ask(at, lambda file=file: api.parse_safetensors_file_metadata(name, file, revision=commit))
        except _Absent:
            msg = f"{at}: found no {file}, but {_found_instead(name, commit)} on the hub; choose one with safetensors"
            raise InputError(msg, page="docs/models.md") from None
        found = {key: Entry(t.dtype, tuple(t.shape), *t.data_offsets) for key, t in header.tensors.items()}
        check_dtypes(found, file)
        entries |= found
    return entries


def _weight_files(folder: Path) -> list[str]:
    """Return the names of the weight files: the shards the index names, or the single file."""
    return sorted(shards_of(folder / INDEX)) if (folder / INDEX).is_file() else [SINGLE]


def _found_instead(name: str, commit: str) -> str:
    return describe_unread(
        _ask(_named(name, commit), lambda: huggingface_hub.HfApi().list_repo_files(name, revision=commit))
    )


class _Absent(InputError):
    """The hub has no such file."""


def _ask(at: str, request: Callable[[], T]) -> T:
    """Make a request of the hub; each of its failures becomes one line."""
    try:
        return request()
    except errors.HFValidationError:
        msg = f"{at}: not a hub id (owner/name) and no such folder here; give a hub id or an existing folder"
    except errors.GatedRepoError:
        msg = f"{at}: gated; accept its terms on its page at huggingface.co, then set HF_TOKEN to a token of yours"
    except errors.RepositoryNotFoundError:
        msg = f"{at}: not on the hub, or private; check the spelling, and set HF_TOKEN if it is private"
    except errors.RevisionNotFoundError:
        msg = f"{at}: the model has no such revision; give a branch, a tag or a commit of it"
    except errors.RemoteEntryNotFoundError:
        msg = f"{at}: the hub lacks a file of it; choose another revision"
        raise _Absent(msg) from None
    except errors.LocalEntryNotFoundError as error:
        part = "only in part" if isinstance(error, errors.IncompleteSnapshotError) else "not"
        if isinstance(error.__cause__, errors.HfHubHTTPError):
            msg = f"{at}: {part} in the local cache, and {_status(error.__cause__)}"
        elif constants.is_offline_mode():
            msg = f"{at}: {part} in the local cache, and HF_HUB_OFFLINE is set; unset it, or give a local folder"
        else:
            msg = (
                f"{at}: {part} in the local cache, and the hub cannot be reached at {constants.ENDPOINT}; connect, "
                "correct HF_ENDPOINT, or give a local folder"
            )
    except errors.OfflineModeIsEnabled:
        msg = f"{at}: not in the local cache, and HF_HUB_OFFLINE is set; unset it, or give a local folder"
    except errors.HfHubHTTPError as error:
        msg = f"{at}: {_status(error)}"
    except (ValueError, KeyError) as error:  # an answer that is not the hub's
        msg = (
            f"{at}: {constants.ENDPOINT} does not answer as a Hugging Face hub does "
            f"({type(error).__name__}: {_first_line(error)}); correct HF_ENDPOINT"
        )
    except Exception as error:  # disk errors, and those of the HTTP client, which huggingface_hub does not name
        msg = (
            f"{at}: download failed ({type(error).__name__}: {_first_line(error)}); check the disk and the network, "
            "then try again: files that are complete are kept"
        )
        raise InputError(msg) from error
    raise InputError(msg)


def _named(name: str, revision: str | None) -> str:
    return f"model {name!r}" if revision is None else f"model {name!r} at revision {revision!r}"


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


def _status(error: errors.HfHubHTTPError) -> str:
    status = error.response.status_code
    if status == 404:  # the hub's own come with a code that huggingface_hub knows
        return f"{constants.ENDPOINT} does not answer as a Hugging Face hub does (status 404); correct HF_ENDPOINT"
    hint = "set HF_TOKEN to a token with access" if status in (401, 403) else "try again later"
    return f"the hub answered with status {status}; {hint}"
