"""Stage 1 of 7: Gemma 3, the text tower: Gemma 2 with a norm of queries and keys, and two ropes, for no soft-capping.

Checkpoints with an image tower (``model_type`` "gemma3") hold the text's config as ``text_config``; the other tower's
weights are left out.
"""

from jaxdyn.models import config as read
from jaxdyn.models.architecture import Architecture
from jaxdyn.models.families import common, gemma2
from jaxdyn.models.families.source import Source
from jaxdyn.models.rope_config import TYPES, ropes_by_type

PREFIX = r"(language_model\.model\.|model\.language_model\.|model\.|language_model\.(?=lm_head))"
BUFFERS = common.BUFFERS + r"|(model\.)?(vision_tower|multi_modal_projector)\..*"


def architecture(config: read.Config) -> Architecture:
    """Translate a ``Gemma3TextConfig`` dict, or a ``Gemma3Config`` with one; absent fields take their defaults."""
    return common.text_tower(config, _architecture)


def _architecture(config: read.Config) -> Architecture:
    values = gemma2.fields(config, "gemma3", context=131072)
    values |= {
        "attention_softcap": read.optional_number(config, "attn_logit_softcapping", None),
        "logit_softcap": read.optional_number(config, "final_logit_softcapping", None),
        "qk_norm": "head",
    }
    period = read.integer(config, "sliding_window_pattern", 6)
    types = read.strings(config, "layer_types", common.every(period, values["layers"]), common.LAYER_TYPES)
    local = read.number(config, "rope_local_base_freq", 10000.0)
    full = read.number(config, "rope_theta", 1000000.0)
    ropes = ropes_by_type(config, values["context"], full=full, sliding=local, types=TYPES)
    return Architecture(**common.by_type(config, values, types, ropes, window=4096))


def table(arch: Architecture) -> dict[str, Source]:
    """Return the checkpoint key of every parameter."""
    return common.table(arch, gemma2.LEAVES | common.QK_NORMS)
