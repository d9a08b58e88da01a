"""Stage 1 of 7: GPT-2: LayerNorm, learned positions, biases everywhere, fused query-key-value matrix, (in, out)."""

from jaxdyn.errors import InputError
from jaxdyn.models import config as read
from jaxdyn.models.architecture import Architecture
from jaxdyn.models.families.source import Source

PREFIX = r"transformer\."
BUFFERS = r"h\.\d+\.attn\.(bias|masked_bias)"  # causal masks that older checkpoints carry

LEAVES = {
    "attention_norm/scale": Source("ln_1.weight"),
    "attention_norm/bias": Source("ln_1.bias"),
    "attention/o": Source("attn.c_proj.weight", transpose=True),
    "attention/o_bias": Source("attn.c_proj.bias"),
    "mlp_norm/scale": Source("ln_2.weight"),
    "mlp_norm/bias": Source("ln_2.bias"),
    "mlp/up": Source("mlp.c_fc.weight", transpose=True),
    "mlp/up_bias": Source("mlp.c_fc.bias"),
    "mlp/down": Source("mlp.c_proj.weight", transpose=True),
    "mlp/down_bias": Source("mlp.c_proj.bias"),
}
for _index, _name in enumerate("qkv"):
    LEAVES[f"attention/{_name}"] = Source("attn.c_attn.weight", transpose=True, part=(_index, 3))
    LEAVES[f"attention/{_name}_bias"] = Source("attn.c_attn.bias", part=(_index, 3))


def architecture(config: read.Config) -> Architecture:
    """Translate a Hugging Face ``GPT2Config`` dict; absent fields take that class's defaults, sizes are required."""
    width, heads = read.integer(config, "n_embd"), read.integer(config, "n_head")
    if width % heads:
        msg = f'config.json: "n_embd" {width} is not a multiple of "n_head" {heads}; correct one'
        raise InputError(msg)
    # "reorder_and_upcast_attn" changes rounding in half precision only; dropout does not act in inference.
    read.boolean(config, "reorder_and_upcast_attn", False)
    read.require(config, "scale_attn_weights", True)
    read.require(config, "scale_attn_by_inverse_layer_idx", False)
    read.require(config, "add_cross_attention", False)
    return Architecture(
        family="gpt2",
        width=width,
        layers=read.integer(config, "n_layer"),
        heads=heads,
        kv_heads=heads,
        head_dim=width // heads,
        ff_dim=read.integer(config, "n_inner", 4 * width),
        vocab=read.integer(config, "vocab_size"),
        context=read.integer(config, "n_positions", 1024),
        norm="layer",
        norm_eps=read.number(config, "layer_norm_epsilon", 1e-5),
        activation=read.activation(config, "activation_function", "gelu_new"),
        gated=False,
        qkv_bias=True,
        output_bias=True,
        mlp_bias=True,
        position="learned",
        rope=None,
        tied_head=read.boolean(config, "tie_word_embeddings", True),
        initializer_range=read.number(config, "initializer_range", 0.02),
        initializer="depth-scaled",
    )


def table(arch: Architecture) -> dict[str, Source]:
    """Return the checkpoint key of every parameter."""
    rows = {f"blocks/{path}": Source(f"h.{{layer}}.{row.key}", row.transpose, row.part) for path, row in LEAVES.items()}
    rows |= {"embed/tokens": Source("wte.weight"), "embed/positions": Source("wpe.weight")}
    rows |= {"final_norm/scale": Source("ln_f.weight"), "final_norm/bias": Source("ln_f.bias")}
    return rows if arch.tied_head else rows | {"head": Source("lm_head.weight")}
