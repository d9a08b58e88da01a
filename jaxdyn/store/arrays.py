"""Stage 6 of 7: the numeric arrays of a store, created, written and read by TensorStore.

TensorStore works on many arrays at once in threads of its own, and a write is done when it is durable: it writes a
chunk beside its place, flushes it, renames it and flushes the folder. So a chunk is whole or absent, and a future that
has come back is on the disk. Chunk names are flat (`c.0.3`), one folder an array. Text is left to zarr (`files.py`):
TensorStore has no variable-length strings.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from .schema import chunk_shape, fill_of

COMPRESSED_FROM = 2**16
"""Bytes of a chunk from which it is compressed (zstd); below, a file takes one block of the disk all the same."""

UNFINISHED = ".__lock"
"""Ending of the file that TensorStore writes before it renames it; a killed run leaves some."""

_CONTEXT = ts.Context(
    {
        "file_io_concurrency": {"limit": 8},
        "data_copy_concurrency": {"limit": 2},
        "file_io_locking": {"mode": "none"},
    }
)
"""Without locks, which a process that hangs would keep for ever from the one that does its work. Nothing is lost: each
write is of whole chunks, each under a name of its own until it is renamed, and who else writes one has the same bytes.
"""
_ALL_CHUNKS = {"store_data_equal_to_fill_value": True}
"""A chunk equal to the fill value is written too: the marker of a written unit is that its chunks are there."""


def metadata(
    dims: Sequence[str],
    shape: Sequence[int],
    dtype: str,
    *,
    units: Mapping[str, int],
    attrs: Mapping[str, Any],
    fill: object = None,
) -> dict[str, Any]:
    """Zarr 3 metadata of an array: dimension names, flat chunk names, the fill of its dtype, one unit a chunk."""
    kind = np.dtype(dtype)
    chunk = chunk_shape(shape, dims, units, kind.itemsize)
    little = {"configuration": {"endian": "little"}} if kind.itemsize > 1 else {}
    zstd = {"name": "zstd", "configuration": {"level": 0, "checksum": False}}
    large = int(np.prod(chunk)) * kind.itemsize >= COMPRESSED_FROM
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [int(size) for size in shape],
        "data_type": kind.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": _json_number(fill_of(dtype, fill)),
        "codecs": [{"name": "bytes", **little}, *([zstd] if large else [])],
        "attributes": dict(attrs),
        "dimension_names": list(dims),
    }


def create(folder: Path, described: Mapping[str, Any], *, replace: bool = False) -> ts.Future:
    """Start to create an array from its metadata; with `replace`, in the place of one that is there."""
    return ts.open(
        {**_spec(folder), "metadata": dict(described)}, create=True, delete_existing=replace, context=_CONTEXT
    )


def open_array(folder: Path) -> ts.Future:
    """Start to open an array for reading and writing."""
    return ts.open(_spec(folder), open=True, context=_CONTEXT)


def remove_unfinished(folders: Iterable[Path]) -> None:
    """Remove what killed processes have left half written in arrays' folders."""
    for folder in folders:
        for file in folder.glob(f"*{UNFINISHED}"):
            file.unlink(missing_ok=True)


def results(futures: Iterable[ts.Future]) -> list[Any]:
    """Wait for all of them; the first refusal of the file system is raised as the OSError that it was.

    Raises
    ------
    OSError : with the operating system's number, where it gave one.
    """
    found, refused = [], None
    for future in futures:
        try:
            found.append(future.result())
        except ValueError as error:  # TensorStore's one exception; the number stands in its text
            refused = refused or _os_error(error)
    if refused is not None:
        raise refused
    return found


def _spec(folder: Path) -> dict[str, Any]:
    return {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": f"{folder}/"},
        **_ALL_CHUNKS,
    }


def _os_error(error: ValueError) -> OSError:
    number = re.search(r"os_error_code='(\d+)'", str(error))
    if number is None:
        return OSError(str(error).partition(" [")[0])
    return OSError(int(number[1]), os.strerror(int(number[1])))


def _json_number(value: Any) -> Any:
    """Return a fill value as the Zarr 3 specification writes it in JSON."""
    if isinstance(value, complex | np.complexfloating):
        return [_json_number(value.real), _json_number(value.imag)]
    if isinstance(value, float | np.floating) and not np.isfinite(value):
        return "NaN" if np.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value.item() if isinstance(value, np.generic) else value
