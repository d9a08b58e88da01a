"""The top-k graph of a correlation matrix: sparse, undirected, with sign and weight (T1-T3)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from jaxdyn.errors import InputError

PARTS = ("signed", "absolute", "positive", "negative")


@dataclass(frozen=True)
class SignedGraph:
    """An undirected graph without loops; each edge stands once.

    Attributes
    ----------
    size : D, the number of nodes.
    first, second : (E,), the ends, first < second.
    weight : (E,), float64, not zero, of either sign.
    """

    size: int
    first: Int[np.ndarray, " E"]
    second: Int[np.ndarray, " E"]
    weight: Float[np.ndarray, " E"]

    def __len__(self) -> int:
        return len(self.weight)

    def part(self, part: str) -> "SignedGraph":
        """Return the edges of one sign, or all, with their sizes as weights ("signed": as they are)."""
        if part not in PARTS:
            msg = f"part: got {part!r}; allowed {', '.join(map(repr, PARTS))}"
            raise InputError(msg)
        if part == "signed":
            return self
        every = np.ones(len(self), bool)
        chosen = {"absolute": every, "positive": self.weight > 0, "negative": self.weight < 0}[part]
        return SignedGraph(self.size, self.first[chosen], self.second[chosen], np.abs(self.weight[chosen]))

    def among(self, nodes: Int[np.ndarray, " n"]) -> "SignedGraph":
        """Return the graph of some nodes, numbered anew in their order, which must be ascending."""
        place = np.full(self.size, -1)
        place[nodes] = np.arange(len(nodes))
        first, second = place[self.first], place[self.second]
        kept = (first >= 0) & (second >= 0)
        return SignedGraph(len(nodes), first[kept], second[kept], self.weight[kept])

    def adjacency(self, part: str = "signed") -> sparse.csr_array:
        """Symmetric weight matrix (D, D); of a sign, the sizes of its weights."""
        of = self.part(part)
        rows, columns = np.concatenate([of.first, of.second]), np.concatenate([of.second, of.first])
        return sparse.csr_array((np.tile(of.weight, 2), (rows, columns)), shape=(self.size, self.size))

    def strength(self, part: str = "absolute") -> Float[np.ndarray, " D"]:
        """Sum of the weights at each node."""
        of = self.part(part)
        ends, weights = np.concatenate([of.first, of.second]), np.tile(of.weight, 2)
        return np.bincount(ends, weights, self.size).astype(float)  # bincount gives integers where there is no edge

    def degree(self, part: str = "absolute") -> Int[np.ndarray, " D"]:
        """Number of edges at each node."""
        of = self.part(part)
        return np.bincount(of.first, minlength=self.size) + np.bincount(of.second, minlength=self.size)


def top_k_graph(
    r: Float[np.ndarray, "D D"], k: int, *, floor: float = 0.0, raw: Float[np.ndarray, "D D"] | None = None
) -> SignedGraph:
    """Connect every node with the k nodes that it correlates with most, by size; an edge of either end is kept.

    Parameters
    ----------
    r : symmetric, the diagonal is not looked at; ranks the edges and gives their weights and signs.
    k : neighbours each node chooses, 1 to D - 1; a node can have more, being chosen by others.
    floor : edges with abs(r) below it are dropped.
    raw : the correlation that is held against the floor, where r is a shrunk one; None takes r.

    Returns
    -------
    SignedGraph, edges in the order of (first, second). Correlations that are exactly 0 make no edge. Cost: D^2.

    Raises
    ------
    InputError : a matrix that is not square, k out of range.
    """
    width = len(r)
    if r.ndim != 2 or r.shape != (width, width):
        msg = f"r: got shape {r.shape}; allowed a square matrix"
        raise InputError(msg)
    if not 1 <= k < width:
        msg = f"k: got {k}; allowed 1 to {width - 1}, the number of other nodes"
        raise InputError(msg, page="docs/topology.md")
    size = np.abs(r)
    np.fill_diagonal(size, -1.0)
    chosen = np.argpartition(-size, k - 1, axis=1)[:, :k]
    own = np.repeat(np.arange(width), k)
    low, high = np.minimum(own, chosen.ravel()), np.maximum(own, chosen.ravel())
    first, second = np.divmod(np.unique(low * width + high), width)
    held = np.abs((r if raw is None else raw)[first, second])
    kept = (held >= floor) & (r[first, second] != 0)
    first, second = first[kept], second[kept]
    return SignedGraph(width, first, second, np.asarray(r[first, second], np.float64))
