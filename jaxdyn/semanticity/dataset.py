"""What the store keeps of a probe or of a toy network: labelled arrays with units, and the fronts to draw them on."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from .probe import LAWS, Design
from .quadrature import half_line
from .similarity import KERNELS, shell_edges
from .theory import front

if TYPE_CHECKING:  # flax is loaded with the toy network only
    from .toy import Trajectory

POINTS = 201
LOADS = np.geomspace(0.03, 30.0, 121)
"""Mean number of similar items beside the one: (n - 1) times the mean similarity."""

NAMES = {
    "p_s": ("p_S, two items, enumerated", ("control", "layer"), "methods.md 3.1"),
    "p_s_low": ("p_S, 2.5 % of the bootstrap over probes", ("control", "layer"), ""),
    "p_s_high": ("p_S, 97.5 % of the bootstrap over probes", ("control", "layer"), ""),
    "p_i": ("p_I, two items, enumerated", ("control", "layer"), "methods.md 3.1"),
    "p_i_low": ("p_I, 2.5 % of the bootstrap over probes", ("control", "layer"), ""),
    "p_i_high": ("p_I, 97.5 % of the bootstrap over probes", ("control", "layer"), ""),
    "p_s_items": ("p_S, n items, sampled", ("control", "layer", "items"), "methods.md 3.1"),
    "p_i_items": ("p_I, n items, sampled", ("control", "layer", "items"), "methods.md 3.1"),
    "p_s_items_error": ("standard error of p_s_items", ("control", "layer", "items"), ""),
    "p_i_items_error": ("standard error of p_i_items", ("control", "layer", "items"), ""),
    "p_s_law": ("p_S predicted from the kernel", ("control", "layer", "law", "items"), "methods.md 3.2"),
    "p_i_law": ("p_I predicted from the kernel", ("control", "layer", "law", "items"), "methods.md 3.2"),
    "mean_g": ("mean similarity of two different tested stimuli", ("control", "layer"), ""),
    "eps": ("fitted resolution, in distances of the stimuli", ("control", "layer", "kernel"), "methods.md 3.4"),
    "noise": ("fitted floor of the similarity", ("control", "layer", "kernel"), "methods.md 3.4"),
    "fit_error": ("root mean square of measured less fitted similarity", ("control", "layer", "kernel"), ""),
    "mean_b": ("<b>, share of stimuli within eps, over probes", ("control", "layer", "kernel"), "methods.md 3.1"),
    "var_b": ("Var b over probes", ("control", "layer", "kernel"), "methods.md 3.4"),
    "profile": ("mean similarity at a distance, of the fitted stimuli", ("control", "layer", "shell"), ""),
}
"""Long name, dimensions and source of every variable of a probe; all are pure numbers."""


def assemble(results: dict[str, list[dict[str, np.ndarray]]], plan: Design, layers: Sequence[int]) -> xr.Dataset:
    """Return the results of `probe.measure` by control and layer as one dataset, with the fronts beside them."""
    variables = {}
    for name, (text, dims, source) in NAMES.items():
        values = np.array([[one[name] for one in by_layer] for by_layer in results.values()], np.float64)
        variables[name] = (dims, values, {"long_name": text, "units": "1", **({"formula": source} if source else {})})
    edges = shell_edges(plan.stimuli.distance)
    coordinates = {
        "control": list(results),
        "layer": np.array(layers),
        "items": np.array(plan.items),
        "law": list(LAWS),
        "kernel": list(KERNELS),
        "shell_edge": ("shell", edges, {"long_name": "upper edge of a shell of distance", "units": "1"}),
    }
    attributes = {"tested": len(plan.test), "fitted": len(plan.fit), "trials": len(plan.draws[0])}
    return xr.Dataset(variables, coordinates, attributes).merge(fronts()).assign_attrs(attributes)


def of_trajectory(run: "Trajectory") -> xr.Dataset:
    """Return a toy network's training as a dataset: p_s and p_i by epoch and seed, loss, similarity, the fronts."""
    dims = ("evaluated_epoch", "network")
    found = xr.Dataset(
        {
            "p_s": (dims, run.p_s.astype(np.float64), {"long_name": "p_S over all triples", "units": "1"}),
            "p_i": (dims, run.p_i.astype(np.float64), {"long_name": "p_I over all pairs", "units": "1"}),
            "loss": (("trained_epoch", "network"), run.loss, {"long_name": "training loss", "units": "nat"}),
            "similarity": (
                (*dims, "item", "probe"),
                run.similarity,
                {"long_name": "g of item and probe", "units": "1"},
            ),
            "distance": (("item", "probe"), run.distance, {"long_name": "distance of the stimuli", "units": "1"}),
            **{f"weight_{name}": ((*dims, f"{name}_row", f"{name}_column"), w) for name, w in run.weights.items()},
        },
        {"evaluated_epoch": run.epochs},
    )
    return found.merge(fronts())


def fronts() -> xr.Dataset:
    """Return what figures draw beside the points: two-item fronts, and p_I against the load x in the limit of small b.

    In that limit K ~ Poisson(n b): p_I = (1 - e^-x)/x with x = n b (constant kernel), and
    int e^-t e^(-2 x (1 - (1 - e^-t)/t)) dt with x = n b/2 (linear): functions of x, which grows with n.
    """
    b = np.linspace(0, 1, POINTS)
    both = [front(b, 2, kernel) for kernel in KERNELS]
    t, weight = half_line()
    missing = 1 + np.expm1(-t) / t
    linear = np.array([np.sum(weight * np.exp(-t - 2 * load * missing)) for load in LOADS])
    limits = np.stack([-np.expm1(-LOADS) / LOADS, linear])
    return xr.Dataset(
        {
            "front_p_s": (("kernel", "front_point"), np.stack([np.asarray(p_s, np.float64) for p_s, _ in both])),
            "front_p_i": (("kernel", "front_point"), np.stack([np.asarray(p_i, np.float64) for _, p_i in both])),
            "limit_p_i": (
                ("kernel", "load"),
                limits,
                {"long_name": "p_I for n to infinity and b to 0 at a given load"},
            ),
        },
        {"kernel": list(KERNELS), "load": LOADS, "front_b": ("front_point", b)},
    )
