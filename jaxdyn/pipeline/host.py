"""Tasks of one shape spread over the host's cores: one thread and one BLAS thread a task."""

import math
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import jaxdyn_kernels as jk
import numpy as np


def map_tasks(
    function: Callable[..., Any],
    tasks: list[Any],
    *,
    after: Callable[[int], object] = lambda done: None,
    **static: Hashable,
) -> list[Any]:
    """Apply a function to each task on the host's cores, in order.

    Parameters
    ----------
    function : module-level function of a pytree of arrays without batch axes, with static keyword arguments.
    tasks : one pytree of numpy arrays a task, all of the same shapes.
    after : called with the number of tasks done, after each.
    static : hashable options.

    Returns
    -------
    The function's pytree of numpy arrays, one a task. The bits do not depend on the number of cores: every BLAS call
    has one thread. Memory: the results, and the temporaries of as many tasks as there are cores.
    """
    if not tasks:
        return []
    program, layout = compile_task(function, tasks[0], **static)
    results = []
    with jk.single_threaded_blas(), ThreadPoolExecutor(min(jk.cores(), len(tasks))) as pool:
        pending = [pool.submit(_run, program, task) for task in tasks]
        try:
            for done, future in enumerate(pending, start=1):
                results.append(layout.read(future.result()))
                after(done)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results


def compile_task(function: Callable[..., Any], task: Any, **static: Hashable) -> tuple[Any, "_Layout"]:
    """Compile the program that `map_tasks` runs for tasks like this one (arrays, or their shapes), once."""
    leaves, structure = jax.tree.flatten(task)
    shapes = tuple((np.shape(leaf), np.dtype(leaf.dtype)) for leaf in leaves)
    return _compiled(function, structure, shapes, tuple(sorted(static.items())))


def _run(program, task):
    """Run and wait. Python does as little as it can here: while it works, the other threads cannot start theirs."""
    return {name: np.asarray(vector) for name, vector in program(task).items()}


@dataclass(frozen=True)
class _Layout:
    """Where each leaf of a result lies in one vector a dtype: few transfers in place of one a leaf."""

    structure: Any
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[np.dtype, ...]

    def write(self, leaves: list[jax.Array]) -> dict[str, jax.Array]:
        """Join the leaves of each dtype."""
        names = [dtype.name for dtype in self.dtypes]
        joined: dict[str, list[jax.Array]] = {}
        for name, leaf in zip(names, leaves, strict=True):
            joined.setdefault(name, []).append(jnp.ravel(leaf))
        return {name: jnp.concatenate(parts) for name, parts in joined.items()}

    def read(self, vectors: dict[str, np.ndarray]) -> Any:
        """Take the vectors apart again."""
        start = dict.fromkeys(vectors, 0)
        leaves = []
        for shape, dtype in zip(self.shapes, self.dtypes, strict=True):
            size, vector = math.prod(shape), vectors[dtype.name]
            leaves.append(vector[start[dtype.name] : start[dtype.name] + size].reshape(shape))
            start[dtype.name] += size
        return jax.tree.unflatten(self.structure, leaves)


@lru_cache(maxsize=32)
def _compiled(function, structure, shapes, static):
    """Compile for the host ahead of time: jax's context settings are per thread and would not reach the workers."""
    host = jax.sharding.SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
    like = jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(shape, dtype, sharding=host) for shape, dtype in shapes])
    bound = jax.jit(partial(function, **dict(static)), inline=True)  # traced once, for its shapes and its program
    leaves, result = jax.tree.flatten(jax.eval_shape(bound, like))
    layout = _Layout(result, tuple(leaf.shape for leaf in leaves), tuple(np.dtype(leaf.dtype) for leaf in leaves))
    program = jax.jit(lambda task: layout.write(jax.tree.leaves(bound(task))))
    return program.lower(like).compile(), layout
