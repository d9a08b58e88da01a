"""Stage 1 of 7: reading a Hugging Face config.json, each value checked for its type and range."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxdyn.errors import InputError
from jaxdyn.models.architecture import Activation, LinearScaling, Llama3Scaling, Rope

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
ROPE_TYPES = ("default", "linear", "llama3")


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
        raise InputError(_wrong(name, value, f"an integer of at least {minimum}"))
    return value


def number(config: Config, name: str, default: float | None = None) -> float:
    """Return a finite positive number; ``default`` stands for an absent or null field."""
    value = _field(config, name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
        raise InputError(_wrong(name, value, "a finite number above 0"))
    return float(value)


def boolean(config: Config, name: str, default: bool) -> bool:
    """Return a true or false field; ``default`` stands for an absent or null field."""
    value = _field(config, name, default)
    if not isinstance(value, bool):
        raise InputError(_wrong(name, value, "true or false"))
    return value


def activation(config: Config, name: str, default: str) -> Activation:
    """Return the activation function named by a field, in our names."""
    value = _field(config, name, default)
    if value not in ACTIVATIONS:
        raise InputError(_wrong(name, value, f"one of {', '.join(ACTIVATIONS)}"))
    return ACTIVATIONS[value]


def require(config: Config, name: str, only: Any) -> None:
    """Refuse a field that is set to anything but ``only``, the one value this package implements."""
    value = config.get(name)
    if value is not None and value != only:
        raise InputError(_wrong(name, value, f"{json.dumps(only)}, the only value supported"))


def rope(config: Config, context: int) -> Rope:
    """Read the rotary embedding from ``rope_parameters`` (transformers 5) or ``rope_theta`` and ``rope_scaling``.

    Parameters
    ----------
    config
        The config. Where both spellings are there, they must agree on theta.
    context
        Stands for ``original_max_position_embeddings`` where a llama3 scaling leaves it out.

    Returns
    -------
    Rope
        Base and scaling; types other than default, linear and llama3 are an ``InputError``.
    """
    found = {name: config.get(name) or {} for name in ("rope_parameters", "rope_scaling")}
    for name, value in found.items():
        if not isinstance(value, Mapping):
            raise InputError(_wrong(name, value, "an object"))
    name = "rope_parameters" if found["rope_parameters"] else "rope_scaling"
    values = found[name]
    theta = number(values, "rope_theta", number(config, "rope_theta", 10000.0))
    if config.get("rope_theta") is not None and theta != config["rope_theta"]:
        msg = f'config.json: "rope_theta" is {config["rope_theta"]} but "{name}" says {theta}; make them agree'
        raise InputError(msg)
    kind = values.get("rope_type", values.get("type", "default"))
    if kind not in ROPE_TYPES:
        raise InputError(_wrong(f"{name}.rope_type", kind, f"one of {', '.join(ROPE_TYPES)}"))
    require(values, "partial_rotary_factor", 1.0)
    require(config, "partial_rotary_factor", 1.0)
    if kind == "default":
        return Rope(theta)
    if kind == "linear":
        return Rope(theta, LinearScaling(number(values, "factor")))
    low, high = number(values, "low_freq_factor"), number(values, "high_freq_factor")
    if not low < high:
        raise InputError(_wrong(f"{name}.high_freq_factor", high, f"a number above low_freq_factor ({low})"))
    original = integer(values, "original_max_position_embeddings", context)
    return Rope(theta, Llama3Scaling(number(values, "factor"), low, high, original))


def _field(config: Config, name: str, default: Any) -> Any:
    value = config.get(name)
    value = default if value is None else value
    if value is None:
        msg = f'config.json: "{name}" is missing; add it, or download the config again'
        raise InputError(msg)
    return value


def _wrong(name: str, value: Any, allowed: str) -> str:
    return f'config.json: "{name}": got {value!r}, allowed {allowed}; correct the config or choose another model'
