"""The figures of a topology: what they draw is what was measured, and what stands under them is complete."""

import re

import numpy as np
import pytest

from jaxdyn.report import topology as report
from jaxdyn.report.chart import as_plain
from jaxdyn.report.figures import draw_all
from jaxdyn.topology import NULLS, TopologySettings, join_layers, layer_topology, write_topology
from jaxdyn.topology.run import read_topology
from tests.report.test_figures import NEVER
from tests.topology.planted import jacobian, states

ABOUT = {
    "model": "invented", "operator": "in-context", "part": "block", "derivative": "exact", "metric": "raw",
    "tokens": "last", "jacobian_tokens": "last", "bos": "yes", "samples_graph": 150, "articles_graph": 150,
    "samples_jacobian": 40, "articles_jacobian": 40, "seed": 0, "settings": '{"draws": 19, "refits": 9, "alpha": 0.2}',
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two layers with communities and one whose graph has no edge above the floor."""
    rng = np.random.default_rng(4)
    settings = TopologySettings(k=10, seeds=2, null_seeds=1, z_draws=2, draws=19, refits=9, alpha=0.2)
    layers = []
    for load in (0.35, 0.6):
        x, _, _ = states(rng, width=40, communities=3, count=150, bridging=0.5, load=load, opposed=True)
        layers.append(layer_topology(x, jacobian(rng.uniform(0.3, 2, 40), rng), settings))
    bare = TopologySettings(k=10, seeds=2, draws=19, refits=9, alpha=0.2, floor_quantile=1.0)
    layers.append(layer_topology(np.random.default_rng(1).standard_normal((2000, 40)), np.eye(40) * 1.5, bare))
    assert layers[2]["edges_kept"] == 0
    joined = (
        join_layers(layers, [0, 1, 2]).assign_attrs(ABOUT, k=10).assign(surviving_energy=("layer", [0.1, 0.2, 0.3]))
    )
    out = tmp_path_factory.mktemp("topology")
    write_topology(joined, out)
    return out


@pytest.fixture(scope="module")
def charts(folder):
    return {chart.name: chart for chart in report.topology_charts([folder])}


def test_coupling_is_drawn_on_the_band_of_every_null(folder, charts):
    found = read_topology(folder).sel(boundary="participation", amplification="gain")
    chart = charts["topology_coupling"]
    assert [panel.key for panel in chart.panels] == [f"{name}_gain" for name in NULLS]
    for name, panel in zip(NULLS, chart.panels, strict=True):
        band, measured, partial = panel.series
        null = found.sel(topology_null=name)
        np.testing.assert_array_equal(band.low, null["coupling_null_low"])
        np.testing.assert_array_equal(band.high, null["coupling_null_high"])
        np.testing.assert_array_equal(measured.y, found["coupling"])
        np.testing.assert_array_equal(measured.high, found["coupling_high"])
        np.testing.assert_array_equal(partial.y, found["coupling_partial"])
    other = charts["topology_coupling_update_gain"].panels[0].series[1].y
    assert not np.array_equal(other, found["coupling"], equal_nan=True)


def test_blocks_are_doublings_of_the_mean_entry(folder, charts):
    found = read_topology(folder).sel(layer=1)
    (panel,) = [panel for panel in charts["topology_blocks"].panels if panel.key == "blocks_1"]
    sizes = found["community_size"].values
    sizes = sizes[np.isfinite(sizes)]
    entries = np.outer(sizes, sizes) - np.diag(sizes)
    squares = entries * 4**panel.grid
    assert squares.sum() == pytest.approx(entries.sum())
    share = found["block_export"].values[0, 1] ** 2 * sizes[1]
    total = (found["block_export"].values[: len(sizes), : len(sizes)] ** 2 * sizes).sum()
    assert squares[0, 1] / squares.sum() == pytest.approx(share / total)
    assert {panel.key for panel in charts["topology_blocks"].panels} == {"blocks_0", "blocks_1"}  # none in layer 2


def test_the_scatter_shows_each_coordinate_that_has_a_position(folder, charts):
    found = read_topology(folder).sel(layer=1)
    panel = charts["topology_scatter"].panels[0]
    x = found["boundary_position"].sel(boundary="participation").values
    y = found["log_gains"].sel(amplification="gain").values
    np.testing.assert_array_equal(panel.series[0].x, x[np.isfinite(x)])
    np.testing.assert_array_equal(panel.series[0].y, y[np.isfinite(x)])
    value = float(found["coupling"].sel(boundary="participation", amplification="gain"))
    assert panel.note.startswith(f"Spearman {value:+.2f}; verdict: ")
    assert report.scatter_chart(read_topology(folder), layer=0).panels[0].title.startswith("layer 0")


def test_captions_are_complete_and_say_nothing_too_much(charts):
    for chart in charts.values():
        for part in (
            "In-context Jacobian", "part block", "derivative: exact", "metric: raw", "model: invented", "BOS: yes",
            "150 samples of 150 articles", "40 samples of 40 other articles", "Top-10 graph", "noise floor of |r|",
            "norm(mean A)² / mean norm(A)²: 0.10 to 0.30",
        ):  # fmt: skip
            assert part in chart.caption, chart.name
        assert not re.search(NEVER, chart.caption + chart.title + chart.lead, re.IGNORECASE)
    coupling = charts["topology_coupling"].caption
    assert "undecided (2)" in coupling
    assert "9 where communities are found anew, else 19" in coupling
    for name in ("topology_coupling", "topology_blocks"):
        assert re.search(r"Modularity above that in a rotated basis: [012] of 3 layers", charts[name].caption)


def test_without_the_rotated_basis_nothing_is_said_of_communities(folder):
    found = read_topology(folder)
    found["modularity_null_p"][:] = np.nan
    found["coupling_null_mean"][:] = np.nan
    assert (
        "The rotated basis was not drawn, so nothing here speaks of communities" in report.blocks_chart(found).caption
    )
    chart = report.coupling_chart(found)
    assert [panel.title for panel in chart.panels] == ["no null was drawn"]


def test_every_figure_is_drawn_and_fits_the_page(charts, tmp_path):
    figures = draw_all(list(charts.values()))
    assert set(figures) == set(charts)
    for name, figure in figures.items():
        figure.savefig(tmp_path / f"{name}.png", dpi=40)
    heat = next(ax for ax in figures["topology_blocks"].axes if ax.collections)
    drawn = np.asarray(heat.collections[0].get_array()).ravel()
    np.testing.assert_allclose(drawn, charts["topology_blocks"].panels[0].grid.ravel())
    plain = as_plain(charts["topology_blocks"])["panels"][0]["grid"]
    assert len(plain["z"]) == len(plain["y"])


def test_no_store_no_figures(tmp_path):
    assert report.topology_charts([tmp_path]) == []
