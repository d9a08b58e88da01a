"""Stage 1 of 7: OLMo 3: OLMo 2 with sliding windows in three layers of four, and YaRN in the others alone."""

from jaxdyn.models import config as read
from jaxdyn.models.architecture import Architecture
from jaxdyn.models.families import common
from jaxdyn.models.families.common import BUFFERS as BUFFERS
from jaxdyn.models.families.common import PREFIX as PREFIX
from jaxdyn.models.families.olmo2 import LEAVES
from jaxdyn.models.families.source import Source
from jaxdyn.models.rope_config import ropes_by_type


def architecture(config: read.Config) -> Architecture:
    """Translate a Hugging Face ``Olmo3Config`` dict; absent fields take that class's defaults, sizes are required."""
    values = common.fields(config, "olmo3", eps=1e-5)
    bias = read.boolean(config, "attention_bias", False)
    values |= {"qkv_bias": bias, "output_bias": bias, "norm_placement": "post", "qk_norm": "projection"}
    types = read.strings(config, "layer_types", common.every(4, values["layers"]), common.LAYER_TYPES)
    theta = read.number(config, "rope_theta", 500000.0)
    ropes = ropes_by_type(config, values["context"], full=theta, sliding=theta)
    return Architecture(**common.by_type(config, values, types, ropes, window=4096))


def table(arch: Architecture) -> dict[str, Source]:
    """Return the checkpoint key of every parameter."""
    return common.table(arch, LEAVES)
