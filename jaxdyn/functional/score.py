"""Stage 5 of 7: divergences and what may be said from them - the scale from J to I, and where there is none (1.8)."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from jaxdyn.models import decoder
from jaxdyn.models.model import Model
from jaxdyn.nulls.null import LEVEL, Null, excess

SMALL = 0.05
"""Below this abs(log q - log p) the term of the divergence is taken from its series, which does not cancel."""


def divergences(model: Model, true: Float[Array, "G D"], others: Float[Array, "G M D"]) -> Float[Array, "G M"]:
    """Kullback-Leibler divergence of next-token distributions, KL(p || q), from final states of the stream.

    KL = sum_i p_i (exp(d_i) - 1 - d_i),  d = log q - log p

    which equals sum p log(p / q), since q sums to one, and has no cancellation between its terms: a divergence of 1e-10
    keeps digits in float32.

    Parameters
    ----------
    model : gives final norm and unembedding.
    true : (G, D), states whose distributions are p.
    others : (G, M, D), those of q.

    Returns
    -------
    (G, M) in nats. Memory: (1 + M) times the vocabulary, for a few groups at a time.
    """
    return _divergences(model.architecture, model.params, true, others)


@partial(jax.jit, static_argnums=0)
def _divergences(arch, params, true, others):
    def one(group):
        p_state, q_states = group
        log_p = jax.nn.log_softmax(decoder.unembed(arch, params, p_state[None])[0])
        log_q = jax.nn.log_softmax(decoder.unembed(arch, params, q_states))
        d = log_q - log_p
        series = d * d * (0.5 + d * (1 / 6 + d * (1 / 24 + d / 120)))
        return jnp.sum(jnp.exp(log_p) * jnp.where(jnp.abs(d) < SMALL, series, jnp.expm1(d) - d), axis=-1)

    return lax.map(one, (true, others))


def beats(
    of_J: Float[np.ndarray, "R S K"],
    of_I: Float[np.ndarray, "R S K"],
    replicates: np.ndarray,
    *,
    level: float = LEVEL,
) -> tuple[Bool[np.ndarray, " R"], Float[np.ndarray, "R 3"]]:
    """Whether J predicts the displaced run better than I does, radius by radius.

    Parameters
    ----------
    of_J, of_I : (R, S, K), divergences by radius, sample and displacement; NaN for missing displacements.
    replicates : (S,), articles.
    level : of the interval.

    Returns
    -------
    claim (R,), true where the interval of mean log(KL_J / KL_I) lies below 0; and (R, 3) that mean with its interval,
    natural logarithms, articles as replicates. A single article gives no interval and no claim.
    """
    tiny = np.finfo(np.asarray(of_J).dtype).tiny
    ratio = np.log(np.maximum(of_J, tiny)) - np.log(np.maximum(of_I, tiny))
    present = np.isfinite(ratio)
    count = present.sum(axis=-1)
    each = np.where(present, ratio, 0).sum(axis=-1) / np.maximum(count, 1)
    kept = np.flatnonzero((count > 0).all(axis=0))
    each, labels = each[:, kept], np.asarray(replicates)[kept]
    none = Null("", np.zeros((1, *each.shape)), exact=True)
    found = np.stack(excess(each, none, replicates=labels, level=level), axis=-1)
    return found[:, 2] < 0, found


def radius_of(claim: Bool[np.ndarray, " R"], radii: Float[np.ndarray, " R"]) -> float:
    """Largest radius up to which J beats I at every radius that was tried; NaN where it does not at the smallest."""
    held = np.cumprod(claim[np.argsort(radii)]).sum()
    return float(np.sort(radii)[held - 1]) if held else float("nan")


def normalised(
    mean: Float[np.ndarray, "M R"], of_J: Float[np.ndarray, " R"], of_I: Float[np.ndarray, " R"], claim: np.ndarray
) -> Float[np.ndarray, "M R"]:
    """Score (KL_M - KL_J) / (KL_I - KL_J) of mean divergences: 0 is as good as J, 1 as I; NaN without a claim.

    Below 0 a surrogate predicts the displaced run better than the exact derivative, as may happen far from the point.
    """
    scale = np.where(claim & (of_I > of_J), of_I - of_J, np.nan)
    return (mean - of_J) / scale
