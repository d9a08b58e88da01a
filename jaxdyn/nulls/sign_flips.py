"""Stage 5 of 7: in which layers an excess is not zero, with one error rate for all of them (max-T, 1.8)."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from jaxdyn.errors import InputError

from .null import clustered

BATCH = 64  # flips held at once


def sign_flip_test(
    excess: Float[np.ndarray, "L S"], articles: Sequence[int] | np.ndarray, *, draws: int = 1999, seed: int = 0
) -> tuple[Float[np.ndarray, " L"], Float[np.ndarray, " L"]]:
    """Test the mean excess of every layer against 0; the chance that any layer is found by chance stays below p.

    T_l = mean_l / se_l with the article-clustered standard error. Under the hypothesis an article's excess is as likely
    up as down, in all layers at once: the signs of whole articles are flipped, so layers stay as correlated as they
    are. p_l = (1 + the draws with max_k abs(T_k) >= abs(T_l)) / (1 + R).

    Parameters
    ----------
    excess : (L, S), measured less null, of each layer and sample.
    articles : (S,), the article of each sample.
    draws, seed : how many flips, and which.

    Returns
    -------
    T and p, (L,). NaN for a layer with a NaN; those do not enter the largest T. A layer without spread has T of 0, or
    infinite where its mean is not 0. A articles have 2^(A - 1) different flips: with 5, no p is below 1/16.

    Raises
    ------
    InputError : fewer than 19 draws, labels that do not fit, fewer than two articles.

    References
    ----------
    P. H. Westfall and S. S. Young, Resampling-Based Multiple Testing, 1993. methods.md 1.8.
    """
    excess, labels = np.asarray(excess, float), np.asarray(articles)
    names, place = np.unique(labels, return_inverse=True)
    if excess.ndim != 2 or labels.shape != excess.shape[1:] or len(names) < 2 or draws < 19:
        msg = (
            f"excess, articles, draws: got shape {excess.shape}, {len(names)} articles for {labels.size} samples, "
            f"{draws}; allowed (layers, samples), a label a sample of two articles or more, at least 19 draws"
        )
        raise InputError(msg)
    finite = np.isfinite(excess).all(axis=1)
    kept, value, found = excess[finite], np.full(len(excess), np.nan), np.full(len(excess), np.nan)
    if not finite.any():
        return value, found
    own, rng, count = _statistic(kept, labels), np.random.default_rng(seed), np.ones(len(kept))
    for start in range(0, draws, BATCH):
        signs = rng.integers(0, 2, (min(BATCH, draws - start), len(names))) * 2 - 1
        flipped = _statistic(kept[:, None] * signs[:, place], labels)  # (kept layers, flips)
        most = np.max(np.abs(flipped), axis=0)
        count += np.sum(most >= np.abs(own)[:, None] * (1 - 1e-9), axis=1)
    value[finite], found[finite] = own, count / (1 + draws)
    return value, found


def _statistic(values, labels):
    """Mean over its standard error, over the last axis."""
    mean, variance, _ = clustered(values, labels)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(mean == 0, 0.0, mean / np.sqrt(variance))
