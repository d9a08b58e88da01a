"""Stage 1 of 7: a folder of safetensors files, single or sharded: which tensor lies where, read one at a time.

Nothing that can run code is ever read: pickle files (.bin, .pt, .pth, .ckpt) are refused by name.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxdyn.errors import InputError
from jaxdyn.models.config import read_json
from jaxdyn.models.tensor_file import DamagedFile, Entry, read_header, read_tensor

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
DTYPES = ("F64", "F32", "F16", "BF16")


MASKS = (".bias", ".masked_bias")  # how the causal masks end that old checkpoints carry, as booleans or bytes


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a checkpoint by key: dtype, shape and byte range of each, and the file it is in."""

    entries: dict[str, Entry]
    files: dict[str, Path]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor by key."""
        return {key: entry.shape for key, entry in self.entries.items()}

    def read(self, key: str) -> np.ndarray:
        """Read one tensor, and nothing else of its file, in the dtype it is stored in."""
        try:
            return read_tensor(self.files[key], self.entries[key])
        except (DamagedFile, OSError) as error:
            raise InputError(_damaged(self.files[key], error)) from None


def refuse_pickle(path: Path) -> None:
    """Raise an ``InputError`` if the path names a pickle file."""
    if path.suffix in PICKLES:
        msg = f"model: got {path}, a pickle file, which can run code when read; give a folder with safetensors weights"
        raise InputError(msg, page="docs/models.md")


def open_checkpoint(folder: Path) -> Checkpoint:
    """Find the tensors of a model folder.

    Parameters
    ----------
    folder
        Holds ``model.safetensors``, or ``model.safetensors.index.json`` and the shards it names.

    Returns
    -------
    Checkpoint
        All tensors; only the headers are read here. A missing, truncated or repeated file or key, an index that
        contradicts its shards and a quantised tensor are each an ``InputError``.
    """
    index = folder / INDEX
    if (folder / SINGLE).is_file():
        return _merge(folder, {SINGLE: None})
    if not index.is_file():
        found = found_instead(folder)
        msg = f"model: found {found} in {folder}; need {SINGLE} or {INDEX}: convert the weights to safetensors"
        raise InputError(msg, page="docs/models.md")
    shards = shards_of(index)
    missing = [name for name in shards if not (folder / name).is_file()]
    if missing:
        msg = f"weights: {index.name} names files that are not in {folder}: {', '.join(missing)}; download them"
        raise InputError(msg)
    return _merge(folder, shards)


def shards_of(index: Path) -> dict[str, set[str]]:
    """Read an index: the keys that each shard must hold, by file name; a name of another folder is refused."""
    weight_map = read_json(index, what="weights").get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        msg = f'weights: {index} has no "weight_map" from keys to file names; download it again'
        raise InputError(msg)
    shards: dict[str, set[str]] = {name: set() for name in sorted(set(weight_map.values()))}
    for key, name in weight_map.items():
        if Path(name).name != name or not name.endswith(".safetensors"):
            msg = (
                f"weights: {index} names {name!r}, allowed are safetensors files in the same folder; download it again"
            )
            raise InputError(msg)
        shards[name].add(key)
    return shards


def found_instead(folder: Path) -> str:
    """Say which files of a folder may hold weights, but none that are read."""
    names = sorted(path.name for path in folder.glob("*"))
    return describe_unread(names)


def describe_unread(names: Iterable[str]) -> str:
    """Say which of these file names may hold weights that are never read."""
    kinds = {
        "pickle files ({}), which are never read": PICKLES,
        "quantised GGUF files ({}), which are not supported": (".gguf",),
        "safetensors files of other names ({})": (".safetensors",),
    }
    for text, suffixes in kinds.items():
        found = [name for name in names if name.endswith(suffixes)]
        if found:
            return "only " + text.format(", ".join(sorted(found)[:5]))
    return "no weights"


def _merge(folder: Path, shards: Mapping[str, set[str] | None]) -> Checkpoint:
    entries: dict[str, Entry] = {}
    files: dict[str, Path] = {}
    for name, promised in shards.items():
        path = folder / name
        try:
            found = read_header(path)
        except (DamagedFile, OSError) as error:
            raise InputError(_damaged(path, error)) from None
        if promised is not None and set(found) != promised:
            wrong = sorted(set(found) ^ promised)
            msg = f"weights: {INDEX} and {name} disagree about {', '.join(wrong)}; download both again"
            raise InputError(msg)
        check_dtypes(found, name)
        entries |= found
        files |= dict.fromkeys(found, path)
    return Checkpoint(entries, files)


def check_dtypes(entries: Mapping[str, Entry], name: str) -> None:
    """Refuse the tensors of a file, by name, whose dtype holds no weights but quantised ones."""
    odd = [
        f"{key} {entry.dtype}"
        for key, entry in entries.items()
        if entry.dtype not in DTYPES and not (key.endswith(MASKS) and entry.dtype in ("BOOL", "U8"))
    ]
    if odd:
        more = f" and {len(odd) - 5} more" if len(odd) > 5 else ""
        listed = ", ".join(odd[:5]) + more
        msg = f"weights: {name} holds {listed}; allowed are {', '.join(DTYPES)}: use a checkpoint not quantised"
        raise InputError(msg)


def _damaged(path: Path, error: Exception) -> str:
    size = path.stat().st_size if path.exists() else 0
    return f"weights: {path} ({size} bytes) is truncated or damaged ({error}); download it again"
