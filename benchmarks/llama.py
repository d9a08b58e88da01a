"""Descriptions of Llama decoders for the benchmarks: sizes are given, the mechanisms are those of every Llama."""

from typing import Any

from jaxdyn.models.architecture import Architecture, Rope


def llama(*, width: int, layers: int, heads: int, kv_heads: int, ff_dim: int, **given: Any) -> Architecture:
    """Describe a Llama; `given` are further fields of `Architecture`, vocab and context among them."""
    fields: dict[str, Any] = {
        "head_dim": width // heads,
        "norm": "rms",
        "norm_eps": 1e-5,
        "activation": "silu",
        "gated": True,
        "qkv_bias": False,
        "output_bias": False,
        "mlp_bias": False,
        "position": "rope",
        "rope": Rope(10000.0),
        "tied_head": True,
        "initializer_range": 0.02,
        "initializer": "normal",
    }
    sizes = {"width": width, "layers": layers, "heads": heads, "kv_heads": kv_heads, "ff_dim": ff_dim}
    return Architecture(**{"family": "llama", **fields, **sizes, **given})
