"""Stage 1 of 7: a parameter built where it will live: on one device, or split over many, a piece at a time.

The array is allocated on its devices first, as zeros; each tensor of the checkpoint is then cast and copied into its
place in pieces of ``PIECE`` bytes, and a device gets the part of a piece that it holds. The host never has more than
the tensor that is read and a few pieces.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding

PIECE = 16 * 2**20
"""Bytes that are cast and copied at a time; a parameter not larger than this is built on the host."""


class Placement:
    """One parameter under construction.

    Parameters
    ----------
    shape, dtype
        Of the whole parameter.
    sharding
        How it is split over devices; None puts it where jax puts arrays.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, sharding: Sharding | None) -> None:
        self._shape, self._dtype, self._sharding = shape, dtype, sharding
        self._host: np.ndarray | None = None
        self._buffers: dict[Any, jax.Array] = {}
        self._offsets: dict[Any, tuple[tuple[int, int], ...]] = {}
        if np.prod(shape) * dtype.itemsize <= PIECE:
            self._host = np.zeros(shape, dtype)
            return
        whole = {None: tuple(slice(None) for _ in shape)}
        parts = whole if sharding is None else sharding.addressable_devices_indices_map(shape)
        for device, part in parts.items():
            spans = tuple(axis.indices(size)[:2] for axis, size in zip(part or whole[None], shape, strict=True))
            self._offsets[device] = spans
            self._buffers[device] = jnp.zeros([stop - start for start, stop in spans], dtype, device=device)

    def write(self, value: np.ndarray, layer: int | None = None) -> int:
        """Copy a value into its place.

        Parameters
        ----------
        value
            The whole parameter, or one layer of it (any memory layout; it may be a view of the checkpoint's tensor).
        layer
            Which layer of a parameter stacked over layers.

        Returns
        -------
        int
            How many of the values are NaN or inf in the parameter's dtype.
        """
        one_number = value.ndim == 0  # a scalar in each layer
        value, bad = np.atleast_1d(value), 0
        step = len(value) if self._host is not None else max(1, PIECE // max(1, value[:1].size * self._dtype.itemsize))
        for start in range(0, len(value), step):
            with np.errstate(over="ignore"):  # what overflows becomes inf, which is counted
                piece = np.ascontiguousarray(value[start : start + step], self._dtype)
            bad += piece.size - int(np.isfinite(piece).sum())
            if layer is None:
                origin = (start,)
            elif one_number:
                origin = (layer,)
            else:
                piece, origin = piece[None], (layer, start)
            self._put(piece, origin + (0,) * (piece.ndim - len(origin)))
        return bad

    def finish(self) -> jax.Array:
        """Return the parameter; nothing may be written after."""
        if self._host is not None:
            host, self._host = self._host, None
            return jnp.asarray(host) if self._sharding is None else jax.device_put(host, self._sharding)
        buffers, self._buffers = self._buffers, {}
        if self._sharding is None:
            return buffers[None]
        return jax.make_array_from_single_device_arrays(self._shape, self._sharding, list(buffers.values()))

    def _put(self, piece: np.ndarray, origin: tuple[int, ...]) -> None:
        if self._host is not None:
            self._host[tuple(slice(o, o + n) for o, n in zip(origin, piece.shape, strict=True))] = piece
            return
        for device, spans in self._offsets.items():
            low = [max(o, start) for o, (start, _) in zip(origin, spans, strict=True)]
            high = [min(o + n, stop) for o, n, (_, stop) in zip(origin, piece.shape, spans, strict=True)]
            if any(a >= b for a, b in zip(low, high, strict=True)):
                continue
            own = piece[tuple(slice(a - o, b - o) for a, b, o in zip(low, high, origin, strict=True))]
            place = tuple(np.int32(a - start) for a, (start, _) in zip(low, spans, strict=True))
            moved = jax.device_put(own, device)
            # Waiting bounds what the host holds: transfers are queued, and each keeps its piece until it is done.
            self._buffers[device] = jax.block_until_ready(_write(self._buffers[device], moved, place))


@partial(jax.jit, donate_argnums=0)
def _write(buffer: jax.Array, piece: jax.Array, place: tuple[Any, ...]) -> jax.Array:
    """Write a piece into a buffer, in place: the buffer is given away."""
    return jax.lax.dynamic_update_slice(buffer, piece, place)
