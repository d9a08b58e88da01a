"""What is read off the averaged Jacobian when all units are done: its measures, what survived, its directions.

The sums of the units are merged in the order of the units, so the mean has the same bits however often the run was
interrupted.
"""

import functools
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float

from jaxdyn import spectra
from jaxdyn.measures import MEASURES, nulls, pseudospectrum, surviving_energy, surviving_energy_split
from jaxdyn.models.model import Model
from jaxdyn.store import Store

from .decode import decoded_directions
from .layout import measure_attributes, rungs
from .settings import Settings
from .unit import Arrays, Measurer

Sums = Callable[[int], tuple[np.ndarray, np.ndarray]]
"""From the index of a layer: sums of the Jacobians (2, P, n, n), by half of the articles, and their numbers (2,)."""


def unit_sums(store: Store, units: Iterable[int], layer: int) -> tuple[np.ndarray, np.ndarray]:
    """Add the sums of these units of a store, in this order, for one layer: see `Sums`."""
    return functools.reduce(
        add_sums,
        (
            (
                store.read(unit, "units/jacobian_sum", at={"layer": layer})[0],
                store.read(unit, "units/count", at={"layer": layer})[0],
            )
            for unit in units
        ),
    )


def store_sums(store: Store, layer: int) -> tuple[np.ndarray, np.ndarray]:
    """Add the sums of all units of a store, in their order whoever came first, for one layer: see `Sums`."""
    return unit_sums(store, range(store.unit_count), layer)


def add_sums(first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]):
    """Add two pairs of sums and numbers."""
    return first[0] + second[0], first[1] + second[1]


def merged_means(total: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Make means of one layer's sums.

    Parameters
    ----------
    total, counts : see `Sums`.

    Returns
    -------
    mean : (P, n, n), the averaged Jacobians, over the samples that did not fail; NaN where all did.
    halves : (2, P, n, n), the means over even and odd articles; NaN where a half has no article.
    count : number of samples averaged.
    """
    with np.errstate(invalid="ignore"):
        halves = total / counts[:, None, None, None].astype(total.dtype)
        mean = total.sum(axis=0) / total.dtype.type(counts.sum())
    return mean, halves, int(counts.sum())


def averaged_groups(
    store: Store,
    model: Model,
    settings: Settings,
    layers: tuple[int, ...],
    tick: Callable[[], None],
    *,
    sums: Sums | None = None,
) -> dict[str, xr.Dataset]:
    """Measure the averaged Jacobians and return the groups to be stored.

    `sums` gives the sums of a layer; by default those of all units of the store, in ascending order.

    Returns
    -------
    "mean": measures, nulls and surviving energy, by part and layer; "mean_relative": the relative metric; "cumulative":
    the product of the averaged blocks; "decoded": leading directions as tokens; "pseudospectra" where asked for.
    """
    kinds, arch = settings.matrices, model.architecture
    names = [measure.name for measure in MEASURES if measure.name in store.keys]
    samples = store.read_all(["input_norm", "output_norm", "update_norm", *names])
    measurer = Measurer(arch, settings, layers, np.array([samples["update_norm"].shape[-1]]))
    rows, energies, directions, grids = [], [], [], []
    for index, layer in enumerate(layers):
        added = sums(index) if sums else store_sums(store, index)
        mean, halves, count = merged_means(*added)
        norms = _mean_norms(samples, settings, index)
        arrays = measurer.measure(layer, mean[:, None], norms, tick)
        rows.append({name: value[:, 0] for name, value in arrays.items()})
        energies.append(_energies(mean, halves, samples, settings, index, count))
        if "block" in kinds:
            block = jnp.asarray(mean[kinds.index("block")])
            directions.append(decoded_directions(model, block))
            if layer in settings.pseudospectra:
                grids.append(_grid(block))
    groups: dict[str, Any] = {
        "mean": _portrait(rows, energies, samples, settings, layers, ""),
        "mean_relative": _portrait(rows, None, {}, settings, layers, "relative/"),
    }
    if cumulative := measurer.cumulative():
        groups["cumulative"] = _product_of_means(cumulative, arch.width)
    if directions:
        groups["decoded"] = xr.concat(directions, dim=xr.DataArray(list(layers), dims="layer", name="layer"))
    if grids:
        labels = xr.DataArray(list(settings.pseudospectra), dims="pseudo_layer", name="pseudo_layer")
        groups["pseudospectra"] = xr.concat(grids, dim=labels)
        groups["pseudospectra"].attrs["title"] = (
            "resolvent norms of the averaged block Jacobian: they describe the block iterated, which no model does"
        )
    return groups


def _mean_norms(samples: Arrays, settings: Settings, layer: int) -> np.ndarray:
    """Root mean square of the residual stream's norms over the samples, (P, 2, 1)."""
    parts = [settings.parts.index(_part_of(kind, settings)) for kind in settings.matrices]
    sides = [samples[name][parts, layer] for name in ("input_norm", "output_norm")]
    return np.stack([np.sqrt(finite_mean(side**2))[..., None] for side in sides], axis=1)


def finite_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis without the failed samples (NaN), as in the averaged Jacobian; NaN where all failed."""
    good = np.isfinite(values)
    count = good.sum(axis=-1)
    total = np.where(good, values, 0).sum(axis=-1, dtype=values.dtype)
    return np.where(count > 0, total / np.maximum(count, 1).astype(values.dtype), np.nan).astype(values.dtype)


def _part_of(kind: str, settings: Settings) -> str:
    """Return a stored part that shares this Jacobian's norms: the block's may be stored as its update alone."""
    return kind if kind in settings.parts else "update"


def _energies(mean, halves, samples, settings, layer, count) -> dict[str, np.ndarray]:
    """Share of norm(A)^2 that survives averaging, for A = M - I, by part."""
    squares = finite_mean(samples["update_norm"][:, layer] ** 2)
    kinds = tuple(settings.matrices.index("block" if part == "update" else part) for part in settings.parts)
    return {name: np.asarray(value) for name, value in _surviving(mean, halves, squares, kinds=kinds).items()} | {
        "samples": np.asarray(count)
    }


@partial(jax.jit, static_argnames="kinds")
def _surviving(
    mean: Float[Array, "P n n"], halves: Float[Array, "2 P n n"], squares: Float[Array, " parts"], *, kinds: tuple
) -> dict[str, Array]:
    eye = jnp.eye(mean.shape[-1], dtype=mean.dtype)
    update, (first, second) = mean - eye, halves - eye
    both = [
        (surviving_energy(update[kind], square), surviving_energy_split(first[kind], second[kind], square))
        for kind, square in zip(kinds, squares, strict=True)
    ]
    whole, split = (jnp.stack(values) for values in zip(*both, strict=True))
    return {"surviving_energy": whole, "surviving_energy_split": split}


ENERGY_TEXT = {
    "surviving_energy": "norm(mean A)^2 / mean norm(A)^2, A = M - I; biased upwards by 1/N",
    "surviving_energy_split": "inner product of the means of A over even and odd articles / mean norm(A)^2; unbiased",
    "samples": "samples averaged",
}


def _portrait(rows, energies, samples, settings, layers, prefix) -> xr.Dataset:
    """Measures of the averaged Jacobians beside the mean of the samples' measures."""
    data: dict[str, tuple] = {}
    for measure in MEASURES:
        key = prefix + measure.name
        if key not in rows[0]:
            continue
        attributes = measure_attributes(measure)
        stacked = np.stack([row[key] for row in rows], axis=1)
        data[measure.name] = (("part", "layer"), stacked, {**attributes, "of": "the averaged Jacobian"})
        for suffix in ("null", "null_sd", "excess") if settings.draws else ("null", "excess"):
            values = np.stack([row[f"{key}_{suffix}"] for row in rows], axis=1)
            data[f"{measure.name}_{suffix}"] = (("part", "layer", "rung"), values, attributes)
        if measure.name in samples:
            mean = finite_mean(samples[measure.name])
            data[f"{measure.name}_sample_mean"] = (("part", "layer"), mean, {**attributes, "of": "mean over samples"})
    if not prefix:
        for name in ("eigenvalues", "singular_values", "eigenvalues_null"):
            if name in rows[0]:
                last = "sv" if name == "singular_values" else "eig"
                data[name] = (("part", "layer", last), np.stack([row[name] for row in rows], axis=1), {})
        for name in ("residual", "orthogonality", "status"):
            data[name] = (("part", "layer"), np.stack([row[name] for row in rows], axis=1), {})
    for name, text in ENERGY_TEXT.items() if energies else ():
        values = np.stack([energy[name] for energy in energies], axis=-1)
        data[name] = (("part", "layer") if values.ndim == 2 else ("layer",), values, {"long_name": text, "units": "1"})
    coordinates = {"part": list(settings.parts), "layer": list(layers), "rung": list(rungs(settings))}
    used = {dim for dims, *_ in data.values() for dim in dims}
    return xr.Dataset(data, {name: value for name, value in coordinates.items() if name in used})


def _product_of_means(arrays: Arrays, width: int) -> xr.Dataset:
    """Arrays of the product of the averaged blocks, `mean_` before their names, by depth."""
    depth = arrays["effective_rank"].shape[1]
    line = [nulls.ginibre_product_effective_rank(width, factors) for factors in range(1, depth + 1)]
    text = {"long_name": "effective rank of a product of Ginibre matrices, n exp(1 - H_{L+1})", "rung": "N0"}
    data = {"ginibre_effective_rank": (("depth",), np.asarray(line), text)}
    for name, value in arrays.items():
        dims = ("rate",) if name.startswith("stretching") else ("depth",)
        data[f"mean_{name}"] = (dims, value[0], {"of": "the product of the averaged blocks"})
    return xr.Dataset(data)


def _grid(block: Array) -> xr.Dataset:
    """Log10 resolvent norms of one averaged block on a grid of the upper half plane."""
    spectrum = spectra.decompose(block)
    found = jax.jit(pseudospectrum, static_argnames="points")(spectrum.T, spectrum.eigenvalues, points=64)
    long_name = "log10 of norm((zI - J)^-1); the lower half plane mirrors the upper"
    return xr.Dataset(
        {
            "real": (("grid_column",), np.asarray(found.real)),
            "imaginary": (("grid_row",), np.asarray(found.imaginary)),
            "log_resolvent": (("grid_row", "grid_column"), np.asarray(found.log_resolvent), {"long_name": long_name}),
        }
    )
