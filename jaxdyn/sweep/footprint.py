"""What a store of a run takes on the disk, from its schema alone."""

import math
from typing import Any

import numpy as np

from jaxdyn.store.arrays import COMPRESSED_FROM
from jaxdyn.store.schema import Schema, chunk_shape

BLOCK = 4096
"""Bytes that the smallest file takes."""

ENTRY = 1200
"""Bytes of metadata an array, its own and in the copy at the root."""

KEPT, KEPT_OF = 0.93, {"eigenvalues": 0.55, "eigenvalues_null": 0.55, "matrices/schur_T": 0.49}
"""What zstd leaves of a large chunk: mantissas are noise, signs and exponents are not; eigenvalues come in conjugate
pairs, and half of T is zero. Measured on a trained model in float32."""

OUTPUT = {
    "eigenvalues": "eigenvalues", "eigenvalues_null": "eigenvalues", "singular_values": "singular-values",
    "units/jacobian_sum": "averages", "units/count": "averages", "matrices/jacobian": "jacobians",
    "matrices/schur_T": "schur", "matrices/schur_Q": "schur",
}  # fmt: skip
"""Arrays that an output of the plan asks for; the others are scalars of each sample."""


def footprint(schema: Schema, *, averages: bool) -> dict[str, Any]:
    """Return bytes by output, their total, what files and folders take in whole blocks, and how many files there are.

    The per-unit arrays are counted chunk by chunk, and what is known at creation by its content. With `averages` a
    finished store has about as many arrays again, of a few numbers a layer: they count as metadata.
    """
    by_output: dict[str, float] = {"scalars": 0}
    blocks, files = 0, 0
    for variable in schema.variables:
        shape = [schema.sizes[dim] for dim in variable.dims]
        item = np.dtype(variable.dtype).itemsize
        chunk = chunk_shape(shape, variable.dims, {**schema.units, **dict.fromkeys(variable.split, 1)}, item)
        count = math.prod(math.ceil(size / one) for size, one in zip(shape, chunk, strict=True))
        size = item * math.prod(chunk)
        size = size * KEPT_OF.get(variable.key, KEPT) if size >= COMPRESSED_FROM else size
        output = OUTPUT.get(variable.key, "scalars")
        by_output[output] = by_output.get(output, 0) + count * size
        blocks += count * math.ceil(size / BLOCK) * BLOCK
        files += count
    small = len(schema.coordinates) + (len(schema.variables) if averages else 0)
    labels = [_size_of(coordinate.values) for coordinate in schema.coordinates]
    arrays = len(schema.variables) + small
    by_output |= {"labels": sum(labels), "metadata": ENTRY * arrays}
    blocks += sum(math.ceil(size / BLOCK) * BLOCK for size in labels) + (small - len(labels)) * BLOCK
    total = {name: round(size) for name, size in by_output.items()}
    return {
        "by_output": total,
        "total": sum(total.values()),
        "on_disk": int(blocks) + 2 * BLOCK * arrays,  # each array is a folder with a file of metadata
        "files": files + small + arrays,
    }


def _size_of(values: Any) -> int:
    array = np.asarray(values)
    return sum(4 + len(str(one)) for one in array.ravel()) if array.dtype.kind in "UOT" else array.nbytes
