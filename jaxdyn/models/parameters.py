"""Stage 1 of 7: the layout of the parameters, and random initialisation by the family's own rule.

The layout is a flat table path -> shape, the single source for loading, initialising and counting. Matrices are
(out, in); block leaves are stacked over layers in front.
"""

import math
import zlib
from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxdyn.models.architecture import Architecture
from jaxdyn.models.decoder import Params

RESIDUAL_WRITERS = ("blocks/attention/o", "blocks/mlp/down")


def shapes(arch: Architecture) -> dict[str, tuple[int, ...]]:
    """Return the shape of every parameter by its path, such as ``"blocks/attention/q": (L, H K, D)``."""
    width, ff = arch.width, arch.ff_dim
    q, kv = arch.heads * arch.head_dim, arch.kv_heads * arch.head_dim
    norm = {"scale": (width,)} | ({"bias": (width,)} if arch.norm == "layer" else {})
    attention = {"q": (q, width), "k": (kv, width), "v": (kv, width), "o": (width, q)}
    if arch.qkv_bias:
        attention |= {"q_bias": (q,), "k_bias": (kv,), "v_bias": (kv,)}
    if arch.output_bias:
        attention |= {"o_bias": (width,)}
    hidden = ("gate", "up") if arch.gated else ("up",)
    mlp = {name: (ff, width) for name in hidden} | {"down": (width, ff)}
    if arch.mlp_bias:
        mlp |= {f"{name}_bias": (ff,) for name in hidden} | {"down_bias": (width,)}
    parts = {"attention_norm": norm, "attention": attention, "mlp_norm": norm, "mlp": mlp}

    table: dict[str, tuple[int, ...]] = {"embed/tokens": (arch.vocab, width)}
    if arch.position == "learned":
        table["embed/positions"] = (arch.context, width)
    for part, leaves in parts.items():
        table |= {f"blocks/{part}/{name}": (arch.layers, *shape) for name, shape in leaves.items()}
    table |= {f"final_norm/{name}": shape for name, shape in norm.items()}
    if not arch.tied_head:
        table["head"] = (arch.vocab, width)
    return table


def nest(flat: dict[str, jax.Array]) -> dict:
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


def initialise(arch: Architecture, seed: int, *, dtype: DTypeLike = "float32") -> dict:
    """Draw random parameters by the family's rule.

    Matrices and embeddings: normal(0, ``initializer_range``), divided by sqrt(2 L) for the two maps that write to the
    residual stream if ``initializer == "depth-scaled"`` (GPT-2); norm scales 1; biases 0. Each leaf has its own key,
    so a leaf's values do not depend on which others there are.

    Parameters
    ----------
    arch
        The description of the decoder.
    seed
        Non-negative integer; the same seed gives the same numbers in every dtype (drawn in float32, then cast).
    dtype
        Dtype of the parameters.

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
            flat[path] = jnp.ones(shape, dtype)
        elif name == "bias" or name.endswith("_bias"):
            flat[path] = jnp.zeros(shape, dtype)
        else:
            scaled = arch.initializer == "depth-scaled" and path in RESIDUAL_WRITERS
            deviation = arch.initializer_range / (math.sqrt(2 * arch.layers) if scaled else 1.0)
            own_key = jax.random.fold_in(key, zlib.crc32(path.encode()))
            flat[path] = _normal(own_key, jnp.float32(deviation), shape, jnp.dtype(dtype))
    return nest(flat)


@partial(jax.jit, static_argnames=("shape", "dtype"))
def _normal(key: jax.Array, deviation: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
    return (deviation * jax.random.normal(key, shape, jnp.float32)).astype(dtype)
