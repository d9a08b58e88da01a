"""Stage 1 of 7: reading the rotary embedding from a Hugging Face config, in the spellings of transformers 4 and 5."""

import math
from collections.abc import Mapping
from typing import Any

from jaxdyn.errors import InputError
from jaxdyn.models.config import Config, Recorded, integer, number, optional_number, require, wrong
from jaxdyn.models.rope import (
    LinearScaling,
    Llama3Scaling,
    LongScaling,
    ProportionalScaling,
    Rope,
    Scaling,
    YarnScaling,
)

TYPES = ("default", "linear", "llama3", "yarn")


def rope(
    config: Config,
    context: int,
    *,
    theta: float = 10000.0,
    types: tuple[str, ...] = TYPES,
    fraction: float | None = None,
) -> Rope:
    """Read the rotary embedding from ``rope_parameters`` (transformers 5) or ``rope_theta`` and ``rope_scaling``.

    Parameters
    ----------
    config
        The config. Where both spellings are there, they must agree on theta.
    context
        Stands for ``original_max_position_embeddings`` where a scaling leaves it out.
    theta
        The family's base where the config names none.
    types
        The types that transformers reads for this family; another is an ``InputError``.
    fraction
        The family's ``partial_rotary_factor`` where the config names none; None where the family turns whole heads.
    """
    name, values = _values(config)
    return parse(config, name, values, context, theta=theta, types=types, fraction=fraction)


def ropes_by_type(
    config: Config,
    context: int,
    *,
    full: float,
    sliding: float,
    types: tuple[str, ...] = TYPES,
) -> dict[str, Rope]:
    """Read one rotary embedding for each kind of layer.

    Parameters
    ----------
    config
        ``rope_parameters`` with an object for each layer type (transformers 5), or ``rope_theta`` and ``rope_scaling``,
        which act on full attention alone, beside the base of sliding attention.
    context
        As in ``rope``.
    full, sliding
        Bases of full and of sliding attention where these objects name none.
    types
        As in ``rope``.

    Returns
    -------
    dict
        By "full_attention" and "sliding_attention".
    """
    given = config.get("rope_parameters") or {}
    if given and not all(isinstance(value, Mapping) or value is None for value in given.values()):
        raise InputError(wrong("rope_parameters", given, "an object for each of full_attention and sliding_attention"))
    unknown = set(given) - {"full_attention", "sliding_attention"}
    if unknown:
        raise InputError(wrong("rope_parameters", sorted(unknown), "full_attention and sliding_attention"))
    scaling = config.get("rope_scaling") or {}
    if not isinstance(scaling, Mapping):
        raise InputError(wrong("rope_scaling", scaling, "an object"))
    if scaling and given.get("full_attention"):
        raise InputError(wrong("rope_scaling", scaling, "none beside rope_parameters"))
    bases = {"full_attention": full, "sliding_attention": sliding}
    found = {}
    for kind, theta in bases.items():
        values = given.get(kind) or (scaling if kind == "full_attention" else {})
        name = "rope_scaling" if values is scaling else f"rope_parameters.{kind}"
        found[kind] = parse({}, name, values, context, theta=theta, types=types, fraction=None)
    return found


def parse(
    config: Config,
    name: str,
    given: Config,
    context: int,
    *,
    theta: float,
    types: tuple[str, ...],
    fraction: float | None,
) -> Rope:
    """Read one object of rotary parameters; a field of it that nobody reads is an ``InputError``."""
    values = Recorded(given, f"{name}.")
    base = number(values, "rope_theta", number(config, "rope_theta", theta))
    if config.get("rope_theta") is not None and base != config["rope_theta"]:
        msg = f'config.json: "rope_theta" is {config["rope_theta"]} but "{name}" says {base}; make them agree'
        raise InputError(msg)
    kind = values.get("rope_type", values.get("type", "default"))
    values.get("type")
    if kind not in types:
        raise InputError(wrong(f"{name}.rope_type", kind, f"one of {', '.join(types)}"))
    scaling = _scaling(kind, name, values, context)
    part = 1.0
    if fraction is None:
        if kind != "proportional":
            require(values, "partial_rotary_factor", 1.0)
        require(config, "partial_rotary_factor", 1.0)
    else:
        part = number(values, "partial_rotary_factor", number(config, "partial_rotary_factor", fraction))
        if part > 1:
            raise InputError(wrong(f"{name}.partial_rotary_factor", part, "a number above 0, at most 1"))
    if kind == "default":
        for unused in ("factor", "original_max_position_embeddings"):  # transformers reads them under a scaling only
            values.get(unused)
    values.refuse_unread()
    return Rope(base, scaling, part)


def _scaling(kind: str, name: str, values: Config, context: int) -> Scaling | None:
    match kind:
        case "default":
            return None
        case "linear":
            return LinearScaling(number(values, "factor"))
        case "proportional":
            return ProportionalScaling(number(values, "partial_rotary_factor", 1.0), number(values, "factor", 1.0))
        case "longrope":
            return _long(name, values, context)
        case "yarn":
            return _yarn(values, context)
    low, high = number(values, "low_freq_factor"), number(values, "high_freq_factor")
    if not low < high:
        raise InputError(wrong(f"{name}.high_freq_factor", high, f"a number above low_freq_factor ({low})"))
    original = integer(values, "original_max_position_embeddings", context)
    return Llama3Scaling(number(values, "factor"), low, high, original)


def _yarn(values: Config, context: int) -> YarnScaling:
    """Amplitude: ``attention_factor``, or ``m(factor)``, ``m(s) = 0.1 mscale ln s + 1`` (arXiv 2309.00071, eq. 22)."""
    factor = number(values, "factor")
    require(values, "truncate", True)

    def amplitude(weight: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    above, below = (optional_number(values, field, None) for field in ("mscale", "mscale_all_dim"))
    default = amplitude(above) / amplitude(below) if above and below else amplitude(1.0)
    return YarnScaling(
        factor,
        number(values, "beta_fast", 32.0),
        number(values, "beta_slow", 1.0),
        integer(values, "original_max_position_embeddings", context),
        number(values, "attention_factor", default),
    )


def _long(name: str, values: Config, context: int) -> LongScaling:
    """Read the factors of texts within the original context; see ``families.phi3`` for longer ones."""
    factors: Any = values.get("short_factor")
    values.get("long_factor")
    if not isinstance(factors, list | tuple) or not all(isinstance(one, int | float) and one > 0 for one in factors):
        raise InputError(wrong(f"{name}.short_factor", factors, "a list of numbers above 0"))
    original = integer(values, "original_max_position_embeddings")
    factor = number(values, "factor", context / original)
    default = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))
    return LongScaling(tuple(map(float, factors)), number(values, "attention_factor", default))


def _values(config: Config) -> tuple[str, Config]:
    found = {name: config.get(name) or {} for name in ("rope_parameters", "rope_scaling")}
    for name, value in found.items():
        if not isinstance(value, Mapping):
            raise InputError(wrong(name, value, "an object"))
    name = "rope_parameters" if found["rope_parameters"] else "rope_scaling"
    return name, found[name]
