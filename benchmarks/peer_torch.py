"""The peer: what a careful user of torch would write for the same Jacobians, on the Hugging Face layer itself.

In context the other positions' keys and values are held and handed to the layer as a cache, so that only one token runs
through it; over samples and over rows of the Jacobian everything is vectorised (`jacrev` of the sum over independent
samples, which gives all their Jacobians in one backward pass a row).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor


class Held:
    """A cache of other positions: returns them before the token's own key and value, and keeps nothing."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values = keys, values

    def update(self, keys: Tensor, values: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
        """Put the held keys and values, (S, G, T, K), in front."""
        return torch.cat([self.keys, keys], dim=2), torch.cat([self.values, values], dim=2)


@dataclass(frozen=True)
class Contexts:
    """What a block's samples see.

    Attributes
    ----------
    x : (S, D), block input at each sample's position.
    keys, values : (S, G, T, K) of every position of its prompt, after RoPE.
    mask : (S, 1, 1, T + 1), 0 where the sample may look and -inf elsewhere; the last column is the sample itself.
    cos, sin : (S, 1, K), the rotation at each sample's position.
    """

    x: Tensor
    keys: Tensor
    values: Tensor
    mask: Tensor
    cos: Tensor
    sin: Tensor


def isolated(base: Any, layer: int) -> Callable[[Tensor], Tensor]:
    """Return the block on sequences of one token, (S, D) -> (S, D)."""
    turn = base.rotary_emb(torch.zeros(1), position_ids=torch.zeros(1, 1, dtype=torch.long))
    return lambda x: base.layers[layer](x[:, None], position_embeddings=turn)[:, 0]


def in_context(base: Any, layer: int, seen: Contexts) -> Callable[[Tensor], Tensor]:
    """Return the block on the samples' own tokens, (S, D) -> (S, D), the rest of their prompts held."""

    def block(x: Tensor) -> Tensor:
        return base.layers[layer](
            x[:, None],
            attention_mask=seen.mask,
            past_key_values=Held(seen.keys, seen.values),
            position_embeddings=(seen.cos, seen.sin),
        )[:, 0]

    return block


def jacobians(block: Callable[[Tensor], Tensor], x: Tensor, *, rows: int | None = None) -> Tensor:
    """Return the Jacobians (S, D, D) of a block of independent samples; `rows` at once, None is all."""
    with torch.no_grad():
        return torch.func.jacrev(lambda z: block(z).sum(0), chunk_size=rows)(x).transpose(0, 1)


def settings(block: Callable[[Tensor], Tensor], x: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Return the ways of `torch.func.jacrev` worth trying, by name."""

    def each(rows: int | None) -> Tensor:
        return torch.cat([jacobians(block, one[None], rows=rows) for one in x])

    return {
        "all samples, all rows": partial(jacobians, block, x),
        "all samples, 128 rows": partial(jacobians, block, x, rows=128),
        "one sample, all rows": partial(each, None),
        "one sample, 128 rows": partial(each, 128),
    }


@torch.no_grad()
def capture(model: Any, ids: Tensor, lengths: Tensor) -> list[Contexts]:
    """Run padded prompts (B, T) once and return what the last token of each sees at every block."""
    inputs: list[Tensor] = []
    hooks = [
        block.register_forward_pre_hook(
            lambda _, args, kwargs: inputs.append((args or (kwargs["hidden_states"],))[0]), with_kwargs=True
        )
        for block in model.model.layers
    ]
    try:
        cache = model.model(ids, use_cache=True).past_key_values
    finally:
        for hook in hooks:
            hook.remove()
    rows, last = torch.arange(len(ids)), lengths - 1
    cos, sin = model.model.rotary_emb(inputs[0], position_ids=last[:, None])
    before = torch.arange(ids.shape[1]) < last[:, None]
    mask = torch.zeros(len(ids), ids.shape[1] + 1).masked_fill_(
        ~torch.cat([before, torch.ones(len(ids), 1) > 0], dim=1), -torch.inf
    )
    return [
        Contexts(x[rows, last], held.keys, held.values, mask[:, None, None], cos, sin)
        for x, held in zip(inputs, cache.layers, strict=True)
    ]
