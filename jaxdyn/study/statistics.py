"""The numbers of a study: each a function of the blocks of all layers, (L, S, n, n) -> (S,), from one decomposition."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdyn import propagate, spectra
from jaxdyn.measures import complex_fraction, henrici_normalized, nonnormality, nulls, rank
from jaxdyn.measures.arrays import deviator, frobenius

SLOPES = ("henrici", "alignment", "alignment_pairs", "alignment_trace")
STATISTICS = (*(f"{name}_slope" for name in SLOPES), "complex_fraction", "log_product_rank")
"""In the order of `numbers`. The three alignments are the definitions (b), (a) and (c) of E5."""
HELD = 2**26
"""Bytes of matrices that are decomposed at a time."""


def profiles(matrices: Float[Array, "L S n n"]) -> dict[str, Float[np.ndarray, "L S"]]:
    """Measure every matrix.

    Parameters
    ----------
    matrices : (L, S, n, n), of all layers, first layer first.

    Returns
    -------
    henrici (normalised, E4), complex_fraction (E2), alignment (E5 b: norm(U_k^T V_k)_F^2 / k), alignment_pairs (E5 a:
    mean abs(u_i . v_i) over the leading k), alignment_trace (E5 c: tr D^2 / norm(D)_F^2), all of D = M - tI but the
    first two; each (L, S), dimensionless. A matrix that does not decompose has NaN. Memory: of `HELD` bytes of
    matrices, decomposed, at a time.
    """
    matrices = jnp.asarray(matrices)
    wide = max(1, HELD * len(matrices) // max(1, matrices.nbytes))
    parts = [_profiles(matrices[start : start + wide]) for start in range(0, len(matrices), wide)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _profiles(matrices):
    schur = spectra.decompose(matrices).T
    rest = deviator(matrices)
    left, _, right_h = spectra.svd(rest)
    k = nonnormality.leading(matrices.shape[-1])
    overlap = jnp.sum(left[..., :k] * jnp.swapaxes(right_h[..., :k, :], -1, -2), axis=-2)
    square = jnp.sum(rest * jnp.swapaxes(rest, -1, -2), axis=(-2, -1))
    found = {
        "henrici": henrici_normalized(schur),
        "complex_fraction": complex_fraction(schur),
        "alignment": nonnormality.self_alignment(left, right_h),
        "alignment_pairs": jnp.mean(jnp.abs(overlap), axis=-1),
        "alignment_trace": square / frobenius(rest) ** 2,
    }
    return {name: np.asarray(value, float) for name, value in found.items()}


def numbers(matrices: Float[Array, "L S n n"]) -> Float[np.ndarray, "K S"]:
    """All of `STATISTICS`, (K, S); the product's is NaN with a single layer, slopes too."""
    return summarise(profiles(matrices), log_product_rank(matrices))


def summarise(found: dict[str, np.ndarray], product: Float[np.ndarray, " S"]) -> Float[np.ndarray, "K S"]:
    """Put profiles (L, S) and the product's number (S,) into the order of `STATISTICS`."""
    rows = [slope(found[name]) for name in SLOPES]
    return np.stack([*rows, found["complex_fraction"].mean(axis=0), product])


def slope(series: Float[np.ndarray, "L ..."]) -> Float[np.ndarray, "..."]:
    """Least-squares slope against relative depth, 0 at the first layer given and 1 at the last; NaN for one layer."""
    if len(series) < 2:
        return np.full(series.shape[1:], np.nan)
    depth = np.linspace(-0.5, 0.5, len(series))
    return np.tensordot(depth, series, axes=1) / np.sum(depth**2)


def log_product_rank(matrices: Float[Array, "L S n n"]) -> Float[np.ndarray, " S"]:
    """Logarithm of the entropy rank of M_L ... M_1."""
    logs = propagate.product_log_singular_values(jnp.asarray(matrices))
    return np.log(np.asarray(rank.effective_rank(logs, log=True), float))


def closed_form(matrices: Float[Array, "L S n n"], shift: Float[Array, "L S"]) -> dict[str, np.ndarray]:
    """N0 of `profiles`, (L, S): those of c I plus a Ginibre matrix of the norm of M - cI, c the shift.

    The alignments' are k/n, sqrt(2/(pi n)) and 1/n whatever the layer, so that their slopes are 0.
    """
    matrices = jnp.asarray(matrices)
    n = matrices.shape[-1]
    eye = jnp.eye(n, dtype=matrices.dtype)
    known = nulls.closed_form(shift, frobenius(matrices - shift[..., None, None] * eye), n)
    flat = {"alignment_pairs": (2 / (np.pi * n)) ** 0.5, "alignment_trace": 1 / n}
    return {
        "henrici": np.asarray(known["henrici_normalized"], float),
        "complex_fraction": np.asarray(known["complex_fraction"], float),
        "alignment": np.asarray(known["self_alignment"], float),
        **{name: np.full(matrices.shape[:2], value) for name, value in flat.items()},
    }
