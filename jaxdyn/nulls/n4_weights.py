"""Stage 5 of 7: rung N4 - the trained weights' spectra or entries without their directions, on real activations (1.7).

Every matrix W of every block becomes U W V, U and V Haar ("rotated": its singular values stay), or its entries are put
in random order ("shuffled": the distribution of its entries stays). Norms and biases stay trained. The activations are
those of the trained model: they are fed into the replaced block, and only its Jacobian is taken. What is left in a
measure follows from weight spectra, norms and activations; what is gone was the learned directions.
"""

import dataclasses
import zlib
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

from jaxdyn.activations import Activations
from jaxdyn.errors import InputError
from jaxdyn.jacobians import jacobian_stack
from jaxdyn.jacobians.request import Derivative, Operator, Part
from jaxdyn.measures import nulls
from jaxdyn.models import Model
from jaxdyn.models.padding import real_entries
from jaxdyn.models.parameters import flatten, nest

from .draw import of_draws
from .named import Measure
from .null import Null

Kind = Literal["rotated", "shuffled"]
HIGHEST = lax.Precision.HIGHEST


def n4(
    model: Model,
    activations: Activations,
    measure: Measure,
    *,
    kind: Kind = "rotated",
    operator: Operator = "in-context",
    part: Part = "block",
    derivative: Derivative = "exact",
    draws: int = 5,
    seed: int = 0,
) -> Null:
    """Rung N4 of a measure of the blocks' Jacobians (L, S, n, n).

    Parameters
    ----------
    model, activations : the trained model and its residual stream.
    measure : a name or a function, as in `nulls.measured`.
    kind : "rotated" or "shuffled".
    operator, part, derivative : as in `jacobian`: those of the measurement.
    draws, seed : draw k has the weights of `replaced_weights(model, kind=kind, seed=seed + k)`.

    Returns
    -------
    Null, shared by the samples.

    Raises
    ------
    InputError : an unknown kind or measure, fewer than 1 draw.

    References
    ----------
    1.7 N4.
    """

    def make(draw: int):
        other = replaced_weights(model, kind=kind, seed=seed + draw)
        return jacobian_stack(
            model, activations, operator=operator, part=part, derivative=derivative, weights_of=other
        )  # fmt: skip

    return Null("N4", of_draws(make, measure, draws), shared=True)


def replaced_weights(model: Model, *, kind: Kind = "rotated", seed: int = 0) -> Model:
    """Return the model with every matrix of its blocks rotated or shuffled; all else is as it was.

    Parameters
    ----------
    model : with its weights. Zeros that pad smaller layers stay zeros.
    kind : "rotated", W -> U W V with Haar U and V in float32 or the weights' own wider dtype; "shuffled", the entries
        of W in random order.
    seed : each matrix has its own draw, by its name and layer.

    Returns
    -------
    Model, its `source` saying what was done. Cost, rotated: QR of (out, out) and (in, in) for each matrix, 8/3 n^3
    flops each; the copy holds the block's weights once more.

    Raises
    ------
    InputError : an unknown kind.
    """
    if kind not in ("rotated", "shuffled"):
        msg = f"kind: got {kind!r}; allowed 'rotated', 'shuffled'"
        raise InputError(msg)
    flat = flatten(model.params)
    for path, leaf in flat.items():
        if path.startswith("blocks/") and leaf.ndim == 3:
            key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(path.encode()))
            flat[path] = jnp.stack([_replace(model, path, layer, leaf[layer], kind, key) for layer in range(len(leaf))])
    source = f"{model.source} (weights {kind}, seed {seed})"
    return dataclasses.replace(
        model, params=nest(flat), source=source, weights_hash=f"{model.weights_hash}-{kind}-{seed}"
    )


def _replace(model, path, layer, weight, kind, key):
    entries = real_entries(model.architecture, path, layer)
    real = weight if entries is None else weight[entries]
    key = jax.random.fold_in(key, layer)
    if kind == "shuffled":
        new = jax.random.permutation(key, real.reshape(-1)).reshape(real.shape)
    else:
        new = _rotate(key, real)
    return new if entries is None else jnp.zeros_like(weight).at[entries].set(new)


@jax.jit
def _rotate(key, weight):
    dtype = jnp.promote_types(jnp.float32, weight.dtype)
    first, second = jax.random.split(key)
    left = nulls.haar(first[None], weight.shape[0], dtype)[0]
    right = nulls.haar(second[None], weight.shape[1], dtype)[0]
    turned = jnp.matmul(left, weight.astype(dtype), precision=HIGHEST)
    return jnp.matmul(turned, right, precision=HIGHEST).astype(weight.dtype)
