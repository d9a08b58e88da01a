"""The peer: what a careful user of torch would write for the same Jacobians, on the Hugging Face layer itself.

In context the other positions' keys and values are held: the layer runs on the one token, with an attention function of
ours that adds the held positions and lets no gradient into them. Over samples and rows everything is vectorised:
`jacrev` of the sum over independent samples gives all their Jacobians in one backward pass a row.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.models.llama.modeling_llama import eager_attention_forward

ATTENTION = "held"


@dataclass(frozen=True)
class Contexts:
    """What a block's samples see.

    Attributes
    ----------
    x : (S, D), block input at each sample's position.
    keys, values : (S, G, T, K) of every position of its prompt, after RoPE.
    mask : (S, 1, 1, T), 0 at the positions before the sample's own and -inf from there on.
    cos, sin : (S, 1, K), the rotation at each sample's position.
    """

    x: Tensor
    keys: Tensor
    values: Tensor
    mask: Tensor
    cos: Tensor
    sin: Tensor


def use_held_attention(model: Any) -> Any:
    """Let a Hugging Face Llama take held keys and values; else its attention is torch's own, eager for one token."""
    AttentionInterface.register(ATTENTION, _attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    model.config._attn_implementation = ATTENTION
    return model.eval().requires_grad_(False)


def isolated(base: Any, layer: int) -> Callable[[Tensor], Tensor]:
    """Return the block on sequences of one token, (S, D) -> (S, D)."""
    turn = base.rotary_emb(torch.zeros(1), position_ids=torch.zeros(1, 1, dtype=torch.long))
    return lambda x: base.layers[layer](x[:, None], position_embeddings=turn)[:, 0]


def in_context(base: Any, layer: int, seen: Contexts) -> Callable[[Tensor], Tensor]:
    """Return the block on the samples' own tokens, (S, D) -> (S, D), the rest of their prompts held."""
    return lambda x: base.layers[layer](x[:, None], position_embeddings=(seen.cos, seen.sin), held=seen)[:, 0]


def jacobians(block: Callable[[Tensor], Tensor], x: Tensor, *, rows: int | None = None) -> Tensor:
    """Return the Jacobians (S, D, D) of a block of independent samples; `rows` at once, None is all."""
    with torch.no_grad():
        return torch.func.jacrev(lambda z: block(z).sum(0), chunk_size=rows)(x).transpose(0, 1)


def settings(block: Callable[[Tensor], Tensor], x: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Return the ways of `torch.func.jacrev` over all samples worth trying, by name."""
    named = {f"{rows or 'all'} rows at once": rows for rows in (None, 256, 64, 16)}
    return {name: partial(jacobians, block, x, rows=rows) for name, rows in named.items()}


@torch.no_grad()
def capture(model: Any, ids: Tensor, lengths: Tensor) -> tuple[list[Contexts], Tensor]:
    """Run padded prompts (B, T) once: what the last token of each sees at every block, and its final state (B, D)."""
    blocks, streams = model.model.layers, []

    def keep(_: Any, args: tuple, kwargs: dict) -> None:
        streams.append(args[0] if args else kwargs["hidden_states"])

    hooks = [block.register_forward_pre_hook(keep, with_kwargs=True) for block in blocks]
    hooks.append(blocks[-1].register_forward_hook(lambda _, args, output: streams.append(output)))
    try:
        cache = model.model(ids, use_cache=True).past_key_values
    finally:
        for hook in hooks:
            hook.remove()
    *inputs, final = streams
    seen = [see(model.model, x, held.keys, held.values, lengths) for x, held in zip(inputs, cache.layers, strict=True)]
    return seen, final[torch.arange(len(ids)), lengths - 1]


def see(base: Any, x: Tensor, keys: Tensor, values: Tensor, lengths: Tensor) -> Contexts:
    """Return what the last token of each prompt sees: block inputs (B, T, D), keys and values (B, G, T, K)."""
    rows, last = torch.arange(len(x)), lengths - 1
    cos, sin = base.rotary_emb(x, position_ids=last[:, None])
    hidden = torch.arange(x.shape[1]) >= last[:, None]
    mask = torch.zeros(hidden.shape, dtype=x.dtype).masked_fill_(hidden, -torch.inf)[:, None, None]
    return Contexts(x[rows, last], keys, values, mask, cos, sin)


class _HeldProduct(torch.autograd.Function):
    """a @ b with b constant: one product a sample for all rows, where vmap alone would copy b for every row."""

    @staticmethod
    def forward(a, b):
        return a @ b

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx, *gradients):
        return _HeldProduct.apply(gradients[0], ctx.saved_tensors[0].transpose(-1, -2)), None

    @staticmethod
    def vmap(info, in_dims, a, b):
        a = a.movedim(in_dims[0], 2)
        return _HeldProduct.apply(a.flatten(2, 3), b).unflatten(2, a.shape[2:4]), 2


def joined(parts: Sequence[Contexts]) -> Contexts:
    """Put the samples of several batches together."""
    return Contexts(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Contexts)))


def _attention(module, query, key, value, attention_mask, scaling, dropout=0.0, held=None, **options):
    """Attention of one token a sample, (S, H, 1, K), to itself and to the held positions."""
    if held is None:
        plain = eager_attention_forward if query.shape[2] == 1 else sdpa_attention_forward
        return plain(module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **options)
    q = query.squeeze(2).unflatten(1, (key.shape[1], -1))  # S G J K, with J query heads a key head
    others = _HeldProduct.apply(q, held.keys.transpose(-1, -2)) * scaling + held.mask
    own = (q * key).sum(-1, keepdim=True) * scaling
    pattern = torch.softmax(torch.cat([others, own], dim=-1), dim=-1)
    mixed = _HeldProduct.apply(pattern[..., :-1], held.values) + pattern[..., -1:] * value
    return mixed.flatten(1, 2)[:, None], pattern
