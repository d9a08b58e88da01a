"""A layer, and a model, as labelled arrays; every coupling with its nulls and the first one that explains it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from .amplification import AMPLIFICATIONS, block_gains, community_amplifications
from .boundary import BOUNDARIES, conductance
from .communities import adjusted_rand
from .correlation import marchenko_pastur_edge
from .coupling import SMALLEST, community_means
from .settings import NULLS, TopologySettings
from .verdict import INITIAL, against, against_seeds, explained_by, max_t

if TYPE_CHECKING:
    from .layer import Layer

COMMUNITY_BOUNDARIES = (*BOUNDARIES, "conductance")
RUNGS = (*NULLS, INITIAL)
"""Along the dimension `topology_null`: the ladder's nulls, then random initialisation."""

NUMBERS = ("mean", "sd", "p", "low", "high")
PAIR, OVER = ("boundary", "amplification"), ("community_boundary", "amplification")

TEXTS = {
    "boundary_position": ("boundary position of each coordinate; NaN without an edge of the sign", "1", "T5"),
    "gains": ("amplification by each coordinate, of the mean Jacobian", "gain", "T6"),
    "log_gains": ("natural logarithm of the amplification", "1", "T6"),
    "community_of": ("community of each coordinate; 0 is the largest", "1", "T4"),
    "consensus_community_of": ("community on which the seeds agree", "1", "T4"),
    "covariates": ("what partial correlations are given", "1", "T8"),
    "degree": ("edges of each coordinate", "1", "T3"),
    "community_size": (f"members; communities of {SMALLEST} or more", "1", "T4"),
    "community_position": ("mean boundary position of the members, and conductance", "1", "T5"),
    "community_gain": ("root mean square of the members' amplification", "gain", "T6"),
    "community_log_gain": ("natural logarithm of the community's amplification", "1", "T6"),
    "block_gain": ("norm(P_a A P_b)_F / sqrt(n_b), to community a from community b", "gain", "T6"),
    "block_export": ("the same without the diagonal of A", "gain", "T6"),
    "coupling": ("Spearman correlation of boundary position and amplification over coordinates", "1", "T7"),
    "coupling_partial": ("the same given all covariates", "1", "T8"),
    "coupling_given": ("the same given one covariate", "1", "T8"),
    "coupling_same_half": ("the same with the Jacobian of the graph's own half of the prompts", "1", "1.8"),
    "community_coupling": (f"Spearman correlation over communities of {SMALLEST} or more", "1", "T7"),
    "modularity": ("signed modularity", "1", "T4"),
    "explained_by": ("the first null that explains the coupling", "", "1.8"),
    "modularity_explained_by": ("the first null whose graphs are as modular", "", "1.8"),
    "coupling_p_max_t": ("p of the coupling against a null, adjusted for all layers (max-T)", "1", "1.8"),
    "sweep_coupling": ("the coupling with another k", "1", "T3"),
}


def of_layer(found: "Layer", settings: TopologySettings) -> xr.Dataset:
    """Put a layer into a dataset.

    Returns
    -------
    Dataset with the dimensions `coordinate` (D), `boundary` (`boundary.BOUNDARIES`), `amplification`
    (`amplification.AMPLIFICATIONS`), `community_boundary` (boundary and conductance), `community` and `community_from`
    (those of 5 members or more), `topology_null` (`RUNGS`), `null_draw`, `covariate`, `leiden_seed`, `sweep_k`.

    `coupling`, `coupling_partial`, `community_coupling` with `_low`, `_high` (bootstrap); `coupling_null_mean`, `_sd`,
    `_p`, `_low`, `_high` (central 95 %) and the same of `community_coupling` and `modularity` by null;
    `coupling_draws`; `explained_by` by pair, `modularity_explained_by`. Of the graph: `edges`, `edges_kept`,
    `negative_share`, `noise_*`, `ratio` (q = D/N), `noise_edge` (Marchenko-Pastur), `top_eigenvalue`, `shrinkage`.
    """
    seen, width = found.seen, found.seen.graph.size
    data: dict[str, Any] = {
        "boundary_position": (("boundary", "coordinate"), seen.boundaries),
        "gains": (("amplification", "coordinate"), seen.gains),
        "log_gains": (("amplification", "coordinate"), _log(seen.gains)),
        "covariates": (("covariate", "coordinate"), np.stack(list(found.given.values()))),
        "coupling_given": (("covariate", *PAIR), found.alone),
        "coupling_same_half": (PAIR, found.same_half),
        "degree": ("coordinate", seen.graph.degree()),
        "community_of": ("coordinate", seen.labels),
    }
    data |= _of_communities(found, settings)
    for name, values in found.couplings.items():
        data[name] = (OVER if name.startswith("community") else PAIR, values)
    data |= _of_graph(found)
    if found.swept:
        edges, quality, coupled = (np.array(column) for column in zip(*found.swept.values(), strict=True))
        data |= {
            "sweep_edges": ("sweep_k", edges),
            "sweep_modularity": ("sweep_k", quality),
            "sweep_coupling": (("sweep_k", *PAIR), coupled),
        }
    data |= _against_nulls(found, float(data["modularity"][1]), settings)
    coordinates = {
        "boundary": list(BOUNDARIES),
        "amplification": list(AMPLIFICATIONS),
        "community_boundary": list(COMMUNITY_BOUNDARIES),
        "topology_null": list(RUNGS),
        "covariate": list(found.given),
        "coordinate": np.arange(width),
        **({"sweep_k": list(found.swept)} if found.swept else {}),
    }
    made = xr.Dataset(data, coordinates, attrs={"samples": seen.found.count, "width": width, "k": settings.k})
    for name, variable in made.variables.items():
        stem = next((key for key in sorted(TEXTS, key=len, reverse=True) if str(name).startswith(key)), None)
        if stem is not None:
            variable.attrs |= dict(zip(("long_name", "units", "formula"), TEXTS[stem], strict=True))
    return made


def join_layers(layers: Sequence[xr.Dataset], numbers: Sequence[int]) -> xr.Dataset:
    """Put layers side by side along `layer`, communities padded with NaN, and add max-T over the layers.

    Returns
    -------
    The dataset of `of_layer` with a dimension `layer` more, and `coupling_p_max_t` (null, boundary, amplification,
    layer).
    """
    most = max(one.sizes["community"] for one in layers)
    padded = [one.pad({"community": (0, most - one.sizes["community"])}, constant_values=np.nan) for one in layers]
    padded = [
        one.pad({"community_from": (0, most - one.sizes["community_from"])}, constant_values=np.nan) for one in padded
    ]
    along = xr.DataArray(list(numbers), dims="layer", name="layer")
    joined = xr.concat(padded, dim=along, data_vars="all", coords="minimal", compat="override", join="outer")
    draws = joined["coupling_draws"].transpose("topology_null", "null_draw", *PAIR, "layer").values
    measured = joined["coupling"].transpose(*PAIR, "layer").values
    adjusted = np.full((len(RUNGS), *measured.shape), np.nan)
    for rung in range(len(NULLS)):
        there = np.isfinite(draws[rung]).any(axis=(1, 2, 3))
        for pair in np.ndindex(measured.shape[:2]):
            adjusted[(rung, *pair)] = max_t(measured[pair], draws[rung][there][(slice(None), *pair)])
    joined["coupling_p_max_t"] = (("topology_null", *PAIR, "layer"), adjusted)
    joined["coupling_p_max_t"].attrs |= dict(
        zip(("long_name", "units", "formula"), TEXTS["coupling_p_max_t"], strict=True)
    )
    return joined.assign_attrs({key: value for key, value in layers[0].attrs.items() if key != "samples"})


def _of_communities(found, settings) -> dict[str, Any]:
    seen, divided = found.seen, found.communities
    sizes = np.bincount(seen.labels)
    large = np.flatnonzero(sizes >= SMALLEST) if divided is not None else np.zeros(0, int)
    gains = community_amplifications(seen.gains, seen.labels)[:, large]
    A = seen.jacobian - np.eye(len(seen.jacobian))
    off = A - np.diag(np.diag(A))
    empty = np.full((7, 0), np.nan)
    position = (
        np.vstack([community_means(seen.boundaries, seen.labels), conductance(seen.graph, seen.labels)])[:, large]
        if divided is not None
        else empty
    )
    used = settings.partition
    other = seen.labels if divided is None else divided.consensus
    return {
        "consensus_community_of": ("coordinate", other),
        "community_size": ("community", sizes[large].astype(float)),
        "community_position": (("community_boundary", "community"), position),
        "community_gain": (("amplification", "community"), gains),
        "community_log_gain": (("amplification", "community"), _log(gains)),
        "block_gain": (("community", "community_from"), _large_blocks(A, seen.labels, large)),
        "block_export": (("community", "community_from"), _large_blocks(off, seen.labels, large)),
        "communities": ((), float(len(large))),
        "modularity": ((), np.nan if divided is None else getattr(divided, _QUALITY[used])),
        "consensus_modularity": ((), np.nan if divided is None else divided.consensus_modularity),
        "consensus_agreement": ((), np.nan if divided is None else adjusted_rand(divided.best, divided.consensus)),
        "agreement": ((), np.nan if divided is None else divided.mean_agreement),
        "modularity_seeds": ("leiden_seed", np.full(settings.seeds, np.nan) if divided is None else divided.qualities),
    }


_QUALITY = {"best": "modularity", "consensus": "consensus_modularity"}


def _large_blocks(A, labels, large):
    """Blocks between the large communities alone; the others may be thousands of single coordinates."""
    order = np.where(labels < len(large), labels, len(large))  # labels go by size, so the large ones come first
    return block_gains(A, order)[: len(large), : len(large)]


def _of_graph(found) -> dict[str, Any]:
    seen, noise = found.seen, found.noise
    graph, size = seen.graph, np.abs(seen.graph.weight)
    positive = float((graph.weight < 0).mean()) if len(graph) else np.nan
    values = {
        "edges": found.edges,
        "edges_kept": len(graph),
        "negative_share": positive,
        "least_correlation": size.min() if len(graph) else np.nan,
        "floor": seen.floor,
        "noise_least": noise.least,
        "noise_median": noise.median,
        "noise_floor": noise.floor,
        "noise_most": noise.most,
        "ratio": seen.found.ratio,
        "noise_edge": marchenko_pastur_edge(seen.found.ratio),
        "top_eigenvalue": found.top_eigenvalue,
        "shrinkage": found.intensity,
        "constant_coordinates": int(seen.found.constant.sum()),
    }
    return {name: ((), float(value)) for name, value in values.items()}


def _against_nulls(found, modularity: float, settings) -> dict[str, Any]:
    """Every coupling, and the modularity, beside each null: numbers, draws, verdicts."""
    kinds = {"coupling": PAIR, "community_coupling": OVER, "modularity": ()}
    measured = {**found.couplings, "modularity": np.array(modularity)}
    data: dict[str, Any] = {}
    tables = {}
    for kind, dims in kinds.items():
        shape = measured[kind].shape
        table = {number: np.full((len(RUNGS), *shape), np.nan) for number in (*NUMBERS, "count")}
        for rung, name in enumerate(RUNGS):
            if name == INITIAL:
                if not len(found.initial[kind]):
                    continue
                said = against_seeds(measured[kind], found.initial[kind])
            elif name in found.nulls:
                said = against(measured[kind], getattr(found.nulls[name], kind))
            else:
                continue
            for number in table:
                table[number][rung] = said[number]
        tables[kind] = table
        for number in NUMBERS:
            data[f"{kind}_null_{number}"] = (("topology_null", *dims), table[number])
    most = max([settings.draws, settings.refits])
    draws = np.full((len(RUNGS), most, *measured["coupling"].shape), np.nan)
    for rung, name in enumerate(RUNGS):
        if name in found.nulls:
            own = found.nulls[name].coupling
            draws[rung, : len(own)] = own
    data["coupling_draws"] = (("topology_null", "null_draw", *PAIR), draws)
    verdict = np.empty(measured["coupling"].shape, object)
    low, high = found.couplings["coupling_partial_low"], found.couplings["coupling_partial_high"]
    for pair in np.ndindex(verdict.shape):
        p = _drawn(tables["coupling"], found, pair)
        verdict[pair] = explained_by(p, alpha=settings.alpha, partial=(low[pair], high[pair]))
    data["explained_by"] = (PAIR, verdict.astype(str))
    over = {name: p for name, p in _drawn(tables["modularity"], found, ()).items() if name in REDRAWN}
    data["modularity_explained_by"] = ((), explained_by(over, alpha=settings.alpha))
    return data


REDRAWN = ("rotated", "rewired", "permuted", "moments", INITIAL)
"""Nulls that have a modularity of their own."""


def _drawn(table, found, pair) -> dict[str, float]:
    """Return p by null, of those that were drawn."""
    there = [name in found.nulls or (name == INITIAL and len(found.initial["coupling"]) > 0) for name in RUNGS]
    return {name: float(table["p"][(rung, *pair)]) for rung, name in enumerate(RUNGS) if there[rung]}


def _log(values):
    return np.log(np.maximum(values, np.finfo(float).tiny))
