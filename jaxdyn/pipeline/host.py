"""The samples of a unit spread over the host's cores: one thread and one BLAS thread a sample."""

from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import Any

import jax
import jaxdyn_kernels as jk
import numpy as np


def map_samples(
    function: Callable[..., Any], samples: list[Any], tick: Callable[[], None], **static: Hashable
) -> list[Any]:
    """Apply a function to each sample on the host's cores, in order.

    Parameters
    ----------
    function : module-level function of a pytree of arrays without batch axes, with static keyword arguments.
    samples : one pytree of numpy arrays a sample, all of the same shapes.
    tick : called after each sample.
    static : hashable options.

    Returns
    -------
    One pytree of numpy arrays a sample. The bits do not depend on how many cores there are: every BLAS call has one
    thread. Memory: the temporaries of as many samples as there are cores.
    """
    leaves, structure = jax.tree.flatten(samples[0])
    shapes = tuple((np.shape(leaf), np.asarray(leaf).dtype) for leaf in leaves)
    program = _compiled(function, structure, shapes, tuple(sorted(static.items())))
    with jk.single_threaded_blas(), ThreadPoolExecutor(min(jk.cores(), len(samples))) as pool:
        pending = [pool.submit(_run, program, sample) for sample in samples]
        try:
            results = []
            for future in pending:
                results.append(future.result())
                tick()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results


def _run(program, sample):
    return jax.device_get(program(sample))


@lru_cache(maxsize=32)
def _compiled(function, structure, shapes, static):
    """Compile for the host ahead of time: jax's context settings are per thread and would not reach the workers."""
    host = jax.sharding.SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
    like = [jax.ShapeDtypeStruct(shape, dtype, sharding=host) for shape, dtype in shapes]
    program = jax.jit(partial(function, **dict(static)))
    return program.lower(jax.tree.unflatten(structure, like)).compile()
