"""Text files to documents, documents to one stream of tokens.

A .txt file is one document, a .json file a list of documents; `FILE.json[100:]` takes the documents from number 100 on
and `FILE.json[:100]` the first 100, so that one file can serve both sides of a split.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from jaxdyn.errors import InputError
from jaxdyn.training.settings import BOS

_SLICE = re.compile(r"(?P<path>.+\.json)\[(?P<start>\d*):(?P<stop>\d*)\]")


@dataclass(frozen=True)
class Text:
    """The documents of one file, and the name they are reported under: the file's, with its slice."""

    name: str
    documents: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Hash (hex) of the documents in order, each with its length."""
        digest = hashlib.sha256()
        for document in self.documents:
            encoded = document.encode()
            digest.update(len(encoded).to_bytes(8, "little") + encoded)
        return digest.hexdigest()


def read_text(spec: str) -> Text:
    """Read one file of documents.

    Parameters
    ----------
    spec
        Path of a UTF-8 .txt or .json file, the latter optionally with a slice: ``FILE.json[START:STOP]``.

    Returns
    -------
    Text
        At least one document, none of them empty. Anything else is an ``InputError``.
    """
    match = _SLICE.fullmatch(spec)
    path = Path(match["path"] if match else spec)
    if path.suffix not in (".txt", ".json"):
        msg = (
            f"texts: got {spec!r}; allowed .txt (one document), .json (a list of documents) and a slice, FILE.json[a:b]"
        )
        raise InputError(msg)
    try:
        content = path.read_text(encoding="utf-8")
        documents = json.loads(content) if path.suffix == ".json" else [content]
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or not JSON
        msg = f"texts: cannot read {path} ({error}); give a readable UTF-8 .txt, or a .json list of strings"
        raise InputError(msg) from error
    if not isinstance(documents, list) or not all(isinstance(document, str) for document in documents):
        msg = f"texts: {path} does not hold a list of strings; give one, or a .txt file"
        raise InputError(msg)
    if match:
        documents = documents[_number(match["start"]) : _number(match["stop"])]
    if not documents or not all(document.strip() for document in documents):
        found = "no document" if not documents else "an empty document"
        msg = f"texts: {spec} holds {found}; give at least one, none of them empty"
        raise InputError(msg)
    return Text(path.name + spec[len(str(path)) :] if match else path.name, tuple(documents))


def read_all(specs: Sequence[str], argument: str) -> list[Text]:
    """Read several files; two of the same name are an ``InputError``, since results are reported by name."""
    texts = [read_text(spec) for spec in specs]
    names = [text.name for text in texts]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        msg = f"{argument}: {', '.join(twice)} is there twice; give each file once, under a name of its own"
        raise InputError(msg)
    return texts


def encode(tokenizer: Tokenizer, documents: Sequence[str]) -> list[np.ndarray]:
    """Return the ids of each document, int32, without the special token."""
    return [np.asarray(one.ids, np.int32) for one in tokenizer.encode_batch(list(documents), add_special_tokens=False)]


def stream(documents: Sequence[np.ndarray], *, context: int) -> np.ndarray:
    """Return all documents in one row, each after the special token.

    Parameters
    ----------
    documents
        Ids of each document.
    context
        Tokens of a training window; the stream must hold two windows.

    Returns
    -------
    numpy.ndarray
        (N,) int32. Shorter than 2 ``context``: an ``InputError``.
    """
    bos = np.asarray([BOS], np.int32)
    joined = np.concatenate([part for document in documents for part in (bos, document)])
    if len(joined) < 2 * context:
        msg = (
            f"texts: got {len(joined)} tokens to train on; allowed {2 * context} or more, two windows of context "
            f"{context}; give more text or a smaller context"
        )
        raise InputError(msg)
    return joined


def split(documents: Sequence[np.ndarray], *, share: float = 0.05) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Hold out the last ``share`` of the tokens: documents before the cut, those after it, and one cut in two."""
    left = round((1 - share) * sum(map(len, documents)))
    kept, held = [], []
    for document in documents:
        kept += [document[:left]] if left > 0 else []
        held += [document[max(left, 0) :]] if len(document) > left else []
        left -= len(document)
    return kept, held


def _number(text: str) -> int | None:
    return int(text) if text else None
