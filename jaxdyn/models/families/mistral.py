"""Stage 1 of 7: Mistral: a Llama with a sliding window in every layer (version 0.1), or in none."""

from jaxdyn.models import config as read
from jaxdyn.models.architecture import Architecture
from jaxdyn.models.families import common
from jaxdyn.models.families.common import BUFFERS as BUFFERS
from jaxdyn.models.families.common import PREFIX as PREFIX
from jaxdyn.models.families.source import Source
from jaxdyn.models.rope_config import rope


def architecture(config: read.Config) -> Architecture:
    """Translate a Hugging Face ``MistralConfig`` dict; absent fields take that class's defaults."""
    values = common.fields(config, "mistral", kv_heads=8, context=131072)
    slides = config.get("sliding_window", 4096) is not None
    types = [common.LAYER_TYPES[slides]] * values["layers"]
    windows = common.sliding_windows(config, types, 4096)
    return Architecture(**common.uniform(values, rope(config, values["context"]), windows))


def table(arch: Architecture) -> dict[str, Source]:
    """Return the checkpoint key of every parameter."""
    return common.table(arch, common.LEAVES)
