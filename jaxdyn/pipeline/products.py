"""Running products of block Jacobians: their measures, and the laws they are compared with."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdyn import propagate
from jaxdyn.measures import nulls, rank

JACOBI_WIDTH = 256
"""Widest model whose small singular values are refined by one-sided Jacobi; above, rates beyond 1/eps are NaN."""

MEASURES = {
    "effective_rank": "effective rank exp(H(p)), p = s^2 / sum s^2, of J_l ... J_first",
    "participation_ratio": "participation ratio of the squared singular values of J_l ... J_first",
    "stable_rank": "stable rank of J_l ... J_first",
    "roy_vetterli_rank": "entropy rank of s / sum s of J_l ... J_first",
    "effective_rank_without_1": "effective rank without the largest singular value",
    "effective_rank_without_4": "effective rank without the 4 largest singular values",
    "effective_rank_without_16": "effective rank without the 16 largest singular values",
    "threshold_count": "number of singular values above a tenth of the largest",
}
"""Measures of a running product, computed alike for the measured product and for the products of N1 draws."""

LAWS = {
    "free_product_participation_ratio": "participation ratio by the free-product law, from the single layers (N3)",
    "ginibre_participation_ratio": "participation ratio of a product of I + Ginibre of the same update norms (N0)",
    "alignment_ratio": "participation ratio over the free-product law: 1 where layers are unrelated (N3)",
}


def begin(width: int, dtype: np.dtype, *, truncate: int | None, draws: int | None = None) -> propagate.Product:
    """Return the product of no factors, the identity (cut to its first `truncate` columns), once or `draws` times."""
    r = width if truncate is None else min(truncate, width)
    lead = () if draws is None else (draws,)
    eye = np.broadcast_to(np.eye(width, dtype=dtype), (*lead, width, width))
    zero = np.zeros((*lead, r), dtype)
    count = np.zeros(lead, np.int32)
    return propagate.Product(eye[..., :, :r], zero, eye[..., :r, :], zero, count)  # pyright: ignore[reportArgumentType]


def advance(
    product: propagate.Product, block: Float[Array, "n n"], *, truncate: int | None
) -> tuple[propagate.Product, dict[str, Array]]:
    """Multiply a product by one more block and measure it.

    Parameters
    ----------
    product : the state, from `begin` or an earlier call.
    block : J of the next layer.
    truncate : rank kept at each step, or None.

    Returns
    -------
    The new state, and the measures by name.
    """
    n = block.shape[-1]
    if truncate is not None and truncate < n:
        first = propagate.start(block, rank=truncate)
        later = propagate.truncate(propagate.step(product, block), truncate)
        state = _choose(product.factors == 0, first, later)
    else:
        state = propagate.step(product, block)
    logs = propagate.log_singular_values(state)
    measured = {
        "effective_rank": rank.effective_rank(logs, log=True),
        "participation_ratio": rank.participation_ratio(logs, log=True),
        "stable_rank": rank.stable_rank(logs, log=True),
        "roy_vetterli_rank": rank.roy_vetterli_rank(logs, log=True),
        "threshold_count": rank.threshold_count(logs, log=True),
    }
    for removed in (1, 4, 16):
        measured[f"effective_rank_without_{removed}"] = rank.effective_rank(logs, removed=removed, log=True)
    return state, measured


def stretching(states: propagate.Product) -> dict[str, np.ndarray]:
    """Finite-time stretching rates of S final products, (S, r), and the decimal digits kept in each singular value."""
    method = "jacobi" if states.left.shape[-2] <= JACOBI_WIDTH else "svd"
    values, kept = _stretching(states._replace(factors=states.factors[0]), method=method)
    return {"stretching_rate": np.asarray(values), "stretching_digits": np.asarray(kept)}


_stretching = jax.jit(propagate.stretching_rates, static_argnames="method")


def with_laws(layers: list[dict[str, np.ndarray]], width: int) -> dict[str, np.ndarray]:
    """Stack the measures of S products along depth, (S, depth), and add the laws of `LAWS`."""
    arrays = {name: np.stack([layer[name] for layer in layers], axis=1) for name in layers[0]}
    single = jnp.asarray(arrays.pop("single_participation_ratio")).T
    norms = jnp.asarray(arrays.pop("single_update_norm")).T
    free = np.asarray(nulls.free_product_participation_ratio(single, width)).T
    ginibre = nulls.shifted_product_participation_ratio(jnp.ones_like(norms), norms, width)
    return {
        **arrays,
        "free_product_participation_ratio": free,
        "ginibre_participation_ratio": np.asarray(ginibre).T,
        "alignment_ratio": arrays["participation_ratio"] / free,
    }


def _choose(condition, first, second):
    return propagate.Product(*(jnp.where(condition, a, b) for a, b in zip(first, second, strict=True)))
