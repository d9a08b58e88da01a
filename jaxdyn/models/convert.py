"""Stage 1 of 7: keeping an orbax copy of a model, which loads without its source and restores on any mesh."""

import os
import shutil
from pathlib import Path

import jax

from jaxdyn.errors import InputError
from jaxdyn.models import orbax_copy
from jaxdyn.models.checkpoint import INDEX, Checkpoint
from jaxdyn.models.hub import DESCRIPTION
from jaxdyn.models.locate import locate
from jaxdyn.models.weights import load


def convert(name_or_path: str | Path, directory: str | Path, *, revision: str | None = None) -> Path:
    """Keep a copy of a model as an orbax checkpoint.

    Parameters
    ----------
    name_or_path, revision
        As for ``load``.
    directory
        Folder of the copy; it must not exist, or be empty.

    Returns
    -------
    Path
        The folder. ``load(directory, dtype=..., mesh=...)`` gives what ``load(name_or_path, ...)`` gives, bit by bit,
        with the source's name, revision and hash: the copy keeps the checkpoint's own dtype (float16 as float32, and
        of several the widest; float64 needs jax's x64 mode).

    Raises
    ------
    InputError : what ``load`` refuses; a directory in the way or that cannot be written.

    Notes
    -----
    The copy is written into ``<directory>.partial`` and renamed when it is whole, so that a run killed at any moment
    leaves nothing under the name asked for. Memory: the model on the host, in its checkpoint's dtype.
    """
    target = Path(directory).expanduser()
    partial = target.with_name(target.name + ".partial")
    _check_target(target)
    located = locate(name_or_path, revision)
    if orbax_copy.read_manifest(located.folder) is not None:
        msg = f"model: {located.folder} is a copy that jaxdyn convert made; copy that folder, or convert its source"
        raise InputError(msg)
    dtype = kept_dtype(located.checkpoint())
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        model = load(name_or_path, dtype=dtype, revision=located.revision)
    try:
        partial.mkdir(parents=True)
    except FileExistsError:
        msg = f"directory: {partial} is there, of a conversion killed or still running; remove it and try again"
        raise InputError(msg) from None
    except OSError as error:
        raise InputError(_unwritable(target, error)) from None
    try:
        for file in DESCRIPTION:
            if file != INDEX and (located.folder / file).is_file():
                shutil.copyfile(located.folder / file, partial / file)
        source = located.name if located.revision is not None else str(located.folder.resolve())
        orbax_copy.save(
            model.params, partial, source=source, revision=located.revision, weights_hash=model.weights_hash
        )
        _sync(partial)
        partial.rename(target)
    except OSError as error:
        raise InputError(_unwritable(target, error)) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # nothing where it was renamed
    return target


def kept_dtype(checkpoint: Checkpoint) -> str:
    """Return the narrowest dtype we offer that holds every tensor of a checkpoint exactly."""
    kinds = {entry.dtype for entry in checkpoint.entries.values()}
    if "F64" in kinds:
        return "float64"
    return "bfloat16" if kinds == {"BF16"} else "float32"


def _check_target(target: Path) -> None:
    try:
        taken = target.exists() and not (target.is_dir() and not any(target.iterdir()))
        if not taken:
            parent = next(one for one in (target.absolute(), *target.absolute().parents) if one.exists())
            writable = parent.is_dir() and os.access(parent, os.W_OK)
    except OSError as error:
        raise InputError(_unwritable(target, error)) from None
    if taken:
        msg = f"directory: {target} exists and is not an empty folder; choose another, or remove it"
        raise InputError(msg)
    if not writable:
        msg = f"directory: cannot write in {parent}; choose another place, or change its permissions"
        raise InputError(msg)


def _unwritable(target: Path, error: OSError) -> str:
    return f"directory: cannot write {target} ({error.strerror or error}); free space, or choose another place"


def _sync(folder: Path) -> None:
    """Make the folder's files durable before their name says that they are whole."""
    for path in (*folder.rglob("*"), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
