"""Tiny random models, built offline: the Hugging Face model in torch float64 beside ours with the same weights.

transformers computes RMSNorm, the softmax of the attention weights and the rotary angles in float32 whatever the
model's dtype, which would limit any comparison to 1e-7. Here those three are replaced, in the given instance only, by
the same formulas in the model's own dtype.
"""

import math
from types import MethodType
from typing import Any

import numpy as np
import torch
from transformers import AttentionInterface, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from transformers.masking_utils import AttentionMaskInterface, eager_mask
from transformers.models.llama.modeling_llama import LlamaRMSNorm, LlamaRotaryEmbedding

from jaxdyn.models import Model
from jaxdyn.models.weights import architecture_of, assemble

ATTENTION = "own_dtype"


def tiny_llama(*, dtype: str = "float64", seed: int = 0, **overrides: Any) -> tuple[LlamaForCausalLM, Model]:
    """Return (hf, model): a Llama of width 32, 3 layers, 4 heads over 2 key-value heads; config values overridden."""
    sizes: dict[str, Any] = {
        "vocab_size": 61,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "tie_word_embeddings": False,
        "pad_token_id": None,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    hf = in_own_dtype(_perturbed(LlamaForCausalLM, LlamaConfig(**(sizes | overrides)), seed))
    return hf, ours(hf, dtype=dtype)


def tiny_gpt2(*, dtype: str = "float64", seed: int = 0, **overrides: Any) -> tuple[GPT2LMHeadModel, Model]:
    """Return (hf, model): a GPT-2 of width 32, 3 layers, 4 heads; config values overridden."""
    sizes: dict[str, Any] = {
        "vocab_size": 61,
        "n_embd": 32,
        "n_layer": 3,
        "n_head": 4,
        "n_positions": 64,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    hf = in_own_dtype(_perturbed(GPT2LMHeadModel, GPT2Config(**(sizes | overrides)), seed))
    return hf, ours(hf, dtype=dtype)


TINY = {"llama": tiny_llama, "gpt2": tiny_gpt2}


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
    blocks = base.layers if hasattr(base, "layers") else base.h
    entries, exits = [], []
    hooks = [
        blocks[0].register_forward_pre_hook(
            lambda _m, args, kwargs: entries.append(_first(args, kwargs)), with_kwargs=True
        )
    ]
    hooks += [one.register_forward_hook(lambda _m, _a, out: exits.append(out)) for one in blocks]
    try:
        with torch.no_grad():
            logits = hf(torch.as_tensor(ids), use_cache=False).logits
    finally:
        for hook in hooks:
            hook.remove()
    residuals = [out[0] if isinstance(out, tuple) else out for out in exits]
    return entries[0].numpy(), torch.stack(residuals).numpy(), logits.numpy()


def in_own_dtype(hf: Any) -> Any:
    """Make an instance compute its norms, softmax and rotary angles in its own dtype; return it in float64."""
    AttentionInterface.register(ATTENTION, _attention)
    AttentionMaskInterface.register(ATTENTION, eager_mask)
    hf = hf.double().eval()
    hf.config._attn_implementation = ATTENTION
    for module in hf.modules():
        if isinstance(module, LlamaRMSNorm):
            module.forward = MethodType(_rms_norm, module)
        if isinstance(module, LlamaRotaryEmbedding):
            module.forward = MethodType(_rotary, module)
    return hf


def _perturbed(kind: Any, config: Any, seed: int) -> Any:
    """Build a model with large weights (logits spread over several units) and every norm weight and bias random."""
    torch.manual_seed(seed)
    hf = kind(config).double()
    with torch.no_grad():
        for name, parameter in hf.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
            else:
                parameter.mul_(0.25 / parameter.std())
            if "embed" in name or "wte" in name:
                parameter.mul_(4.0)
    return hf


def _first(args: tuple, kwargs: dict) -> torch.Tensor:
    return args[0] if args else kwargs["hidden_states"]


def _attention(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **_):
    repeats = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if attention_mask is not None:
        scores = scores + attention_mask
    pattern = torch.softmax(scores, dim=-1)
    return (pattern @ value).transpose(1, 2).contiguous(), pattern


def _rms_norm(self, x):
    return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))


def _rotary(self, x, position_ids):
    """The formulas of transformers' modeling_rope_utils and modeling_llama, written again in float64."""
    config, p = self.config, self.config.rope_parameters
    f = p["rope_theta"] ** (-torch.arange(0, config.head_dim, 2, dtype=torch.float64) / config.head_dim)
    if p["rope_type"] == "linear":
        f = f / p["factor"]
    if p["rope_type"] == "llama3":
        wavelength = 2 * math.pi / f
        original, low, high = p["original_max_position_embeddings"], p["low_freq_factor"], p["high_freq_factor"]
        smooth = (original / wavelength - low) / (high - low)
        between = (1 - smooth) * f / p["factor"] + smooth * f
        f = torch.where(
            wavelength > original / low, f / p["factor"], torch.where(wavelength < original / high, f, between)
        )
    angles = position_ids[..., None].double() * f
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos().to(x.dtype), angles.sin().to(x.dtype)
