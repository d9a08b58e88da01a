"""Programs made of several LAPACK calls, over the cores of the host.

A program of its own, compiled by XLA, calls LAPACK for one matrix after another (`threads`, trap 3), so that all cores
but one wait. For wide matrices, where a call takes longer than starting it, the matrices are parted among threads.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Inexact

from .dispatch import concrete, jitted, platform_of
from .threads import single_threaded_blas, spread, worth_spreading


def over_cores(
    function: Callable[..., Any],
    A: Inexact[Array, "..."],
    *others: Any,
    axes: int | None = None,
    common: tuple[Any, ...] = (),
    **static: Any,
) -> Any:
    """Apply a traceable function of matrices: wide concrete ones on a CPU spread over the cores, others in one program.

    Parameters
    ----------
    function, A, others, axes, common, static : as in `spread`; `function` takes any number of matrices at a time, and
        what it gives for one does not depend on the others.

    Returns
    -------
    pytree of jax.Array
        With the leading axes of A; complete where A is concrete.
    """
    axes = A.ndim - 2 if axes is None else axes
    if not concrete(*jax.tree.leaves((A, others, common))):
        return function(A, *others, *common, **static)
    if platform_of(A) == "cpu" and worth_spreading(A.shape[-1], math.prod(A.shape[:axes])):
        return spread(function, A, *others, axes=axes, common=common, **static)
    with single_threaded_blas():
        return jax.block_until_ready(jitted(function, tuple(static))(A, *others, *common, **static))
