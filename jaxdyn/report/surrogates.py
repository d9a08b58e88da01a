"""Stage 7 of 7: what deleting the non-normal part does to the product, split, and what the model makes of it.

Data functions of the groups `surrogates` (`surrogates.surrogate_study`), `orders` (`surrogates.order_study`) and
`functional` (`functional.functional_test`): each returns a chart, whose numbers are means over samples.
"""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from jaxdyn.nulls.n3_free import OUTLIER
from jaxdyn.nulls.null import LEVEL, Null, excess

from . import captions
from .chart import Chart, Panel, Series
from .source import Source

_BASE_ROLES = {"J": "measured", "I": "front", "0": "floor", "random": "N0"}
_ORDER_ROLES = {
    "given": "measured",
    "modulus down": "variant1",
    "modulus up": "variant2",
    "real down": "variant3",
    "real up": "variant4",
    "argument down": "variant5",
    "argument up": "variant5",
}
SITES = {"all": "all layers", "early": "first half", "late": "last half"}


def surrogate_charts(sources: Sequence[Source]) -> list[Chart]:
    """Return the figures of the groups that the stores have; of two stores those of the first that has them."""
    charts: list[Chart] = []
    for name, chart in (("surrogates", surrogate_chart), ("orders", order_chart), ("functional", functional_chart)):
        found = [(source, group) for source in sources if (group := source.group(name)) is not None]
        for source, group in found[:1]:
            charts.append(chart(group, captions.data_caption(source.tree, source.root)))
    return charts


def surrogate_chart(
    table: xr.Dataset, data: str = "", *, site: str = "all", articles: np.ndarray | None = None
) -> Chart:
    """Entropy rank of the product under each surrogate beside its rotation, and the effect with its two parts.

    Parameters
    ----------
    table : from `surrogates.surrogate_study`.
    data : what was measured on what, for the caption.
    site : which layers.
    articles : (S,), the article of each sample, for the intervals; default each sample is its own.
    """
    labels = np.arange(table.sizes["sample"]) if articles is None else np.asarray(articles)
    names = tuple(table["surrogate"].values.tolist())
    at, x, words = table.sel(site=site), np.arange(len(names)), SITES.get(site, f"layer {site}")
    rank, low, high = _interval(at["effective_rank"].values, labels)
    turned = at["rotated_effective_rank"].mean("sample").values
    bars = (
        Series("every layer rotated (N2)", "rotated", x, turned, np.zeros(len(x)), turned),
        Series("measured", "measured", x, rank, low, high),
    )
    total, low, high = _interval(at["effect"].values, labels)
    single, alignment = (at[name].mean("sample").values for name in ("effect_single", "effect_alignment"))
    split = (
        Series("single-layer singular values", "singular", x, single, np.zeros(len(x)), single),
        Series("alignment between layers", "orientation", x, alignment, single, single + alignment),
        Series("effect", "measured", x, total, low, high),
    )
    panels = [
        Panel(f"rank_{site}", f"Entropy rank of the product, {words}", "", "effective rank", series=bars, names=names),
        Panel(f"effect_{site}", f"Effect on it, {words}", "", "log of the ratio to actual", series=split, names=names),
    ]
    outliers = float(table["outlier"].sel(surrogate="actual").isel(site=0).max())
    law = (
        f"The largest share of a layer's energy in one singular value is {outliers:.2f}: the free-product law (N3) "
        f"does not hold above {OUTLIER:g}, so the split is drawn."
        if outliers > OUTLIER
        else ""
    )
    caption = captions.join(
        data,
        f"Surrogates of M = {table.attrs['on']}, made from one Schur form each, eigenvalues in the order "
        f"{table.attrs['order']!r}{_direction(table)}; {table.sizes['sample']} samples; bars: {LEVEL:.0%} interval "
        f"over articles. Rotated: every layer in a Haar basis of its own, {table.attrs['draws']} draws, the same for "
        f"all surrogates, seed {table.attrs['seed']}. Effect = single-layer singular values (effect under rotation) + "
        "alignment between layers (what is left).",
        law,
        _described(table),
    )
    lead = (
        "Deleting the strictly upper part of the Schur form flattens each layer's singular values, so the rank must "
        "rise: grey. Only the blue bars, from the top of the grey ones, say how layers are joined."
    )
    name = "surrogates" if site == "all" else f"surrogates_{site}"
    return Chart(name, "The product with surrogates of its blocks", "budget", caption, tuple(panels), (), lead)


def order_chart(table: xr.Dataset, data: str = "") -> Chart:
    """Entropy rank against alpha, one line an order of the eigenvalues."""
    series = []
    for name in table["order"].values.tolist():
        mean = table["effective_rank"].sel(order=name).mean("sample").values
        series.append(Series(name, _ORDER_ROLES.get(name, "variant6"), table["alpha"].values, mean))
    panel = Panel(
        "orders", "Entropy rank of the product", "alpha, what is left of N", "effective rank", series=tuple(series)
    )
    ends = table["normal_effective_rank"].mean("sample")
    said = ", ".join(f"{name} {value:.1f}" for name, value in zip(ends["order"].values, ends.values, strict=True))
    caption = captions.join(
        data,
        f"Q (B + D + alpha N) Q^T in all layers, {table.sizes['sample']} samples. Each order of the eigenvalues has a "
        f"Schur form of its own, so another N; alpha = 1 is the block itself. Blue with marks: the order that the "
        f"decomposition left. Fully normal end Q B Q^T by order: {said}.",
    )
    lead = "How much a part of N matters depends on the order of the eigenvalues, which is a choice: read the spread."
    return Chart("surrogate_orders", "The order of the eigenvalues", "plane", caption, (panel,), (), lead)


def functional_chart(table: xr.Dataset, data: str = "", *, layers: Sequence[int] | None = None) -> Chart:
    """KL to the displaced run against the size of the displacement, one panel a block.

    Parameters
    ----------
    table : from `functional.functional_test`.
    data : what was measured on what, for the caption.
    layers : blocks to show; default first, middle and last.
    """
    have = table["layer"].values.tolist()
    shown = list(layers) if layers is not None else sorted({have[0], have[len(have) // 2], have[-1]})
    x = np.log10(table["radius"].values)
    panels = []
    for layer in shown:
        at = table.sel(layer=layer)
        series = []
        for place, name in enumerate(table["operator"].values.tolist()):
            role = _BASE_ROLES.get(name, f"variant{(place - len(_BASE_ROLES)) % 6 + 1}")
            series.append(Series(_words(name), role, x, at["mean_kl"].sel(operator=name).values))
        reach = float(at["radius_of_J"])
        natural = float(np.nanmedian(at["natural"].values))
        note = f"J beats I up to {reach:g}" if np.isfinite(reach) else "J beats I nowhere: no claim"
        panels.append(
            Panel(
                f"kl_{layer}", f"Block {layer}", "log10 norm(delta) / norm(x)", "KL to the true run, nat", log=True,
                series=tuple(series), note=f"{note}; natural: {natural:.2g}",
            )
        )  # fmt: skip
    caption = captions.join(
        data,
        f"The state x of the last token is displaced by delta ({table.attrs['kind']}, {table.attrs['count']} for each "
        f"of {table.sizes['sample']} samples, scaled to the norm on the axis); y = F(x) + M delta is put in place of "
        "the block's output and the model runs on; KL of the next-token distribution of the true run, F(x + delta), to "
        f"it, mean over samples. Operator: {table.attrs['operator']}. Random: Gaussian, norm of J. J beats I where the "
        f"{LEVEL:.0%} interval of mean log(KL_J / KL_I) over articles lies below 0; elsewhere nothing is claimed. "
        "Natural: median norm(delta) / norm(x) before scaling.",
    )
    lead = "At the base point a surrogate changes nothing; away from it the model tells it from the Jacobian."
    return Chart("functional", "What the model makes of a surrogate", "plane", caption, tuple(panels), (), lead)


def _interval(values, labels):
    nothing = Null("", np.zeros((1, *values.shape)), exact=True)
    return excess(values, nothing, replicates=labels)


def _direction(table) -> str:
    if table.attrs["order"] in ("given", "random"):
        return ""
    return ", largest first" if table.attrs["descending"] else ", smallest first"


def _described(table) -> str:
    told = dict(zip(table["surrogate"].values.tolist(), table["description"].values.tolist(), strict=True))
    names = {name.partition(" ")[0]: what for name, what in told.items()}
    return "; ".join(f"{name}: {what}" for name, what in names.items()) + "."


def _words(name: str) -> str:
    return {"J": "J, the Jacobian", "I": "I, skip alone", "0": "0, nothing", "random": "random, norm of J"}.get(
        name, name
    )
