"""Stage 1 of 7: Phi-3 and Phi-4-mini: fused query-key-value and gate-up matrices, partial rotary, LongRoPE.

LongRoPE has two lists of factors: transformers takes the long one for all positions as soon as a text is longer than
the original context, so that its first tokens change when later ones are added. A decoder with that rule is not causal,
and an in-context Jacobian of it would depend on what follows. So the context of such a model ends here at the original
one, up to which the short factors hold and nothing is approximated.
"""

from jaxdyn.errors import InputError
from jaxdyn.models import config as read
from jaxdyn.models.architecture import Architecture
from jaxdyn.models.families import common
from jaxdyn.models.families.common import BUFFERS as BUFFERS
from jaxdyn.models.families.common import PREFIX as PREFIX
from jaxdyn.models.families.source import Source
from jaxdyn.models.rope import LongScaling
from jaxdyn.models.rope_config import rope


def architecture(config: read.Config) -> Architecture:
    """Translate a Hugging Face ``Phi3Config`` dict; absent fields take that class's defaults, sizes are required."""
    values = common.fields(config, "phi3", context=4096, eps=1e-5)
    context, original = values["context"], read.integer(config, "original_max_position_embeddings", 4096)
    given = {
        name: config.get(name) for name in ("rope_parameters", "rope_scaling", "rope_theta", "partial_rotary_factor")
    }
    for name in ("rope_parameters", "rope_scaling"):
        scaling = given[name]
        if isinstance(scaling, dict) and scaling.get("rope_type", scaling.get("type")) in ("su", "yarn", "longrope"):
            names = {"rope_type": "longrope", "type": "longrope", "original_max_position_embeddings": original}
            given[name] = names | {key: value for key, value in scaling.items() if key not in ("rope_type", "type")}
    turned = rope(given, context, types=("default", "longrope"), fraction=1.0)
    size = turned.rotary_dim(values["head_dim"])
    if size < 2 or size % 2:
        raise InputError(
            read.wrong("partial_rotary_factor", turned.fraction, "a factor that turns an even part of a head")
        )
    if isinstance(turned.scaling, LongScaling):
        if len(turned.scaling.factors) != size // 2:
            raise InputError(
                read.wrong("short_factor", len(turned.scaling.factors), f"{size // 2} numbers, one a pair")
            )
        values["context"] = min(context, original)
    slides = config.get("sliding_window") is not None
    windows = common.sliding_windows(config, [common.LAYER_TYPES[slides]] * values["layers"], 1)
    return Architecture(**common.uniform(values, turned, windows))


def table(arch: Architecture) -> dict[str, Source]:
    """Return the checkpoint key of every parameter."""
    rows = common.table(arch, common.LEAVES)
    q, kv = arch.heads * arch.head_dim, arch.kv_heads * arch.head_dim
    for name, first in (("q", 0), ("k", q), ("v", q + kv)):
        key = "layers.{layer}.self_attn.qkv_proj.weight"
        rows[f"blocks/attention/{name}"] = Source(key, rows=(first, q + 2 * kv))
    for index, name in enumerate(("gate", "up")):
        rows[f"blocks/mlp/{name}"] = Source("layers.{layer}.mlp.gate_up_proj.weight", part=(index, 2))
    return rows
