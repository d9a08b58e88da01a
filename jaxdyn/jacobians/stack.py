"""Stage 3 of 7: the Jacobians of all blocks at once, for what looks at the product along depth."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdyn.activations import Activations
from jaxdyn.models.model import Model

from .api import jacobian
from .request import Derivative, Operator, Part


def jacobian_stack(
    model: Model,
    activations: Activations,
    *,
    layers: Sequence[int] | None = None,
    operator: Operator = "in-context",
    part: Part = "block",
    derivative: Derivative = "exact",
    weights_of: Model | None = None,
) -> Float[Array, "L S D D"]:
    """Stack the Jacobians of several blocks, first layer first.

    Parameters
    ----------
    model, activations, operator, part, derivative, weights_of : as in `jacobian`.
    layers : block numbers in the order wanted; default all.

    Returns
    -------
    (L, S, D, D) in the model's compute dtype. Memory: L S D^2 numbers, all at once.

    Raises
    ------
    InputError : as `jacobian`.
    """
    chosen = range(model.architecture.layers) if layers is None else layers
    return jnp.stack(
        [
            jacobian(
                model, activations, layer=layer, operator=operator, part=part, derivative=derivative,
                weights_of=weights_of,
            )
            for layer in chosen
        ]
    )  # fmt: skip
