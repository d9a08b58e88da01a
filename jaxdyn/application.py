"""What an application, unlike the library, may do: set jax up, keep compiled programs, show tracebacks."""

import logging
import os
from pathlib import Path

from .errors import InputError

tracebacks = False
"""Whether the command line prints the traceback of an error too."""


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
