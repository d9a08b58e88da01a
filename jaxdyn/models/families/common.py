"""Stage 1 of 7: what most Hugging Face configs and checkpoints since Llama spell alike."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxdyn.errors import InputError
from jaxdyn.models import config as read
from jaxdyn.models.architecture import Architecture, LayerKind
from jaxdyn.models.families.source import Source
from jaxdyn.models.rope import Rope

PREFIX = r"model\."
BUFFERS = r"layers\.\d+\.self_attn\.rotary_emb\.inv_freq"
LAYER_TYPES = ("full_attention", "sliding_attention")

LEAVES = {
    "attention_norm/scale": "input_layernorm.weight",
    "attention/q": "self_attn.q_proj.weight",
    "attention/k": "self_attn.k_proj.weight",
    "attention/v": "self_attn.v_proj.weight",
    "attention/o": "self_attn.o_proj.weight",
    "mlp_norm/scale": "post_attention_layernorm.weight",
    "mlp/gate": "mlp.gate_proj.weight",
    "mlp/up": "mlp.up_proj.weight",
    "mlp/down": "mlp.down_proj.weight",
}
SANDWICH = {
    "attention_post_norm/scale": "post_attention_layernorm.weight",
    "mlp_norm/scale": "pre_feedforward_layernorm.weight",
    "mlp_post_norm/scale": "post_feedforward_layernorm.weight",
}
QK_NORMS = {f"attention/{name}_norm/scale": f"self_attn.{name}_norm.weight" for name in "qk"}
BIASES = {f"attention/{name}_bias": f"self_attn.{name}_proj.bias" for name in "qkvo"} | {
    f"mlp/{name}_bias": f"mlp.{name}_proj.bias" for name in ("gate", "up", "down")
}


def fields(
    config: read.Config,
    family: str,
    *,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    context: int = 2048,
    eps: float = 1e-6,
    tied: bool = False,
    activation: tuple[str, str] = ("hidden_act", "silu"),
) -> dict[str, Any]:
    """Return the fields of an ``Architecture`` with RMSNorm, rope and a gated MLP, but for its rope.

    Parameters
    ----------
    config
        Sizes are required; the arguments below are the defaults of the family's config class for absent fields.
    family
        Name in ``FAMILIES``.
    kv_heads, head_dim
        None: as many as query heads, and ``hidden_size / num_attention_heads``.
    context, eps, tied
        Of ``max_position_embeddings``, ``rms_norm_eps`` and ``tie_word_embeddings``.
    activation
        Name of the field, and its default.
    """
    width, heads = read.integer(config, "hidden_size"), read.integer(config, "num_attention_heads")
    if config.get("head_dim") is None and head_dim is None and width % heads:
        msg = f'config.json: "hidden_size" {width} is not a multiple of "num_attention_heads" {heads}; correct one'
        raise InputError(msg)
    if kv_heads is None or "num_key_value_heads" in config:  # transformers takes null for as many as query heads
        kv_heads = heads
    kv_heads = read.integer(config, "num_key_value_heads", kv_heads)
    if heads % kv_heads:
        msg = f'config.json: "num_key_value_heads" {kv_heads} does not divide "num_attention_heads" {heads}; correct it'
        raise InputError(msg)
    head_dim = read.integer(config, "head_dim", width // heads if head_dim is None else head_dim)
    if head_dim % 2:
        msg = f'config.json: head size {head_dim} is odd; RoPE turns pairs, so "head_dim" must be even'
        raise InputError(msg)
    return {
        "family": family,
        "width": width,
        "layers": read.integer(config, "num_hidden_layers"),
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "ff_dim": read.integer(config, "intermediate_size"),
        "vocab": read.integer(config, "vocab_size"),
        "context": read.integer(config, "max_position_embeddings", context),
        "norm": "rms",
        "norm_eps": read.number(config, "rms_norm_eps", eps),
        "activation": read.activation(config, *activation),
        "gated": True,
        "qkv_bias": False,
        "output_bias": False,
        "mlp_bias": False,
        "position": "rope",
        "rope": None,
        "tied_head": read.boolean(config, "tie_word_embeddings", tied),
        "initializer_range": read.number(config, "initializer_range", 0.02),
        "initializer": "normal",
    }


def layer_kinds(
    values: Mapping[str, Any], ropes: Sequence[Rope | None], windows: Sequence[int | None]
) -> tuple[LayerKind, ...]:
    """Return the kinds of layers with these ropes and windows, of one size; empty if they are all alike and plain."""
    if set(windows) <= {None} and set(ropes) == {values["rope"]}:
        return ()
    return tuple(
        LayerKind(rope, window, values["head_dim"], values["ff_dim"])
        for rope, window in zip(ropes, windows, strict=True)
    )


def uniform(values: Mapping[str, Any], rope: Rope, windows: Sequence[int | None]) -> dict[str, Any]:
    """Return the fields of an architecture whose layers share one rope and have these windows."""
    kinds = layer_kinds({**values, "rope": rope}, [rope] * len(windows), windows)
    return {**values, "rope": rope, "layer_kinds": kinds}


def text_tower(config: read.Config, translate: Callable[[read.Config], Architecture]) -> Architecture:
    """Translate a text config, or the ``text_config`` of a config that has other towers too."""
    if config.get("text_config") is None:
        return translate(config)
    for name in ("vision_config", "audio_config", "mm_tokens_per_image", "vision_soft_tokens_per_image"):
        config.get(name)  # of the other towers
    for name in ("initializer_range", "tie_word_embeddings"):
        config.get(name)  # transformers reads the text config's
    if not isinstance(config["text_config"], Mapping):
        raise InputError(read.wrong("text_config", config["text_config"], "an object"))
    inner = read.Recorded(config["text_config"], "text_config.")
    arch = translate(inner)
    inner.refuse_unread()
    return arch


def by_type(
    config: read.Config, values: Mapping[str, Any], types: Sequence[str], ropes: Mapping[str, Rope], *, window: int
) -> dict[str, Any]:
    """Return the fields of an architecture whose layers have the rope and window of their type."""
    windows = sliding_windows(config, types, window)
    whole = {**values, "rope": ropes["full_attention"]}
    return whole | {"layer_kinds": layer_kinds(whole, [ropes[kind] for kind in types], windows)}


def sliding_windows(config: read.Config, types: Sequence[str], default: int) -> tuple[int | None, ...]:
    """Return each layer's window by its type; ``sliding_window`` is required where a layer slides."""
    if "sliding_attention" not in types:
        config.get("sliding_window")
        return (None,) * len(types)
    if "sliding_window" in config and config["sliding_window"] is None:
        raise InputError(read.wrong("sliding_window", None, "an integer of at least 1: a layer has sliding attention"))
    window = read.integer(config, "sliding_window", default)
    return tuple(window if kind == "sliding_attention" else None for kind in types)


def late_windows(config: read.Config, layers: int) -> tuple[int | None, ...]:
    """Return Qwen's windows: from layer ``max_window_layers`` on, where ``use_sliding_window`` is set."""
    slides = read.boolean(config, "use_sliding_window", False) and config.get("sliding_window", 4096) is not None
    first = read.integer(config, "max_window_layers", 28, minimum=0)
    types = [LAYER_TYPES[slides and layer >= first] for layer in range(layers)]
    types = read.strings(config, "layer_types", types, LAYER_TYPES if slides else LAYER_TYPES[:1])
    return sliding_windows(config, types, 4096)


def every(period: int, layers: int) -> tuple[str, ...]:
    """Return layer types where every ``period``-th layer has full attention, the others sliding."""
    return tuple(LAYER_TYPES[bool((layer + 1) % period)] for layer in range(layers))


def table(arch: Architecture, leaves: Mapping[str, str], *, layers: str = "layers") -> dict[str, Source]:
    """Return the checkpoint key of every parameter, from those of a block; biases as the architecture has them."""
    wanted = {"qkv_bias": ("q", "k", "v"), "output_bias": ("o",), "mlp_bias": ("gate", "up", "down")}
    biases = {f"/{name}_bias" for field, names in wanted.items() if getattr(arch, field) for name in names}
    chosen = dict(leaves) | {path: key for path, key in BIASES.items() if path[path.index("/") :] in biases}
    rows = {f"blocks/{path}": Source(f"{layers}.{{layer}}.{key}") for path, key in chosen.items()}
    rows |= {"embed/tokens": Source("embed_tokens.weight"), "final_norm/scale": Source("norm.weight")}
    return rows if arch.tied_head else rows | {"head": Source("lm_head.weight")}
