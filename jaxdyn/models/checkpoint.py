"""Stage 1 of 7: a folder of safetensors files, single or sharded, read one tensor at a time.

Nothing that can run code is ever read: pickle files (.bin, .pt, .pth, .ckpt) are refused by name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from jaxdyn.errors import InputError
from jaxdyn.models.config import read_json

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
DTYPES = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a checkpoint by key: their shapes, and the file each is in."""

    shapes: dict[str, tuple[int, ...]]
    files: dict[str, Path]

    def read(self, key: str) -> np.ndarray:
        """Read one tensor in the dtype it is stored in (bfloat16 as ``ml_dtypes.bfloat16``)."""
        try:
            with safe_open(self.files[key], framework="np") as file:
                return file.get_tensor(key)
        except (SafetensorError, OSError) as error:
            raise InputError(_damaged(self.files[key], error)) from None


def refuse_pickle(path: Path) -> None:
    """Raise an ``InputError`` if the path names a pickle file."""
    if path.suffix in PICKLES:
        msg = f"model: got {path}, a pickle file, which can run code when read; give a folder with safetensors weights"
        raise InputError(msg)


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
        pickles = sorted(path.name for path in folder.glob("*") if path.suffix in PICKLES)
        found = f"only pickle files ({', '.join(pickles)}), which are never read" if pickles else "no weights"
        msg = f"model: found {found} in {folder}; need {SINGLE} or {INDEX}: convert the weights to safetensors"
        raise InputError(msg)
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
    missing = [name for name in shards if not (folder / name).is_file()]
    if missing:
        msg = f"weights: {index.name} names files that are not in {folder}: {', '.join(missing)}; download them"
        raise InputError(msg)
    return _merge(folder, shards)


def _merge(folder: Path, shards: Mapping[str, set[str] | None]) -> Checkpoint:
    shapes: dict[str, tuple[int, ...]] = {}
    files: dict[str, Path] = {}
    for name, promised in shards.items():
        path = folder / name
        found = _header(path)
        if promised is not None and set(found) != promised:
            wrong = sorted(set(found) ^ promised)
            msg = f"weights: {INDEX} and {name} disagree about {', '.join(wrong)}; download both again"
            raise InputError(msg)
        shapes |= found
        files |= dict.fromkeys(found, path)
    return Checkpoint(shapes, files)


def _header(path: Path) -> dict[str, tuple[int, ...]]:
    shapes, odd = {}, []
    try:
        with safe_open(path, framework="np") as file:
            for key in file.keys():
                view = file.get_slice(key)
                shapes[key] = tuple(view.get_shape())
                if view.get_dtype() not in DTYPES:
                    odd.append(f"{key} {view.get_dtype()}")
    except (SafetensorError, OSError) as error:
        raise InputError(_damaged(path, error)) from None
    floating = [text for text in odd if not text.split()[0].endswith((".bias", ".masked_bias"))]
    if floating:
        listed = ", ".join(floating[:5])
        msg = f"weights: {path.name} holds {listed}; allowed are {', '.join(DTYPES)}: use a checkpoint not quantised"
        raise InputError(msg)
    return shapes


def _damaged(path: Path, error: Exception) -> str:
    size = path.stat().st_size if path.exists() else 0
    return f"weights: {path} ({size} bytes) is truncated or damaged ({error}); download it again"
