"""A results store with invented numbers, written through the real store: matrices with a known trend over depth."""

from pathlib import Path

import numpy as np
import xarray as xr

from jaxdyn import store
from jaxdyn.store import Coordinate, Schema, Variable

MEASURES = {
    "henrici_normalized": (0.78, 0.50, 0.02),
    "complex_fraction": (0.97, 0.90, 0.01),
    "mean_rotation_angle": (1.1, 0.4, 0.04),
    "self_alignment": (0.06, 0.66, 0.03),
    "symmetry_gap": (1.41, 0.8, 0.03),
    "effective_rank": (45.0, 12.0, 1.5),
    "spectral_radius": (8.1, 3.8, 0.4),
    "numerical_abscissa": (12.0, 5.0, 0.5),
}
"""Value at the first and the last layer, and the spread over samples."""


def write(
    path: Path,
    *,
    samples=16,
    unit_size=8,
    layers=6,
    width=24,
    draws=8,
    units_done=None,
    parts=("block", "update"),
    seed=1,
    model="invented-$64d",
    tokens=("a", " b", "c\n"),
    described=None,
    lost_layer=None,
) -> Path:
    """Write a store; with `units_done` leave it unfinished after so many units. `tokens` are the words in it."""
    variables = [
        Variable("eigenvalues", ("part", "layer", "sample", "eig"), "complex64"),
        Variable("eigenvalues_null", ("part", "layer", "sample", "eig"), "complex64"),
        Variable("status", ("part", "layer", "sample"), "int8"),
        Variable("frobenius_norm", ("part", "layer", "sample"), "float32"),
    ]
    for name in MEASURES:
        attrs = {"long_name": name, "units": "rad" if name == "mean_rotation_angle" else "1"}
        variables.append(Variable(name, ("part", "layer", "sample"), "float32", attrs))
        for suffix in ("null", "null_sd", "excess"):
            variables.append(Variable(f"{name}_{suffix}", ("part", "layer", "sample", "rung"), "float32", attrs))
    for name in ("effective_rank", "participation_ratio"):
        for suffix in ("", "_null", "_null_sd"):
            variables.append(Variable(name + suffix, ("prompt_sample", "depth"), "float32", {}, "cumulative"))
    for name in ("free_product_participation_ratio", "ginibre_effective_rank", "ginibre_participation_ratio"):
        attrs = {"long_name": f"invented {name}"}
        variables.append(Variable(name, ("prompt_sample", "depth"), "float32", attrs, "cumulative"))
    schema = Schema(
        sizes={"part": len(parts), "layer": layers, "sample": samples, "eig": width, "rung": 2,
               "prompt_sample": samples, "depth": layers},
        units={"sample": unit_size, "prompt_sample": unit_size},
        variables=tuple(variables),
        coordinates=(
            Coordinate("part", ("part",), list(parts)),
            Coordinate("layer", ("layer",), np.arange(layers)),
            Coordinate("rung", ("rung",), ["N0", "N1"]),
            Coordinate("prompt", ("sample",), np.arange(samples)),
            Coordinate("article", ("sample",), np.arange(samples) // 2),
            Coordinate("token_text", ("sample",), [tokens[i % len(tokens)] for i in range(samples)]),
            Coordinate("depth", ("depth",), np.arange(1, layers + 1), group="cumulative"),
        ),
        attrs={"operator": "in-context", "derivative": "exact", "metric": "raw", "model": model, "bos": "yes",
               "tokens": "last", "seed": 0, "null_draws": draws, **(described or {})},
    )  # fmt: skip
    results = store.create(path, schema, {"settings": {"truncate": None}})
    count = results.unit_count if units_done is None else units_done
    for number in range(count):
        part = results.unit_slice(number)
        members = range(part.start, min(part.stop, samples))
        sizes = {"parts": len(parts), "layers": layers, "width": width}
        data = unit(number, len(members), **sizes, draws=draws, seed=seed)
        if lost_layer is not None:
            _lose(data, lost_layer)
        results.write_unit(number, data)
    if units_done is None:
        energy = np.linspace(0.4, 0.13, layers) * np.ones((len(parts), 1))
        words = np.array([tokens[i % len(tokens)] for i in range(layers * 3 * 2 * 2 * 3)], dtype=object)
        axis = np.linspace(-1, 1, 9)
        height = np.nan if lost_layer is not None else 1.0
        height = height * np.log10(1 / (0.1 + np.hypot(axis[None, :], np.linspace(0, 1, 9)[:, None])))
        depth = np.arange(1, layers + 1)
        results.finish(
            {
                "mean": xr.Dataset({"surviving_energy": (("part", "layer"), energy)}),
                "decoded": xr.Dataset(
                    {
                        "tokens": (
                            ("layer", "kind", "direction", "sign", "token_rank"),
                            words.reshape(layers, 3, 2, 2, 3),
                        ),
                        "size": (("layer", "kind", "direction"), np.arange(layers * 6.0).reshape(layers, 3, 2)),
                    },
                    {"kind": ["output", "input", "eigenvector"], "sign": ["+", "-"]},
                ),
                "pseudospectra": xr.Dataset(
                    {
                        "real": (("pseudo_layer", "grid_column"), axis[None]),
                        "imaginary": (("pseudo_layer", "grid_row"), np.linspace(0, 1, 9)[None]),
                        "log_resolvent": (("pseudo_layer", "grid_row", "grid_column"), height[None]),
                    },
                    {"pseudo_layer": [0]},
                ),
                "cumulative": xr.Dataset(
                    {
                        "mean_effective_rank": ("depth", width / depth**0.4),
                        "mean_participation_ratio": ("depth", 0.8 * width / depth**0.5),
                    }
                ),
            }
        )
    return path


def _lose(data: dict[str, np.ndarray], layer: int) -> None:
    """Make one layer of a unit a failure in all samples."""
    for key, values in data.items():
        if not key.startswith("cumulative/"):
            values[:, layer] = 2 if key == "status" else np.nan
        else:
            values[:, layer:] = np.nan


def unit(number: int, members: int, *, parts=2, layers=6, width=24, draws=8, seed=1) -> dict[str, np.ndarray]:
    """The per-unit arrays of one unit."""
    rng = np.random.default_rng([seed, number])
    shape = (parts, layers, members)
    trend = np.linspace(0, 1, layers)[None, :, None]
    data: dict[str, np.ndarray] = {"status": np.zeros(shape, np.int8)}
    scale = (0.9 - 0.5 * trend)[..., None, None] / np.sqrt(width)
    matrices = np.eye(width) + scale * rng.standard_normal((*shape, width, width))
    matrices[..., 0, 1] += 3.0
    data["eigenvalues"] = np.linalg.eigvals(matrices).astype(np.complex64)
    data["frobenius_norm"] = np.linalg.norm(matrices, axis=(-2, -1))
    null = np.eye(width) + scale * rng.standard_normal((*shape, width, width))
    data["eigenvalues_null"] = np.linalg.eigvals(null).astype(np.complex64)
    if not draws:
        data["eigenvalues_null"][:] = np.nan
    for name, (first, last, spread) in MEASURES.items():
        value = first + (last - first) * trend + spread * rng.standard_normal(shape)
        n0 = np.full(shape, first * 1.05)
        n1 = first + 0.85 * (last - first) * trend + 0.3 * spread * rng.standard_normal(shape)
        nulls = np.stack([n0, n1 if draws else np.full(shape, np.nan)], axis=-1)
        sd = np.stack([np.zeros(shape), np.full(shape, spread) if draws else np.full(shape, np.nan)], axis=-1)
        data[name], data[f"{name}_null"], data[f"{name}_null_sd"] = value, nulls, sd
        data[f"{name}_excess"] = value[..., None] - nulls
    depth = np.arange(1, layers + 1)
    spread = np.exp(0.15 * rng.standard_normal((members, 1)))
    for name, factor in (("effective_rank", 1.0), ("participation_ratio", 0.6)):
        data[f"cumulative/{name}"] = 1 + factor * width * spread / depth**1.2
        level = 1 + factor * width / depth * np.ones((members, 1))
        data[f"cumulative/{name}_null"] = level if draws else np.full_like(level, np.nan)
        data[f"cumulative/{name}_null_sd"] = 0.15 * level
        data[f"cumulative/ginibre_{name}"] = factor * width / (depth + 1) * np.ones((members, 1))
    data["cumulative/free_product_participation_ratio"] = 0.9 * width / (depth + 0.5) * spread
    return {key: value if value.dtype.kind in "ic" else value.astype(np.float32) for key, value in data.items()}
