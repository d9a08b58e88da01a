"""The samples of a unit spread over the host's cores: one thread and one BLAS thread a sample."""

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


def map_samples(function: Callable[..., Any], samples: list[Any], tick: Callable[[], None], **static: Hashable) -> Any:
    """Apply a function to each sample on the host's cores, in order.

    Parameters
    ----------
    function : module-level function of a pytree of arrays without batch axes, with static keyword arguments.
    samples : one pytree of numpy arrays a sample, all of the same shapes.
    tick : called after each sample.
    static : hashable options.

    Returns
    -------
    The function's pytree, of numpy arrays (samples, ...). The bits do not depend on the number of cores: every BLAS
    call has one thread. Memory: the results, and the temporaries of as many samples as there are cores.
    """
    leaves, structure = jax.tree.flatten(samples[0])
    shapes = tuple((np.shape(leaf), np.asarray(leaf).dtype) for leaf in leaves)
    program, layout = _compiled(function, structure, shapes, tuple(sorted(static.items())))
    with jk.single_threaded_blas(), ThreadPoolExecutor(min(jk.cores(), len(samples))) as pool:
        pending = [pool.submit(_run, program, sample) for sample in samples]
        try:
            vectors = []
            for future in pending:
                vectors.append(future.result())
                tick()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return layout.read({name: np.stack([one[name] for one in vectors]) for name in vectors[0]})


def _run(program, sample):
    """Run and wait. Python does as little as it can here: while it works, the other threads cannot start theirs."""
    return {name: np.asarray(vector) for name, vector in program(sample).items()}


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
        """Take the vectors (samples, ...) apart again."""
        start = dict.fromkeys(vectors, 0)
        leaves = []
        for shape, dtype in zip(self.shapes, self.dtypes, strict=True):
            size, rows = math.prod(shape), vectors[dtype.name]
            leaves.append(rows[:, start[dtype.name] : start[dtype.name] + size].reshape(len(rows), *shape))
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
    program = jax.jit(lambda sample: layout.write(jax.tree.leaves(bound(sample))))
    return program.lower(like).compile(), layout
