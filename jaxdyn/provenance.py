"""Stage 6 of 7: where a result comes from, so that it can be repeated and its bits explained.

`bits` holds what can change the last bit of a number; it belongs to the settings that a resumed run must repeat.
`provenance` adds what only informs: date, machine, cores, commit.
"""

import functools
import importlib
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import jax
from threadpoolctl import threadpool_info

PACKAGES = ("jaxdyn", "jax", "jaxlib", "numpy", "scipy", "xarray", "zarr")
_BLAS_KEYS = ("internal_api", "version", "architecture")
NUMERICAL = ("jaxdyn", "jax", "jaxlib", "numpy", "scipy")
CHECKOUT = Path(__file__).resolve().parents[1]


def bits() -> dict[str, object]:
    """Versions, device kind, BLAS and precision flags: two runs that differ here may differ in the last bits."""
    return {
        **{f"version_{name}": _version(name) for name in NUMERICAL},
        "platform": jax.default_backend(),
        "device_kind": jax.devices()[0].device_kind,
        "machine": platform.machine(),
        "blas": _blas(),
        "x64": bool(jax.config.jax_enable_x64),  # pyright: ignore[reportAttributeAccessIssue]
        "matmul_precision": str(jax.config.jax_default_matmul_precision or "default"),  # pyright: ignore[reportAttributeAccessIssue]
    }


def provenance(**extra) -> dict[str, object]:
    """`bits` plus python, system, cores, commit and date, plus what the caller knows (model source, hash, dtype...).

    Arguments
    ---------
    extra : JSON values to store beside these: `model_source`, `model_revision`, `model_hash`, `dtype`, `seed`, ...

    Returns
    -------
    dict of JSON values. `commit` is None outside a git checkout and ends in "+changes" where the checkout was edited.
    """
    return {
        **bits(),
        **{f"version_{name}": _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpu_count": os.cpu_count(),
        "device_count": jax.device_count(),
        "commit": _own_commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **extra,
    }


def commit(root: Path = CHECKOUT) -> str | None:
    """Return the commit of the checkout this code runs from, or None for an installed package or without git."""
    if not (root / ".git").exists():
        return None
    try:
        head = _git(root, "rev-parse", "HEAD")
        return head + ("+changes" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


@functools.cache
def _own_commit() -> str | None:
    """Return the commit of this code, which a process loads once."""
    return commit()


@functools.cache
def _blas():
    """Name, version and processor family of scipy's BLAS, which LAPACK on the CPU uses: last bits follow the family."""
    importlib.import_module("scipy.linalg")  # loads it
    libraries = [info for info in threadpool_info() if info["user_api"] == "blas"]
    scipys = [
        info for info in libraries if any(part.startswith("scipy") for part in Path(info["filepath"]).parts)
    ] or libraries
    return sorted({" ".join(str(info.get(key)) for key in _BLAS_KEYS) for info in scipys})


def _git(root, *arguments):
    run = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=10, check=True)
    return run.stdout.strip()


@functools.cache
def _version(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
