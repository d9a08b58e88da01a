"""Figures of the surrogates: numbers are those of the tables, and captions say what they must."""

import json
import re

import numpy as np
import pytest
import xarray as xr

from jaxdyn.report import surrogates
from jaxdyn.report.chart import as_plain
from jaxdyn.report.drawing import draw
from tests.report.test_figures import NEVER, texts

NAMES = ["actual", "schur 0", "normal"]


@pytest.fixture
def study(rng):
    shape = (3, 2, 6)

    def of(scale):
        return ("surrogate", "site", "sample"), scale * rng.uniform(1, 2, shape)

    table = xr.Dataset(
        {name: of(scale) for name, scale in (("effective_rank", 9), ("rotated_effective_rank", 8), ("outlier", 0.2))}
        | {name: of(0.3) for name in ("effect_single", "effect_alignment")},
        coords={"surrogate": NAMES, "site": ["all", "late"], "description": ("surrogate", ["J", "less", "none"])},
        attrs={"on": "J", "order": "modulus", "descending": 1, "draws": 4, "seed": 0},
    )
    return table.assign(effect=table["effect_single"] + table["effect_alignment"])


@pytest.fixture
def functional(rng):
    names = ["J", "I", "0", "random", "normal"]
    kl = rng.uniform(0.1, 1, (3, 5, 2))
    return xr.Dataset(
        {
            "mean_kl": (("layer", "operator", "radius"), kl),
            "natural": (("layer", "sample", "displacement"), rng.uniform(1, 1.2, (3, 4, 2))),
            "radius_of_J": ("layer", [0.1, np.nan, 0.3]),
        },
        coords={"layer": [0, 1, 2], "operator": names, "radius": [0.1, 0.3]},
        attrs={"kind": "token-swap", "count": 2, "operator": "in-context"},
    )


def test_bars_add_up_and_stand_under_their_names(study):
    chart = surrogates.surrogate_chart(study, "In-context Jacobian.", site="late", articles=[0, 0, 1, 1, 2, 2])
    rank, effect = chart.panels
    single, alignment, total = effect.series
    mean = study.sel(site="late").mean("sample")
    np.testing.assert_allclose(single.high, mean["effect_single"])
    np.testing.assert_allclose(alignment.low + alignment.y, mean["effect"])
    np.testing.assert_allclose(total.y, mean["effect"])
    np.testing.assert_allclose(rank.series[0].y, mean["rotated_effective_rank"])
    assert np.all(rank.series[1].low < rank.series[1].y)
    assert as_plain(chart)["panels"][0]["names"] == NAMES
    json.dumps(as_plain(chart), allow_nan=False)
    figure = draw(chart)
    for ax in figure.axes:
        assert [label.get_text() for label in ax.get_xticklabels()] == NAMES
    words = texts(figure)
    for part in (
        "In-context Jacobian.",
        "last half",
        "6 samples",
        "4 draws",
        "does not hold above 0.1",
        "largest first",
    ):
        assert part in words
    assert not re.search(NEVER, words, re.IGNORECASE)
    wider = surrogates.surrogate_chart(study, site="late", articles=np.arange(6)).panels[0].series[1]
    assert not np.allclose(wider.high, rank.series[1].high)  # articles are the replicates


def test_functional_panels_say_where_nothing_is_claimed(functional):
    chart = surrogates.functional_chart(functional, layers=[0, 1])
    notes = [panel.note for panel in chart.panels]
    assert notes[0].startswith("J beats I up to 0.1; natural: 1")
    assert notes[1].startswith("J beats I nowhere: no claim")
    np.testing.assert_allclose(chart.panels[1].series[2].y, functional["mean_kl"].sel(layer=1, operator="0"))
    assert [panel.key for panel in surrogates.functional_chart(functional).panels] == ["kl_0", "kl_1", "kl_2"]
    assert len({one.role for one in chart.panels[0].series}) == 5
    assert "token-swap" in texts(draw(chart))


def test_orders_are_lines_over_alpha(rng):
    names = ["given", "modulus down", "random 0"]
    table = xr.Dataset(
        {
            "effective_rank": (("order", "alpha", "sample"), rng.uniform(5, 9, (3, 3, 4))),
            "normal_effective_rank": (("order", "sample"), np.full((3, 4), 7.5)),
        },
        coords={"order": names, "alpha": [0, 0.5, 1.0]},
    )
    chart = surrogates.order_chart(table)
    assert [one.label for one in chart.panels[0].series] == names
    np.testing.assert_allclose(chart.panels[0].series[1].y, table["effective_rank"][1].mean("sample"))
    assert "modulus down 7.5" in chart.caption
