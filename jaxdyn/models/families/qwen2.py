"""Stage 1 of 7: Qwen 2 and 2.5: a Llama with biases on queries, keys and values; sliding windows in later layers."""

from jaxdyn.models import config as read
from jaxdyn.models.architecture import Architecture
from jaxdyn.models.families import common
from jaxdyn.models.families.common import BUFFERS as BUFFERS
from jaxdyn.models.families.common import PREFIX as PREFIX
from jaxdyn.models.families.source import Source
from jaxdyn.models.rope_config import rope


def architecture(config: read.Config) -> Architecture:
    """Translate a Hugging Face ``Qwen2Config`` dict; absent fields take that class's defaults, sizes are required."""
    values = common.fields(config, "qwen2", kv_heads=32, context=32768)
    values |= {"qkv_bias": True}
    windows = common.late_windows(config, values["layers"])
    return Architecture(**common.uniform(values, rope(config, values["context"]), windows))


def table(arch: Architecture) -> dict[str, Source]:
    """Return the checkpoint key of every parameter."""
    return common.table(arch, common.LEAVES)
