"""D3, D4: direction and speed of the state along depth, sample by sample (methods.md 2.2)."""

import numpy as np

from .exact import exact_sum

NAMES = {
    "cosine": ("cosine of a point with the next", "D3"),
    "velocity": ("norm of the step to the next point", "D4"),
    "relative_velocity": ("norm of the step over the norm of the state", "D4"),
    "acceleration": ("norm of the difference of two steps, this one and the next", "D4"),
    "turn": ("cosine of a step with the next step", "D4"),
}
"""What they are; units are the state's own for velocity and acceleration, 1 for the others."""


def motion(before: np.ndarray, after: np.ndarray) -> dict[str, np.ndarray]:
    """Measure the steps.

    Parameters
    ----------
    before, after : (S, P-1, D), each point and the next.

    Returns
    -------
    (S, P-1) by name (`NAMES`). Acceleration and turn compare a step with the next one and are NaN at the last. A state
    or step of zero length gives NaN where it divides. Sums over units have no order (`exact`).
    """
    step = after - before
    here, there = _norm(before), _norm(after)
    velocity = _norm(step)
    last = np.full((len(step), 1), np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        turn = exact_sum(step[:, 1:] * step[:, :-1], -1) / (velocity[:, 1:] * velocity[:, :-1])
        return {
            "cosine": exact_sum(before * after, -1) / (here * there),
            "velocity": velocity,
            "relative_velocity": velocity / here,
            "acceleration": np.concatenate([_norm(np.diff(step, axis=1)), last], axis=1),
            "turn": np.concatenate([turn, last], axis=1),
        }


def _norm(vectors: np.ndarray) -> np.ndarray:
    return np.sqrt(exact_sum(vectors**2, -1))
