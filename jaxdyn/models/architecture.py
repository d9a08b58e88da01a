"""Stage 1 of 7: the frozen description of a decoder, which says everything about it but its weights.

An ``Architecture`` is hashable, so it is a static argument of jitted functions: one description, one program. The
families translate a Hugging Face config into it; ``layers.py`` and ``decoder.py`` read nothing else. Every field
changes what is computed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxdyn.models.rope import LinearScaling as LinearScaling
from jaxdyn.models.rope import Llama3Scaling as Llama3Scaling
from jaxdyn.models.rope import Rope as Rope

Norm = Literal["rms", "layer"]
Activation = Literal["silu", "gelu", "gelu_tanh", "relu"]
Position = Literal["rope", "learned"]
Initializer = Literal["normal", "depth-scaled"]
Placement = Literal["pre", "post", "both"]
QKNorm = Literal["head", "projection"]


@dataclass(frozen=True)
class LayerKind:
    """What may differ from layer to layer: data to the one program that serves them all.

    Attributes
    ----------
    rope
        The layer's rotary embedding, or None ("NoPE": its queries and keys are not turned).
    window
        Sliding window: a query at t sees the keys at t - window + 1 .. t; None is all up to its own.
    head_dim, ff_dim
        Sizes K and F of this layer; where they are below the architecture's, its weights are padded with zeros
        (``padding``), which changes nothing.
    """

    rope: Rope | None
    window: int | None
    head_dim: int
    ff_dim: int


@dataclass(frozen=True)
class Architecture:
    """A decoder of blocks ``h = x + attention(norm(x))``, then ``y = h + mlp(norm(h))``, and the variants of these.

    Attributes
    ----------
    family
        Name of the family in ``jaxdyn.models.families``; it chooses the weight table.
    width, layers, heads, kv_heads, head_dim, ff_dim, vocab, context
        Sizes D, L, H, G, K, F, V and the longest sequence the model is made for. ``heads % kv_heads == 0``; query
        head h reads the keys and values of head ``h // (heads // kv_heads)``.
    norm, norm_eps
        "rms": ``x / sqrt(mean(x^2) + eps) * scale``; "layer": mean removed first, with a bias.
    norm_placement, norm_offset
        "pre": on each sublayer's input, ``x + f(norm(x))``; "post": on its output, ``x + norm(f(x))`` (OLMo 2); "both":
        ``x + norm(f(norm(x)))`` (Gemma 2). Every norm multiplies by ``norm_offset + scale`` (Gemma 2 and 3: 1).
    activation, gated
        The MLP is ``W_d (act(W_g n) * W_u n)`` if gated, ``W_d act(W_u n)`` if not.
    qkv_bias, output_bias, mlp_bias
        Whether the query, key and value maps, the attention output map and the MLP's maps have a bias.
    position, rope
        "rope": ``rope`` turns queries and keys; "learned": a table of positions is added to the token embedding and
        ``rope`` is None.
    layer_kinds
        Rope, window and sizes of each layer where some differ from (rope, no window, head_dim, ff_dim); empty if none.
    qk_norm, v_norm
        RMSNorm of queries and keys before RoPE, "head" by head (Qwen 3) or over the whole "projection" (OLMo 2);
        RMSNorm without a scale of each value head (Gemma 4).
    attention_scale, attention_softcap
        Scores are ``attention_scale q . k``, None being 1/sqrt(K); a cap c makes them ``c tanh(score / c)``.
    parallel_residual
        ``y = x + attention(norm(x)) + mlp(norm'(x))`` (GPT-NeoX).
    embedding_scale, logit_softcap
        Token embeddings are multiplied by the one; logits z become ``c tanh(z / c)`` with the other.
    per_layer_width, per_layer_vocab
        P and the rows of its table where each block also reads an embedding of the token made for it; 0 without.
    layer_scale
        Whether a block's output is multiplied by a learned number.
    kv_sources
        For each layer the layer whose keys and values it reads, itself or an earlier one; empty: all their own.
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
    norm_placement: Placement = "pre"
    norm_offset: float = 0.0
    layer_kinds: tuple[LayerKind, ...] = ()
    qk_norm: QKNorm | None = None
    v_norm: bool = False
    attention_scale: float | None = None
    attention_softcap: float | None = None
    parallel_residual: bool = False
    embedding_scale: float = 1.0
    logit_softcap: float | None = None
    per_layer_width: int = 0
    per_layer_vocab: int = 0
    layer_scale: bool = False
    kv_sources: tuple[int, ...] = ()

    @cached_property
    def kinds(self) -> tuple[LayerKind, ...]:
        """The kind of every layer."""
        return self.layer_kinds or (LayerKind(self.rope, None, self.head_dim, self.ff_dim),) * self.layers

    @property
    def score_scale(self) -> float:
        """What the products of queries and keys are multiplied by."""
        return self.head_dim**-0.5 if self.attention_scale is None else self.attention_scale

    @cached_property
    def donors(self) -> tuple[int, ...]:
        """The layers whose keys and values later layers read."""
        return tuple(sorted({source for layer, source in enumerate(self.kv_sources) if source != layer}))

    def shares(self, layer: int) -> bool:
        """Whether a layer reads the keys and values of another."""
        return bool(self.kv_sources) and self.kv_sources[layer] != layer


def of_layer(table: np.ndarray, layer: Mapping[str, Any]) -> Array:
    """Return a layer's row of a table (L, ...), by the number that ``layer_weights`` gave it, which may be traced.

    Rows that are all equal are a constant of the program.
    """
    if (table == table[:1]).all():
        return jnp.asarray(table[0])
    return jnp.asarray(table)[layer["index"]]
