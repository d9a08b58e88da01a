"""Stage 1 of 7: Llama 1, 2 and 3.x: RMSNorm, RoPE, grouped-query attention, gated MLP."""

from jaxdyn.errors import InputError
from jaxdyn.models import config as read
from jaxdyn.models.architecture import Architecture
from jaxdyn.models.families.source import Source

PREFIX = "model."
BUFFERS = r"layers\.\d+\.self_attn\.rotary_emb\.inv_freq"

LEAVES = {
    "attention_norm/scale": "input_layernorm.weight",
    "attention/q": "self_attn.q_proj.weight",
    "attention/k": "self_attn.k_proj.weight",
    "attention/v": "self_attn.v_proj.weight",
    "attention/o": "self_attn.o_proj.weight",
    "mlp_norm/scale": "post_attention_layernorm.weight",
    "mlp/gate": "mlp.gate_proj.weight",
    "mlp/up": "mlp.up_proj.weight",
    "mlp/down": "mlp.down_proj.weight",
}
ATTENTION_BIASES = {f"attention/{name}_bias": f"self_attn.{name}_proj.bias" for name in ("q", "k", "v", "o")}
MLP_BIASES = {f"mlp/{name}_bias": f"mlp.{name}_proj.bias" for name in ("gate", "up", "down")}


def architecture(config: read.Config) -> Architecture:
    """Translate a Hugging Face ``LlamaConfig`` dict; absent fields take that class's defaults, sizes are required."""
    width, heads = read.integer(config, "hidden_size"), read.integer(config, "num_attention_heads")
    if config.get("head_dim") is None and width % heads:
        msg = f'config.json: "hidden_size" {width} is not a multiple of "num_attention_heads" {heads}; correct one'
        raise InputError(msg)
    kv_heads = read.integer(config, "num_key_value_heads", heads)
    if heads % kv_heads:
        msg = f'config.json: "num_key_value_heads" {kv_heads} does not divide "num_attention_heads" {heads}; correct it'
        raise InputError(msg)
    head_dim = read.integer(config, "head_dim", width // heads)
    if head_dim % 2:
        msg = f'config.json: head size {head_dim} is odd; RoPE turns pairs, so "head_dim" must be even'
        raise InputError(msg)
    context = read.integer(config, "max_position_embeddings", 2048)
    attention_bias = read.boolean(config, "attention_bias", False)
    return Architecture(
        family="llama",
        width=width,
        layers=read.integer(config, "num_hidden_layers"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        ff_dim=read.integer(config, "intermediate_size"),
        vocab=read.integer(config, "vocab_size"),
        context=context,
        norm="rms",
        norm_eps=read.number(config, "rms_norm_eps", 1e-6),
        activation=read.activation(config, "hidden_act", "silu"),
        gated=True,
        qkv_bias=attention_bias,
        output_bias=attention_bias,
        mlp_bias=read.boolean(config, "mlp_bias", False),
        position="rope",
        rope=read.rope(config, context),
        tied_head=read.boolean(config, "tie_word_embeddings", False),
        initializer_range=read.number(config, "initializer_range", 0.02),
        initializer="normal",
    )


def table(arch: Architecture) -> dict[str, Source]:
    """Return the checkpoint key of every parameter."""
    leaves = LEAVES | (ATTENTION_BIASES if arch.qkv_bias else {}) | (MLP_BIASES if arch.mlp_bias else {})
    rows = {f"blocks/{path}": Source(f"layers.{{layer}}.{key}") for path, key in leaves.items()}
    rows |= {"embed/tokens": Source("embed_tokens.weight"), "final_norm/scale": Source("norm.weight")}
    return rows if arch.tied_head else rows | {"head": Source("lm_head.weight")}
