"""Stage 5 of 7: natural displacements of a state - to where the model really goes, not to where nothing ever is (1.8).

"same-position": the state that another prompt has at the same position and block. "token-swap": the state that the same
context has when its last token is another one, drawn from the tokens of the prompts.
"""

from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdyn.activations import Activations, capture, context_at, pad
from jaxdyn.errors import InputError
from jaxdyn.models import Model

Kind = Literal["same-position", "token-swap"]
KINDS = ("same-position", "token-swap")


def displacements(
    model: Model, activations: Activations, *, kind: Kind = "same-position", count: int = 4, seed: int = 0
) -> Float[np.ndarray, "L S K D"]:
    """Natural displacements of every sample at every block's entry, x' - x.

    Parameters
    ----------
    model, activations : the model and its residual stream.
    kind : "same-position" or "token-swap".
    count : K, how many for each sample.
    seed : which other prompts, or tokens.

    Returns
    -------
    (L, S, K, D) in the unit of the stream, on the host. The same partners in every block. NaN where a sample has too
    few partners: prompts long enough to have its position, or tokens other than its own.

    Raises
    ------
    InputError : an unknown kind, no displacement, or not one partner for any sample.

    Notes
    -----
    Cost: "same-position" a forward pass to each block; "token-swap" S K forward passes of prompts cut at the sample.
    """
    if kind not in KINDS or count < 1:
        msg = f"kind, count: got {kind!r}, {count}; allowed {' or '.join(map(repr, KINDS))}, at least 1 displacement"
        raise InputError(msg)
    rng = np.random.default_rng(seed)
    found = (_same_position if kind == "same-position" else _token_swap)(model, activations, count, rng)
    if not np.isfinite(found).any():
        msg = (
            f"kind: {kind!r} finds no partner for any of the {len(activations.prompt)} samples; take more prompts, of "
            "at least the samples' length (max_tokens cuts all to one), or the other kind"
        )
        raise InputError(msg)
    return found - np.asarray(activations.inputs)[:, :, None]


def _same_position(model, activations, count, rng):
    lengths, chosen = activations.prompts.lengths, []
    for prompt, position in zip(activations.prompt, activations.position, strict=True):
        others = np.flatnonzero(lengths > position)
        others = rng.permutation(others[others != prompt])[:count]
        chosen.append(np.pad(others, (0, count - len(others)), constant_values=-1))
    partner = np.stack(chosen)
    ids, lengths = jnp.asarray(activations.prompts.token_ids), jnp.asarray(lengths)
    states = []
    for layer in range(model.architecture.layers):
        stream = np.asarray(context_at(model.architecture, model.params, ids, lengths, layer).x)
        found = stream[np.maximum(partner, 0), activations.position[:, None]]
        states.append(np.where((partner >= 0)[..., None], found, np.nan))
    return np.stack(states)


def _token_swap(model, activations, count, rng):
    prompts = activations.prompts
    seen = np.concatenate([row[:n] for row, n in zip(prompts.token_ids, prompts.lengths, strict=True)])
    rows, place = [], []
    for sample, (prompt, position) in enumerate(zip(activations.prompt, activations.position, strict=True)):
        row = prompts.token_ids[prompt, : position + 1]
        tokens = rng.permutation(seen[seen != row[-1]])
        tokens = tokens[np.sort(np.unique(tokens, return_index=True)[1])][:count]  # as often as seen, each once
        for number, token in enumerate(tokens):
            rows.append(np.append(row[:-1], token))
            place.append((sample, number))
    states = np.full((model.architecture.layers, len(activations.prompt), count, model.architecture.width), np.nan)
    if not rows:
        return states
    swapped = capture(model, pad(rows, bos=prompts.bos))
    sample, number = np.array(place).T
    states[:, sample, number] = np.asarray(swapped.inputs)
    return states.astype(np.asarray(activations.inputs).dtype)


def relative_norm(
    delta: Float[np.ndarray, "... K D"], state: Float[np.ndarray, "... D"] | Array
) -> Float[np.ndarray, "... K"]:
    """norm(delta) / norm(x), dimensionless: how far a natural displacement really goes."""
    return np.linalg.norm(delta, axis=-1) / np.linalg.norm(np.asarray(state), axis=-1)[..., None]
