"""Stage 6 of 7: the Zarr files under a store, and what makes them safe: built aside, synced, renamed, errors named.

zarr writes each file under a temporary name and renames it (since 3.1.3), so a chunk or a metadata file is whole or
absent. Durability is ours: `sync_files` flushes the files and their folders. Chunk names are flat (`c.0.3`), one folder
an array, which keeps that cheap.

The root carries a copy of all metadata below it ("consolidated", as zarr writes it), so that a store opens in one read
and without a warning. That copy is not in the Zarr 3 specification yet: other readers ignore it and list the folders.
"""

import contextlib
import errno
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from jaxdyn.errors import InputError

from .schema import chunk_shape, fill_of

FORMAT = 1
"""Layout of the store; a store of another format is refused, not guessed at."""

KEEP_ALL: Any = {"write_empty_chunks": True}
"""A chunk equal to the fill value is written too: zarr's test of equality takes -0.0 for 0.0."""


class StoreError(InputError):
    """The store cannot be created, opened, resumed or written; what was written before stays readable."""


def new_array(
    group: zarr.Group,
    name: str,
    dims: Sequence[str],
    shape: Sequence[int],
    dtype: str,
    *,
    units: Mapping[str, int],
    attrs: Mapping[str, Any],
    fill: object = None,
    compressors: Any = "auto",
    overwrite: bool = False,
) -> zarr.Array:
    """Create one array with dimension names, flat chunk names and the fill of its dtype."""
    text = dtype == "str"
    itemsize = 32 if text else np.dtype(dtype).itemsize
    return group.create_array(
        name,
        shape=tuple(shape),
        dtype=str if text else np.dtype(dtype),
        chunks=chunk_shape(shape, dims, units, itemsize),
        fill_value=fill_of(dtype, fill),
        dimension_names=tuple(dims),
        attributes=dict(attrs),
        chunk_key_encoding={"name": "default", "separator": "."},
        compressors=compressors,
        config=KEEP_ALL,
        overwrite=overwrite,
    )


def put_array(group: zarr.Group, name: str, dims: Sequence[str], values: Any, attrs: Mapping[str, Any]) -> None:
    """Create (or replace) an array and write it whole; text of any kind becomes variable-length strings."""
    values = np.asarray(values)
    text = values.dtype.kind in "UOT"
    dtype = "str" if text else values.dtype.name
    array = new_array(group, name, dims, values.shape, dtype, units={}, attrs=attrs, overwrite=True)
    array[...] = values.astype(object) if text else values


def open_array(path: Path) -> zarr.Array:
    """Open one array for writing."""
    return zarr.open_array(path, mode="r+").with_config(KEEP_ALL)


def chunk_files(path: Path, array: zarr.Array, index: tuple[int | slice, ...]) -> Iterator[Path]:
    """Files of the chunks that a region of whole or part chunks touches."""
    ranges = []
    for i, length, chunk in zip(index, array.shape, array.chunks, strict=True):
        start, stop, _ = i.indices(length) if isinstance(i, slice) else (i, i + 1, 1)
        ranges.append(range(start // chunk, -(-stop // chunk)))
    for numbers in itertools.product(*ranges):
        yield path / array.metadata.encode_chunk_key(numbers)


def sync_files(files: set[Path]) -> None:
    """Make files, and the folders that name them, durable."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(_sync, sorted(files)))
        list(pool.map(_sync, sorted({file.parent for file in files})))


def files_of(places: set[Path]) -> set[Path]:
    """Return the files among the places, and all files below the folders among them."""
    return {file for place in places for file in (place.rglob("*") if place.is_dir() else [place]) if file.is_file()}


def sync_tree(folder: Path) -> None:
    """Make a folder and all it holds durable."""
    sync_files(files_of({folder}))
    _sync(folder.parent)


def write_durably(file: Path, content: bytes) -> None:
    """Replace a small file in one rename, after its content is on the disk."""
    update = file.with_name(f"{file.name}.partial")
    update.write_bytes(content)
    _sync(update)
    os.replace(update, file)
    _sync(file.parent)


def mark(folder: Path, array: zarr.Array, unit: int) -> None:
    """Write a unit's chunk of `done`, whose chunks are uncompressed bytes: true for every sample of the unit."""
    write_durably(folder / array.metadata.encode_chunk_key((unit,)), np.ones(array.chunks, bool).tobytes())


def consolidate(folder: Path, attributes: Mapping[str, Any]) -> None:
    """Replace the root's metadata in one rename: its attributes, updated, and a copy of all metadata below."""
    root = json.loads((folder / "zarr.json").read_text())
    root["attributes"] = {**root["attributes"], **attributes}
    root["consolidated_metadata"] = {
        "kind": "inline",
        "must_understand": False,
        "metadata": dict(_metadata_below(folder, "")),
    }
    write_durably(folder / "zarr.json", json.dumps(root, indent=2).encode())


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


def _metadata_below(folder, prefix):
    """Pairs (path inside the store, content of its zarr.json), skipping folders that an interrupted write left."""
    for child in sorted(folder.iterdir()):
        if (child / "zarr.json").is_file():
            metadata = json.loads((child / "zarr.json").read_text())
            yield prefix + child.name, metadata
            if metadata["node_type"] == "group":
                yield from _metadata_below(child, f"{prefix}{child.name}/")


def _sync(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
