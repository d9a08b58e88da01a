"""Stage 1 of 7: OLMo 2: norms behind the sublayers, RMSNorm of queries and keys over all heads at once."""

from jaxdyn.models import config as read
from jaxdyn.models.architecture import Architecture
from jaxdyn.models.families import common
from jaxdyn.models.families.common import BUFFERS as BUFFERS
from jaxdyn.models.families.common import PREFIX as PREFIX
from jaxdyn.models.families.source import Source
from jaxdyn.models.rope_config import rope

LEAVES = {
    **{path: key for path, key in common.LEAVES.items() if "norm" not in path},
    **common.QK_NORMS,
    "attention_post_norm/scale": "post_attention_layernorm.weight",
    "mlp_post_norm/scale": "post_feedforward_layernorm.weight",
}


def architecture(config: read.Config) -> Architecture:
    """Translate a Hugging Face ``Olmo2Config`` dict; absent fields take that class's defaults, sizes are required."""
    values = common.fields(config, "olmo2", eps=1e-5)
    bias = read.boolean(config, "attention_bias", False)
    values |= {"qkv_bias": bias, "output_bias": bias, "norm_placement": "post", "qk_norm": "projection"}
    values["rope"] = rope(config, values["context"])
    return Architecture(**values)


def table(arch: Architecture) -> dict[str, Source]:
    """Return the checkpoint key of every parameter."""
    return common.table(arch, LEAVES)
