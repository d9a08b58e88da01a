"""Stage 1 of 7: Gemma 4, the text tower of the E-models: per-layer embeddings, layer scale, shared keys and values.

Local and global layers differ in head size, and layers that share may have an MLP twice as wide: their weights are
padded to one size (``padding``). Of a checkpoint with image and audio towers (``model_type`` "gemma4") the text's
config is ``text_config``, and the other towers' weights are left out. Keys and values that a checkpoint still holds for
layers that share others' are left out as well, as transformers does.
"""

from jaxdyn.errors import InputError
from jaxdyn.models import config as read
from jaxdyn.models.architecture import Architecture, LayerKind
from jaxdyn.models.families import common
from jaxdyn.models.families.source import Source
from jaxdyn.models.rope_config import TYPES, ropes_by_type

PREFIX = r"(model\.language_model\.|model\.)"
BUFFERS = r"(model\.)?(vision_tower|audio_tower|embed_vision|embed_audio)\..*|" + (
    r"layers\.\d+\.self_attn\.(k_proj|v_proj|k_norm)\.weight"
)
PER_LAYER = {
    "per_layer/gate": "per_layer_input_gate.weight",
    "per_layer/project": "per_layer_projection.weight",
    "per_layer_post_norm/scale": "post_per_layer_input_norm.weight",
}
EMBEDDINGS = {
    "embed/per_layer": "embed_tokens_per_layer.weight",
    "embed/per_layer_projection": "per_layer_model_projection.weight",
    "embed/per_layer_norm/scale": "per_layer_projection_norm.weight",
}


def architecture(config: read.Config) -> Architecture:
    """Translate a ``Gemma4TextConfig`` dict, or a ``Gemma4Config`` with one; absent fields take their defaults."""
    return common.text_tower(config, _architecture)


def _architecture(config: read.Config) -> Architecture:
    gelu = ("hidden_activation", "gelu_pytorch_tanh")
    values = common.fields(config, "gemma4", kv_heads=4, head_dim=256, context=131072, tied=True, activation=gelu)
    layers, small = values["layers"], values["head_dim"]
    for name in ("enable_moe_block", "attention_k_eq_v"):
        read.require(config, name, False)
    if config.get("use_bidirectional_attention") != "vision":  # text stays causal under it
        read.require(config, "use_bidirectional_attention", None)
    types = read.strings(config, "layer_types", common.every(6, layers), common.LAYER_TYPES)
    types = (*types[:-1], "full_attention")  # transformers forces it
    windows = common.sliding_windows(config, types, 512)
    fallback = {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1000000.0}
    given = {"rope_parameters": config.get("rope_parameters") or {"full_attention": fallback}}
    known = (*TYPES, "proportional")
    ropes = ropes_by_type(given, values["context"], full=1000000.0, sliding=10000.0, types=known)
    shared = read.integer(config, "num_kv_shared_layers", 0, minimum=0)
    sources = _sources(types, layers - shared)
    wide = read.boolean(config, "use_double_wide_mlp", False)
    sizes = _head_dims(config, types, small)
    kinds = tuple(
        LayerKind(ropes[types[one]], windows[one], sizes[one], values["ff_dim"] * (2 if wide and own != one else 1))
        for one, own in enumerate(sources)
    )
    bias = read.boolean(config, "attention_bias", False)
    per_layer = read.integer(config, "hidden_size_per_layer_input", 256, minimum=0)
    values |= {
        "head_dim": max(kind.head_dim for kind in kinds),
        "ff_dim": max(kind.ff_dim for kind in kinds),
        "rope": ropes["full_attention"],
        "layer_kinds": kinds,
        "qkv_bias": bias,
        "output_bias": bias,
        "norm_placement": "both",
        "qk_norm": "head",
        "v_norm": True,
        "attention_scale": 1.0,
        "embedding_scale": values["width"] ** 0.5,
        "logit_softcap": read.optional_number(config, "final_logit_softcapping", None),
        "per_layer_width": per_layer,
        "layer_scale": True,
        "kv_sources": sources if shared else (),
    }
    rows = read.integer(config, "vocab_size_per_layer_input", 262144)
    if per_layer and rows < values["vocab"]:
        raise InputError(read.wrong("vocab_size_per_layer_input", rows, f"at least vocab_size, {values['vocab']}"))
    return Architecture(**values, per_layer_vocab=rows if per_layer else 0)


def _head_dims(config: read.Config, types: tuple[str, ...], small: int) -> list[int]:
    """Head size of each layer: from ``per_layer_config`` (transformers 5), else ``global_head_dim`` if it is global."""
    large = read.integer(config, "global_head_dim", 512)
    sizes = [small if kind == "sliding_attention" else large for kind in types]
    given = config.get("per_layer_config")
    if given is not None:
        sizes = [small] * len(types)
        for layer, own in given.items():
            part = read.Recorded(own, f"per_layer_config.{layer}.")
            sizes[int(layer)] = read.integer(part, "head_dim", small)
            part.refuse_unread()
    if any(size % 2 for size in sizes):
        raise InputError(read.wrong("global_head_dim", max(sizes), "even head sizes: RoPE turns pairs"))
    return sizes


def _sources(types: tuple[str, ...], first: int) -> tuple[int, ...]:
    """For each layer the one whose keys and values it reads: from ``first`` on the last before that of its own type."""
    last = {kind: layer for layer, kind in enumerate(types[: max(first, 0)])}
    missing = set(types[max(first, 0) :]) - set(last)
    if missing:
        shared = len(types) - first
        allowed = f"fewer: none of the first {first} layers has {', '.join(sorted(missing))} to share"
        raise InputError(read.wrong("num_kv_shared_layers", shared, allowed))
    return tuple(layer if layer < first else last[kind] for layer, kind in enumerate(types))


def table(arch: Architecture) -> dict[str, Source]:
    """Return the checkpoint key of every parameter."""
    leaves = common.LEAVES | common.SANDWICH | common.QK_NORMS | {"layer_scale/scale": "layer_scalar"}
    if not arch.per_layer_width:
        return common.table(arch, leaves)
    return common.table(arch, leaves | PER_LAYER) | {path: Source(key) for path, key in EMBEDDINGS.items()}
