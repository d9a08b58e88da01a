"""Norms of a block's weights at each coordinate of the residual stream: covariates of the coupling (T8, 1.8)."""

import numpy as np

from jaxdyn.jacobians import check_layer
from jaxdyn.models import decoder
from jaxdyn.models.model import Model

READERS = (("attention", ("q", "k", "v")), ("mlp", ("gate", "up")))
WRITERS = (("attention", "o"), ("mlp", "down"))
NORMS = ("attention_norm", "mlp_norm", "attention_post_norm", "mlp_post_norm")


def weight_norms(model: Model, layer: int) -> dict[str, np.ndarray]:
    """Norms of the weights at each coordinate, (D,): what reads it, what writes it, what the norms multiply it by."""
    weights = decoder.layer_weights(model.params, check_layer(layer, model.architecture))
    named = {f"{part}/{name}": np.asarray(weights[part][name], np.float64) for part, names in READERS for name in names
             if name in weights[part]}  # fmt: skip
    found = {
        "read_weight_norm": np.sqrt(sum(np.square(one).sum(axis=0) for one in named.values())),
        "write_weight_norm": np.sqrt(
            sum(np.square(np.asarray(weights[part][name], np.float64)).sum(axis=1) for part, name in WRITERS)
        ),
    }
    offset = model.architecture.norm_offset
    for name in NORMS:
        if name in weights:
            found[f"{name}_weight"] = np.abs(offset + np.asarray(weights[name]["scale"], np.float64))
    return found
