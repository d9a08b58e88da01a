"""The state along depth: the residual stream where each sublayer reads it, interleaved (methods.md 2.1).

Point 2l is the stream that enters the attention of block l, point 2l + 1 the one that enters its MLP. In a parallel
residual (GPT-NeoX) both read the same stream, the block's input; a second point would repeat the first, with a
correlation of 1 and a step of 0 that say nothing, and the stream with the attention's output added is read by nobody.
So such a model has one point a block.
"""

from dataclasses import dataclass

import numpy as np

from jaxdyn.activations import Activations
from jaxdyn.errors import InputError
from jaxdyn.models.architecture import Architecture

ATTENTION, MLP, BOTH = "attention", "mlp", "both"


@dataclass(frozen=True)
class Points:
    """The points along depth.

    Attributes
    ----------
    block : int (P,), 0-based block of each point.
    site : which sublayer reads the stream there: "attention", "mlp", or "both" in a parallel residual.
    """

    block: np.ndarray
    site: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.site)

    @property
    def within(self) -> np.ndarray:
        """Bool (P-1,): the step from this point to the next crosses an attention; false: it crosses an MLP."""
        return np.array([site == ATTENTION for site in self.site[:-1]])


def points(arch: Architecture) -> Points:
    """Return the points of an architecture: 2 a block, 1 in a parallel residual."""
    if arch.layers < 2:
        msg = f"model: got {arch.layers} block; allowed 2 or more: dynamics along depth need steps"
        raise InputError(msg)
    sites = (BOTH,) if arch.parallel_residual else (ATTENTION, MLP)
    return Points(np.repeat(np.arange(arch.layers), len(sites)), sites * arch.layers)


def trajectory(acts: Activations, arch: Architecture) -> np.ndarray:
    """Interleave captured activations.

    Parameters
    ----------
    acts : of S samples.
    arch : the model's description.

    Returns
    -------
    (S, P, D), P = 2L, or L in a parallel residual; the dtype of the activations.
    """
    inputs = np.asarray(acts.inputs)
    if arch.parallel_residual:
        return np.moveaxis(inputs, 0, 1)
    both = np.stack([inputs, np.asarray(acts.middle)], axis=1)
    return np.moveaxis(both.reshape(-1, *inputs.shape[1:]), 0, 1)
