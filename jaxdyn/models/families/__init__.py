"""Stage 1 of 7: one small module a family, which maps a Hugging Face config and its checkpoint's keys to ours.

Each module has ``architecture(config) -> Architecture``, ``table(arch) -> {parameter path: Source}``, ``PREFIX`` (a
pattern of what the checkpoint may put before its keys) and ``BUFFERS`` (a pattern of keys that hold no weights of the
decoder). To add a family, write its module and name it in ``FAMILIES``; CONTRIBUTING.md leads through it.
"""

from types import ModuleType

from jaxdyn.models.families import (
    gemma2,
    gemma3,
    gemma4,
    gpt2,
    gpt_neox,
    llama,
    mistral,
    olmo2,
    olmo3,
    phi3,
    qwen2,
    qwen3,
    smollm3,
)

FAMILIES: dict[str, ModuleType] = {
    "gemma2": gemma2,
    "gemma3": gemma3,
    "gemma3_text": gemma3,
    "gemma4": gemma4,
    "gemma4_text": gemma4,
    "gpt2": gpt2,
    "gpt_neox": gpt_neox,
    "llama": llama,
    "mistral": mistral,
    "olmo2": olmo2,
    "olmo3": olmo3,
    "phi3": phi3,
    "qwen2": qwen2,
    "qwen3": qwen3,
    "smollm3": smollm3,
}

__all__ = ["FAMILIES"]
