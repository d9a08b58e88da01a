"""Stage 6 of 7: the files of a store that are not numbers, and what makes them safe: synced, renamed, errors named.

Groups and text are written by zarr, each file under a temporary name that it renames, so a file is whole or absent;
`sync_files` makes them durable. The numbers are in `arrays.py`.

The root carries a copy of all metadata below it ("consolidated", as zarr writes it), so that a store opens in one read
and without a warning. That copy is not in the Zarr 3 specification yet: other readers ignore it and list the folders.
"""

import contextlib
import errno
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from jaxdyn.errors import InputError

from . import arrays
from .schema import chunk_shape

Metadata = dict[str, dict[str, Any]]
"""Zarr 3 metadata of groups and arrays, by path."""

FORMAT = 1
"""Layout of the store; a store of another format is refused, not guessed at."""


class StoreError(InputError):
    """The store cannot be created, opened, resumed or written; what was written before stays readable."""


def put_text(group: zarr.Group, name: str, dims: Sequence[str], values: Any, attrs: Mapping[str, Any]) -> None:
    """Create (or replace) an array of variable-length strings and write it whole."""
    values = np.asarray(values)
    array = group.create_array(
        name,
        shape=values.shape,
        dtype=str,
        chunks=chunk_shape(values.shape, dims, {}, itemsize=32),
        fill_value="",
        dimension_names=tuple(dims),
        attributes=dict(attrs),
        chunk_key_encoding={"name": "default", "separator": "."},
        overwrite=True,
    )
    array[...] = values.astype(object)


def put_arrays(group: zarr.Group, folder: Path, items: Iterable[tuple[str, Sequence[str], Any, Mapping]]) -> Metadata:
    """Create (or replace) arrays (name, dims, values, attributes) in a group at `folder`, durably; return metadata."""
    numbers, described, texts = [], {}, []
    for name, dims, given, attrs in items:
        values = np.asarray(given)
        if values.dtype.kind in "UOT":
            put_text(group, name, dims, values, attrs)
            texts.append(name)
        else:
            described[name] = arrays.metadata(dims, values.shape, values.dtype.name, units={}, attrs=attrs)
            numbers.append((arrays.create(folder / name, described[name], replace=True), values))
    opened = arrays.results(future for future, _ in numbers)
    arrays.results([array.write(values) for array, (_, values) in zip(opened, numbers, strict=True)])
    sync_files({file for name in texts for file in (folder / name).iterdir()})
    return described | {name: json.loads((folder / name / "zarr.json").read_text()) for name in texts}


def sync_files(files: set[Path]) -> None:
    """Make files, and the folders that name them, durable."""
    if not files:
        return
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(_sync, sorted(files)))
        list(pool.map(_sync, sorted({file.parent for file in files})))


def sync_groups(folder: Path, groups: Iterable[str]) -> None:
    """Make a store's groups durable: their metadata, the entries of their folders and of the folder above the store."""
    sync_files({folder / name / "zarr.json" for name in groups})
    _sync(folder)
    _sync(folder.parent)


def write_durably(file: Path, content: bytes) -> None:
    """Replace a small file in one rename, after its content is on the disk."""
    update = file.with_name(f"{file.name}.partial")
    update.write_bytes(content)
    _sync(update)
    os.replace(update, file)
    _sync(file.parent)


def consolidate(folder: Path, attributes: Mapping[str, Any], below: Metadata) -> None:
    """Replace the root's metadata in one rename: its attributes, updated, and its copy of the metadata below.

    `below` holds what is new or changed, by path inside the store.
    """
    root = json.loads((folder / "zarr.json").read_text())
    before = root.get("consolidated_metadata", {}).get("metadata", {})
    root["attributes"] = {**root["attributes"], **attributes}
    merged = {**before, **below}
    for above in {parent.as_posix() for path in below for parent in Path(path).parents} - {".", *merged}:
        merged[above] = json.loads((folder / above / "zarr.json").read_text())
    root["consolidated_metadata"] = {
        "kind": "inline",
        "must_understand": False,
        "metadata": dict(sorted(merged.items())),
    }
    write_durably(folder / "zarr.json", json.dumps(root).encode())


def group_metadata(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata of a group."""
    return {"attributes": dict(attributes), "zarr_format": 3, "node_type": "group"}


def root_attributes(path: Path) -> dict[str, Any]:
    """Attributes of a store's root, after checking that it is a jaxdyn store of this format."""
    with reported(path, "open"):
        if not path.exists():
            msg = f"no results at {path}; run `jaxdyn analyze --out {path.parent}` first, or check the folder"
            raise StoreError(msg)
        file = path / "zarr.json"
        try:
            attributes = json.loads(file.read_text())["attributes"] if file.is_file() else {}
        except (ValueError, KeyError, TypeError):
            attributes = {}
    if "jaxdyn_store" not in attributes:
        msg = f"{path} exists and is not a jaxdyn store; nothing was touched; choose another --out"
        raise StoreError(msg)
    if attributes["jaxdyn_store"] != FORMAT:
        msg = (
            f"{path} has store format {attributes['jaxdyn_store']}, this version reads {FORMAT}; "
            "use the jaxdyn version that wrote it, or choose another --out"
        )
        raise StoreError(msg)
    return attributes


@contextlib.contextmanager
def reported(path: Path, action: str) -> Iterator[None]:
    """Turn a refusal of the file system into one line that says what happened and what to do."""
    try:
        yield
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, "check the disk and the folder's permissions")
        msg = f"cannot {action} {path}: {error.strerror or error}; what was written before is intact; {advice}"
        raise StoreError(msg) from error


_ROOM = "make room, then repeat the command with --resume"
_RIGHTS = "choose an --out folder you may write to"
_ADVICE = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: _ROOM,
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EROFS: _RIGHTS,
    errno.ENOTDIR: _RIGHTS,
    errno.EEXIST: _RIGHTS,
}


def _sync(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
