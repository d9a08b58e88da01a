"""From our parameters to a Hugging Face folder, the way back of `jaxdyn.models.weights`."""

import json
from pathlib import Path

import numpy as np
from jax import numpy as jnp
from safetensors.numpy import save_file

from jaxdyn.errors import InputError
from jaxdyn.models import parameters
from jaxdyn.models.architecture import Architecture
from jaxdyn.models.checkpoint import SINGLE
from jaxdyn.models.decoder import Params
from jaxdyn.models.families import FAMILIES
from jaxdyn.training.settings import BOS

KEY_PREFIX = "model."
"""Before the keys of the family's table in a file that transformers writes."""


def tensors(arch: Architecture, params: Params, *, dtype: str) -> dict[str, np.ndarray]:
    """Return the checkpoint's tensors by key.

    Parameters
    ----------
    arch, params
        A Llama-style decoder, the one family that is trained here.
    dtype
        "float32", "bfloat16" or "float16"; a weight too large for it is an ``InputError``.

    Returns
    -------
    dict
        (out, in) matrices under the family's keys and prefix, rounded to nearest.
    """
    flat, found = parameters.flatten(params), {}  # pyright: ignore[reportArgumentType]
    for path, source in FAMILIES[arch.family].table(arch).items():
        assert not source.transpose
        assert source.part == (0, 1)
        leaf = np.asarray(flat[path])
        with np.errstate(over="ignore"):  # what overflows becomes inf, which is refused below
            rounded = leaf.astype(jnp.dtype(dtype))
        if not np.isfinite(rounded.astype(np.float32)).all():
            msg = f"save-dtype: {path} has values up to {np.abs(leaf).max():.3g}, too large for {dtype}; use float32"
            raise InputError(msg)
        stacked = path.startswith("blocks/")
        for layer, matrix in enumerate(rounded if stacked else [rounded]):
            found[KEY_PREFIX + source.key.format(layer=layer)] = np.ascontiguousarray(matrix)
    return found


def export(arch: Architecture, params: Params, config: dict[str, object], folder: Path) -> None:
    """Write config.json, generation_config.json and model.safetensors, each in one piece; the tokenizer is its own."""
    folder.mkdir(parents=True, exist_ok=True)
    generation = {"bos_token_id": BOS, "eos_token_id": BOS}
    for name, content in (("config.json", config), ("generation_config.json", generation)):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    temporary = folder / f"{SINGLE}.tmp"
    save_file(tensors(arch, params, dtype=str(config["dtype"])), temporary, metadata={"format": "pt"})
    temporary.replace(folder / SINGLE)
