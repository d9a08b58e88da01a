"""The held-out loss, defined so that anyone can repeat it: documents in pieces, each piece behind the special token."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxdyn.models.architecture import Architecture
from jaxdyn.models.decoder import Params
from jaxdyn.training.forward import token_losses
from jaxdyn.training.settings import BOS

BATCH = 16


@dataclass(frozen=True)
class Loss:
    """A loss pooled over tokens: their number, and the sum of their cross-entropies in nats."""

    tokens: int
    nats: float

    @property
    def per_token(self) -> float:
        """Mean cross-entropy, nats a token."""
        return self.nats / self.tokens


def pieces(documents: Sequence[np.ndarray], *, context: int) -> list[np.ndarray]:
    """Cut each document into runs of at most ``context - 1`` tokens, each behind the special token; order kept."""
    bos = np.asarray([BOS], np.int32)
    return [
        np.concatenate([bos, document[at : at + context - 1]])
        for document in documents
        for at in range(0, len(document), context - 1)
    ]


def evaluate(arch: Architecture, params: Params, parts: Sequence[np.ndarray]) -> Loss:
    """Return the loss over every token of the pieces but the special token in front.

    Parameters
    ----------
    arch, params
        The decoder; computed in float32.
    parts
        From `pieces`: (n,) ids each, n of 2 to the context; at least one.

    Returns
    -------
    Loss
        Sums in float64 on the host, over batches of 16 pieces padded on the right. Cost: one forward pass a token.
    """
    longest = max(map(len, parts))
    nats, tokens = 0.0, 0
    for at in range(0, len(parts), BATCH):
        rows = np.full((BATCH, longest), BOS, np.int32)
        for row, part in zip(rows, parts[at : at + BATCH], strict=False):
            row[: len(part)] = part
        losses = np.asarray(_losses(arch, params, jnp.asarray(rows)), np.float64)
        for row, part in zip(losses, parts[at : at + BATCH], strict=False):
            nats += float(row[: len(part) - 1].sum())
            tokens += len(part) - 1
    return Loss(tokens, nats)


@partial(jax.jit, static_argnums=0)
def _losses(arch, params, windows):
    return token_losses(arch, params, windows)
