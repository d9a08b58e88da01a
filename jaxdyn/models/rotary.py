"""Stage 1 of 7: queries and keys turned by their position.

The tables of all layers are made on the host; where layers differ, a layer takes its row by its number, which may be
traced, so that one program serves every layer. A layer without RoPE has zero frequencies: cosine 1, sine 0, exactly.
"""

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from jaxdyn.models.architecture import Architecture, of_layer


def rotate(
    arch: Architecture, layer: Mapping[str, Any], x: Float[Array, "T heads K"], positions: Int[Array, " T"]
) -> Float[Array, "T heads K"]:
    """Turn queries or keys by their position: RoPE in the rotate-half convention.

    ``(a, b) -> c (a cos p f - b sin p f, b cos p f + a sin p f)`` with a, b the two halves of a head's turned part, p
    the position, f the frequencies and c the amplitude of the layer's ``Rope``; what is not turned stays.

    Parameters
    ----------
    arch
        ``arch.position`` must be "rope".
    layer
        One layer's weights, from ``layer_weights``; only its number is read.
    x
        (T, heads, K) queries or keys.
    positions
        (T,) integers, 0 <= p < 2^20.

    Returns
    -------
    Array
        (T, heads, K). The angle, reduced to one turn, is accurate to an eps of x's dtype at every position (see
        ``_angles``); a float32 product p * f would lose an absolute p * 6e-8 radians.
    """
    return _turn(arch, layer, x, _angles(arch, layer, positions, x.dtype))


def unrotate(
    arch: Architecture, layer: Mapping[str, Any], x: Float[Array, "T heads K"], positions: Int[Array, " T"]
) -> Float[Array, "T heads K"]:
    """Apply the transpose of ``rotate``: turn by the opposite angle, with the same amplitude."""
    return _turn(arch, layer, x, -_angles(arch, layer, positions, x.dtype))


def _turn(arch, layer, x, angles):
    cos, sin = jnp.cos(angles)[:, None, :], jnp.sin(angles)[:, None, :]
    amplitudes = tables(arch)[1]
    if np.any(amplitudes != 1.0):
        amplitude = of_layer(amplitudes.astype(x.dtype), layer)
        cos, sin = cos * amplitude, sin * amplitude
    half = angles.shape[-1]
    a, b, still = jnp.split(x, [half, 2 * half], axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin, still], axis=-1)


@lru_cache(maxsize=64)
def tables(arch: Architecture) -> tuple[np.ndarray, np.ndarray]:
    """Return every layer's frequencies (L, R/2), radians per position, and amplitude (L,), float64.

    Layers without RoPE have zeros and 1; a head smaller than ``arch.head_dim`` is padded in each of its halves (see
    ``padding``), its frequencies with zeros.
    """
    if arch.position != "rope":
        msg = f"arch.position: got {arch.position!r}, but rotate needs 'rope'"
        raise ValueError(msg)
    rows, amplitudes = [], []
    for kind in arch.kinds:
        rows.append(np.zeros(0) if kind.rope is None else kind.rope.frequencies(kind.head_dim))
        amplitudes.append(1.0 if kind.rope is None else kind.rope.amplitude)
    smaller = any(kind.head_dim < arch.head_dim for kind in arch.kinds)
    half = arch.head_dim // 2 if smaller else max(map(len, rows))
    partial = {len(row) for row, kind in zip(rows, arch.kinds, strict=True) if 2 * len(row) != kind.head_dim}
    assert half or not partial, "an architecture with rope turns something"
    assert all(size in (0, half) for size in partial), "partial rotary parts must agree between layers"
    return np.stack([np.pad(row, (0, half - len(row))) for row in rows]), np.asarray(amplitudes)


def _angles(arch, layer, positions, dtype) -> Float[Array, "T half"]:
    """Angles ``p f`` reduced to (-pi, pi] in fixed point, or the plain product where the dtype is float64.

    The frequency in turns per position has 44 fractional bits, f = (hi 2^12 + lo) 2^-44. The top 32 bits of the phase,
    p hi + (p lo >> 12) modulo 2^32, are exact in uint32 as long as p lo < 2^32, hence p < 2^20.
    """
    frequencies = tables(arch)[0]
    if dtype == jnp.float64:
        return positions.astype(dtype)[:, None] * of_layer(frequencies, layer)
    turns = np.round(np.mod(frequencies / (2 * np.pi), 1.0) * 2.0**44).astype(np.uint64)
    hi = of_layer((turns >> 12).astype(np.uint32), layer)
    lo = of_layer((turns & 0xFFF).astype(np.uint32), layer)
    p = positions.astype(jnp.uint32)[:, None]
    phase = lax.bitcast_convert_type(p * hi + ((p * lo) >> 12), jnp.int32)
    return phase.astype(dtype) * (2 * math.pi / 2**32)
