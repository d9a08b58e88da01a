"""Stage 1 of 7: from a model id or folder to a ``Model``: every checkpoint key used, every parameter filled.

The family's table says where each parameter comes from. The comparison of keys and shapes is complete before the first
tensor is read: one error lists all that is missing, left over or wrong. Parameters are then filled one leaf at a time,
so the peak is the model in its own dtype plus one stacked leaf.
"""

import hashlib
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, Sharding

from jaxdyn.errors import InputError
from jaxdyn.models import parameters
from jaxdyn.models.architecture import Architecture
from jaxdyn.models.config import Config, Recorded, read_json
from jaxdyn.models.families import FAMILIES
from jaxdyn.models.locate import locate
from jaxdyn.models.model import Model
from jaxdyn.models.orbax_copy import read_manifest, restore
from jaxdyn.models.padding import real_entries, real_shape
from jaxdyn.models.placement import Placement
from jaxdyn.models.tokenizer import load_tokenizer
from jaxdyn.sharding import Layout, Rules, check_mesh, shardings

DTYPES = ("float32", "float64", "bfloat16")
HEAD = "lm_head.weight"


def load(
    name_or_path: str | Path | None = None,
    *,
    dtype: str = "float32",
    revision: str | None = None,
    mesh: Mesh | None = None,
    rules: Rules | Layout | None = None,
) -> Model:
    """Load a model from the Hugging Face hub, a local folder, or a copy that ``convert`` made.

    Parameters
    ----------
    name_or_path
        Folder with config.json and safetensors weights (single or sharded), folder of ``convert``, or hub id; None is
        the model that comes with the package (`jaxdyn/embedded/README.md`).
    dtype
        Dtype the weights are stored in: "float32", "float64" (needs jax's x64 mode) or "bfloat16". The computation
        runs in float32, or float64 for float64 weights.
    revision
        Branch, tag or commit of a hub id.
    mesh
        Devices over which the parameters are split, each device getting its own part only; None is jax's own choice
        of one device. ``jax.make_mesh((4,), ("model",))`` splits over four.
    rules
        Logical axis -> mesh axis, or a ``Layout``, see ``jaxdyn.sharding``; None splits vocabulary, heads and the MLP's
        hidden units over the mesh axis "model". Needs a mesh.

    Returns
    -------
    Model
        Description, parameters, tokenizer (None where the folder has none) and provenance. Whatever does not fit is
        an ``InputError`` of one line: unknown family, unsupported option, keys or shapes that do not match, pickle
        files, quantised weights, NaN or inf, a damaged file, a model the hub does not give.

    Notes
    -----
    Beyond the parameters where they stay, the host holds one tensor of the checkpoint at a time. Every process of a
    pod reads the whole of a checkpoint in safetensors, of which it computes the hash; of a copy that ``convert`` made
    each reads its part.
    """
    check_dtype(dtype)
    if mesh is not None:
        check_mesh(mesh, rules)
    elif rules is not None:
        msg = "rules: got rules without a mesh, which they split over; give mesh=jax.make_mesh(...) or leave rules out"
        raise InputError(msg)
    located = locate(name_or_path, revision)
    kept = read_manifest(located.folder)
    config = read_json(located.folder / "config.json", what="model")
    arch = architecture_of(config)
    placed = None if mesh is None else shardings(arch, parameters.shapes(arch), mesh, rules)
    if kept is None:
        checkpoint = located.checkpoint()
        params, digest = assemble(arch, checkpoint.shapes, checkpoint.read, dtype=dtype, shardings=placed)
        source, commit = located.name, located.revision
    else:
        params = restore(located.folder, kept, arch, dtype=dtype, shardings=placed)
        source, commit, digest = kept.source, kept.revision, kept.weights_hash
    return Model(
        architecture=arch,
        params=params,
        tokenizer=load_tokenizer(located.folder),
        source=source,
        revision=commit,
        weights_hash=digest,
        stop_ids=_stop_ids(located.folder, config),
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
        raise InputError(msg, page="docs/models.md")
    for field in ("quantization_config", "compression_config"):
        if config.get(field) is not None:
            method = config[field].get("quant_method") if isinstance(config[field], Mapping) else None
            named = field if method is None else f"{field} of method {method!r}"
            msg = (
                f"model: config.json has a {named}; quantised weights are not supported, only float64, float32, "
                "float16 and bfloat16: use the original model"
            )
            raise InputError(msg, page="docs/models.md")
    read = Recorded(config)
    arch = FAMILIES[kind].architecture(read)
    read.refuse_unread()
    return arch


def assemble(
    arch: Architecture,
    shapes: Mapping[str, tuple[int, ...]],
    read: Callable[[str], np.ndarray],
    *,
    dtype: str = "float32",
    shardings: Mapping[str, Sharding] | None = None,
) -> tuple[dict, str]:
    """Fill the parameters from a checkpoint, one tensor after the other.

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
    shardings
        How each parameter, by path, is split over devices; None puts all where jax puts arrays.

    Returns
    -------
    tuple
        The nested parameters, and the sha256 (hex) of the tensors used: keys without prefix, dtypes, shapes and
        bytes in the order of the keys; the same however the checkpoint is sharded or prefixed. Beyond the parameters,
        the host holds one tensor in the dtype it is stored in and ``placement.PIECE`` bytes a few times.
    """
    keys = _match(arch, shapes)
    table = FAMILIES[arch.family].table(arch)
    digests: dict[str, str] = {}
    flat = {}

    def fetch_tensor(key: str) -> np.ndarray:
        tensor = read(keys[key])
        if not jnp.issubdtype(tensor.dtype, jnp.floating):
            msg = f"weights: {keys[key]} is {tensor.dtype}, allowed floating point; use a checkpoint not quantised"
            raise InputError(msg)
        if key not in digests:
            digests[key] = f"{key} {tensor.dtype.name} {tensor.shape} {_content_hash(tensor)}\n"
        return tensor

    # The largest tensors first: what the host holds beside the parameters is then small when they are nearly all there.
    for path, shape in sorted(parameters.shapes(arch).items(), key=lambda item: -_tensor_size(*item)):
        source = table[path]
        leaf = Placement(shape, jnp.dtype(dtype), None if shardings is None else shardings[path])
        for layer in range(shape[0]) if path.startswith("blocks/") else (None,):
            entries = None if layer is None else real_entries(arch, path, layer)
            if entries is not None and not math.prod(one.size for one in entries):
                continue  # the layer has none, and the leaf begins as zeros
            key = source.key.format(layer=layer)
            whole = shape if layer is None else shape[1:]
            size = whole if entries is None else tuple(one.size for one in entries)
            value = source.take(fetch_tensor(key), size)
            if entries is not None:  # a layer smaller than the leaf
                value = _spread(value, entries, whole)
            bad = leaf.write(value, layer)
            if bad:
                count = math.prod(size)
                msg = f"weights: {keys[key]} has {bad} NaN or inf of {count} values (as {dtype}); get it again"
                raise InputError(msg)
        flat[path] = leaf.finish()
    if arch.tied_head and HEAD in keys:
        _check_tied(keys, read, table["embed/tokens"].key)
    whole = hashlib.sha256("".join(digests[key] for key in sorted(digests)).encode())
    return parameters.nest(flat), whole.hexdigest()


def matched_keys(arch: Architecture, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """Map the key of every tensor that the model uses, without the family's prefix, to the checkpoint's own key.

    ``shapes`` has every tensor of the checkpoint; one ``InputError`` lists all that is missing, left over or of another
    shape than the config says. A head that is tied to the embedding, and stored besides, is not used.
    """
    keys = _match(arch, shapes)
    return {key: full for key, full in keys.items() if not (arch.tied_head and key == HEAD)}


def _match(arch: Architecture, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """Map each table key to the checkpoint's key, or raise one error that lists all that does not fit."""
    family = FAMILIES[arch.family]
    wanted: dict[str, tuple[int, ...]] = {}
    leaves = parameters.shapes(arch)
    for path, source in family.table(arch).items():
        if not path.startswith("blocks/"):
            wanted[source.key] = source.checkpoint_shape(leaves[path])
            continue
        for layer in range(arch.layers):
            shape = real_shape(arch, path, layer, leaves[path][1:])
            if math.prod(shape):
                wanted[source.key.format(layer=layer)] = source.checkpoint_shape(shape)
    if arch.tied_head:
        wanted[HEAD] = leaves["embed/tokens"]

    keys: dict[str, str] = {}
    left_over = []
    for full in shapes:
        key = re.sub(rf"^(?:{family.PREFIX})", "", full)
        key = getattr(family, "ALIASES", {}).get(key, key)
        if key in wanted and key not in keys:
            keys[key] = full
        elif not re.fullmatch(family.BUFFERS, key):
            left_over.append(full)
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


def _tensor_size(path: str, shape: tuple[int, ...]) -> int:
    """Return how many values one tensor gives to a parameter."""
    return math.prod(shape[1:] if path.startswith("blocks/") else shape)


def _spread(value: np.ndarray, entries: tuple, shape: tuple[int, ...]) -> np.ndarray:
    """Put a smaller layer's values in their places of a leaf's layer, zeros elsewhere."""
    whole = np.zeros(shape, value.dtype)
    whole[entries] = value
    return whole


def _content_hash(tensor: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(tensor).reshape(-1).view(np.uint8).data).hexdigest()


def _check_tied(keys: Mapping[str, str], read: Callable[[str], np.ndarray], embedding: str) -> None:
    same = _content_hash(read(keys[HEAD])) == _content_hash(read(keys[embedding]))  # one at a time: both may be large
    if not same and not np.array_equal(read(keys[HEAD]), read(keys[embedding])):  # another dtype, or 0.0 for -0.0
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
