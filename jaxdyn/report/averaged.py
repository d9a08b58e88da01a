"""Stage 7 of 7: the data read off the averaged Jacobian: surviving energy, decoded directions, pseudospectra."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from . import captions
from .chart import Chart, Direction, Panel, Series
from .profiles import PART_TITLES, available_parts
from .source import Source, differences

ENERGY_PARTS = ("update", "attention", "mlp")
KINDS = {
    "output": "output directions: left singular vectors of J - I",
    "input": "input directions: right singular vectors of J - I",
    "eigenvector": "right eigenvectors of J, by |λ|",
}


def energy_chart(sources: Sequence[Source]) -> Chart | None:
    """Share of norm(A)^2 that survives averaging, by layer and part; None where no average is stored."""
    panels: dict[str, list[Series]] = {}
    for number, source in enumerate(sources):
        mean = source.group("mean")
        if mean is None or "surviving_energy" not in mean:
            continue
        name = source.suffix
        layer = source.root["layer"].values
        parts = available_parts(mean, ENERGY_PARTS) if "part" in mean.coords else []
        for part in parts or available_parts(mean, ("block",)):
            series = panels.setdefault(part, [])
            at = mean.sel(part=part)
            if "samples" in mean:
                label = f"1/N, floor of one mean{name}"
                series.append(Series(label, "floor", layer, 1 / np.maximum(at["samples"].values, 1), store=number))
            biased = at["surviving_energy"].values
            series.append(Series(f"one mean (biased by up to 1/N){name}", "biased", layer, biased, store=number))
            if "surviving_energy_split" in mean and np.isfinite(at["surviving_energy_split"].values).any():
                values = at["surviving_energy_split"].values
                series.append(Series(f"two halves{name}", "measured", layer, values, store=number))
    if not panels:
        return None
    caption = captions.join(
        captions.data_captions(sources),
        differences(sources),
        "Two halves: tr(mean₁ Aᵀ mean₂ A) / mean norm(A)², the means over every other article, A = M - I; unbiased, so "
        "it may fall below 0. One mean: norm(mean A)² / mean norm(A)². Null: N6, Jacobians without anything in common "
        "keep 0 (two halves) or 1/N (one mean). No interval: the store keeps one split.",
        captions.failure_captions(sources),
    )
    lead = "How much of the single prompts' Jacobians the averaged Jacobian still speaks for."
    drawn = tuple(
        Panel(
            part, PART_TITLES.get(part, part).replace(" J - I", " A = J - I"), "layer", series=tuple(series), zero=True
        )
        for part, series in panels.items()
    )
    return Chart("energy", "Energy that survives averaging", "lines", caption, drawn, (), lead)


def direction_chart(sources: Sequence[Source]) -> Chart | None:
    """Collect the leading directions of the averaged blocks as tokens; None where they are not stored."""
    rows, groups = [], {}
    for number, source in enumerate(sources):
        decoded = source.group("decoded")
        if decoded is None or "tokens" not in decoded:
            continue
        own = source.prefix
        tokens = decoded["tokens"].transpose("layer", "kind", "direction", "sign", "token_rank")
        words, sizes = tokens.values, decoded["size"].transpose("layer", "kind", "direction").values
        for at_layer, layer in enumerate(decoded["layer"].values.tolist()):
            group = f"{number}/{layer}"
            groups[group] = f"{own}layer {layer}"
            for at_kind, kind in enumerate(decoded["kind"].values.tolist()):
                for index in range(sizes.shape[2]):
                    plus, minus = ([str(word) for word in words[at_layer, at_kind, index, sign]] for sign in (0, 1))
                    size = float(sizes[at_layer, at_kind, index])
                    rows.append(Direction(group, kind, index, size, tuple(plus), tuple(minus)))
    if not rows:
        return None
    caption = captions.join(
        captions.data_captions(sources),
        "Directions of the averaged block Jacobian, read through the final norm's scale and the unembedding: the "
        "tokens whose logits a step along the direction raises most (plus) and a step against it (minus), strongest "
        "first. The sign of a direction is a convention. Number: singular value of J - I, or |λ| of J.",
        "Null: none is stored for the tokens; a random direction of the residual stream also has leading tokens, so "
        "these lists are examples and no evidence.",
        captions.energy_captions(sources),
    )
    lead = "What the strongest directions of a block write, read and keep, as tokens."
    title = "Leading directions of the averaged block, decoded"
    return Chart("directions", title, "directions", caption, (), tuple(rows), lead, groups)


def pseudospectra_chart(sources: Sequence[Source]) -> Chart | None:
    """Collect the resolvent norms of the averaged blocks; None where no store has them."""
    panels = []
    for number, source in enumerate(sources):
        stored = source.group("pseudospectra")
        if stored is None or "log_resolvent" not in stored:
            continue
        own = source.prefix
        for index, layer in enumerate(stored["pseudo_layer"].values.tolist()):
            at = stored.isel(pseudo_layer=index)
            x, y, grid = (
                at["real"].values,
                at["imaginary"].values,
                at["log_resolvent"].transpose("grid_row", "grid_column"),
            )
            if not (np.isfinite(x).all() and np.isfinite(y).all() and np.isfinite(grid.values).any()):
                continue  # the averaged block did not decompose
            points = _eigenvalues(source, layer)
            series = () if points is None else (
                Series("eigenvalues of the averaged block", "measured", np.real(points), np.imag(points), store=number),
            )  # fmt: skip
            window = (float(x.min()), float(x.max()), float(y.min()), float(y.max()))
            panels.append(
                Panel(f"layer_{layer}", f"{own}layer {layer}", "Re z", "Im z", series=series, window=window,
                      grid=np.asarray(grid.values), grid_x=x, grid_y=y)
            )  # fmt: skip
    if not panels:
        return None
    caption = captions.join(
        captions.data_captions(sources),
        "Contours of log₁₀ norm((zI - J)⁻¹) of the averaged block Jacobian J; the lower half plane mirrors the upper. "
        "Dots: eigenvalues. They describe the powers of this one matrix, that is the block applied to its own output "
        "again and again, which a transformer does not do. Null: none is stored for the grid; N1 of the Kreiss "
        "constant is in the table.",
        captions.energy_captions(sources),
    )
    lead = "This describes the block iterated, which no model does: a portrait of the matrix, not of the computation."
    title = "Pseudospectra: the block iterated"
    return Chart("pseudospectra", title, "field", caption, tuple(panels), (), lead)


def _eigenvalues(source: Source, layer: int) -> np.ndarray | None:
    mean = source.group("mean")
    if mean is None or "eigenvalues" not in mean or "block" not in mean["part"].values.tolist():
        return None
    found: xr.DataArray = mean["eigenvalues"].sel(part="block").isel(layer=_index(source, layer))
    points = np.asarray(found.values).ravel()
    points = points[np.isfinite(points)]
    return points[np.imag(points) >= 0]


def _index(source: Source, layer: int) -> int:
    return source.root["layer"].values.tolist().index(layer)
