"""Stage 1 of 7: reading a Hugging Face config.json, each value checked for its type and range."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxdyn.errors import InputError
from jaxdyn.models.architecture import Activation

Config = Mapping[str, Any]

# Hugging Face activation names -> ours. "gelu_new" and its kin are the tanh approximation.
ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
# Fields that change nothing the decoder computes: bookkeeping, dropout (inference has none), generation, other heads.
HARMLESS = frozenset(
    """architectures auto_map begin_suppress_tokens bad_words_ids cache_implementation chunk_size_feed_forward
    do_sample dtype early_stopping finetuning_task gradient_checkpointing id2label is_decoder label2id max_length
    max_new_tokens min_length model_type n_ctx name_or_path num_beams num_labels num_return_sequences prefix
    pretraining_tp problem_type quantization_config return_dict suppress_tokens task_specific_params temperature
    tie_encoder_decoder tokenizer_class top_k top_p torch_dtype torchscript transformers_version typical_p unsloth_fixed
    use_bfloat16 use_cache""".split()
)
HARMLESS_ENDINGS = ("dropout", "dropout_prob", "pdrop", "_penalty", "_token_id", "_token_ids", "_token_index")
HARMLESS_BEGINNINGS = ("_", "output_", "summary_")


class Recorded(Mapping[str, Any]):
    """A config that remembers which fields were read, so that one nobody reads is refused instead of ignored.

    Parameters
    ----------
    values
        The config, or a part of it.
    inside
        Name of the part, for messages.
    """

    def __init__(self, values: Config, inside: str = "") -> None:
        self._values, self._inside, self._read = values, inside, set[str]()

    def __getitem__(self, name: str) -> Any:
        self._read.add(name)
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def refuse_unread(self) -> None:
        """Refuse fields that were not read and are set (not null, false or empty), but for the harmless ones."""
        for name, value in self._values.items():
            harmless = name in HARMLESS or name.startswith(HARMLESS_BEGINNINGS) or name.endswith(HARMLESS_ENDINGS)
            off = value is None or value is False or value in ("", [], {})
            if not (name in self._read or harmless or off):
                raise InputError(wrong(f"{self._inside}{name}", value, "no such field, or null: it is not implemented"))


def read_json(path: Path, *, what: str) -> dict[str, Any]:
    """Read a JSON object; a missing file, invalid JSON or another value than an object is an ``InputError``."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        msg = f"{what}: no {path.name} in {path.parent}; give a Hugging Face model folder, which has one"
        raise InputError(msg) from None
    except OSError as error:
        msg = f"{what}: cannot read {path} ({error.strerror}); check the file and its permissions"
        raise InputError(msg) from None
    except ValueError as error:  # of the JSON or of its encoding
        msg = f"{what}: {path} is not valid JSON ({error}); download or write it again"
        raise InputError(msg) from None
    if not isinstance(value, dict):
        msg = f"{what}: {path} holds a JSON {type(value).__name__}, expected an object; download or write it again"
        raise InputError(msg)
    return value


def integer(config: Config, name: str, default: int | None = None, *, minimum: int = 1) -> int:
    """Return an integer field, at least ``minimum``; ``default`` stands for an absent or null field."""
    value = _field(config, name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise InputError(wrong(name, value, f"an integer of at least {minimum}"))
    return value


def number(config: Config, name: str, default: float | None = None) -> float:
    """Return a finite positive number; ``default`` stands for an absent or null field."""
    value = _field(config, name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
        raise InputError(wrong(name, value, "a finite number above 0"))
    return float(value)


def boolean(config: Config, name: str, default: bool) -> bool:
    """Return a true or false field; ``default`` stands for an absent or null field."""
    value = _field(config, name, default)
    if not isinstance(value, bool):
        raise InputError(wrong(name, value, "true or false"))
    return value


def activation(config: Config, name: str, default: str) -> Activation:
    """Return the activation function named by a field, in our names."""
    value = _field(config, name, default)
    if value not in ACTIVATIONS:
        raise InputError(wrong(name, value, f"one of {', '.join(ACTIVATIONS)}"))
    return ACTIVATIONS[value]


def require(config: Config, name: str, only: Any) -> None:
    """Refuse a field that is set to anything but ``only``, the one value this package implements."""
    value = config.get(name)
    if value is not None and value != only:
        raise InputError(wrong(name, value, f"{json.dumps(only)}, the only value supported"))


def optional_number(config: Config, name: str, default: float | None) -> float | None:
    """Return a finite positive number, or None for a null field; ``default`` stands for an absent one."""
    if name not in config:
        return default
    return None if config[name] is None else number(config, name)


def strings(config: Config, name: str, default: Sequence[str], allowed: tuple[str, ...]) -> tuple[str, ...]:
    """Return a list of words out of ``allowed``, as long as ``default``, which stands for an absent or null field."""
    value = _field(config, name, list(default))
    if not isinstance(value, list | tuple) or len(value) != len(default) or not set(value) <= set(allowed):
        raise InputError(wrong(name, value, f"{len(default)} of {', '.join(allowed)}"))
    return tuple(value)


def _field(config: Config, name: str, default: Any) -> Any:
    value = config.get(name)
    value = default if value is None else value
    if value is None:
        msg = f'config.json: "{name}" is missing; add it, or download the config again'
        raise InputError(msg)
    return value


def wrong(name: str, value: Any, allowed: str) -> str:
    """Say that a field has a value that is not allowed."""
    return f'config.json: "{name}": got {value!r}, allowed {allowed}; correct the config or choose another model'
