"""Threads on the host: the cores go to the batch, and each LAPACK call gets one of them.

OpenBLAS would give every matrix of a batch all cores, which is slower than one core a matrix and, on a host with very
many cores, corrupts memory (jax-ml/jax issue 39292). Four traps are dealt with here:

1. jaxlib calls the OpenBLAS that scipy brings, and loads it lazily: a limit entered before ``import scipy.linalg``
   limits nothing, in silence.
2. A jitted call returns before LAPACK has run: the limit has to be held until the result is there.
3. jaxlib 0.10 spreads a *batched* LAPACK call over XLA's thread pool from a thread of that pool and waits there: as
   many such calls at once as there are cores, from several Python threads or inside one program, wait for ever (and
   from 0.11 on the batch is not spread at all). So a batch is never handed to LAPACK here: under a trace it is taken
   one matrix after another (`one_at_a_time`), and outside one it is spread over Python threads (`spread`).
4. From version 3.8 on threadpoolctl lets only the first thread that ever set a limit set another; the others are
   ignored in silence.
"""

import functools
import math
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Inexact

# Below this size several matrices go into one call, so that the 0.1 ms that it costs to start one stay small: the Schur
# form of a 64 x 64 matrix takes 0.8 ms, and the time grows as n^3.
_SIZE_WORTH_A_CALL = 100


def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Hold every BLAS of the process to one thread.

    Reentrant, also from several Python threads: the first to enter sets the limit, the last to leave restores what was
    there. Wait for jitted results *inside* (``jax.block_until_ready``), or the limit is gone before LAPACK runs.
    It cannot reach a program that someone else runs without it.
    """
    _limit.enter()
    try:
        yield
    finally:
        _limit.leave()


def one_at_a_time(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make vmap of a LAPACK call a loop over single matrices (trap 3 of the module's header)."""
    return jax.custom_batching.sequential_vmap(function)


def one_at_a_time_on_the_host(
    function: Callable[..., Any], *, tpu: Callable[..., Any] | None = None
) -> Callable[..., Any]:
    """Make a function of arrays [..., m, n], through LAPACK on the host, take one matrix after another there.

    Elsewhere the batch stays whole. For programs with several such calls that XLA may run side by side (trap 3). A TPU
    gets the function `tpu` in its place, where there is one.
    """
    alone = one_at_a_time(function)

    def in_turn(*arrays: Any) -> Any:
        mapped = alone
        for _ in range(arrays[0].ndim - 2):
            mapped = jax.vmap(mapped)
        return mapped(*arrays)

    others = {"default": function} if tpu is None else {"default": function, "tpu": tpu}
    return lambda *arrays: jax.lax.platform_dependent(*arrays, cpu=in_turn, **others)


def spread(
    function: Callable[..., Any],
    A: Inexact[Array | np.ndarray, "..."],
    *others: Any,
    axes: int | None = None,
    common: tuple[Any, ...] = (),
    **static: Any,
) -> Any:
    """Apply a function of matrices to a batch on the host: one BLAS thread a matrix, the cores over the batch.

    A single matrix gets BLAS's own threads. The bits of a matrix's result do not depend on the number of cores, nor on
    the batch it came in as long as that holds two matrices or more.

    Parameters
    ----------
    function : callable
        ``function(A, *others, *common, **static)`` with A [..., n, n]; returns a pytree of arrays with the same leading
        axes. It is traced and compiled once for each shape of a matrix, dtype and `static`, so it must be a
        module-level function.
    A : array [..., n, n]
        Concrete matrices; moved to the host's memory where they are elsewhere.
    *others : pytrees of arrays
        With the same leading axes as A, one entry a matrix.
    axes : int, optional
        How many leading axes count the matrices; default all but the last two. With fewer, a "matrix" is an array: all
        layers of a product, say. With one more, A holds vectors of n numbers.
    common : pytrees of arrays
        What all matrices share.
    **static
        Hashable options of `function`.

    Returns
    -------
    pytree of jax.Array on the host
        Complete: nothing is left to run when it returns.
    """
    axes = A.ndim - 2 if axes is None else axes
    batch, n, count = A.shape[:axes], A.shape[-1], math.prod(A.shape[:axes])
    shared = jax.tree.map(lambda leaf: np.asarray(leaf, jnp.result_type(leaf)), common)
    leaves, structure = jax.tree.flatten((A, *others))
    flat = [np.asarray(leaf).reshape((count, *leaf.shape[axes:])) for leaf in leaves]
    size = max(1, min(count, round((_SIZE_WORTH_A_CALL / max(n, 1)) ** 3)))

    def piece(at: int) -> tuple[Any, ...]:
        return *jax.tree.unflatten(structure, [_padded(leaf[at : at + size], size) for leaf in flat]), *shared

    first, arguments = jax.tree.flatten(piece(0))
    like = tuple((leaf.shape, leaf.dtype) for leaf in first)
    program = _compiled(function, tuple(sorted(static.items())), arguments, like)

    def run(at: int) -> Any:
        return jax.tree.map(np.asarray, program(*piece(at)))

    if count <= 1:
        return jax.tree.map(lambda leaf: _on_host(leaf[:count].reshape((*batch, *leaf.shape[1:]))), run(0))
    outputs: list[np.ndarray] = []
    made = None
    executor = ThreadPoolExecutor(min(cores(), -(-count // size)), thread_name_prefix="jaxdyn")
    try:
        with single_threaded_blas():
            starts = range(0, count, size)
            for at, result in zip(starts, executor.map(run, starts), strict=True):
                parts, made = jax.tree.flatten(result)
                if not outputs:
                    outputs = [np.empty((count, *part.shape[1:]), part.dtype) for part in parts]
                for output, part in zip(outputs, parts, strict=True):
                    output[at : at + size] = part[: count - at]
    finally:
        executor.shutdown(cancel_futures=True)
    return jax.tree.unflatten(made, [_on_host(output.reshape((*batch, *output.shape[1:]))) for output in outputs])


def worth_spreading(n: int, count: int) -> bool:
    """Whether that many matrices of order n are better spread over the cores than left to one program."""
    return count > 1 and n >= _SIZE_WORTH_A_CALL


@functools.lru_cache(maxsize=128)
def _compiled(
    function: Callable[..., Any],
    options: tuple[tuple[str, Any], ...],
    structure: Any,
    like: tuple[tuple[tuple[int, ...], Any], ...],
):
    """Compile for the host ahead of time: JAX's context settings are per thread and would not reach the workers."""
    sharding = jax.sharding.SingleDeviceSharding(_host())
    arguments = [jax.ShapeDtypeStruct(*one, sharding=sharding) for one in like]
    program = jax.jit(functools.partial(function, **dict(options)))
    return program.lower(*jax.tree.unflatten(structure, arguments)).compile()


def _padded(matrices: np.ndarray, size: int) -> np.ndarray:
    """Append zero matrices, up to `size` in all."""
    missing = size - len(matrices)
    return np.concatenate([matrices, np.zeros((missing, *matrices.shape[1:]), matrices.dtype)]) if missing else matrices


def _host() -> Any:
    return jax.local_devices(backend="cpu")[0]


def _on_host(array: np.ndarray) -> jax.Array:
    return jax.device_put(array, _host())


class _Limit:
    """Counts who holds the limit, so that threads that overlap restore the right number at the end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders = 0
        self._restore: Callable[[], object] | None = None

    def enter(self) -> None:
        with self._lock:
            if self._holders == 0:
                _take_control()
                self._restore = _controller().limit(limits=1, user_api="blas").restore_original_limits
            self._holders += 1

    def leave(self) -> None:
        with self._lock:
            self._holders -= 1
            if self._holders == 0 and self._restore is not None:
                _take_control()
                self._restore()
                _take_control()
                self._restore = None


def _take_control() -> None:
    """Let this thread set limits (trap 4 of the module's header), and none in particular afterwards."""
    import threadpoolctl

    openblas: Any = getattr(threadpoolctl, "OpenBLASController", None)
    if hasattr(openblas, "clear_controlling_thread"):
        openblas.clear_controlling_thread(force=True)


@functools.cache
def _controller() -> Any:
    import scipy.linalg  # noqa: F401  (loads the OpenBLAS that jaxlib will call)
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


_limit = _Limit()
