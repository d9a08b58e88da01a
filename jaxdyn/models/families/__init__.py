"""Stage 1 of 7: one small module a family, which maps a Hugging Face config and its checkpoint's keys to ours.

Each module has ``architecture(config) -> Architecture``, ``table(arch) -> {parameter path: Source}``, ``PREFIX`` (the
checkpoint's optional key prefix) and ``BUFFERS`` (a pattern of keys that hold no weights). To add a family, write its
module and name it in ``FAMILIES``.
"""

from types import ModuleType

from jaxdyn.models.families import gpt2, llama

FAMILIES: dict[str, ModuleType] = {"gpt2": gpt2, "llama": llama}

__all__ = ["FAMILIES", "gpt2", "llama"]
