"""Stage 1 of 7: SmolLM3: a Llama in which every fourth layer has no RoPE."""

from jaxdyn.errors import InputError
from jaxdyn.models import config as read
from jaxdyn.models.architecture import Architecture
from jaxdyn.models.families import common
from jaxdyn.models.families.common import BUFFERS as BUFFERS
from jaxdyn.models.families.common import PREFIX as PREFIX
from jaxdyn.models.families.source import Source
from jaxdyn.models.rope_config import rope


def architecture(config: read.Config) -> Architecture:
    """Translate a Hugging Face ``SmolLM3Config`` dict; absent fields take that class's defaults."""
    values = common.fields(config, "smollm3", kv_heads=4, context=32768, tied=True)
    layers, bias = values["layers"], read.boolean(config, "attention_bias", False)
    values |= {"qkv_bias": bias, "output_bias": bias, "mlp_bias": read.boolean(config, "mlp_bias", False)}
    interval = read.integer(config, "no_rope_layer_interval", 4)
    turned = config.get("no_rope_layers")
    turned = [int((layer + 1) % interval != 0) for layer in range(layers)] if turned is None else turned
    if not isinstance(turned, list) or len(turned) < layers or not set(turned) <= {0, 1}:
        raise InputError(read.wrong("no_rope_layers", turned, f"a list of at least {layers} of 0 (no RoPE) and 1"))
    slides = read.boolean(config, "use_sliding_window", False) and config.get("sliding_window") is not None
    read.integer(config, "max_window_layers", 1, minimum=0)  # written by some configs, read by nobody
    types = [common.LAYER_TYPES[slides and not turned[layer]] for layer in range(layers)]
    types = read.strings(config, "layer_types", types, common.LAYER_TYPES if slides else common.LAYER_TYPES[:1])
    windows = common.sliding_windows(config, types, 1)
    values["rope"] = rope(config, values["context"], theta=2000000.0)
    ropes = [values["rope"] if turned[layer] else None for layer in range(layers)]
    return Architecture(**values, layer_kinds=common.layer_kinds(values, ropes, windows))


def table(arch: Architecture) -> dict[str, Source]:
    """Return the checkpoint key of every parameter."""
    return common.table(arch, common.LEAVES)
