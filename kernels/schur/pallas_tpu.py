"""Schur form of many small real matrices on a TPU: the whole Hessenberg QR iteration in one Pallas kernel.

A group of matrices, H, Q and a copy for the windows, lies in vector memory from the first round to the last (bulges.py
has the method, in operations on whole arrays); a loop without conditions on the data but its own end goes over it, so
that nothing is read from or written to the main memory in between. Groups follow each other along the grid. Rows are
padded to multiples of 8 and columns to multiples of 128, the tile of float32. Elsewhere than on a TPU the kernel is
interpreted: right, and slow.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from .bulges import iterate
from .bulges_real import REAL
from .grid import grid
from .wavefront import certified

LARGEST = 256
"""Order up to which the kernel is built: beyond, its code and its arrays outgrow what a TPU's core holds."""

GROUP = 65536
"""Entries of H in a group, padding included: 64 registers of a TPU's core, all that it has."""

NAME = "schur_wavefront"
"""Of the kernel, in the compiled program."""


def schur(A: Float[Array, "*batch n n"], *, vectors: bool = True):
    """T, Q and which matrices needed the robust method; finite float32 matrices of order one, n up to LARGEST."""
    if A.dtype != jnp.float32 or A.shape[-1] > LARGEST:
        message = (
            f"schur: implementation='pallas' takes float32 matrices of order at most {LARGEST}, A has dtype {A.dtype} "
            f"and shape {A.shape}: use implementation='xla' or 'divide', or None"
        )
        raise ValueError(message)
    return certified(A, vectors, _iterated)


def _iterated(H: Float[Array, "B n n"], Q: Float[Array, "B n n"] | None):
    on_tpu, elsewhere = (partial(in_kernel, interpret=interpret) for interpret in (False, True))
    return jax.lax.platform_dependent(H, Q, tpu=on_tpu, default=elsewhere)


def in_kernel(H: Float[Array, "B n n"], Q: Float[Array, "B n n"] | None, interpret: bool = False):
    """One iteration of wavefront.py, in the kernel: H, Q and whether each matrix is done."""
    given = (H,) if Q is None else (H, Q)
    batch, n, _ = given[0].shape
    rows, columns = -(-n // 8) * 8, -(-n // 128) * 128
    groups = -(-batch // max(1, GROUP // (rows * columns)))
    group = -(-batch // groups)
    pad = ((0, groups * group - batch), (0, rows - n), (0, columns - n))
    whole = pl.BlockSpec((group, rows, columns), lambda g: (g, 0, 0))
    vector = pl.BlockSpec((group, 1, 128), lambda g: (g, 0, 0))
    like = jax.ShapeDtypeStruct((groups * group, rows, columns), given[0].dtype)
    *found, active = pl.pallas_call(
        partial(_kernel, n, len(given)),
        grid=(groups,),
        in_specs=[whole] * len(given),
        out_specs=[*[whole] * len(given), vector],
        out_shape=[*[like] * len(given), jax.ShapeDtypeStruct((groups * group, 1, 128), jnp.int32)],
        scratch_shapes=[pltpu.VMEM((group, rows, columns), given[0].dtype)],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",)),
        interpret=interpret,
        name=NAME,
    )(*(jnp.pad(X, pad) for X in given))
    H, *vectors = (X[:batch, :n, :n] for X in found)
    return H, vectors[0] if vectors else None, active[:batch, 0, 0] == 0


class _Memory:
    """H and Q stay where they are; loops carry nothing of them."""

    def __init__(self, *references: Any):
        self.references = references

    def read(self, state: Any) -> tuple[Array, Array | None]:
        del state
        H, *Q = (reference[...] for reference in self.references)
        return H, Q[0] if Q else None

    def write(self, H: Array, Q: Array | None) -> Any:
        for reference, X in zip(self.references, (H, Q), strict=False):
            reference[...] = X
        return ()


def _kernel(n: int, count: int, *references: Any):
    given, found = references[:count], references[count : 2 * count]
    left, copy = references[2 * count :]
    for source, target in zip(given, found, strict=True):
        target[...] = source[...]
    # A shift of 32 bits, with x64 on too.
    at = grid(found[0].shape, n, lambda x, by, axis: pltpu.roll(x, jnp.int32(by), axis))
    _, active, _ = iterate((), _Memory(*found), _Memory(copy), at, REAL, found[0].dtype)
    left[...] = jnp.broadcast_to(active, left.shape)
