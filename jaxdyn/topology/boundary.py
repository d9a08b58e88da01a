"""Where a node stands between communities: participation, external share, conductance (T5).

Participation of one sign needs its own strength. Published toolboxes went wrong in the negative part, in three ways
that the hand-computed test keeps apart: the strength of all edges, or the net one, in the denominator (the negative
shares then do not add up to 1); the community of neighbours looked up where there is *no* edge, which gives 1 at every
node; and 0 for a node without a negative edge, as if all its negative edges went to one community, so that the measure
tells who has any. Here such a node has NaN, and is left out of every correlation.
"""

import numpy as np
from jaxtyping import Float, Int

from .graph import SignedGraph
from .rewiring import rewire

BOUNDARIES = (
    "participation",
    "participation_positive",
    "participation_negative",
    "participation_signed",
    "participation_z",
    "external_share",
)
"""Boundary positions of a node, the primary one first."""


def boundaries(
    graph: SignedGraph, labels: Int[np.ndarray, " D"], rewired: list[SignedGraph]
) -> Float[np.ndarray, "6 D"]:
    """All boundary positions of every node, in the order of `BOUNDARIES`.

    Parameters
    ----------
    graph, labels : the graph and its partition.
    rewired : draws of the rewired null for `participation_z`; empty gives NaN there.

    Returns
    -------
    (6, D), NaN where a node has no edge of the sign.
    """
    positive, negative, absolute = (participation(graph, labels, part) for part in ("positive", "negative", "absolute"))
    z = participation_z(graph, labels, rewired, absolute)
    signed = _signed(graph, positive, negative)
    return np.stack([absolute, positive, negative, signed, z, external_share(graph, labels)])


def participation(graph: SignedGraph, labels: Int[np.ndarray, " D"], part: str = "absolute") -> Float[np.ndarray, " D"]:
    """Participation coefficient of one part of the edges, P_i = 1 - sum_c (k_ic / k_i)^2.

    Parameters
    ----------
    graph, labels : the graph and its partition.
    part : "absolute", "positive" or "negative": whose weights k_i and k_ic sum, sizes without sign.

    Returns
    -------
    (D,), 0 where all weight goes to one community, up to 1 - 1/C; NaN where the node has no such edge. Source: Guimera
    and Amaral 2005.
    """
    to, _ = _to_communities(graph, labels, part)
    total = to.sum(axis=1)
    share = np.divide(to, total[:, None], out=np.full_like(to, np.nan), where=total[:, None] > 0)
    return 1 - np.square(share).sum(axis=1)


def participation_signed(graph: SignedGraph, labels: Int[np.ndarray, " D"]) -> Float[np.ndarray, " D"]:
    """Participation with a sign, P+_i - k-_i / (k+_i + k-_i) P-_i.

    The asymmetric weighting of Rubinov and Sporns (2011, there for the diversity coefficient): positive edges count in
    full, negative ones by their share. A part without an edge contributes 0; NaN where the node has no edge at all.
    """
    return _signed(graph, participation(graph, labels, "positive"), participation(graph, labels, "negative"))


def _signed(graph, positive, negative):
    plus, minus = graph.strength("positive"), graph.strength("negative")
    total = plus + minus
    share = np.divide(minus, total, out=np.full_like(total, np.nan), where=total > 0)
    return np.where(plus > 0, positive, 0.0) - share * np.where(minus > 0, negative, 0.0)


def participation_z(
    graph: SignedGraph,
    labels: Int[np.ndarray, " D"],
    rewired: list[SignedGraph],
    measured: Float[np.ndarray, " D"] | None = None,
) -> Float[np.ndarray, " D"]:
    """Participation in standard deviations from what the node's degree and the communities' sizes give it.

    Parameters
    ----------
    graph, labels : the graph and its partition.
    rewired : graphs of the same signed degrees (`rewiring.rewire`), divided by the same labels.
    measured : participation by size of weights, where it is known.

    Returns
    -------
    (D,), NaN with fewer than two draws, and where they do not differ.
    """
    if len(rewired) < 2:
        return np.full(graph.size, np.nan)
    measured = participation(graph, labels) if measured is None else measured
    drawn = np.stack([participation(one, labels) for one in rewired])
    spread = drawn.std(axis=0, ddof=1)
    return np.divide(measured - drawn.mean(axis=0), spread, out=np.full_like(spread, np.nan), where=spread > 1e-12)


def rewired_graphs(graph: SignedGraph, draws: int, rng: np.random.Generator) -> list[SignedGraph]:
    """Independent draws of the rewired null."""
    return [rewire(graph, rng) for _ in range(draws)]


def external_share(graph: SignedGraph, labels: Int[np.ndarray, " D"]) -> Float[np.ndarray, " D"]:
    """Share of a node's weight, by size, that leaves its community; NaN for a node without an edge."""
    to, column = _to_communities(graph, labels, "absolute")
    total = to.sum(axis=1)
    own = to[np.arange(graph.size), column]
    return 1 - np.divide(own, total, out=np.full_like(total, np.nan), where=total > 0)


def conductance(graph: SignedGraph, labels: Int[np.ndarray, " D"]) -> Float[np.ndarray, " C"]:
    """Conductance of each community: weight that leaves it over the smaller of its own and the others' strength.

    By size of the weights, 0 to 1; NaN where one of the two sides has no edge.
    """
    count = int(labels.max()) + 1
    volume = np.bincount(labels, graph.strength(), count)
    leaving = labels[graph.first] != labels[graph.second]
    size = np.abs(graph.weight[leaving])
    cut = np.bincount(labels[graph.first[leaving]], size, count) + np.bincount(
        labels[graph.second[leaving]], size, count
    )
    least = np.minimum(volume, volume.sum() - volume)
    return np.divide(cut, least, out=np.full(count, np.nan), where=least > 1e-12 * max(volume.sum(), 1e-300))


def _to_communities(graph, labels, part):
    """Weight from every node to every community that has an edge, (D, C), and each node's own column."""
    of = graph.part(part)
    joined = graph.degree() > 0
    communities, place = np.unique(labels[joined], return_inverse=True)
    own = np.zeros(graph.size, int)
    own[joined] = place
    count = max(1, len(communities))
    cells = np.concatenate([of.first * count + own[of.second], of.second * count + own[of.first]])
    total = np.bincount(cells, np.tile(of.weight, 2), graph.size * count).astype(float)  # int without an edge
    return total.reshape(graph.size, count), own
