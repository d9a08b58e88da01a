"""Stage 2 of 7: run a model over texts and keep the residual stream where the Jacobians will be taken.

A *sample* is one (prompt, position) pair. Prompts are padded on the right: under a causal mask no real position sees
the padding, so a batch gives what each prompt gives alone. The token ids stay with the samples, because an in-context
Jacobian needs the whole context of its position and recomputes it a layer at a time instead of storing it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxdyn.errors import InputError
from jaxdyn.models import decoder
from jaxdyn.models.architecture import Architecture
from jaxdyn.models.model import Model
from jaxdyn.models.stream import Stream

SINK_POSITIONS = 16
"""The first positions of a prompt, where attention sinks live; samples there are flagged, not dropped."""


@dataclass(frozen=True)
class Prompts:
    """Token ids of B prompts, padded on the right to T tokens.

    Attributes
    ----------
    token_ids : int32 (B, T), zero where padded.
    lengths : int (B,), the number of real tokens of each prompt.
    bos : whether the tokenizer put a beginning-of-sequence token first.
    """

    token_ids: Int[np.ndarray, "B T"]
    lengths: Int[np.ndarray, " B"]
    bos: bool


@dataclass(frozen=True)
class Activations:
    """The residual stream of S samples at every block.

    Attributes
    ----------
    prompts : the padded token ids the samples come from.
    prompt, position : int (S,), row of `prompts` and 0-based position of each sample.
    rule : the token rule that chose the positions: "last", "all" or "last:N".
    inputs : (L, S, D), the residual stream at each block's entry (before attention).
    middle : (L, S, D), the residual stream after each block's attention: before its MLP, but for a parallel residual.
    final : (S, D), the residual stream after the last block, before the final norm.
    """

    prompts: Prompts
    prompt: Int[np.ndarray, " S"]
    position: Int[np.ndarray, " S"]
    rule: str
    inputs: Float[Array, "L S D"]
    middle: Float[Array, "L S D"]
    final: Float[Array, "S D"]

    @property
    def token(self) -> Int[np.ndarray, " S"]:
        """The token id at each sample's position."""
        return self.prompts.token_ids[self.prompt, self.position]

    @property
    def sink(self) -> Bool[np.ndarray, " S"]:
        """Whether the sample lies among the first 16 positions, where attention sinks live."""
        return self.position < SINK_POSITIONS

    @property
    def massive(self) -> Bool[Array, "L D"]:
        """Which coordinates of the block inputs are massive in some sample; see `massive_coordinates`."""
        return massive_coordinates(self.inputs)

    def select(self, samples: Int[np.ndarray, " s"] | slice) -> "Activations":
        """Keep some of the samples, by index; the prompts stay as they are."""
        return replace(
            self,
            prompt=self.prompt[samples],
            position=self.position[samples],
            inputs=self.inputs[:, samples],
            middle=self.middle[:, samples],
            final=self.final[samples],
        )


def tokenise(model: Model, texts: list[str] | str, *, max_tokens: int | None = None) -> Prompts:
    """Turn texts into padded token ids, refusing what the model cannot read.

    Parameters
    ----------
    model : a model with a tokenizer.
    texts : the prompts; a single string is one prompt.
    max_tokens : keep at most this many tokens of each prompt (the first ones). Without it a text longer than the
        model's context is an error.

    Raises
    ------
    InputError : no texts, an empty text, or a text longer than the context.
    """
    texts = [texts] if isinstance(texts, str) else list(texts)
    context = model.architecture.context
    if not texts:
        msg = "texts: got none; give at least one non-empty text"
        raise InputError(msg)
    if max_tokens is not None and not 1 <= max_tokens <= context:
        msg = f"max_tokens: got {max_tokens}; allowed 1 to {context}, the model's context"
        raise InputError(msg)
    for i, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            msg = f"texts[{i}]: got {text!r}; each text must be a string with something in it; remove it or fill it"
            raise InputError(msg)
    rows = [np.asarray(row[:max_tokens], dtype=np.int32) for row in model.encode(texts)]
    for i, row in enumerate(rows):
        if len(row) > context:
            msg = (
                f"texts[{i}]: got {len(row)} tokens; allowed at most {context}, the model's context; shorten the text "
                f"or pass max_tokens={context} (--max-tokens {context}) to keep its first {context} tokens"
            )
            raise InputError(msg)
        if len(row) == 0:
            msg = f"texts[{i}]: the tokenizer made no token of {texts[i]!r}; remove it"
            raise InputError(msg)
    return pad(rows, bos=model.adds_bos)


def pad(
    rows: Sequence[Sequence[int] | Int[np.ndarray, " t"]], *, bos: bool = False, length: int | None = None
) -> Prompts:
    """Pad rows of token ids on the right to one length (the longest row unless given)."""
    lengths = np.array([len(row) for row in rows])
    ids = np.zeros((len(rows), int(lengths.max() if length is None else length)), np.int32)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
    return Prompts(ids, lengths, bos)


def choose_positions(lengths: Int[np.ndarray, " B"], rule: str) -> tuple[np.ndarray, np.ndarray]:
    """Apply a token rule to prompts of these lengths.

    Parameters
    ----------
    lengths : tokens of each prompt.
    rule : "last" (one sample a prompt), "all", or "last:N" (the last N positions, fewer where the prompt is shorter).

    Returns
    -------
    (prompt, position), int arrays of length S, ordered by prompt and then by position.
    """
    if rule == "all":
        keep = int(lengths.max())
    elif rule == "last":
        keep = 1
    elif rule.startswith("last:") and rule[5:].isdecimal() and int(rule[5:]) > 0:
        keep = int(rule[5:])
    else:
        msg = f"tokens: got {rule!r}; allowed 'last', 'all' or 'last:N' with a positive N"
        raise InputError(msg)
    pairs = [(b, t) for b, n in enumerate(lengths) for t in range(max(0, int(n) - keep), int(n))]
    prompt, position = np.array(pairs).T
    return prompt, position


def capture(
    model: Model,
    texts: list[str] | str | Prompts,
    *,
    tokens: str = "last",
    max_tokens: int | None = None,
    batch_size: int = 8,
    shapes_only: bool = False,
) -> Activations:
    r"""Run the model and return the residual stream at every block, for the chosen positions.

    The residual stream is x_0 = embedding, h_l = x_l + attention_l(x_l), x_{l+1} = h_l + MLP_l(h_l). One jitted
    program a batch, a scan over layers; no array of vocabulary size is made.

    Parameters
    ----------
    model : the model.
    texts : prompts as strings, or already padded token ids (`pad`).
    tokens : the token rule: "last" (default), "all" or "last:N".
    max_tokens : keep at most this many tokens of each text; token ids are taken as they are, so it is refused there.
    batch_size : prompts run at once.
    shapes_only : return `jax.ShapeDtypeStruct` in place of arrays and run nothing.

    Returns
    -------
    Activations with inputs and middle of shape (L, S, D), in the compute dtype of the model.

    Raises
    ------
    InputError : texts as in `tokenise`; token ids outside the vocabulary, or more of them than the context holds;
        an unknown token rule; a batch size below 1.

    Notes
    -----
    Cost: one forward pass, plus 2 L S D floats kept. Massive coordinates: see `massive_coordinates`. Source: sites of
    methods.md 1.1 and 2.1.
    """
    if batch_size < 1:
        msg = f"batch_size: got {batch_size}; allowed 1 or more"
        raise InputError(msg)
    if isinstance(texts, Prompts) and max_tokens is not None:
        msg = f"max_tokens: got {max_tokens} with token ids; it shortens texts only; shorten the rows before `pad`"
        raise InputError(msg)
    prompts = texts if isinstance(texts, Prompts) else tokenise(model, texts, max_tokens=max_tokens)
    _check_prompts(model, prompts)
    prompt, position = choose_positions(prompts.lengths, tokens)
    arch = model.architecture
    counts = np.bincount(prompt, minlength=len(prompts.lengths))
    slots = np.zeros((len(counts), counts.max()), np.int32)
    for b in range(len(counts)):
        slots[b, : counts[b]] = position[prompt == b]
    if shapes_only:
        dtype = decoder.compute_dtype(model.params)
        sites: Any = jax.ShapeDtypeStruct((arch.layers, len(prompt), arch.width), dtype)
        last: Any = jax.ShapeDtypeStruct((len(prompt), arch.width), dtype)
        return Activations(prompts, prompt, position, tokens, sites, sites, last)
    collected: list[tuple[Array, Array, Array]] = []
    for start in range(0, len(counts), batch_size):
        rows = np.arange(start, min(start + batch_size, len(counts)))
        padded = np.resize(rows, batch_size) if len(counts) > batch_size else rows
        ids, lengths = prompts.token_ids[padded], prompts.lengths[padded]
        x, h, y = _stream(arch, model.params, jnp.asarray(ids), jnp.asarray(lengths), jnp.asarray(slots[padded]))
        row, slot = np.nonzero(np.arange(slots.shape[1]) < counts[rows][:, None])
        collected.append((x[:, row, slot], h[:, row, slot], y[row, slot]))
    inputs, middle, final = (jnp.concatenate(parts, axis=-2) for parts in zip(*collected, strict=True))
    return Activations(prompts, prompt, position, tokens, inputs, middle, final)


def _check_prompts(model: Model, prompts: Prompts) -> None:
    """Refuse token ids the model does not have (indexing would clamp them in silence) and rows without a token."""
    model.check_ids(prompts.token_ids, ndim=2)
    lengths, (rows, longest) = prompts.lengths, prompts.token_ids.shape
    if lengths.shape != (rows,) or lengths.min() < 1 or lengths.max() > longest:
        msg = f"lengths: got {lengths.tolist()}; allowed one number a prompt ({rows}), each 1 to {longest}"
        raise InputError(msg)


@partial(jax.jit, static_argnums=0)
def _stream(arch, params, ids, lengths, slots):
    """Residual stream of a batch, gathered at `slots` (B, P) in every layer: (L,B,P,D), (L,B,P,D), (B,P,D)."""
    take = jax.vmap(lambda x, t: x[t])

    def layer(stream, index):
        h, after = decoder.advance(arch, decoder.layer_weights(params, index), stream, lengths)
        return after, (take(stream.x, slots), take(h, slots))

    final, (inputs, middle) = lax.scan(layer, decoder.begin(arch, params, ids), jnp.arange(arch.layers))
    return inputs, middle, take(final.x, slots)


@partial(jax.jit, static_argnums=0)
def context_at(
    arch: Architecture, params: dict, ids: Int[Array, "B T"], lengths: Int[Array, " B"], layer: int | Int[Array, ""]
) -> Stream:
    """Recompute the stream of whole prompts at the entry of one block; compiled once for all layers."""

    def advance(index: Array, stream: Stream) -> Stream:
        return decoder.advance(arch, decoder.layer_weights(params, index), stream, lengths)[1]

    return lax.fori_loop(0, layer, advance, decoder.begin(arch, params, ids))


def massive_coordinates(
    residual: Float[Array, "L S D"], *, ratio: float = 1000.0, magnitude: float = 100.0
) -> Bool[Array, "L D"]:
    """Flag massive coordinates: abs(x_i) > magnitude and abs(x_i) > ratio * median_j abs(x_j) in some sample.

    Parameters
    ----------
    residual : residual stream (L, S, D), in the model's own units.
    ratio, magnitude : the two thresholds, 1000 and 100 by default.

    Returns
    -------
    (L, D), true where the coordinate is massive in at least one sample of the layer.

    Notes
    -----
    Source: Sun, Chen, Kolter, Liu, "Massive activations in large language models" (2024), section 2.
    """
    size = jnp.abs(residual)
    median = jnp.median(size, axis=-1, keepdims=True)
    return jnp.any((size > magnitude) & (size > ratio * median), axis=1)
