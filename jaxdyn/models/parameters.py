"""Stage 1 of 7: the layout of the parameters, and random initialisation by the family's own rule.

The layout is a flat table path -> shape, the single source for loading, initialising and counting. Matrices are
(out, in); block leaves are stacked over layers in front.
"""

import math
import zlib
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding
from jax.typing import DTypeLike

from jaxdyn.models.architecture import Architecture
from jaxdyn.models.decoder import Params
from jaxdyn.models.padding import real_entries, real_shape

RESIDUAL_WRITERS = ("blocks/attention/o", "blocks/mlp/down")


def shapes(arch: Architecture) -> dict[str, tuple[int, ...]]:
    """Return the shape of every parameter by its path, such as ``"blocks/attention/q": (L, H K, D)``."""
    width, norm = arch.width, _norm(arch)
    table: dict[str, tuple[int, ...]] = {"embed/tokens": (arch.vocab, width)}
    if arch.position == "learned":
        table["embed/positions"] = (arch.context, width)
    if arch.per_layer_width:
        every = arch.layers * arch.per_layer_width
        table["embed/per_layer"] = (arch.per_layer_vocab, every)
        table["embed/per_layer_projection"] = (every, width)
        table["embed/per_layer_norm/scale"] = (arch.per_layer_width,)
    for part, leaves in _block(arch).items():
        table |= {f"blocks/{part}/{name}": (arch.layers, *shape) for name, shape in leaves.items()}
    table |= {f"final_norm/{name}": shape for name, shape in norm.items()}
    if not arch.tied_head:
        table["head"] = (arch.vocab, width)
    return table


def _norm(arch: Architecture) -> dict[str, tuple[int, ...]]:
    return {"scale": (arch.width,)} | ({"bias": (arch.width,)} if arch.norm == "layer" else {})


def _block(arch: Architecture) -> dict[str, dict[str, tuple[int, ...]]]:
    """Return the shapes of one block's leaves by group."""
    width, ff = arch.width, arch.ff_dim
    q, kv = arch.heads * arch.head_dim, arch.kv_heads * arch.head_dim
    attention = {"q": (q, width), "k": (kv, width), "v": (kv, width), "o": (width, q)}
    if arch.qkv_bias:
        attention |= {"q_bias": (q,), "k_bias": (kv,), "v_bias": (kv,)}
    if arch.output_bias:
        attention |= {"o_bias": (width,)}
    hidden = ("gate", "up") if arch.gated else ("up",)
    mlp = {name: (ff, width) for name in hidden} | {"down": (width, ff)}
    if arch.mlp_bias:
        mlp |= {f"{name}_bias": (ff,) for name in hidden} | {"down_bias": (width,)}
    parts: dict[str, dict[str, tuple[int, ...]]] = {"attention": attention, "mlp": mlp}
    if arch.norm_placement != "post":
        parts |= {"attention_norm": _norm(arch), "mlp_norm": _norm(arch)}
    if arch.norm_placement != "pre":
        parts |= {"attention_post_norm": _norm(arch), "mlp_post_norm": _norm(arch)}
    if arch.qk_norm is not None:
        rows = (q, kv) if arch.qk_norm == "projection" else (arch.head_dim, arch.head_dim)
        parts["attention/q_norm"], parts["attention/k_norm"] = ({"scale": (size,)} for size in rows)
    if arch.per_layer_width:
        own = arch.per_layer_width
        parts |= {"per_layer": {"gate": (own, width), "project": (width, own)}, "per_layer_post_norm": _norm(arch)}
    if arch.layer_scale:
        parts["layer_scale"] = {"scale": (1,)}
    return parts


def count(arch: Architecture) -> int:
    """Return the number of parameters, the zeros that pad smaller layers not counted."""
    total = 0
    for path, shape in shapes(arch).items():
        if path.startswith("blocks/"):
            total += sum(math.prod(real_shape(arch, path, layer, shape[1:])) for layer in range(arch.layers))
        else:
            total += math.prod(shape)
    return total


def nest(flat: Mapping[str, Any]) -> dict:
    """Turn ``{"a/b": x}`` into ``{"a": {"b": x}}``."""
    tree: dict = {}
    for path, leaf in flat.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree


def flatten(params: Params, prefix: str = "") -> dict[str, jax.Array]:
    """Turn ``{"a": {"b": x}}`` into ``{"a/b": x}``, the inverse of ``nest``."""
    flat = {}
    for name, node in params.items():
        flat |= flatten(node, f"{prefix}{name}/") if isinstance(node, dict) else {f"{prefix}{name}": node}
    return flat


def initialise(
    arch: Architecture,
    seed: int,
    *,
    dtype: DTypeLike = "float32",
    shardings: Mapping[str, Sharding] | None = None,
) -> dict:
    """Draw random parameters by the family's rule.

    Matrices and embeddings: normal(0, ``initializer_range``), divided by sqrt(2 L) for the two maps that write to the
    residual stream if ``initializer == "depth-scaled"`` (GPT-2); what norms multiply by and layer scales 1; biases 0.
    What pads smaller layers is 0. Each leaf has its own key, so its values do not depend on which others there are.

    Parameters
    ----------
    arch
        The description of the decoder.
    seed
        Non-negative integer; the same seed gives the same numbers in every dtype (drawn in float32, then cast).
    dtype
        Dtype of the parameters.
    shardings
        Where each leaf goes, by its path; None is jax's own choice of one device.

    Returns
    -------
    dict
        The nested parameters of ``decoder.py``.
    """
    key = jax.random.key(seed)
    flat = {}
    for path, shape in shapes(arch).items():
        name = path.rsplit("/", 1)[-1]
        if name == "scale":
            flat[path] = jnp.full(shape, 1.0 - arch.norm_offset, dtype)
        elif name == "bias" or name.endswith("_bias"):
            flat[path] = jnp.zeros(shape, dtype)
        else:
            scaled = arch.initializer == "depth-scaled" and path in RESIDUAL_WRITERS
            deviation = arch.initializer_range / (math.sqrt(2 * arch.layers) if scaled else 1.0)
            own_key = jax.random.fold_in(key, zlib.crc32(path.encode()))
            flat[path] = _normal(own_key, jnp.float32(deviation), shape, jnp.dtype(dtype))
        if path.startswith("blocks/"):
            flat[path] = _padded(arch, path, flat[path])
        if shardings is not None:  # at once: one device need not hold more than one leaf
            flat[path] = jax.device_put(flat[path], shardings[path])
    return nest(flat)


def _padded(arch: Architecture, path: str, leaf: jax.Array) -> jax.Array:
    """Put zeros where a layer is smaller than the leaf."""
    if all(real_entries(arch, path, layer) is None for layer in range(arch.layers)):
        return leaf
    mask = np.zeros(leaf.shape, bool)
    for layer in range(arch.layers):
        entries = real_entries(arch, path, layer)
        mask[layer][... if entries is None else entries] = True
    return jnp.where(mask, leaf, jnp.zeros((), leaf.dtype))


@partial(jax.jit, static_argnames=("shape", "dtype"))
def _normal(key: jax.Array, deviation: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
    return (deviation * jax.random.normal(key, shape, jnp.float32)).astype(dtype)
