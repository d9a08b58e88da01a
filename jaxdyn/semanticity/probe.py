"""One layer under the two tests: what its kernel is, what the laws predict from it, and what the tests themselves give.

Stimuli are split in two: the even ones fit the kernel, the odd ones are tested. On the tested ones
- measured: the tests on the measured similarities, two items by enumeration, n items by sampled tuples;
- "constant": the law of a finite set, from the fitted eps and floor and the tested stimuli's distances alone;
- "linear": the mean over probes of the homogeneous law at b_p, from the fitted eps and floor;
- "table": the exact front of the mean similarity by distance, whatever its shape, with each probe's own distances.
All three hold the similarity to be a function of distance; where it is not (two numbers that share a digit), measured
and predicted part. Source: methods.md 3.4.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxdyn.errors import InputError

from .finite import front_of_set, resolutions, two_item_tests_by_probe
from .kernels import front_of_table
from .similarity import (
    KERNELS,
    fit_kernel,
    profile,
    relu_cosine,
    shell_edges,
    shell_measures,
    standardise,
)
from .stimuli import Stimuli
from .theory import front

LAWS = (*KERNELS, "table")
ITEMS = (2, 3, 5, 10, 20)
TRIALS = 20_000
RESAMPLES = 1000
INTERVAL = (2.5, 97.5)


@dataclass(frozen=True)
class Design:
    """What all layers share: the split, the sampled tuples, the resamples.

    Attributes
    ----------
    stimuli : N texts with their distances.
    fit, test : numbers of the stimuli that fit the kernel and of those that are tested.
    items : numbers of items of the curves.
    draws : for each of `items`, (trials, n + 1) numbers within the tested ones, without replacement.
    resample : (1000, tested) probes of each bootstrap resample.
    """

    stimuli: Stimuli
    fit: np.ndarray
    test: np.ndarray
    items: tuple[int, ...]
    draws: tuple[np.ndarray, ...]
    resample: np.ndarray

    @property
    def fit_distance(self) -> Float[np.ndarray, "F F"]:
        """Distances of the stimuli that fit."""
        return self.stimuli.distance[np.ix_(self.fit, self.fit)]

    @property
    def test_distance(self) -> Float[np.ndarray, "T T"]:
        """Distances of the tested stimuli."""
        return self.stimuli.distance[np.ix_(self.test, self.test)]


def design(stimuli: Stimuli, *, items: tuple[int, ...] = ITEMS, trials: int = TRIALS, seed: int = 0) -> Design:
    """Split the stimuli and draw everything random once.

    Parameters
    ----------
    stimuli : N of them, 8 or more.
    items : numbers of items; those that the tested stimuli are too few for (n > N/2 - 1) are left out; 2 must be there.
    trials : tuples drawn for each of them.
    seed : of the tuples and of the bootstrap.

    Raises
    ------
    InputError : items without 2 or below it, no trials.
    """
    if 2 not in items or min(items) < 2:
        msg = f"items: got {items}; allowed numbers of 2 or more, 2 among them"
        raise InputError(msg)
    if trials < 1:
        msg = f"trials: got {trials}; allowed 1 or more"
        raise InputError(msg)
    order = np.arange(len(stimuli.texts))
    fit, test = order[::2], order[1::2]
    kept = tuple(sorted({n for n in items if n <= len(test) - 1}))
    rng = np.random.default_rng(seed)
    draws = tuple(rng.random((trials, len(test))).argsort(axis=1)[:, : n + 1] for n in kept)
    return Design(stimuli, fit, test, kept, draws, rng.integers(0, len(test), (RESAMPLES, len(test))))


def measure(x: Float[np.ndarray, "N D"], plan: Design) -> dict[str, np.ndarray]:
    """Fit the kernel of one layer, predict, and test.

    Parameters
    ----------
    x : representations of all stimuli, float.
    plan : from `design`.

    Returns
    -------
    Arrays by name, laws in the order of `LAWS` and kernels of `similarity.KERNELS`, items in that of `plan.items`:
    `p_s`, `p_i` and their `_low`, `_high` (95 % bootstrap over probes); `p_s_items`, `p_i_items` (items,) and `_error`
    (standard error of the sampled tuples; 0 for two items, which are enumerated); `p_s_law`, `p_i_law` (law, items);
    `eps`, `noise`, `fit_error`, `mean_b`, `var_b` (kernel,); `profile` (shell,), mean similarity by distance;
    `mean_g`, of two different tested stimuli.

    Notes
    -----
    Cost: T^3/4 comparisons and 97 m^2 T evaluations a number of items, T tested stimuli and m <= 40 shells.
    """
    fit, test = standardise(np.asarray(x[plan.fit], np.float64), np.asarray(x[plan.test], np.float64))
    g_fit, g = relu_cosine(fit), relu_cosine(test)
    edges = shell_edges(plan.stimuli.distance)
    shells = profile(g_fit, plan.fit_distance, edges)
    found: dict[str, np.ndarray] = {"profile": shells}
    found |= _tests(g, plan)
    found["mean_g"] = g[~np.eye(len(g), dtype=bool)].mean()

    fits = [fit_kernel(g_fit, plan.fit_distance, kernel) for kernel in KERNELS]
    b = [np.asarray(resolutions(plan.test_distance, one.eps), np.float64) for one in fits]
    found |= {
        "eps": np.array([one.eps for one in fits]),
        "noise": np.array([one.noise for one in fits]),
        "fit_error": np.array([one.residual for one in fits]),
        "mean_b": np.array([one.mean() for one in b]),
        "var_b": np.array([one.var() for one in b]),
    }
    constant = [front_of_set(plan.test_distance, fits[0].eps, n, fits[0].noise) for n in plan.items]
    linear = front(b[1], np.array(plan.items, float)[:, None], "linear", fits[1].noise)
    table = _table_law(shells, shell_measures(plan.test_distance, edges), np.array(plan.items, float))
    for i, name in enumerate(("p_s_law", "p_i_law")):
        found[name] = np.array(
            [[float(one[i]) for one in constant], np.asarray(linear[i]).mean(axis=1), np.asarray(table[i])]
        )
    return found


def _tests(g: np.ndarray, plan: Design) -> dict[str, np.ndarray]:
    """Measured p_S and p_I with their intervals, and the curves over the number of items."""
    found: dict[str, np.ndarray] = {}
    per_probe = two_item_tests_by_probe(g, plan.test_distance)
    for name, values in zip(("p_s", "p_i"), (np.asarray(one, np.float64) for one in per_probe), strict=True):
        low, high = np.percentile(values[plan.resample].mean(axis=1), INTERVAL)
        found |= {name: values.mean(), f"{name}_low": low, f"{name}_high": high}
    columns = []
    for n, drawn in zip(plan.items, plan.draws, strict=True):
        if n == 2:
            columns.append((found["p_s"], found["p_i"], 0.0, 0.0))
            continue
        scores = n_item_scores(g, plan.test_distance, drawn)
        columns.append((*scores.mean(axis=1), *(scores.std(axis=1) / np.sqrt(scores.shape[1]))))
    names = ("p_s_items", "p_i_items", "p_s_items_error", "p_i_items_error")
    return found | dict(zip(names, np.array(columns).T, strict=True))


def n_item_scores(
    g: Float[np.ndarray, "T T"], distance: Float[np.ndarray, "T T"], drawn: np.ndarray
) -> Float[np.ndarray, "2 trials"]:
    """Return the probability of the right answer of each trial, in the similarity and in the identification test.

    Parameters
    ----------
    g, distance : measured similarity g(item, probe) and distances.
    drawn : (trials, n + 1), different stimuli: n items and a probe; the identification test repeats the first item.
    """
    items, probe = drawn[:, :-1], drawn[:, -1:]
    d = distance[items, probe]
    nearest = d == d.min(axis=1, keepdims=True)
    p_s = (np.where(nearest, _luce(g[items, probe]), 0.0)).sum(axis=1) / nearest.sum(axis=1)
    return np.stack([p_s, _luce(g[items, items[:, :1]])[:, 0]])


def _luce(g):
    total = g.sum(axis=1, keepdims=True)
    return np.divide(g, total, out=np.full_like(g, 1 / g.shape[1]), where=total > 0)


@jax.jit
def _table_law(shells, measures, items):
    """Return the mean over probes of the exact front of a kernel given by shells: (p_S, p_I), each (items,)."""
    shells, measures, items = (jnp.asarray(value, jnp.result_type(float)) for value in (shells, measures, items))
    one = jax.vmap(front_of_table, (None, 0, None))
    p_s, p_i = jax.lax.map(lambda n: one(shells, measures, n), items)
    return jnp.mean(p_s, axis=1), jnp.mean(p_i, axis=1)
