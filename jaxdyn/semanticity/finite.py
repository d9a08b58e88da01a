"""Finite stimulus sets: the constant kernel's laws with items drawn without replacement, and the tests enumerated.

With m_p the number of the other N - 1 stimuli within eps of probe p, K of n drawn items lie in the ball with a
hypergeometric law. Two items: p_S = 1/2 + (N-1)/(N-2) kappa (<b> - <b>^2 - Var b), p_I = 1/2 + kappa (1 - <b>)/2 with
b_p = m_p/(N-1). Two items at the same distance from the probe are a tie: a tie is right half the time, or always with
`ties="right"`. Source: methods.md 3.2, item 7.
"""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import gammaln
from jax.typing import ArrayLike

from jaxdyn.errors import InputError

Ties = Literal["half", "right"]


def resolutions(distance: ArrayLike, eps: ArrayLike) -> Array:
    """Return b_p = (number of others within eps)/(N - 1) for each stimulus.

    Parameters
    ----------
    distance : (N, N), N of 2 or more, symmetric.
    eps : scalar; d <= eps is inside.

    Returns
    -------
    (N,), in [0, 1].
    """
    inside = jnp.asarray(distance) <= eps
    count = inside.shape[0]
    return jnp.sum(inside & ~jnp.eye(count, dtype=bool), axis=-1) / (count - 1)


def front_of_set(
    distance: ArrayLike, eps: float, n: int = 2, noise: float = 0.0, ties: Ties = "half"
) -> tuple[Array, Array]:
    """Return (p_S, p_I) of n items of a finite set under the constant kernel, exactly.

    Parameters
    ----------
    distance : (N, N) distances.
    eps : resolution; d <= eps is inside the ball.
    n : items drawn without replacement beside the probe: 1 to N - 1 (for p_I the probe is one of the n).
    noise : the floor Delta.
    ties : "half": of two items equally near the probe one, chosen at random, is right; "right": either is.

    Returns
    -------
    (p_S, p_I), scalars: means over probes. Nearest items that tie have equal similarity, so "half" is n-item exact
    with any number of them; "right" adds the probability of the others, for n = 2 only.

    Raises
    ------
    InputError : n outside its range, an unknown tie rule, or "right" with another n than 2.
    """
    distance = np.asarray(distance)
    count = _check(distance, n, ties)
    inside = jnp.round(resolutions(distance, eps) * (count - 1))  # m_p
    p_s, p_i = _hypergeometric_front(inside, jnp.asarray(float(n)), jnp.asarray(float(noise)))
    extra = np.mean(_tied_pairs(distance)) / 2 if ties == "right" else 0.0
    return p_s + extra, p_i


@jax.jit
def _hypergeometric_front(inside, n, noise):
    """Means over probes with `inside` (N,) others in their balls; all numbers of marked items, impossible ones 0."""
    count = inside.shape[0]
    k = jnp.arange(count, dtype=n.dtype)
    inside = inside.astype(n.dtype)[:, None]
    share = jnp.where(k > 0, 1 / jnp.where(k > 0, k + noise * (n - k), 1.0), 1 / n)
    p_s = jnp.sum(_hypergeometric(k, inside, count - 1.0, n) * share, axis=-1)
    p_i = jnp.sum(_hypergeometric(k, inside, count - 1.0, n - 1) / (1 + k + noise * (n - 1 - k)), axis=-1)
    return jnp.mean(p_s), jnp.mean(p_i)


def two_item_tests(similarity: ArrayLike, distance: ArrayLike, ties: Ties = "half") -> tuple[Array, Array]:
    """Return (p_S, p_I) of a measured similarity by enumerating every triple and every pair; exact.

    p_S: over probes p and unordered pairs {i, j} of other stimuli, D of the one nearer to p; a tie of distances counts
    1/2, or 1 with `ties="right"`. p_I: over ordered pairs, g(i,i)/(g(i,i) + g(j,i)). Two zeros are a guess, 1/2.

    Parameters
    ----------
    similarity : (..., N, N), g(i, p) >= 0 of item i to probe p; it need not be symmetric.
    distance : (N, N).
    ties : as in `front_of_set`.

    Returns
    -------
    (p_S, p_I) of the leading shape. Cost: N^3 comparisons, one probe at a time.
    """
    distance = np.asarray(distance)
    _check(distance, 2, ties)
    per_probe = two_item_tests_by_probe(similarity, distance, ties)
    return jnp.mean(per_probe[0], axis=-1), jnp.mean(per_probe[1], axis=-1)


def two_item_tests_by_probe(similarity: ArrayLike, distance: ArrayLike, ties: Ties = "half") -> tuple[Array, Array]:
    """As `two_item_tests`, for each probe: two arrays (..., N), whose means are p_S and p_I."""
    return _enumerate(jnp.asarray(similarity), jnp.asarray(distance), ties == "right")


@partial(jax.jit, static_argnames="always")
def _enumerate(similarity, distance, always):
    count = distance.shape[0]
    others = ~jnp.eye(count, dtype=bool)

    def probe(p):
        g, d = similarity[..., :, p], distance[:, p]
        share = luce(g[..., :, None], g[..., None, :])
        nearer, tied = d[:, None] < d[None, :], d[:, None] == d[None, :]
        among = others[p][:, None] & others[p][None, :] & others  # ordered pairs: each pair twice
        score = jnp.where(nearer, share, 0.0) + jnp.where(tied, share if always else 0.5 * share, 0.0)
        p_s = 2 * jnp.sum(jnp.where(among, score, 0.0), axis=(-2, -1)) / ((count - 1) * (count - 2))
        p_i = jnp.sum(jnp.where(others[p], luce(g[..., p, None], g), 0.0), axis=-1) / (count - 1)
        return p_s, p_i

    p_s, p_i = jax.lax.map(probe, jnp.arange(count))
    return jnp.moveaxis(p_s, 0, -1), jnp.moveaxis(p_i, 0, -1)


def luce(own: Array, other: Array) -> Array:
    """Return own/(own + other), 1/2 where both are 0."""
    total = own + other
    return jnp.where(total > 0, own / jnp.where(total > 0, total, 1.0), 0.5)


def _tied_pairs(distance: np.ndarray) -> np.ndarray:
    """Share of the pairs of other stimuli that are equally far from each probe, (N,)."""
    count = len(distance)
    shares = np.empty(count)
    for p in range(count):
        _, sizes = np.unique(np.delete(distance[:, p], p), return_counts=True)
        shares[p] = np.sum(sizes * (sizes - 1.0)) / ((count - 1) * (count - 2))
    return shares


def _hypergeometric(k, marked, total, drawn):
    """Probability of k marked ones among `drawn` of `total`, without replacement; 0 where impossible."""
    possible = (k <= marked) & (k <= drawn) & (drawn - k <= total - marked)
    k, rest = jnp.where(possible, k, 0.0), jnp.where(possible, drawn - k, 0.0)
    log = _log_choose(marked, k) + _log_choose(total - marked, rest) - _log_choose(total, drawn)
    return jnp.where(possible, jnp.exp(log), 0.0)


def _log_choose(n, k):
    return gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0)


def _check(distance, n, ties):
    count = len(distance)
    if distance.shape != (count, count) or count < 3:
        msg = f"distance: got shape {distance.shape}; allowed (N, N) with N of 3 or more"
        raise InputError(msg)
    if not 1 <= n <= count - 1:
        msg = f"n: got {n}; allowed 1 to {count - 1}, one less than the stimuli"
        raise InputError(msg)
    if ties not in ("half", "right"):
        msg = f"ties: got {ties!r}; allowed 'half' or 'right'"
        raise InputError(msg)
    if ties == "right" and n != 2:
        msg = f"ties: got 'right' with n = {n}; it is defined for two items; use 'half', or n = 2"
        raise InputError(msg)
    return count
