"""Stage 1 of 7: GPT-NeoX, hence Pythia: LayerNorm, parallel residual, partial rotary, fused query-key-value by head."""

from jaxdyn.errors import InputError
from jaxdyn.models import config as read
from jaxdyn.models.architecture import Architecture
from jaxdyn.models.families.source import Source
from jaxdyn.models.rope_config import rope

PREFIX = r"gpt_neox\."
BUFFERS = r"layers\.\d+\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)"
ALIASES = {"embed_out.weight": "lm_head.weight"}  # the name of the head before transformers 5

LEAVES = {
    "attention_norm/scale": "input_layernorm.weight",
    "attention_norm/bias": "input_layernorm.bias",
    "attention/o": "attention.dense.weight",
    "mlp_norm/scale": "post_attention_layernorm.weight",
    "mlp_norm/bias": "post_attention_layernorm.bias",
    "mlp/up": "mlp.dense_h_to_4h.weight",
    "mlp/up_bias": "mlp.dense_h_to_4h.bias",
    "mlp/down": "mlp.dense_4h_to_h.weight",
    "mlp/down_bias": "mlp.dense_4h_to_h.bias",
}


def architecture(config: read.Config) -> Architecture:
    """Translate a Hugging Face ``GPTNeoXConfig`` dict; absent fields take that class's defaults, sizes are required."""
    width, heads = read.integer(config, "hidden_size"), read.integer(config, "num_attention_heads")
    if width % heads:
        msg = f'config.json: "hidden_size" {width} is not a multiple of "num_attention_heads" {heads}; correct one'
        raise InputError(msg)
    context = read.integer(config, "max_position_embeddings", 2048)
    base, part = read.number(config, "rotary_emb_base", 10000.0), read.number(config, "rotary_pct", 0.25)
    turned = rope(config, context, theta=base, fraction=part)
    size = turned.rotary_dim(width // heads)
    if size < 2 or size % 2:
        raise InputError(read.wrong("rotary_pct", turned.fraction, "a factor that turns an even part of a head"))
    bias = read.boolean(config, "attention_bias", True)
    return Architecture(
        family="gpt_neox",
        width=width,
        layers=read.integer(config, "num_hidden_layers"),
        heads=heads,
        kv_heads=heads,
        head_dim=width // heads,
        ff_dim=read.integer(config, "intermediate_size"),
        vocab=read.integer(config, "vocab_size"),
        context=context,
        norm="layer",
        norm_eps=read.number(config, "layer_norm_eps", 1e-5),
        activation=read.activation(config, "hidden_act", "gelu"),
        gated=False,
        qkv_bias=bias,
        output_bias=bias,
        mlp_bias=True,
        position="rope",
        rope=turned,
        tied_head=read.boolean(config, "tie_word_embeddings", False),
        initializer_range=read.number(config, "initializer_range", 0.02),
        initializer="normal",
        parallel_residual=read.boolean(config, "use_parallel_residual", True),
    )


def table(arch: Architecture) -> dict[str, Source]:
    """Return the checkpoint key of every parameter."""
    rows = {f"blocks/{path}": Source(f"layers.{{layer}}.{key}") for path, key in LEAVES.items()}
    for index, name in enumerate("qkv"):
        for suffix, end in (("", "weight"), ("_bias", "bias")) if arch.qkv_bias else (("", "weight"),):
            key = f"layers.{{layer}}.attention.query_key_value.{end}"
            rows[f"blocks/attention/{name}{suffix}"] = Source(key, part=(index, 3), groups=arch.heads)
    if arch.output_bias:
        rows["blocks/attention/o_bias"] = Source("layers.{layer}.attention.dense.bias")
    rows |= {"embed/tokens": Source("embed_in.weight")}
    rows |= {
        f"final_norm/{ours}": Source(f"final_layer_norm.{key}") for ours, key in (("scale", "weight"), ("bias", "bias"))
    }
    return rows if arch.tied_head else rows | {"head": Source("lm_head.weight")}
