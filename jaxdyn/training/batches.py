"""What a step sees: a pure function of the seed and the step, so that a resumed run sees what the whole run saw.

Window number i of the run is window ``i mod N`` of epoch ``i // N`` in that epoch's own order. Each epoch also begins
its windows at an offset of its own, so that the cuts between windows move.
"""

import functools

import numpy as np


def windows_per_epoch(tokens: int, context: int) -> int:
    """Return N, the windows of ``context`` tokens and the one to predict that fit behind any offset."""
    return (tokens - context) // context


def batch(stream: np.ndarray, step: int, *, seed: int, size: int, context: int) -> np.ndarray:
    """Return the windows of one step.

    Parameters
    ----------
    stream
        (N,) token ids, at least 2 ``context`` of them.
    step
        0-based.
    seed, size, context
        Seed of the order, windows a step, tokens predicted in a window.

    Returns
    -------
    numpy.ndarray
        (size, context + 1) ids: inputs are all but the last column, targets all but the first.
    """
    count = windows_per_epoch(len(stream), context)
    rows = np.empty((size, context + 1), stream.dtype)
    for row, number in enumerate(range(step * size, (step + 1) * size)):
        offset, order = _epoch(seed, number // count, count, context)
        start = offset + order[number % count] * context
        rows[row] = stream[start : start + context + 1]
    return rows


@functools.lru_cache(maxsize=4)
def _epoch(seed: int, epoch: int, count: int, context: int) -> tuple[int, np.ndarray]:
    rng = np.random.default_rng([seed, epoch])
    return int(rng.integers(context)), rng.permutation(count)
