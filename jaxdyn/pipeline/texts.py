"""Where the prompts come from: a list, a .txt file with one text a line, or a .json file with a list of strings."""

import hashlib
import json
from pathlib import Path

from jaxdyn.errors import InputError


def read_texts(path: str | Path, *, samples: int | None = None) -> list[str]:
    """Read prompts from a file.

    Parameters
    ----------
    path : a .txt file (one text a line, blank lines skipped) or a .json file (a list of strings).
    samples : take the first so many; None takes all.

    Raises
    ------
    InputError : no such file, another format, fewer texts than asked for, or an empty text in a .json list.
    """
    path = Path(path)
    if not path.is_file():
        msg = f"texts: no file at {path}; give a .txt file (one text a line) or a .json file (a list of strings)"
        raise InputError(msg)
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"texts: cannot read {path}: {error}; give a readable UTF-8 file"
        raise InputError(msg) from error
    if path.suffix == ".json":
        try:
            texts = json.loads(content)
        except json.JSONDecodeError as error:
            msg = f"texts: {path} is not valid JSON ({error}); it must hold a list of strings"
            raise InputError(msg) from error
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            msg = f"texts: {path} holds {type(texts).__name__}; it must hold a list of strings"
            raise InputError(msg)
    elif path.suffix == ".txt":
        texts = [line for line in content.splitlines() if line.strip()]
    else:
        msg = f"texts: got {path.name}; allowed .txt (one text a line) or .json (a list of strings)"
        raise InputError(msg)
    return first_texts(texts, samples, f"{path}")


def first_texts(texts: list[str], samples: int | None, where: str = "texts") -> list[str]:
    """Take the first `samples` texts, refusing when there are fewer."""
    if not texts:
        msg = f"texts: {where} holds no text; give at least one"
        raise InputError(msg)
    if samples is not None and not 1 <= samples <= len(texts):
        msg = f"samples: got {samples}; allowed 1 to {len(texts)}, the number of texts in {where}"
        raise InputError(msg)
    return texts[:samples]


def hash_texts(texts: list[str]) -> str:
    """sha256 over the texts in order, each with its length, so that no two lists share a hash by accident."""
    digest = hashlib.sha256()
    for text in texts:
        encoded = text.encode()
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()
