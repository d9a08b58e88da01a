"""Stage 1 of 7: from a model id or folder to a ``Model``: every checkpoint key used, every parameter filled.

The family's table says where each parameter comes from. The comparison of keys and shapes is complete before the first
tensor is read: one error lists all that is missing, left over or wrong. Parameters are then filled one leaf at a time,
so the peak is the model in its own dtype plus one stacked leaf.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxdyn import embedded
from jaxdyn.errors import InputError
from jaxdyn.models import parameters
from jaxdyn.models.architecture import Architecture
from jaxdyn.models.checkpoint import open_checkpoint, refuse_pickle
from jaxdyn.models.config import Config, read_json
from jaxdyn.models.families import FAMILIES
from jaxdyn.models.hub import fetch
from jaxdyn.models.model import Model
from jaxdyn.models.tokenizer import load_tokenizer

DTYPES = ("float32", "float64", "bfloat16")
HEAD = "lm_head.weight"


def load(name_or_path: str | Path | None = None, *, dtype: str = "float32", revision: str | None = None) -> Model:
    """Load a model from the Hugging Face hub or a local folder.

    Parameters
    ----------
    name_or_path
        Folder with config.json and safetensors weights (single or sharded), or hub id; None is the model that comes
        with the package (`jaxdyn/embedded/README.md`).
    dtype
        Dtype the weights are stored in: "float32", "float64" (needs jax's x64 mode) or "bfloat16". The computation
        runs in float32, or float64 for float64 weights.
    revision
        Branch, tag or commit of a hub id.

    Returns
    -------
    Model
        Description, parameters, tokenizer (None where the folder has none) and provenance. Whatever does not fit is
        an ``InputError`` of one line: unknown family, unsupported option, keys or shapes that do not match, pickle
        files, NaN or inf, a damaged file, a model the hub does not give.
    """
    check_dtype(dtype)
    if name_or_path == "":
        msg = "model: got ''; give a hub id such as openai-community/gpt2, a folder with config.json, or nothing at all"
        raise InputError(msg)
    folder, commit = _locate(embedded.FOLDER if name_or_path is None else name_or_path, revision)
    config = read_json(folder / "config.json", what="model")
    arch = architecture_of(config)
    checkpoint = open_checkpoint(folder)
    params, digest = assemble(arch, checkpoint.shapes, checkpoint.read, dtype=dtype)
    return Model(
        architecture=arch,
        params=params,
        tokenizer=load_tokenizer(folder),
        source=embedded.NAME if name_or_path is None else str(name_or_path),
        revision=commit,
        weights_hash=digest,
        stop_ids=_stop_ids(folder, config),
    )


def check_dtype(dtype: str) -> None:
    """Refuse a dtype that is not offered, or float64 where jax would silently make it float32."""
    if dtype not in DTYPES:
        msg = f"dtype: got {dtype!r}, allowed {', '.join(DTYPES)}"
        raise InputError(msg)
    if dtype == "float64" and jax.dtypes.canonicalize_dtype(np.float64) != np.float64:
        msg = (
            "dtype: got 'float64', but jax is in 32-bit mode; call jax.config.update('jax_enable_x64', True) first, "
            "or use --dtype float64 on the command line"
        )
        raise InputError(msg)


def architecture_of(config: Config) -> Architecture:
    """Translate a config.json through its family; an unknown or quantised model is an ``InputError``."""
    kind = config.get("model_type")
    if kind not in FAMILIES:
        named = "no model_type" if kind is None else f"model_type {kind!r}"
        msg = (
            f"model: config.json has {named}, supported families are {', '.join(sorted(FAMILIES))}; choose one of those"
        )
        raise InputError(msg)
    if config.get("quantization_config") is not None:
        msg = (
            "model: config.json has a quantization_config; quantised weights are not supported, use the original model"
        )
        raise InputError(msg)
    return FAMILIES[kind].architecture(config)


def assemble(
    arch: Architecture,
    shapes: Mapping[str, tuple[int, ...]],
    read: Callable[[str], np.ndarray],
    *,
    dtype: str = "float32",
) -> tuple[dict, str]:
    """Fill the parameters from a checkpoint.

    Parameters
    ----------
    arch
        The description; its family gives the table.
    shapes
        Shape of every tensor in the checkpoint by key, with or without the family's prefix.
    read
        Returns the tensor of a key.
    dtype
        Dtype of the parameters.

    Returns
    -------
    tuple
        The nested parameters, and the sha256 (hex) of the tensors used: keys without prefix, dtypes, shapes and
        bytes in the order of the keys; the same however the checkpoint is sharded or prefixed.
    """
    keys = _match(arch, shapes)
    table = FAMILIES[arch.family].table(arch)
    digests: dict[str, str] = {}
    flat = {}

    def fetch_tensor(key: str) -> np.ndarray:
        tensor = read(keys[key])
        if key not in digests:
            content = hashlib.sha256(np.ascontiguousarray(tensor).reshape(-1).view(np.uint8).data).hexdigest()
            digests[key] = f"{key} {tensor.dtype.name} {tensor.shape} {content}\n"
        return tensor

    for path, shape in parameters.shapes(arch).items():
        source = table[path]
        leaf = np.empty(shape, jnp.dtype(dtype))
        stacked = path.startswith("blocks/")
        for layer, target in enumerate(leaf if stacked else [leaf]):
            key = source.key.format(layer=layer)
            with np.errstate(over="ignore"):  # what overflows becomes inf, which is refused below
                target[...] = source.take(fetch_tensor(key)).astype(leaf.dtype)
            if not np.isfinite(target).all():
                bad = int(target.size - np.isfinite(target).sum())
                msg = f"weights: {keys[key]} has {bad} NaN or inf of {target.size} values (as {dtype}); get it again"
                raise InputError(msg)
        flat[path] = jnp.asarray(leaf)
    if arch.tied_head and HEAD in keys:
        _check_tied(keys, read, table["embed/tokens"].key)
    whole = hashlib.sha256("".join(digests[key] for key in sorted(digests)).encode())
    return parameters.nest(flat), whole.hexdigest()


def _locate(name_or_path: str | Path, revision: str | None) -> tuple[Path, str | None]:
    path = Path(name_or_path).expanduser()
    refuse_pickle(path)
    if path.is_file():
        msg = f"model: got the file {path}; give its folder, with config.json beside the weights"
        raise InputError(msg)
    if path.is_dir():
        if revision is not None:
            msg = f"revision: got {revision!r}, but {path} is a local folder, which has none; leave revision out"
            raise InputError(msg)
        return path, None
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or text.startswith((".", "/", "~")) or text.count("/") > 1:
        msg = f"model: got {text!r}, and there is no such folder; give an existing folder or a hub id (owner/name)"
        raise InputError(msg)
    return fetch(text, revision=revision)


def _match(arch: Architecture, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """Map each table key to the checkpoint's key, or raise one error that lists all that does not fit."""
    family = FAMILIES[arch.family]
    wanted: dict[str, tuple[int, ...]] = {}
    leaves = parameters.shapes(arch)
    for path, source in family.table(arch).items():
        stacked = path.startswith("blocks/")
        expected = source.checkpoint_shape(leaves[path][1:] if stacked else leaves[path])
        wanted |= {source.key.format(layer=layer): expected for layer in range(arch.layers if stacked else 1)}
    if arch.tied_head:
        wanted[HEAD] = leaves["embed/tokens"]

    keys: dict[str, str] = {}
    left_over = []
    for full in shapes:
        key = full.removeprefix(family.PREFIX)
        if re.fullmatch(family.BUFFERS, key):
            continue
        if key not in wanted or key in keys:
            left_over.append(full)
        else:
            keys[key] = full
    missing = [key for key in wanted if key not in keys and not (key == HEAD and arch.tied_head)]
    wrong = [
        f"{full} is {tuple(shapes[full])}, the config says {wanted[key]}"
        for key, full in keys.items()
        if tuple(shapes[full]) != wanted[key]
    ]
    named = {"missing": missing, "left over": left_over, "wrong shape": wrong}
    found = [f"{name}: {', '.join(sorted(items))}" for name, items in named.items() if items]
    if found:
        msg = f"weights: do not fit the config of this {arch.family} model; {'; '.join(found)}; use matching files"
        raise InputError(msg)
    return keys


def _check_tied(keys: Mapping[str, str], read: Callable[[str], np.ndarray], embedding: str) -> None:
    if not np.array_equal(read(keys[HEAD]), read(keys[embedding])):
        msg = (
            f"weights: {keys[HEAD]} differs from {keys[embedding]}, but config.json ties them; "
            'set "tie_word_embeddings" to false or use matching files'
        )
        raise InputError(msg)


def _stop_ids(folder: Path, config: Config) -> tuple[int, ...]:
    """End-of-sequence ids: of generation_config.json if it names them, else of config.json."""
    generation = folder / "generation_config.json"
    ids = read_json(generation, what="model").get("eos_token_id") if generation.is_file() else None
    ids = config.get("eos_token_id") if ids is None else ids
    ids = [] if ids is None else ids if isinstance(ids, list) else [ids]
    if not all(isinstance(one, int) for one in ids):
        msg = f'config.json: "eos_token_id": got {ids!r}, allowed an integer or a list of integers; correct the config'
        raise InputError(msg)
    return tuple(ids)
