"""Stage 7 of 7: the data of the eigenvalue figure: clouds at an early, a middle and a late layer over one N1 draw."""

from collections.abc import Sequence

import numpy as np

from . import captions
from .chart import Chart, Panel, Series
from .profiles import available_parts
from .source import Source

MAX_POINTS = 20_000
"""Most eigenvalues in one cloud; above it, fewer samples are shown and the caption says how many."""


def cloud_chart(
    sources: Sequence[Source], *, layers: Sequence[int] | None = None, max_points: int | None = None
) -> Chart | None:
    """Collect the eigenvalues of the block Jacobian and those of one N1 draw a sample.

    Parameters
    ----------
    sources : the stores; each has its own panels.
    layers : block numbers; None takes the first, the middle and the last of each store.
    max_points : most eigenvalues in one cloud; default `MAX_POINTS`.

    Returns
    -------
    The chart, or None where no store has part block.
    """
    panels, said, has_null = [], [], False
    for number, source in enumerate(sources):
        root = source.root
        if not available_parts(root, ("block",)) or "eigenvalues" not in root:
            continue
        total = root.sizes["sample"]
        kept = max(1, min(total, (max_points or MAX_POINTS) // root.sizes["eig"]))
        samples = np.unique(np.linspace(0, total - 1, kept).round().astype(int))
        present = root["layer"].values.tolist()
        chosen = list(layers) if layers is not None else early_middle_late(present)
        block = root.isel(sample=samples).sel(part="block", layer=chosen)
        own = source.prefix
        measured = np.asarray(block["eigenvalues"].transpose("layer", "sample", "eig").values)
        null = (
            block["eigenvalues_null"].transpose("layer", "sample", "eig").values
            if "eigenvalues_null" in block
            else None
        )
        null = None if null is None or not np.isfinite(null).any() else null
        has_null |= null is not None
        for index, layer in enumerate(chosen):
            cloud, grey = _points(measured[index]), None if null is None else _points(null[index])
            panels.append(_panel(f"{own}layer {layer}", f"layer_{layer}", cloud, grey, number))
        if len(samples) < total:
            said.append(f"{own}Eigenvalues of {len(samples)} of the {total} samples, evenly spaced.")
    if not panels:
        return None
    caption = captions.join(
        captions.data_captions(sources),
        *said,
        captions.null_caption(sources[0].root, {"N1"} if has_null else set(), {"N1": "grey, one draw a sample"}),
        "The eigenvalues of the update J - I are these less one.",
        captions.energy_captions(sources),
        captions.failure_captions(sources),
    )
    lead = (
        "Blue over grey: what the cloud shares with grey follows from the trace and the singular values."
        if has_null
        else ""
    )
    return Chart("eigenvalues", "Eigenvalues of the block Jacobian", "clouds", caption, tuple(panels), (), lead)


def early_middle_late(layers: Sequence[int]) -> list[int]:
    """Return the first, the middle and the last of some layers, without repeats."""
    return sorted({layers[0], layers[len(layers) // 2], layers[-1]})


def _panel(title: str, key: str, measured: np.ndarray, null: np.ndarray | None, store: int) -> Panel:
    """Frame both clouds in a square view of their bulk and the unit circle; what lies outside is counted."""
    clouds = ([] if null is None else [("N1", "N1, one draw a sample", null)]) + [("measured", "measured", measured)]
    left, right, top = -1.0, 1.0, 1.0
    for *_, points in clouds:
        if points.size:
            left, right = (
                min(left, np.quantile(np.real(points), 0.005)),
                max(right, np.quantile(np.real(points), 0.995)),
            )
            top = max(top, np.quantile(np.abs(np.imag(points)), 0.995))
    middle, half = (left + right) / 2, 1.08 * max((right - left) / 2, top)
    outside, series = [], []
    for role, label, points in clouds:
        series.append(Series(label, role, np.real(points), np.imag(points), store=store))
        beyond = int((np.maximum(np.abs(np.real(points) - middle), np.abs(np.imag(points))) > half).sum())
        if beyond:
            outside.append(f"{beyond} {role}")
    note = f"outside: {', '.join(reversed(outside))}" if outside else ""
    window = (middle - half, middle + half, -half, half)
    return Panel(key, title, "Re λ", "Im λ", series=tuple(series), window=window, note=note)


def _points(values: np.ndarray) -> np.ndarray:
    points = values.ravel()
    return points[np.isfinite(points)]
