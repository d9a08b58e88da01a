"""Tiny random models, built offline: the Hugging Face model in torch float64 beside ours with the same weights.

transformers computes RMSNorm, the softmax of the attention weights and the rotary angles in float32 whatever the
model's dtype, which would limit any comparison to 1e-7. `in_double` makes torch take float64 wherever code says
float32, so that the oracle is the code of transformers itself, eager attention included.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial, wraps
from typing import Any
from unittest import mock

import numpy as np
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    Gemma4ForCausalLM,
    Gemma4TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    Olmo3Config,
    Olmo3ForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
)

from jaxdyn.models import Model
from jaxdyn.models.weights import architecture_of, assemble

COMMON: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED = COMMON | {"num_key_value_heads": 2, "tie_word_embeddings": False}
GPT2 = {
    "vocab_size": 61,
    "n_embd": 32,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LATE_WINDOWS = {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}

LOCAL_GLOBAL = ["sliding_attention", "full_attention", "full_attention"]
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "beta_fast": 4.0,
    "beta_slow": 1.0,
    "original_max_position_embeddings": 16,
}
SLIDING = {"sliding_window": 5, "layer_types": LOCAL_GLOBAL}
GEMMA = GROUPED | SLIDING | {"head_dim": 12, "query_pre_attn_scalar": 7}
GEMMA4 = {
    "head_dim": 6,
    "global_head_dim": 12,
    "num_kv_shared_layers": 1,
    "use_double_wide_mlp": True,
    "hidden_size_per_layer_input": 10,
    "vocab_size_per_layer_input": 67,
    "final_logit_softcapping": 5.0,
    "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
        "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.5, "rope_theta": 10000.0},
    },
}

# Every family with its mechanisms switched on: width 32, 3 layers, 4 heads over 2 key-value heads, 64 positions.
SETTINGS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "llama": (LlamaForCausalLM, LlamaConfig, GROUPED),
    "gpt2": (GPT2LMHeadModel, GPT2Config, GPT2),
    "mistral": (MistralForCausalLM, MistralConfig, GROUPED | {"sliding_window": 5}),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, GROUPED | LATE_WINDOWS),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, GROUPED | LATE_WINDOWS | {"head_dim": 12}),
    "smollm3": (SmolLM3ForCausalLM, SmolLM3Config, GROUPED | {"no_rope_layer_interval": 2}),
    "phi3": (Phi3ForCausalLM, Phi3Config, GROUPED | {"sliding_window": 5, "partial_rotary_factor": 0.5}),
    "gpt_neox": (GPTNeoXForCausalLM, GPTNeoXConfig, COMMON | {"rotary_pct": 0.5}),
    "olmo2": (Olmo2ForCausalLM, Olmo2Config, GROUPED),
    "olmo3": (
        Olmo3ForCausalLM,
        Olmo3Config,
        GROUPED
        | SLIDING
        | {
            "rope_parameters": {
                "full_attention": YARN,
                "sliding_attention": {"rope_type": "default", "rope_theta": 500.0},
            }
        },
    ),
    "gemma2": (
        Gemma2ForCausalLM,
        Gemma2Config,
        GEMMA | {"attn_logit_softcapping": 3.0, "final_logit_softcapping": 5.0},
    ),
    "gemma3_text": (Gemma3ForCausalLM, Gemma3TextConfig, GEMMA | {"rope_local_base_freq": 100.0}),
    "gemma4_text": (Gemma4ForCausalLM, Gemma4TextConfig, GROUPED | SLIDING | GEMMA4),
}


def tiny(family: str, *, dtype: str = "float64", seed: int = 0, **overrides: Any) -> tuple[Any, Model]:
    """Return (hf, model) of a family, config values overridden."""
    kind, config, sizes = SETTINGS[family]
    with in_double():
        hf = in_own_dtype(_perturbed(kind, config(**(sizes | overrides)), seed))
    return hf, ours(hf, dtype=dtype)


TINY: dict[str, Callable[..., tuple[Any, Model]]] = {family: partial(tiny, family) for family in SETTINGS}
tiny_llama, tiny_gpt2 = TINY["llama"], TINY["gpt2"]


def ours(hf: Any, *, dtype: str = "float64") -> Model:
    """Return our model with the weights of a Hugging Face model, no tokenizer."""
    tensors = {key: tensor.detach().numpy() for key, tensor in hf.state_dict().items()}
    arch = architecture_of(hf.config.to_dict())
    params, digest = assemble(
        arch, {key: value.shape for key, value in tensors.items()}, tensors.__getitem__, dtype=dtype
    )
    return Model(arch, params, None, "tiny", None, digest, stop_ids=(2,))


def random_ids(model: Model, *shape: int, seed: int = 0) -> np.ndarray:
    """Return random token ids."""
    return np.random.default_rng(seed).integers(0, model.architecture.vocab, shape)


def hf_stream(hf: Any, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (embeddings (B, T, D), residual after each block (L, B, T, D), logits (B, T, V)) of the torch model.

    The residuals come from hooks on the blocks: transformers' own ``hidden_states`` end with the normalised stream.
    """
    base = hf.base_model
    entries, exits = [], []
    hooks = [
        blocks(base)[0].register_forward_pre_hook(
            lambda _m, args, kwargs: entries.append(_first(args, kwargs)), with_kwargs=True
        )
    ]
    hooks += [one.register_forward_hook(lambda _m, _a, out: exits.append(out)) for one in blocks(base)]
    try:
        with torch.no_grad():
            logits = hf(torch.as_tensor(ids), use_cache=False).logits
    finally:
        for hook in hooks:
            hook.remove()
    residuals = [out[0] if isinstance(out, tuple) else out for out in exits]
    return entries[0].numpy(), torch.stack(residuals).numpy(), logits.numpy()


@contextmanager
def in_double() -> Iterator[None]:
    """Make torch compute in float64 where code asks for float32, and by default."""
    default = torch.get_default_dtype()
    with ExitStack() as stack:
        for owner, name, value in (
            (torch, "float", torch.float64),
            (torch, "float32", torch.float64),
            (torch.Tensor, "float", torch.Tensor.double),
        ):
            stack.enter_context(mock.patch.object(owner, name, value))
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(default)


def in_own_dtype(hf: Any) -> Any:
    """Make a model built under ``in_double``, its blocks and its rotary embedding compute in float64 throughout."""
    hf = hf.double().eval()
    hf.config._attn_implementation = "eager"
    base = hf.base_model
    for module in (hf, *blocks(base), *([base.rotary_emb] if hasattr(base, "rotary_emb") else [])):
        module.forward = _doubled(module.forward)
    return hf


def blocks(base: Any) -> Any:
    """Return the blocks of a torch model without its head."""
    return base.layers if hasattr(base, "layers") else base.h


def _doubled(forward: Any) -> Any:
    @wraps(forward)
    def run(*args: Any, **kwargs: Any) -> Any:
        with in_double():
            return forward(*args, **kwargs)

    return run


def _perturbed(kind: Any, config: Any, seed: int) -> Any:
    """Build a model with large weights (logits spread over several units) and every norm weight and bias random."""
    torch.manual_seed(seed)
    hf = kind(config).double()
    with torch.no_grad():
        for name, parameter in (*hf.named_parameters(), *_scales(hf)):
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
            else:
                parameter.mul_(0.25 / parameter.std())
            if "embed" in name or "wte" in name:
                parameter.mul_(4.0)
    return hf


def _scales(hf: Any) -> list[tuple[str, torch.Tensor]]:
    return [(name, buffer) for name, buffer in hf.named_buffers() if name.endswith("layer_scalar")]


def _first(args: tuple, kwargs: dict) -> torch.Tensor:
    return args[0] if args else kwargs["hidden_states"]
