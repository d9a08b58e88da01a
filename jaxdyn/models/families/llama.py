"""Stage 1 of 7: Llama 1, 2 and 3.x: RMSNorm, RoPE, grouped-query attention, gated MLP."""

from jaxdyn.models import config as read
from jaxdyn.models.architecture import Architecture
from jaxdyn.models.families import common
from jaxdyn.models.families.common import BUFFERS as BUFFERS
from jaxdyn.models.families.common import PREFIX as PREFIX
from jaxdyn.models.families.source import Source
from jaxdyn.models.rope_config import rope


def architecture(config: read.Config) -> Architecture:
    """Translate a Hugging Face ``LlamaConfig`` dict; absent fields take that class's defaults, sizes are required."""
    values = common.fields(config, "llama")
    bias = read.boolean(config, "attention_bias", False)
    values |= {"qkv_bias": bias, "output_bias": bias, "mlp_bias": read.boolean(config, "mlp_bias", False)}
    values["rope"] = rope(config, values["context"])
    return Architecture(**values)


def table(arch: Architecture) -> dict[str, Source]:
    """Return the checkpoint key of every parameter."""
    return common.table(arch, common.LEAVES)
