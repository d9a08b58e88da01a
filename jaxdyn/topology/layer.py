"""One layer: states and a mean Jacobian to graph, communities, gains, their coupling, and every null beside it.

The graph is made from one half of the prompts and the Jacobian from the other, so that noise which both would share
cannot couple them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.linalg import eigh
from threadpoolctl import threadpool_limits

from jaxdyn.errors import InputError

from .amplification import AMPLIFICATIONS, amplifications
from .boundary import BOUNDARIES, boundaries, rewired_graphs
from .communities import Communities, find_communities, signed_modularity
from .correlation import Moments, correlation, moments, shrink
from .coupling import bootstrap, community_coupling, coupling, large_communities
from .dataset import of_layer
from .graph import SignedGraph, top_k_graph
from .ladder import Draws, Observed, divide, draw_null
from .noise import NoiseFloor, noise_floor
from .settings import NULLS, PAGE, REFITS, TopologySettings

States = Float[np.ndarray, "N D"] | Iterable[Float[np.ndarray, "n D"]]

FLOOR, REWIRED, RESAMPLED = 100, 101, 102
"""Numbers of the random streams beside those of the nulls."""

SMALL = 512
"""Width up to which BLAS has one thread."""


@dataclass(frozen=True)
class Layer:
    """Everything measured in one layer, before it is put into a dataset.

    Attributes
    ----------
    seen : graph, partition, boundary positions, gains.
    communities : the partitions of all seeds; None where no edge is above the floor.
    noise : what noise puts into such a graph.
    edges : edges of the top-k graph before the floor was applied.
    intensity : of the shrinkage.
    top_eigenvalue : of the correlation matrix.
    couplings : "coupling", "coupling_partial" (given all covariates) and "community_coupling", with `_low`, `_high`.
    given : covariates by name, (D,) each.
    alone : (c, b, g), the coupling given each covariate.
    nulls : draws by name.
    initial : couplings and modularity at random initialisation, (seeds, ...), by name.
    same_half : (b, g), with the Jacobian of the graph's own half; NaN where none was given.
    swept : by k: edges, modularity and coupling.
    """

    seen: Observed
    communities: Communities | None
    noise: NoiseFloor
    edges: int
    intensity: float
    top_eigenvalue: float
    couplings: dict[str, np.ndarray]
    given: dict[str, np.ndarray]
    alone: np.ndarray
    nulls: dict[str, Draws]
    initial: dict[str, np.ndarray]
    same_half: np.ndarray
    swept: dict[int, tuple[int, float, np.ndarray]]


def layer_topology(
    states: States,
    jacobian: Float[np.ndarray, "D D"],
    settings: TopologySettings | None = None,
    *,
    articles: ArrayLike | None = None,
    covariates: Mapping[str, ArrayLike] | None = None,
    initial: Sequence[tuple[States, Float[np.ndarray, "D D"]]] = (),
    same_half: Float[np.ndarray, "D D"] | None = None,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> xr.Dataset:
    """Study one layer.

    Parameters
    ----------
    states : (N, D), the residual stream at the layer's entry, or an iterable of chunks of it, read once. Chunks are
        kept (in the dtype they have) only where the null "permuted" or the floor "permutation" needs them.
    jacobian : (D, D), mean Jacobian (output, input) of the layer, from other prompts than the states.
    settings : default: all nulls.
    articles : label of each sample; samples of one article are not taken as independent.
    covariates : (D,) each, beside strength and activation variance, which are always given: norm weights, row and
        column norms of the weights, massive coordinates.
    initial : states and mean Jacobian of the same layer at random initialisations.
    same_half : mean Jacobian of the states' own prompts, for the coupling that halves are kept apart to avoid.
    progress : called with (stage, done, total).

    Returns
    -------
    xarray.Dataset; `dataset.of_layer` says what it holds. Where no edge is above the floor, there are no communities:
    couplings are NaN and the verdict "undecided".

    Raises
    ------
    InputError : shapes that do not fit, values that are not finite, k that is too large, igraph or leidenalg missing.

    Notes
    -----
    Cost at D = 4096, k = 20, two cores, without correlation and nulls: 11 s with communities, 36 s for pure noise
    (20 Leiden seeds, their agreement, 20 rewired graphs, bootstrap). Nulls: see `ladder.draw_null`; with the default
    numbers of draws 30 minutes a layer, two thirds of it for the rotated basis. At D = 128: 20 s.
    """
    settings = settings or TopologySettings()
    keep = "permuted" in settings.nulls or settings.floor == "permutation"
    kept, found = _read(states, keep)
    # Thousands of small products are slower on several threads than on one, and slower still on a busy machine.
    with threadpool_limits(1 if len(found.mean) <= SMALL else None, "blas"):
        return _study(kept, found, jacobian, settings, articles, covariates or {}, initial, same_half, progress)


def _study(states, found, jacobian, settings, articles, covariates, initial, same_half, progress) -> xr.Dataset:
    """Measure, draw the nulls, and put all of it together."""
    jacobian = np.asarray(jacobian, np.float64)
    width = len(found.mean)
    if jacobian.shape != (width, width):
        msg = f"jacobian: got shape {jacobian.shape}; allowed ({width}, {width}), the width of the states"
        raise InputError(msg, page=PAGE)
    if articles is not None and len(np.asarray(articles)) != found.count:
        msg = f"articles: got {len(np.asarray(articles))} labels; allowed one for each of the {found.count} samples"
        raise InputError(msg, page=PAGE)
    noise, floor = _floor(found, states, articles, settings)
    made = _observe(found, jacobian, floor, settings, states=states, articles=articles)
    given = _covariates(made.seen, covariates)
    own = np.full((len(BOUNDARIES), len(AMPLIFICATIONS)), np.nan)
    if same_half is not None:
        own = coupling(made.seen.boundaries, amplifications(same_half))
    return of_layer(
        Layer(
            seen=made.seen,
            communities=made.communities,
            noise=noise,
            edges=made.edges,
            intensity=made.intensity,
            top_eigenvalue=_largest(made.seen.r),
            couplings=_couplings(made.seen, np.stack(list(given.values())), settings),
            given=given,
            alone=np.stack([coupling(made.seen.boundaries, made.seen.gains, one[None]) for one in given.values()]),
            nulls=_nulls(made, settings, progress),
            initial=_initial(initial, floor, settings),
            same_half=own,
            swept={k: _at_k(made.seen, k, settings) for k in settings.sweep},
        ),
        settings,
    )


@dataclass(frozen=True)
class _Made:
    seen: Observed
    communities: Communities | None
    edges: int
    intensity: float


def _observe(found: Moments, jacobian, floor, settings, *, states=None, articles=None) -> _Made:
    """Run the pipeline that is measured: graph, communities, boundary positions, gains."""
    raw = correlation(found)
    r, intensity = shrink(raw, found.count, settings.shrinkage)
    graph = top_k_graph(r, settings.k, floor=floor, raw=raw)
    edges = len(top_k_graph(r, settings.k)) if floor else len(graph)
    divided, labels = None, np.zeros(graph.size, int)
    rng = np.random.default_rng([settings.seed, REWIRED])
    rewired = rewired_graphs(graph, settings.z_draws, rng) if len(graph) else []
    if len(graph):
        divided = find_communities(
            graph, seeds=settings.seeds, iterations=settings.iterations, gamma=settings.gamma, seed=settings.seed
        )
        labels = divided.best if settings.partition == "best" else divided.consensus
        at = boundaries(graph, labels, rewired)
    else:
        at = np.full((len(BOUNDARIES), graph.size), np.nan)
    gains = amplifications(jacobian)
    seen = Observed(found, raw, floor, graph, labels, at, gains, rewired, jacobian, states, articles)
    return _Made(seen, divided, edges, intensity)


def _read(states: States, keep: bool) -> tuple[np.ndarray | None, Moments]:
    if hasattr(states, "shape"):  # an array, jax's too
        whole = np.asarray(states)
        return whole, moments(whole)
    kept: list[np.ndarray] = []

    def chunks():
        for chunk in states:
            if keep:
                kept.append(np.asarray(chunk))
            yield chunk

    found = moments(chunks())
    return (np.concatenate(kept) if kept else None), found


def _floor(found: Moments, states, articles, settings) -> tuple[NoiseFloor, float]:
    rng = np.random.default_rng([settings.seed, FLOOR])
    real = states if settings.floor == "permutation" else None
    noise = noise_floor(
        found.count, len(found.mean), settings.k, rng, states=real, articles=articles, quantile=settings.floor_quantile
    )
    return noise, 0.0 if settings.floor == "none" else noise.floor


def _covariates(seen: Observed, extra: Mapping[str, ArrayLike]) -> dict[str, np.ndarray]:
    given = {"strength": seen.graph.strength(), "activation_variance": seen.found.variance}
    for name, values in extra.items():
        one = np.asarray(values, np.float64)
        if one.shape != (seen.graph.size,) or not np.isfinite(one).all():
            msg = f"covariates: {name} has shape {one.shape}; allowed ({seen.graph.size},), all values finite"
            raise InputError(msg, page=PAGE)
        given[name] = one
    return given


def _couplings(seen: Observed, given: np.ndarray, settings) -> dict[str, np.ndarray]:
    """Couplings over nodes and communities, and partial ones, each with its bootstrap interval."""
    rng = np.random.default_rng([settings.seed, RESAMPLED])
    over = large_communities(seen.graph, seen.labels, seen.boundaries, seen.gains)
    found = {
        "coupling": coupling(seen.boundaries, seen.gains),
        "coupling_partial": coupling(seen.boundaries, seen.gains, given),
        "community_coupling": community_coupling(seen.graph, seen.labels, seen.boundaries, seen.gains),
    }
    found["coupling_low"], found["coupling_high"] = bootstrap(seen.boundaries, seen.gains, rng)
    found["coupling_partial_low"], found["coupling_partial_high"] = bootstrap(seen.boundaries, seen.gains, rng, given)
    found["community_coupling_low"], found["community_coupling_high"] = bootstrap(*over, rng)
    return found


def _nulls(made: _Made, settings, progress) -> dict[str, Draws]:
    if not len(made.seen.graph):
        return {}
    found = {}
    for name in (null for null in NULLS if null in settings.nulls):
        done, total = 0, settings.refits if name in REFITS else settings.draws

        def tick(name: str = name, total: int = total) -> None:
            nonlocal done
            done += 1
            progress(f"null {name}", done, total)

        found[name] = draw_null(name, made.seen, settings, tick)
    return found


def _initial(models, floor, settings) -> dict[str, np.ndarray]:
    """Couplings of the same pipeline at random initialisation, by seed."""
    made = []
    for states, jacobian in models:
        _, found = _read(states, False)
        made.append(_observe(found, np.asarray(jacobian, np.float64), floor, settings).seen)
    whole = [one for one in made if len(one.graph)]
    return {
        "coupling": np.array([coupling(one.boundaries, one.gains) for one in whole]).reshape(
            -1, len(BOUNDARIES), len(AMPLIFICATIONS)
        ),
        "community_coupling": np.array(
            [community_coupling(one.graph, one.labels, one.boundaries, one.gains) for one in whole]
        ).reshape(-1, len(BOUNDARIES) + 1, len(AMPLIFICATIONS)),
        "modularity": np.array([signed_modularity(one.graph, one.labels, gamma=settings.gamma) for one in whole]),
    }


def _at_k(seen: Observed, k: int, settings) -> tuple[int, float, np.ndarray]:
    """Edges, modularity and coupling of another k; fewer Leiden seeds, and no participation_z."""
    r, _ = shrink(seen.r, seen.found.count, settings.shrinkage)
    graph: SignedGraph = top_k_graph(r, k, floor=seen.floor, raw=seen.r)
    if not len(graph):
        return 0, np.nan, np.full((len(BOUNDARIES), len(AMPLIFICATIONS)), np.nan)
    labels = divide(graph, settings, settings.null_seeds)
    at = boundaries(graph, labels, [])
    return len(graph), signed_modularity(graph, labels, gamma=settings.gamma), coupling(at, seen.gains)


def _largest(r: np.ndarray) -> float:
    return float(eigh(r, eigvals_only=True, subset_by_index=[len(r) - 1, len(r) - 1])[0])
