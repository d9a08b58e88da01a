"""Stage 1 of 7: Gemma 2: norms on both sides (1 + w), soft-capping, windows in every other layer, scaled embedding."""

from jaxdyn.models import config as read
from jaxdyn.models.architecture import Architecture
from jaxdyn.models.families import common
from jaxdyn.models.families.common import BUFFERS as BUFFERS
from jaxdyn.models.families.common import PREFIX as PREFIX
from jaxdyn.models.families.source import Source
from jaxdyn.models.rope_config import rope

LEAVES = common.LEAVES | common.SANDWICH


def architecture(config: read.Config) -> Architecture:
    """Translate a Hugging Face ``Gemma2Config`` dict; absent fields take that class's defaults, sizes are required."""
    values = fields(config, "gemma2")
    values |= {
        "attention_softcap": read.optional_number(config, "attn_logit_softcapping", 50.0),
        "logit_softcap": read.optional_number(config, "final_logit_softcapping", 30.0),
    }
    types = read.strings(config, "layer_types", common.every(2, values["layers"]), common.LAYER_TYPES)
    windows = common.sliding_windows(config, types, 4096)
    return Architecture(**common.uniform(values, rope(config, values["context"]), windows))


def fields(config: read.Config, family: str, *, context: int = 8192) -> dict:
    """Return the fields that Gemma 2 and 3 share, but for rope, windows and soft-capping."""
    gelu = ("hidden_activation", "gelu_pytorch_tanh")
    values = common.fields(config, family, kv_heads=4, head_dim=256, context=context, tied=True, activation=gelu)
    config.get("hidden_act")  # older configs have both; transformers reads the other
    read.require(config, "use_bidirectional_attention", False)
    bias = read.boolean(config, "attention_bias", False)
    return values | {
        "qkv_bias": bias,
        "output_bias": bias,
        "norm_placement": "both",
        "norm_offset": 1.0,
        "embedding_scale": values["width"] ** 0.5,
        "attention_scale": read.number(config, "query_pre_attn_scalar", 256) ** -0.5,
    }


def table(arch: Architecture) -> dict[str, Source]:
    """Return the checkpoint key of every parameter."""
    return common.table(arch, LEAVES)
