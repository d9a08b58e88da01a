"""What an application, unlike the library, may do: set jax up, keep compiled programs, show tracebacks."""

import logging
import os
from pathlib import Path
from typing import Any

from .errors import InputError

tracebacks = False
"""Whether the command line prints the traceback of an error too."""

in_lockstep = False
"""Whether other processes run the same programs as this one: then an error ends it at once, and they see it gone."""


def show_tracebacks(on: bool) -> None:
    """Print the traceback of an error too, in this process."""
    global tracebacks
    tracebacks = on


def load(model: str | None, dtype: str, weights_dtype: str | None, revision: str | None):
    """Set jax up for the dtypes and load the model; None is the one that comes with jaxdyn."""
    configure(dtype, weights_dtype)
    # transformers, imported for tokenizers, would say that it finds no PyTorch; nobody here misses it.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from . import models

    loaded = models.load(model, dtype=weights_dtype or dtype, revision=revision)
    return loaded.astype(dtype) if dtype == "float64" and weights_dtype else loaded


def configure(dtype: str, weights_dtype: str | None) -> None:
    """Check the dtypes and set jax up: x64 mode where it is asked for, and where compiled programs go."""
    import jax

    if dtype not in ("float32", "float64"):
        msg = f"dtype: got {dtype!r}; allowed 'float32' or 'float64'"
        raise InputError(msg)
    if weights_dtype not in (None, "bfloat16", "float32"):
        msg = f"weights-dtype: got {weights_dtype!r}; allowed 'bfloat16' or 'float32'"
        raise InputError(msg)
    logging.getLogger("absl").setLevel(logging.ERROR)  # orbax's notes about its own options
    if dtype == "float64":
        jax.config.update("jax_enable_x64", True)
    keep_compiled()


def keep_compiled() -> None:
    """Keep compiled programs on the disk, so that the next run starts at once, unless the user chose a place.

    All of them: jax keeps those alone that took a second, and a run has a hundred that take less.
    """
    import jax

    if jax.config.values.get("jax_compilation_cache_dir") is None:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxdyn"
        jax.config.update("jax_compilation_cache_dir", str(cache))


def join(
    coordinator: str | None,
    process: int | None,
    processes: int | None,
    *,
    local: bool = False,
    lockstep: bool = False,
    stale: float = 60.0,
) -> tuple[int, int]:
    """Join the other processes of a run through jax's own runtime, before anything has started a device.

    Parameters
    ----------
    coordinator, process, processes : HOST:PORT of process 0, this process's number and their count; all None lets jax
        detect the launcher (SLURM, Open MPI, Cloud TPU, GKE).
    local : all of them are on this machine, and nobody else may connect.
    lockstep : they run programs together, so that none can go on without the others.
    stale : with `lockstep`, seconds without a sign of one of them after which jax ends the others.

    Returns
    -------
    This process's number and their count.

    Raises
    ------
    InputError : no launcher is found, or the others do not come.

    Notes
    -----
    A process that dies does not end the others, since nothing here waits for it (but with `lockstep`); but process 0
    holds the coordinator, and when that is gone jax ends them all.
    """
    global in_lockstep
    import jax

    options: dict[str, Any] = {} if coordinator is None else {"cluster_detection_method": "deactivate"}
    if lockstep:
        options["heartbeat_timeout_seconds"] = max(1, round(stale))
    else:
        jax.config.update("jax_enable_recoverability", True)
    if local:
        options["coordinator_bind_address"] = coordinator
    try:
        jax.distributed.initialize(coordinator, processes, process, **options)
    except (ValueError, RuntimeError) as error:
        what = "no launcher that jax knows" if coordinator is None else f"the coordinator at {coordinator}"
        first = " ".join(str(error).split())[:200]
        msg = f"distributed: cannot join {what}: {first}; start the processes by a launcher, or give --coordinator"
        raise InputError(msg, page="docs/sweeps.md") from error
    in_lockstep = lockstep
    return jax.process_index(), jax.process_count()


def leave() -> None:
    """Part from the other processes of a run; nothing where this one is alone."""
    global in_lockstep
    import jax

    jax.distributed.shutdown()
    in_lockstep = False
