"""The nulls of a coupling, each of which keeps something and draws the rest anew (T8 and 1.8).

| null | kept | drawn |
|---|---|---|
| rotated | all states and the Jacobian | the basis: both in a Haar basis, then graph, communities and gains anew |
| labels | graph, gains, sizes of the communities | which node is in which community |
| rewired | signed degrees, weights, gains | which nodes are joined; communities found anew |
| permuted | every coordinate's values, gains | which sample has which value; graph and communities anew |
| moments | mean and variance of the correlations, gains | the correlations; graph and communities anew |
| moran | graph, communities, how smooth the gain is over the graph | the gain |
| shuffled | graph, communities, the gain's values | which node has which gain |

Nodes without an edge have no boundary position and take part in none of it. `rotated` comes first: what is there in a
random basis too is not a matter of coordinates. `shuffled` is the plain permutation, which is wrong for anything smooth
over the graph; it says no more than whether there is a correlation. Every draw has a generator of its own from (seed,
null, draw), the same in all layers: a rotation, or a permutation of the coordinates, is that of the whole stream.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from scipy.stats import ortho_group, rankdata

from .amplification import amplifications
from .boundary import BOUNDARIES, boundaries, rewired_graphs
from .communities import leiden, signed_modularity
from .correlation import Moments, correlation, moments, shrink
from .coupling import community_coupling, coupling
from .graph import SignedGraph, top_k_graph
from .moran import moran_basis, moran_surrogates
from .noise import matched_moments, permuted
from .rewiring import rewire
from .settings import NULLS, REFITS, TopologySettings


@dataclass(frozen=True)
class Observed:
    """What was measured in one layer.

    Attributes
    ----------
    found : moments of the states.
    r : their correlation, not shrunk.
    floor : least abs(r) of an edge.
    graph, labels, boundaries, gains : graph, partition, boundary positions (b, D) and amplifications (g, D).
    rewired : the draws behind participation_z.
    jacobian : (D, D).
    states, articles : the samples, where a null permutes them.
    """

    found: Moments
    r: Float[np.ndarray, "D D"]
    floor: float
    graph: SignedGraph
    labels: Int[np.ndarray, " D"]
    boundaries: Float[np.ndarray, "b D"]
    gains: Float[np.ndarray, "g D"]
    rewired: list[SignedGraph]
    jacobian: Float[np.ndarray, "D D"]
    states: Float[np.ndarray, "N D"] | None = None
    articles: ArrayLike | None = None


@dataclass(frozen=True)
class Draws:
    """One null's draws.

    Attributes
    ----------
    coupling : (draws, b, g), over nodes.
    community_coupling : (draws, b + 1, g), over communities.
    modularity : (draws,), NaN where the null keeps the graph.
    """

    coupling: Float[np.ndarray, "draws b g"]
    community_coupling: Float[np.ndarray, "draws b+1 g"]
    modularity: Float[np.ndarray, " draws"]


def draw_null(name: str, seen: Observed, settings: TopologySettings, tick: Callable[[], None] = lambda: None) -> Draws:
    """Draw one null.

    Parameters
    ----------
    name : of `NULLS`.
    seen : the measured layer; `permuted` needs its states.
    settings : numbers of draws, seed, and the pipeline that is repeated.
    tick : called after each draw.

    Returns
    -------
    Draws; a draw whose graph has no edge above the floor has NaN.

    Notes
    -----
    Cost a draw at D = 4096, two cores: rotated 25 s (the basis 10, four products 10, then as rewired), permuted and
    moments 5 s and N D^2, rewired 4 s (Leiden .4 to 1.1 s a seed, .1 s a rewired graph); labels, shuffled .1 s; moran
    .3 s after half a minute for its basis.
    """
    number = NULLS.index(name)
    count = settings.refits if name in REFITS else settings.draws
    rngs = [np.random.default_rng([settings.seed, number, draw]) for draw in range(count)]
    if name in REFITS:
        refit = {"rotated": _rotated, "rewired": _rewired, "permuted": _permuted, "moments": _moments}[name]
        drawn = [_ticked(tick, _divided(*refit(seen, settings, rng), settings, rng)) for rng in rngs]
    elif name == "labels":
        drawn = [_ticked(tick, _relabelled(seen, rng)) for rng in rngs]
    elif name == "moran":
        joined = np.flatnonzero(seen.graph.degree())
        basis, values = moran_basis(seen.graph.among(joined)), seen.gains[:, joined]
        drawn = [
            _ticked(tick, _regained(seen, _in_order_of(moran_surrogates(basis, values, 1, rng)[0], values), joined))
            for rng in rngs
        ]
    else:
        joined = np.flatnonzero(seen.graph.degree())
        drawn = [_ticked(tick, _regained(seen, seen.gains[:, rng.permutation(joined)], joined)) for rng in rngs]
    coupled, over_communities, quality = zip(*drawn, strict=True)
    return Draws(np.stack(coupled), np.stack(over_communities), np.array(quality))


def divide(graph: SignedGraph, settings: TopologySettings, seeds: int) -> Int[np.ndarray, " D"]:
    """Best partition of a graph over some seeds."""
    found = [
        leiden(graph, seed=settings.seed + i, iterations=settings.iterations, gamma=settings.gamma)
        for i in range(seeds)
    ]
    return max(found, key=lambda labels: signed_modularity(graph, labels, gamma=settings.gamma))


def _ticked(tick, result):
    tick()
    return result


def _rotated(seen, settings, rng):
    basis = ortho_group.rvs(seen.graph.size, random_state=rng)
    turned = seen.found.rotated(basis)
    raw = correlation(turned)
    r, _ = shrink(raw, turned.count, settings.shrinkage)
    graph = top_k_graph(r, settings.k, floor=seen.floor, raw=raw)
    return graph, amplifications(basis.T @ seen.jacobian @ basis)


def _rewired(seen, settings, rng):
    return rewire(seen.graph, rng), seen.gains


def _permuted(seen, settings, rng):
    # No floor here or below: these graphs are noise, and the question is what noise would give.
    found = moments(permuted(seen.states, rng, seen.articles))
    r, _ = shrink(correlation(found), found.count, settings.shrinkage)
    return top_k_graph(r, settings.k), seen.gains


def _moments(seen, settings, rng):
    r, _ = shrink(matched_moments(seen.r, rng), seen.found.count, settings.shrinkage)
    return top_k_graph(r, settings.k), seen.gains


def _divided(graph, gains, settings, rng):
    """Divide a new graph and couple it with gains."""
    if not len(graph):
        b, g = len(BOUNDARIES), len(gains)
        return np.full((b, g), np.nan), np.full((b + 1, g), np.nan), np.nan
    labels = divide(graph, settings, settings.null_seeds)
    at = boundaries(graph, labels, rewired_graphs(graph, settings.z_draws, rng))
    quality = signed_modularity(graph, labels, gamma=settings.gamma)
    return coupling(at, gains), community_coupling(graph, labels, at, gains), quality


def _relabelled(seen, rng):
    joined, labels = np.flatnonzero(seen.graph.degree()), seen.labels.copy()
    labels[joined] = labels[rng.permutation(joined)]
    at = boundaries(seen.graph, labels, seen.rewired)
    return coupling(at, seen.gains), community_coupling(seen.graph, labels, at, seen.gains), np.nan


def _regained(seen, values, joined):
    """Give the nodes that have an edge other gains."""
    gains = seen.gains.copy()
    gains[:, joined] = values
    coupled = coupling(seen.boundaries, gains)
    return coupled, community_coupling(seen.graph, seen.labels, seen.boundaries, gains), np.nan


def _in_order_of(order, values):
    """Give each row the values of another, in the order of its own ranks."""
    ranks = rankdata(order, method="ordinal", axis=1) - 1
    return np.take_along_axis(np.sort(values, axis=1), ranks, axis=1)
