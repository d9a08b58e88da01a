"""Stage 1 of 7: the rotary position embedding and its scalings, described; `rotary.py` applies it.

A rotary embedding is a list of frequencies, one a pair of coordinates, and an amplitude; a scaling changes both. All is
computed on the host in float64, once an architecture.
"""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LinearScaling:
    """All rotary frequencies divided by one factor (position interpolation, arXiv 2306.15595)."""

    factor: float


@dataclass(frozen=True)
class Llama3Scaling:
    """The frequency-dependent scaling of Llama 3.1.

    With the wavelength ``w = 2 pi / f`` and ``C = original_context``: frequencies with ``w < C / high_freq_factor``
    stay, those with ``w > C / low_freq_factor`` are divided by ``factor``, and between the two the scale is
    interpolated linearly in ``C / w``.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_context: int


@dataclass(frozen=True)
class YarnScaling:
    """YaRN (arXiv 2309.00071): frequencies below ``beta_slow`` turns in the original context divided by ``factor``.

    Those above ``beta_fast`` turns stay; between the two the scale is interpolated linearly in the pair's number, its
    ends rounded outwards to whole pairs. ``amplitude`` multiplies cosine and sine.
    """

    factor: float
    beta_fast: float
    beta_slow: float
    original_context: int
    amplitude: float


@dataclass(frozen=True)
class LongScaling:
    """LongRoPE (arXiv 2402.13753): each frequency divided by its own factor; ``amplitude`` as in YaRN."""

    factors: tuple[float, ...]
    amplitude: float


@dataclass(frozen=True)
class ProportionalScaling:
    """Gemma 4's proportional RoPE: the leading ``fraction`` of the pairs turn, the others stand still.

    Those that turn do so at the frequencies they would have if all did, divided by ``factor``.
    """

    fraction: float
    factor: float


Scaling = LinearScaling | Llama3Scaling | YarnScaling | LongScaling | ProportionalScaling


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding (arXiv 2104.09864), rotate-half convention.

    Attributes
    ----------
    theta
        The base.
    scaling
        How the frequencies are changed for a longer context; None is not at all.
    fraction
        Partial rotary: the leading ``int(fraction K)`` coordinates of a head are turned as a head of that size would
        be, the others left as they are.
    """

    theta: float
    scaling: Scaling | None = None
    fraction: float = 1.0

    @property
    def amplitude(self) -> float:
        """What cosine and sine are multiplied by: 1 but for YaRN and LongRoPE ("attention factor")."""
        return self.scaling.amplitude if isinstance(self.scaling, YarnScaling | LongScaling) else 1.0

    def rotary_dim(self, head_dim: int) -> int:
        """Return how many coordinates of a head of size ``head_dim`` are turned."""
        return int(head_dim * self.fraction)

    def frequencies(self, head_dim: int) -> np.ndarray:
        """Return the angle each pair of coordinates turns by per position.

        ``f_i = theta^(-2 i / R)``, i = 0 .. R/2 - 1, with R the turned coordinates, then scaled.

        Parameters
        ----------
        head_dim
            K, the head size; ``rotary_dim(K)`` must be even.

        Returns
        -------
        numpy.ndarray
            (R/2,) float64, radians per position. Computed on the host in float64 whatever the model's dtype.
        """
        size = self.rotary_dim(head_dim)
        frequencies = self.theta ** (-np.arange(0, size, 2, dtype=np.float64) / size)
        match self.scaling:
            case None:
                return frequencies
            case LinearScaling(factor):
                return frequencies / factor
            case LongScaling(factors):
                return frequencies / np.asarray(factors)
            case ProportionalScaling(fraction, factor):
                turning = np.arange(size // 2) < int(fraction * size // 2)
                return np.where(turning, frequencies / factor, 0.0)
            case Llama3Scaling() as s:
                turns_in_context = s.original_context * frequencies / (2 * math.pi)
                kept = (turns_in_context - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor)
            case YarnScaling() as s:
                first, last = (_pair_that_turns(b, self.theta, size, s) for b in (s.beta_fast, s.beta_slow))
                first, last = max(math.floor(first), 0), min(math.ceil(last), size - 1)
                kept = 1 - (np.arange(size // 2) - first) / max(last - first, 0.001)
        kept = np.clip(kept, 0.0, 1.0)
        return (1 - kept) * frequencies / s.factor + kept * frequencies


def _pair_that_turns(times: float, theta: float, size: int, scaling: YarnScaling) -> float:
    """Return the (fractional) number of the pair that turns so many times in the original context."""
    return size * math.log(scaling.original_context / (times * 2 * math.pi)) / (2 * math.log(theta))
