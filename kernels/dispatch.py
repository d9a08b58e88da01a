"""Dispatch: one table: which implementation of an operation runs on which platform, for which types and sizes.

An implementation is a module with a function of the operation's name. The first of the table that supports the
platform, and whose `when` holds for dtype, order, batch and what is asked for, runs; ``implementation=`` forces one by
name, whatever its `when` says. Nothing falls back in silence: where none supports the platform, the error lists the
reason of each and the remedy.
"""

import functools
import importlib
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array

from .threads import cores, spread

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


@dataclass(frozen=True)
class When:
    """What an implementation is chosen for by itself; forced by name it takes everything."""

    platforms: tuple[str, ...] = PLATFORMS
    least: int = 0
    """Smallest order n."""
    below: int | None = None
    """Orders stay below this."""
    batch: int | None = None
    """Most matrices at once."""
    right_only: bool = False
    """Not where left vectors are asked for."""
    eager: bool = False
    """Not inside a trace, which might be differentiated."""
    types: tuple[str, ...] = ()
    """Dtypes, where not all."""

    def holds(self, platform: str, case: "Case | None") -> bool:
        """Whether it does for a case; one that is not known meets no condition."""
        if platform not in self.platforms:
            return False
        if self == When(platforms=self.platforms):
            return True
        return (
            case is not None
            and case.n >= self.least
            and (self.below is None or case.n < self.below)
            and (self.batch is None or case.batch <= self.batch)
            and not (self.right_only and case.left)
            and not (self.eager and case.traced)
            and (not self.types or case.dtype in self.types)
        )

    def __str__(self) -> str:
        words = [
            f"n >= {self.least}" * (self.least > 0),
            f"n < {self.below}" * (self.below is not None),
            f"at most {self.batch} matrices" * (self.batch is not None),
            "right vectors only" * self.right_only,
            "outside jit" * self.eager,
            " or ".join(self.types),
        ]
        return ", ".join(word for word in words if word)


@dataclass(frozen=True)
class Case:
    """What is to be decomposed."""

    n: int
    batch: int
    left: bool = False
    traced: bool = True
    dtype: str = "float32"


@dataclass(frozen=True)
class Implementation:
    """One way to compute an operation: where its code is, where it runs, and why it does not run elsewhere."""

    name: str
    module: str
    platforms: tuple[str, ...]
    method: str
    elsewhere: str
    when: When = When()

    def load(self, operation: str) -> Callable[..., Any]:
        """Import the function that computes `operation`."""
        return getattr(importlib.import_module(self.module, __package__), operation)


@dataclass(frozen=True)
class Choice:
    """What would run for one operation on one platform; `implementation` is None where nothing would."""

    operation: str
    platform: str
    implementation: str | None
    note: str
    when: str = ""
    """For what; empty for everything that the rows before it do not take."""


TABLE: dict[str, tuple[Implementation, ...]] = {
    "schur": (
        Implementation(
            name="lapack",
            module=".schur.lapack",
            platforms=("cpu",),
            method="LAPACK gees (Hessenberg reduction, multishift QR with early deflation)",
            elsewhere=(
                "LAPACK runs on the host only; pass implementation='lapack' with a concrete array to have it copied "
                "to the host and decomposed there (the result stays on the host)"
            ),
        ),
        Implementation(
            name="divide",
            module=".schur.divide",
            platforms=PLATFORMS,
            method="spectral divide and conquer (matrix sign, randomised QR), small blocks by shifted QR",
            elsewhere="",
            when=When(("cuda", "rocm", "tpu"), least=512),
        ),
        Implementation(
            name="pallas",
            module=".schur.pallas_tpu",
            platforms=("tpu",),
            method="Hessenberg QR with many bulges in a wavefront, in one Pallas kernel",
            elsewhere="for a TPU, and interpreted in a jit elsewhere; implementation='wavefront' is the same in XLA",
            when=When(("tpu",), below=257, types=("float32",)),
        ),
        Implementation(
            name="wavefront",
            module=".schur.wavefront",
            platforms=PLATFORMS,
            method="Hessenberg QR with many bulges in a wavefront, batch in step",
            elsewhere="",
            when=When(("cuda", "rocm", "tpu"), least=32, below=512),
        ),
        Implementation(
            name="xla",
            module=".schur.xla",
            platforms=PLATFORMS,
            method="Householder Hessenberg reduction, shifted QR with a bulge in every active block, batch in step",
            elsewhere="",
        ),
    ),
    "hessenberg": (
        Implementation(
            name="lapack",
            module=".hessenberg.lapack",
            platforms=("cpu",),
            method="LAPACK gehrd (blocked Householder reflectors)",
            elsewhere="LAPACK runs on the host only; implementation='xla' runs everywhere",
        ),
        Implementation(
            name="xla",
            module=".hessenberg.xla",
            platforms=PLATFORMS,
            method="blocked Householder reflectors, batch in step",
            elsewhere="",
        ),
    ),
    "refine": (
        Implementation(
            name="xla",
            module=".refine.api",
            platforms=PLATFORMS,
            method="Newton steps with the residual in a chosen precision, products of matrices",
            elsewhere="",
        ),
    ),
    "reorder": (
        Implementation(
            name="xla",
            module=".reorder.api",
            platforms=PLATFORMS,
            method="direct swaps of neighbouring blocks, every second pair at once",
            elsewhere="",
        ),
    ),
    "singular_values": (
        Implementation(
            name="lapack",
            module=".singular.native",
            platforms=("cpu",),
            method="LAPACK gesdd without vectors",
            elsewhere="LAPACK runs on the host only; implementation='xla' is the platform's own",
        ),
        Implementation(
            name="bisection",
            module=".singular.bisection",
            platforms=PLATFORMS,
            method="Householder reflectors to bidiagonal form, then bisection by counts of pivots",
            elsewhere="",
            when=When(("tpu",)),
        ),
        Implementation(
            name="xla",
            module=".singular.native",
            platforms=("cuda", "rocm", "tpu"),
            method="XLA's own, without vectors",
            elsewhere="on the host it is implementation='lapack'",
        ),
    ),
    "resolvent_norm": (
        Implementation(
            name="xla",
            module=".resolvent.xla",
            platforms=PLATFORMS,
            method="inverse Lanczos bidiagonalisation, triangular solves with all shifts at once",
            elsewhere="",
        ),
    ),
}

# Operations that are one Schur form and products of triangular matrices, which run everywhere; and what else computes
# them, before the implementations of the Schur form.
CUSOLVER = Implementation(
    name="cusolver",
    module=".eig.cusolver",
    platforms=("cuda",),
    method="cuSOLVER Xgeev, one matrix after another, without a certificate of a Schur form and without derivatives",
    elsewhere="cuSOLVER runs on CUDA only; implementation='xla' runs everywhere",
    when=When(("cuda",), below=512, batch=16, right_only=True, eager=True),
)
FROM_SCHUR: dict[str, tuple[Implementation, ...]] = {"eig": (CUSOLVER,), "eigvals": (CUSOLVER,)}


TYPES_WITHOUT: dict[str, tuple[tuple[str, ...], str]] = {
    "tpu": (
        ("float64", "complex128"),
        "a TPU has no float64, and XLA's substitute for it cannot compile these programs: convert to float32 or "
        "complex64 and call refine(..., residual='double-single') for pairs that hold 1e-13; on a concrete array "
        "implementation='lapack' of schur, eig, eigvals and hessenberg works on the host",
    ),
}
"""Types that no implementation has on a platform of its own, and what to do."""


def implementations(operation: str) -> tuple[str, ...]:
    """Names that ``implementation=`` accepts for an operation, the preferred one first."""
    return tuple(entry.name for entry in _entries(operation))


def choose(
    operation: str, platform: str, implementation: str | None = None, *, case: Case | None = None
) -> Implementation:
    """Choose the implementation that runs an operation on a platform; without a case, one that runs for every case.

    Raises
    ------
    ValueError
        Where `operation` or `implementation` is not in the table; the message lists what is.
    NotImplementedError
        Where no implementation supports `platform`, or the case's type there; the message carries the reason of each.
        Where a concrete array is on a platform that the named implementation neither supports nor copies from. (A trace
        may be lowered for any platform: there the name is taken as it is.)
    """
    entries = _entries(operation)
    if implementation is not None:
        for entry in entries:
            if entry.name == implementation:
                _require(operation, platform, entry, case)
                return entry
        names = ", ".join(repr(entry.name) for entry in entries)
        message = f"implementation={implementation!r} is unknown for {operation!r}: use one of {names}, or None"
        raise ValueError(message)
    if case is not None:
        require_type(operation, platform, case.dtype)
    for entry in entries:
        if platform in entry.platforms and entry.when.holds(platform, case):
            return entry
    reasons = "; ".join(f"{entry.name}: {entry.elsewhere}" for entry in entries)
    message = f"{operation!r} has no implementation for arrays on platform {platform!r}. {reasons}"
    raise NotImplementedError(message)


def require_type(operation: str, platform: str, dtype: str) -> None:
    """Refuse a dtype that a platform does not have, with a NotImplementedError that says what to do."""
    missing, remedy = TYPES_WITHOUT.get(platform, ((), ""))
    if dtype in missing:
        message = f"{operation!r} has no implementation for {dtype} on platform {platform!r}: {remedy}"
        raise NotImplementedError(message)


def _require(operation: str, platform: str, entry: Implementation, case: Case | None) -> None:
    """Refuse a named implementation that cannot run; those of the host take concrete arrays from everywhere."""
    if case is None or (entry.platforms == ("cpu",) and not case.traced):
        return
    require_type(operation, platform, case.dtype)
    if platform not in entry.platforms and not case.traced:
        others = (other.name for other in _entries(operation) if platform in other.platforms)
        message = (
            f"{operation!r}: implementation={entry.name!r} does not run for arrays on platform {platform!r} "
            f"({entry.elsewhere}): use one of {', '.join(map(repr, others))}, or None"
        )
        raise NotImplementedError(message)


def run(function: Callable[..., Any], A: Array | np.ndarray, chosen: Implementation, **static: Any) -> Any:
    """Run ``function(A, implementation=chosen.name, **static)`` in the way that suits the implementation.

    Host implementations are spread over the cores (`threads.spread`), which also brings a concrete array of another
    device to the host; under a trace the function is called as it is.
    """
    static["implementation"] = chosen.name
    if not concrete(A):
        return function(A, **static)
    if chosen.platforms == ("cpu",):
        return spread(function, A, **static)
    return jitted(function, tuple(static))(A, **static)


def case_of(A: Array | np.ndarray, *, left: bool = False) -> Case:
    """Order, number and type of the matrices in an array, and whether it is one."""
    return Case(A.shape[-1], math.prod(A.shape[:-2]), left=left, traced=not concrete(A), dtype=str(A.dtype))


def concrete(*arrays: object) -> bool:
    """Whether none of them is a placeholder of a trace."""
    return not any(isinstance(A, jax.core.Tracer) for A in arrays)


def platform_of(A: object) -> str:
    """Platform on which a computation with `A` runs: that of its device, or the default one under a trace."""
    if isinstance(A, jax.Array) and not isinstance(A, jax.core.Tracer):
        return _platform(next(iter(A.devices())))
    default = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    if default is None:
        default = jax.local_devices()[0]
    return default if isinstance(default, str) else _platform(default)


def square_matrices(operation: str, name: str, A: ArrayLike) -> Array | np.ndarray:
    """Check that `A` is an array [..., n, n] of float32, float64, complex64 or complex128."""
    if not isinstance(A, jax.Array | np.ndarray):
        A = np.asarray(A)
    dtype = jax.dtypes.canonicalize_dtype(A.dtype)
    allowed = (jnp.float32, jnp.float64, jnp.complex64, jnp.complex128)
    if dtype not in allowed:
        message = (
            f"{operation}: {name} has dtype {A.dtype}; allowed are float32, float64, complex64 and complex128: "
            f"convert it, for example with {name}.astype('float32')"
        )
        raise ValueError(message)
    if A.ndim < 2 or A.shape[-1] != A.shape[-2]:
        message = f"{operation}: {name} has shape {A.shape}; allowed is [..., n, n], a batch of square matrices"
        raise ValueError(message)
    return A.astype(dtype) if isinstance(A, np.ndarray) else A


def describe(platforms: tuple[str, ...] = PLATFORMS) -> list[Choice]:
    """Say what would run for each operation on each platform, with the reason where nothing would.

    Where order or batch decide there are several rows, in the order in which they are tried.

    ``jaxdyn doctor`` prints it. The notes of host implementations say how the cores are used.
    """
    rows = []
    for operation in (*TABLE, *FROM_SCHUR):
        for platform in platforms:
            if platform in TYPES_WITHOUT:
                missing, remedy = TYPES_WITHOUT[platform]
                rows.append(Choice(operation, platform, None, remedy, " or ".join(missing)))
            try:
                last = choose(operation, platform)
            except NotImplementedError as reason:
                rows.append(Choice(operation, platform, None, str(reason)))
                continue
            entries = _entries(operation)
            before = [entry for entry in entries[: entries.index(last)] if platform in entry.when.platforms]
            for chosen in (*before, last):
                if platform not in chosen.platforms:
                    continue
                method = chosen.method
                if operation in FROM_SCHUR and chosen not in FROM_SCHUR[operation]:
                    method = f"Schur form by {method}, then back-substitution"
                note = f"{method}; {_host_note()}" if chosen.platforms == ("cpu",) else method
                missing, _ = TYPES_WITHOUT.get(platform, ((), ""))
                when = replace(chosen.when, types=tuple(name for name in chosen.when.types if name not in missing))
                rows.append(Choice(operation, platform, chosen.name, note, str(when)))
    return rows


def _host_note() -> str:
    fixed = os.environ.get("OPENBLAS_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS")
    inside = f"with {fixed} BLAS threads (from the environment)" if fixed else "with as many BLAS threads as cores"
    return (
        f"a batch takes one BLAS thread a matrix on {cores()} cores; inside your own jit the matrices are taken one "
        f"after another {inside}, which cannot be limited from here: hold jaxdyn_kernels.single_threaded_blas() "
        "around the call and wait for the result inside it"
    )


def _entries(operation: str) -> tuple[Implementation, ...]:
    if operation in FROM_SCHUR:
        return (*FROM_SCHUR[operation], *TABLE["schur"])
    if operation not in TABLE:
        names = ", ".join(repr(name) for name in (*TABLE, *FROM_SCHUR))
        message = f"operation={operation!r} is unknown: use one of {names}"
        raise ValueError(message)
    return TABLE[operation]


@functools.cache
def jitted(function: Callable[..., Any], names: tuple[str, ...]) -> Callable[..., Any]:
    """Return the compiled form of a function with static arguments of these names, the same one each time."""
    return jax.jit(function, static_argnames=names)


def _platform(device: Any) -> str:
    if device.platform != "gpu":
        return device.platform
    return "rocm" if "rocm" in device.client.platform_version.lower() else "cuda"
