"""Stage 1 of 7: fetching a model folder from the Hugging Face hub: safetensors, configs and tokenizer files only.

The library's own means apply: the token of ``HF_TOKEN`` or ``hf auth login``, its cache, ``HF_HUB_OFFLINE``. No code
and no pickle file is downloaded.
"""

from pathlib import Path

import huggingface_hub
from huggingface_hub import errors

from jaxdyn.errors import InputError

PATTERNS = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*.safetensors",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)


def fetch(name: str, *, revision: str | None = None) -> tuple[Path, str]:
    """Download a model, or find it in the cache.

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
    at = f"model {name!r}" if revision is None else f"model {name!r} at revision {revision!r}"
    try:
        folder = huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=list(PATTERNS))
    except errors.HFValidationError:
        msg = f"{at}: not a hub id (owner/name) and no such folder here; give a hub id or an existing folder"
    except errors.GatedRepoError:
        msg = f"{at}: gated; accept its terms on its page at huggingface.co, then set HF_TOKEN to a token of yours"
    except errors.RepositoryNotFoundError:
        msg = f"{at}: not on the hub, or private; check the spelling, and set HF_TOKEN if it is private"
    except errors.RevisionNotFoundError:
        msg = f"{at}: the model has no such revision; give a branch, a tag or a commit of it"
    except errors.LocalEntryNotFoundError as error:
        if isinstance(error.__cause__, errors.HfHubHTTPError):
            msg = f"{at}: not in the local cache, and {_status(error.__cause__)}"
        else:
            msg = f"{at}: not in the local cache and the hub cannot be reached; connect, or give a local folder"
    except errors.HfHubHTTPError as error:
        msg = f"{at}: {_status(error)}"
    except Exception as error:  # disk errors, and those of the HTTP client, which huggingface_hub does not name
        first = str(error).strip().split("\n")[0]
        msg = f"{at}: download failed ({type(error).__name__}: {first}); check the disk and the network, then try again"
        raise InputError(msg) from error
    else:
        return Path(folder), Path(folder).name
    raise InputError(msg)


def _status(error: errors.HfHubHTTPError) -> str:
    status = error.response.status_code
    hint = "set HF_TOKEN to a token with access" if status in (401, 403) else "try again later"
    return f"the hub answered with status {status}; {hint}"
