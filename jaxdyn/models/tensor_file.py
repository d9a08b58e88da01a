"""Stage 1 of 7: one safetensors file: its header checked whole, its tensors read by byte range, one at a time.

The file is never mapped into memory: a tensor is read into a buffer of its own size, so that what a process holds is
what it was asked for. Format: 8 bytes of header length (little endian), the header as JSON, the tensors' bytes without
gaps (https://huggingface.co/docs/safetensors).
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

NUMPY = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U64": np.dtype(np.uint64),
    "U32": np.dtype(np.uint32),
    "U16": np.dtype(np.uint16),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
"""The dtypes that can be read, by their names in the header."""

LENGTH = 8
LARGEST_HEADER = 100_000_000  # the format's own limit


class DamagedFile(Exception):
    """The file is not what the format says; the message says where."""


@dataclass(frozen=True)
class Entry:
    """One tensor: dtype by the header's name, shape, and its bytes ``start`` to ``stop`` in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def read_header(path: Path) -> dict[str, Entry]:
    """Read the header of a file.

    Returns
    -------
    dict
        Entry of each key. ``DamagedFile`` where the header is no header, or where its byte ranges do not fill the
        file exactly; ``OSError`` where the file cannot be read. No tensor is read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        first = file.read(LENGTH)
        length = int.from_bytes(first, "little")
        if len(first) < LENGTH or length > min(LARGEST_HEADER, size - LENGTH):
            msg = f"no header: its length reads {length}" if len(first) == LENGTH else "no header"
            raise DamagedFile(msg)
        return parse_header(file.read(length), data=size - LENGTH - length)


def parse_header(content: bytes, *, data: int) -> dict[str, Entry]:
    """Parse the JSON of a header that is followed by ``data`` bytes of tensors; see ``read_header``."""
    try:
        header = json.loads(content, object_pairs_hook=_once)
        found = {key: _entry(LENGTH + len(content), value) for key, value in header.items() if key != "__metadata__"}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        msg = f"header: {type(error).__name__}: {error}"
        raise DamagedFile(msg) from None
    end = LENGTH + len(content)
    for key, entry in sorted(found.items(), key=lambda item: (item[1].start, item[1].stop)):
        itemsize = NUMPY[entry.dtype].itemsize if entry.dtype in NUMPY else None
        if itemsize is not None and entry.stop - entry.start != math.prod(entry.shape) * itemsize:
            msg = f"{key}: {entry.dtype} {entry.shape} in {entry.stop - entry.start} bytes"
            raise DamagedFile(msg)
        if entry.start != end:
            msg = f"{key} begins at byte {entry.start}, the tensor before it ends at {end}"
            raise DamagedFile(msg)
        end = entry.stop
    if end != LENGTH + len(content) + data:
        msg = f"the header describes {end} bytes, the file has {LENGTH + len(content) + data}"
        raise DamagedFile(msg)
    return found


def read_tensor(path: Path, entry: Entry) -> np.ndarray:
    """Read one tensor in the dtype it is stored in (BF16 as ``ml_dtypes.bfloat16``).

    Memory: the tensor. ``DamagedFile`` where the file ends early, ``OSError`` where it cannot be read.
    """
    tensor = np.empty(entry.shape, NUMPY[entry.dtype])
    rest = tensor.reshape(-1).view(np.uint8).data
    with path.open("rb", buffering=0) as file:
        file.seek(entry.start)
        while rest:
            count = file.readinto(rest)  # one call reads 2 GiB at most
            if not count:
                msg = f"the file ends {len(rest)} bytes before byte {entry.stop}"
                raise DamagedFile(msg)
            rest = rest[count:]
    return tensor


def _entry(base: int, value: dict[str, Any]) -> Entry:
    start, stop = value["data_offsets"]
    shape = tuple(value["shape"])
    numbers = (start, stop, *shape)
    if not all(isinstance(one, int) and one >= 0 for one in numbers) or stop < start or not isinstance(value, dict):
        msg = f"shape {value['shape']} and data_offsets {value['data_offsets']}"
        raise ValueError(msg)
    return Entry(str(value["dtype"]), shape, base + start, base + stop)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        msg = "a key stands there twice"
        raise ValueError(msg)
    return found
