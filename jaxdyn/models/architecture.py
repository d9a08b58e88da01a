"""Stage 1 of 7: the frozen description of a decoder, which says everything about it but its weights.

An ``Architecture`` is hashable, so it is a static argument of jitted functions: one description, one program. The
families translate a Hugging Face config into it; ``layers.py`` and ``decoder.py`` read nothing else. Every field
changes what is computed.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

Norm = Literal["rms", "layer"]
Activation = Literal["silu", "gelu", "gelu_tanh", "relu"]
Position = Literal["rope", "learned"]
Initializer = Literal["normal", "depth-scaled"]


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
class Rope:
    """Rotary position embedding (arXiv 2104.09864), rotate-half convention: base ``theta`` and its scaling."""

    theta: float
    scaling: LinearScaling | Llama3Scaling | None = None

    def frequencies(self, head_dim: int) -> np.ndarray:
        """Return the angle each pair of coordinates turns by per position.

        ``f_i = theta^(-2 i / K)``, i = 0 .. K/2 - 1, then scaled.

        Parameters
        ----------
        head_dim
            K, the head size (even).

        Returns
        -------
        numpy.ndarray
            (K/2,) float64, radians per position. Computed on the host in float64 whatever the model's dtype.
        """
        frequencies = self.theta ** (-np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
        if self.scaling is None:
            return frequencies
        if isinstance(self.scaling, LinearScaling):
            return frequencies / self.scaling.factor
        s = self.scaling
        turns_in_context = s.original_context * frequencies / (2 * math.pi)
        kept = (turns_in_context - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor)
        kept = np.clip(kept, 0.0, 1.0)
        return (1 - kept) * frequencies / s.factor + kept * frequencies


@dataclass(frozen=True)
class Architecture:
    """A pre-norm decoder: ``h = x + attention(norm(x))``, then ``y = h + mlp(norm(h))``, per block.

    Attributes
    ----------
    family
        Name of the family in ``jaxdyn.models.families``; it chooses the weight table.
    width, layers, heads, kv_heads, head_dim, ff_dim, vocab, context
        Sizes D, L, H, G, K, F, V and the longest sequence the model is made for. ``heads % kv_heads == 0``; query
        head h reads the keys and values of head ``h // (heads // kv_heads)``.
    norm, norm_eps
        "rms": ``x / sqrt(mean(x^2) + eps) * scale``; "layer": mean removed first, with a bias.
    activation, gated
        The MLP is ``W_d (act(W_g n) * W_u n)`` if gated, ``W_d act(W_u n)`` if not.
    qkv_bias, output_bias, mlp_bias
        Whether the query, key and value maps, the attention output map and the MLP's maps have a bias.
    position, rope
        "rope": ``rope`` turns queries and keys; "learned": a table of positions is added to the token embedding and
        ``rope`` is None.
    tied_head
        Whether the unembedding is the token embedding.
    initializer_range, initializer
        Standard deviation of random weights; "depth-scaled" divides it by sqrt(2 L) for the two maps that write to
        the residual stream (the GPT-2 rule).
    """

    family: str
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ff_dim: int
    vocab: int
    context: int
    norm: Norm
    norm_eps: float
    activation: Activation
    gated: bool
    qkv_bias: bool
    output_bias: bool
    mlp_bias: bool
    position: Position
    rope: Rope | None
    tied_head: bool
    initializer_range: float
    initializer: Initializer
