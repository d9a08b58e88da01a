"""Stage 1 of 7: a model kept as an orbax checkpoint, which any mesh can restore: its manifest, saving, restoring.

A copy is a folder with the source's config.json and tokenizer, the parameters under ``params/`` in the dtype of the
source's checkpoint, and ``jaxdyn.json``, written last: where the parameters come from, and the sha256 of every file.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.sharding import Sharding

from jaxdyn.errors import InputError
from jaxdyn.models import parameters
from jaxdyn.models.architecture import Architecture
from jaxdyn.models.config import read_json
from jaxdyn.models.decoder import Params

MANIFEST, PARAMS = "jaxdyn.json", "params"
FORMAT = 1

CHUNKS, CHUNK = 256, (2**20, 2**22)
"""Pieces in which a parameter is kept, and their bytes, least and most: who restores a part reads its pieces alone."""
FILES, FILE = 64, (2**20, 2**28)
"""Files of a copy, about, and their bytes, least and most: the processes of a pod share out their hashes."""


@dataclass(frozen=True)
class Manifest:
    """What ``jaxdyn.json`` says.

    Attributes
    ----------
    source, revision, weights_hash
        Of the model that was converted, as in ``Model``.
    dtype
        In which the parameters are kept.
    shapes
        Shape of every parameter by path.
    files
        sha256 (hex) of every file under ``params/``, by its path from the folder.
    format
        Version of this layout.
    """

    source: str
    revision: str | None
    weights_hash: str
    dtype: str
    shapes: dict[str, list[int]]
    files: dict[str, str]
    format: int = FORMAT


def read_manifest(folder: Path) -> Manifest | None:
    """Return the manifest of a copy, None where the folder is none; one that cannot be used is an ``InputError``."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    content = read_json(path, what="model")
    if content.get("format") != FORMAT:
        msg = f"model: {path} is of format {content.get('format')!r}, allowed {FORMAT}; convert the model again"
        raise InputError(msg)
    kinds = {"source": str, "weights_hash": str, "dtype": str, "shapes": dict, "files": dict}
    wrong = [name for name, kind in kinds.items() if not isinstance(content.get(name), kind)]
    if wrong or set(content) != set(Manifest.__dataclass_fields__):
        named = wrong or sorted(set(content) ^ set(Manifest.__dataclass_fields__))
        msg = f"model: {path} does not say what jaxdyn convert writes ({', '.join(named)}); convert the model again"
        raise InputError(msg)
    return Manifest(**content)


def save(params: Params, folder: Path, *, source: str, revision: str | None, weights_hash: str) -> None:
    """Write ``params/`` and then the manifest into a folder."""
    import orbax.checkpoint as ocp  # slow to import, and needed only here

    flat = parameters.flatten(params)
    pieces = {path: ocp.SaveArgs(chunk_byte_size=_between(leaf.nbytes // CHUNKS, CHUNK)) for path, leaf in flat.items()}
    size = _between(sum(leaf.nbytes for leaf in flat.values()) // FILES, FILE)
    arguments = ocp.args.PyTreeSave(params, save_args=parameters.nest(pieces), ocdbt_target_data_file_size=size)
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_compression=False)) as checkpointer:
        checkpointer.save((folder / PARAMS).absolute(), args=arguments)
    manifest = Manifest(
        source=source,
        revision=revision,
        weights_hash=weights_hash,
        dtype=next(iter(flat.values())).dtype.name,
        shapes={path: list(leaf.shape) for path, leaf in flat.items()},
        files={str(path.relative_to(folder)): _hash(path) for path in _files(folder)},
    )
    (folder / MANIFEST).write_text(json.dumps(asdict(manifest), indent=1))


def restore(
    folder: Path,
    manifest: Manifest,
    arch: Architecture,
    *,
    dtype: str,
    shardings: Mapping[str, Sharding] | None = None,
) -> dict:
    """Read the parameters of a copy.

    Parameters
    ----------
    folder, manifest
        The copy, and what it says of itself.
    arch
        The description its config.json gives.
    dtype
        Dtype of the parameters; where it is not the kept one they are cast, rounded to nearest.
    shardings
        How each parameter, by path, is split over devices, whatever the mesh it was saved from; None is one device.

    Returns
    -------
    dict
        The nested parameters, the same as those of the source in this dtype. Files that are missing, changed or too
        many, and a config that contradicts the parameters, are each an ``InputError``. Cost: every file is read twice,
        once for its hash. Where the devices are those of N processes, each reads the pieces of its own parts, and for
        their hashes 1/N of the files: one that finds a changed file raises, and takes the others with it.
    """
    shapes = parameters.shapes(arch)
    found = {path: tuple(shape) for path, shape in manifest.shapes.items()}
    if found != shapes:
        wrong = sorted(path for path in found.keys() | shapes.keys() if found.get(path) != shapes.get(path))
        listed = ", ".join(f"{path} is {found.get(path)}, the config says {shapes.get(path)}" for path in wrong[:5])
        msg = f"weights: the copy in {folder} does not fit its config.json: {listed}; convert the model again"
        raise InputError(msg)
    devices = set() if shardings is None else set().union(*(one.device_set for one in shardings.values()))
    _check_files(folder, manifest, sorted({device.process_index for device in devices}) or [jax.process_index()])

    import orbax.checkpoint as ocp  # slow to import, and needed only here

    here = jnp.zeros(()).sharding
    arguments = {
        path: ocp.ArrayRestoreArgs(
            sharding=here if shardings is None else shardings[path], global_shape=shape, dtype=jnp.dtype(dtype)
        )
        for path, shape in shapes.items()
    }
    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            params = checkpointer.restore(
                (folder / PARAMS).absolute(),
                item=parameters.nest(dict.fromkeys(shapes, 0)),  # pyright: ignore[reportArgumentType]
                restore_args=parameters.nest(arguments),  # pyright: ignore[reportArgumentType]
            )
    except Exception as error:  # orbax raises bare Exception for what tensorstore cannot read
        first = str(error).strip().split("\n")[0]
        msg = f"weights: orbax cannot restore {folder / PARAMS} ({first[:200]}); convert the model again"
        raise InputError(msg) from error
    if dtype != manifest.dtype:
        _check_finite(params, dtype)
    return params


def _check_files(folder: Path, manifest: Manifest, processes: list[int]) -> None:
    """See that all files are there, and that those which are this process's to read are as they were written."""
    there = {str(path.relative_to(folder)): path for path in _files(folder)}
    differ = sorted(there.keys() ^ manifest.files.keys())
    if not differ:
        differ = [name for name in _share(there, processes) if _hash(there[name]) != manifest.files[name]]
    if differ:
        listed = ", ".join(differ[:5])
        msg = f"weights: the copy in {folder} is damaged: {listed} not as {MANIFEST} says; convert the model again"
        raise InputError(msg)


def _share(files: Mapping[str, Path], processes: list[int]) -> list[str]:
    """Deal files out by their sizes, the largest first to whom has least; every process deals alike."""
    sizes = {name: path.stat().st_size for name, path in files.items()}
    held = dict.fromkeys(processes, 0)
    own = []
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        least = min(held, key=lambda process: (held[process], process))
        held[least] += sizes[name]
        if least == jax.process_index():
            own.append(name)
    return sorted(own)


def _check_finite(params: Params, dtype: str) -> None:
    """Refuse what a cast has made infinite."""
    for path, leaf in parameters.flatten(params).items():
        bad = int(jnp.sum(~jnp.isfinite(leaf)))
        if bad:
            msg = f"weights: {path} has {bad} NaN or inf of {leaf.size} values (as {dtype}); use a wider dtype"
            raise InputError(msg)


def _between(size: int, bounds: tuple[int, int]) -> int:
    return min(max(size, bounds[0]), bounds[1])


def _files(folder: Path) -> list[Path]:
    return [path for path in (folder / PARAMS).rglob("*") if path.is_file()]


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
