"""Stage 5 of 7: rung N6 - the sampling floor, from halves of the prompts split by article (1.7).

Halves of A articles have a difference of variance 4 var / A (of means of independent articles), so half of that
difference has the variance of the estimate from all of them: its standard deviation is the floor below which a number
says nothing. It is no explanation; `explain` takes it as `floor`.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdyn.errors import InputError

from .named import Measure, measured
from .null import Null


def n6(values: Float[np.ndarray, "... S"], replicates: np.ndarray, *, splits: int = 32, seed: int = 0) -> Null:
    """Sampling floor of the mean over samples of a measure, from halves of the articles.

    Parameters
    ----------
    values : (..., S), the measure of every sample.
    replicates : (S,), the article of each sample: samples of one article are never parted.
    splits : random splits into halves of the articles.
    seed : of the splits.

    Returns
    -------
    Null whose draws (splits, ...) are half the difference between the means of the two halves: mean about 0, and sd the
    standard error of the mean over all samples.

    Raises
    ------
    InputError : fewer than two articles, fewer than two splits, or labels that do not fit.

    References
    ----------
    1.7 N6.
    """
    values = np.asarray(values, dtype=float)
    rows = []
    for half in _halves(replicates, values.shape[-1], splits, seed):
        rows.append((values[..., half].mean(axis=-1) - values[..., ~half].mean(axis=-1)) / 2)
    return Null("N6", np.stack(rows))


def n6_of_mean(
    matrices: Float[Array, "L S n n"],
    replicates: np.ndarray,
    measure: Measure,
    *,
    splits: int = 32,
    seed: int = 0,
) -> Null:
    """Sampling floor of a measure of the averaged matrices, mean_i M_i: each half is averaged, then measured.

    Parameters
    ----------
    matrices : (L, S, n, n), samples on the second axis; (S, n, n) for one layer.
    replicates, splits, seed : as in `n6`.
    measure : a name or a function of the mean matrices (L, n, n).

    Returns
    -------
    Null, as `n6`. A mean over half the prompts is also biased, where a measure depends on the noise that is left
    (norm, rank): differences of halves do not show that.

    Raises
    ------
    InputError : as `n6`; an unknown measure.
    """
    rows = []
    for half in _halves(replicates, matrices.shape[-3], splits, seed):
        first, second = (measured(jnp.mean(matrices[..., side, :, :], axis=-3), measure) for side in (half, ~half))
        rows.append((first - second) / 2)
    return Null("N6", np.stack(rows))


def _halves(replicates, samples, splits, seed):
    names, place = np.unique(np.asarray(replicates), return_inverse=True)
    if len(place) != samples or len(names) < 2 or splits < 2:
        msg = (
            f"replicates, splits: got {len(place)} labels of {len(names)} articles for {samples} samples and {splits} "
            "splits; allowed one label a sample, at least 2 articles and 2 splits"
        )
        raise InputError(msg)
    rng = np.random.default_rng(seed)
    for _ in range(splits):
        chosen = rng.permutation(len(names))[: len(names) // 2]
        yield np.isin(place, chosen)
