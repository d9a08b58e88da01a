"""Null N5 in the report: the band is the spread between seeds, the excess has both uncertainties, and it says so."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from jaxdyn import store
from jaxdyn.report import figures, page, source, tables
from jaxdyn.report.initial import level
from jaxdyn.store import StoreError
from jaxdyn.store.initial import write_seeds
from tests.report import synthetic

SIZES = {"samples": 8, "unit_size": 4, "layers": 3}
MEASURE = "symmetry_gap"


def initialisations(folder: Path, seeds: list[int], *, wanted: int | None = None, **described) -> Path:
    """Write a run with these seeds beside it."""
    synthetic.write(folder / "results.zarr", **SIZES)
    write_seeds(folder / "init.zarr", list(range(wanted or len(seeds))))
    for number, seed in enumerate(seeds):
        synthetic.write(folder / "init.zarr" / f"seed-{number}", **SIZES, seed=seed, described=described)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return initialisations(tmp_path_factory.mktemp("compared"), [11, 12, 13, 14, 15])


@pytest.fixture(scope="module")
def sources(folder: Path) -> list[source.Source]:
    return source.open_sources([folder])


def stored(path: Path, name: str = MEASURE) -> np.ndarray:
    """Values (layer, sample) of part block."""
    values = store.open_tree(path).to_dataset()[name].sel(part="block")
    return values.transpose("layer", "sample").values.astype(np.float64)


def series(sources, chart: str, key: str, view: str = "raw"):
    drawn = next(one for one in figures.charts(sources) if one.name == chart)
    found = [one for panel in drawn.panels if panel.key == key for one in panel.series]
    return drawn, [one for one in found if one.role == "N5" and one.view in ("", view)]


def test_the_band_is_where_one_more_seed_is_expected(folder, sources):
    means = np.stack([stored(folder / "init.zarr" / f"seed-{k}").mean(axis=1) for k in range(5)])
    low, high = stats.t.interval(0.95, 4, means.mean(0), means.std(0, ddof=1) * np.sqrt(1 + 1 / 5))
    drawn, (line, _) = series(sources, "depth_profiles", MEASURE)  # block first, then update
    np.testing.assert_allclose(line.y, means.mean(0), rtol=1e-12)
    np.testing.assert_allclose(line.low, low, rtol=1e-9)
    np.testing.assert_allclose(line.high, high, rtol=1e-9)
    assert "N5 (random initialisation by the family's rule, same operator" in drawn.caption
    assert "5 seeds, each averaged over the samples; the spread is between seeds." in drawn.caption


def test_prompts_are_not_seeds(tmp_path):
    """Seeds that are the same have no spread, however the prompts differ."""
    sources = source.open_sources([initialisations(tmp_path, [11] * 5)])
    _, (line, _) = series(sources, "depth_profiles", MEASURE)
    assert np.ptp(stored(tmp_path / "init.zarr" / "seed-0"), axis=1).min() > 0.01
    np.testing.assert_allclose(line.high - line.low, 0, atol=1e-12)


def test_the_excess_has_the_spread_of_a_seed_and_of_the_articles(folder, sources):
    own = stored(folder / "results.zarr")
    seeds = np.stack([stored(folder / "init.zarr" / f"seed-{k}") for k in range(5)])
    means = seeds.mean(axis=2)
    each = (own - seeds.mean(axis=0)).reshape(3, 4, 2).mean(axis=2)  # 4 articles of 2 samples
    articles = stats.t.ppf(0.975, 3) * each.std(axis=1, ddof=1) / 2
    half = np.hypot(articles, stats.t.ppf(0.975, 4) * means.std(0, ddof=1) * np.sqrt(6 / 5))
    root = sources[0].root
    found = level(sources[0].init, root, MEASURE, "block")
    assert found is not None
    np.testing.assert_allclose(found.excess, own.mean(1) - means.mean(0), rtol=1e-9)
    np.testing.assert_allclose(found.excess_high - found.excess, half, rtol=1e-9)
    np.testing.assert_allclose(found.excess - found.excess_low, half, rtol=1e-9)
    np.testing.assert_array_equal(found.stands_out, np.abs(found.excess) > half)
    far = root.assign({MEASURE: root[MEASURE] + 10})
    beyond = level(sources[0].init, far, MEASURE, "block")
    assert beyond is not None
    assert beyond.stands_out.all()


def test_the_table_and_the_plain_values_have_it(sources):
    shown = page.page_data(sources, [])["summary"]
    columns = shown["values"][0]["raw"]["block"][MEASURE]
    found = level(sources[0].init, sources[0].root, MEASURE, "block")
    assert found is not None
    np.testing.assert_allclose(columns["n5"][1:], found.mean, rtol=1e-8)
    np.testing.assert_allclose(columns["n5Excess"][1:], found.excess, rtol=1e-7)
    assert columns["n5Out"][1:] == found.stands_out.tolist()
    assert "less N5: measured less that mean" in shown["caption"]
    plain = tables.as_dict(sources[0].tree, sources[0].init)
    assert plain["seeds"] == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(plain["parts"]["block"][MEASURE]["initial"]["excess_low"], found.excess_low)
    assert "initial" not in tables.as_dict(sources[0].tree)["parts"]["block"][MEASURE]


def test_excess_view_and_running_product_show_it(folder, sources):
    _, (line, _) = series(sources, "depth_profiles", MEASURE, "excess")
    trees = [store.open_tree(folder / "init.zarr" / f"seed-{k}") for k in range(5)]
    excess = [tree.to_dataset()[f"{MEASURE}_excess"].sel(part="block", rung="N1") for tree in trees]
    np.testing.assert_allclose(line.y, np.mean([one.mean("sample", dtype=float) for one in excess], axis=0), rtol=1e-9)
    drawn, (product,) = series(sources, "bottleneck", "effective_rank")
    ranks = [tree["cumulative/effective_rank"].mean("prompt_sample", dtype=float) for tree in trees]
    np.testing.assert_allclose(product.y, np.mean(ranks, axis=0), rtol=1e-9)
    assert "Rung N2 (rotated layers) is not shown" in drawn.caption
    bands = [len(ax.collections) for ax in figures.draw_all([drawn])["bottleneck"].axes]
    assert bands == [2, 2]  # N1 and N5


def test_an_unfinished_comparison_shows_the_seeds_that_are_done(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "init.zarr" / "seed-4")
    shutil.rmtree(tmp_path / "cut" / "init.zarr" / "seed-3")
    synthetic.write(tmp_path / "cut" / "init.zarr" / "seed-3", **SIZES, seed=14, units_done=1)
    (one,) = source.open_sources([tmp_path / "cut"])
    assert "N5: 3 of 5 seeds done" in one.progress()
    drawn, (line, _) = series([one], "depth_profiles", MEASURE)
    means = [stored(tmp_path / "cut" / "init.zarr" / f"seed-{k}").mean(axis=1) for k in range(3)]
    np.testing.assert_allclose(line.y, np.mean(means, axis=0), rtol=1e-12)
    assert "3 seeds (5 were asked for)" in drawn.caption
    assert "of the random initialisations (N5) 3 of 5 are done" in page.page_html([one], []).replace("Of", "of")


def test_two_stores_are_overlaid_each_with_its_own(folder, tmp_path):
    other = initialisations(tmp_path / "other", [21, 22, 23, 24, 25, 26])
    both = source.open_sources([folder, other])
    drawn, lines = series(both, "depth_profiles", MEASURE)
    assert [one.label for one in lines[:2]] == ["N5, initialisation, A", "N5, initialisation, B"]
    assert "A: N5 " in drawn.caption
    assert "6 seeds" in drawn.caption
    alone = source.open_sources([folder, synthetic.write(tmp_path / "alone" / "results.zarr", **SIZES)])
    assert {one.store for one in series(alone, "depth_profiles", MEASURE)[1]} == {0}


def test_initialisations_of_other_settings_are_refused(tmp_path):
    with pytest.raises(StoreError, match=r"seed-0 was made with other settings .* \(operator\); remove"):
        source.open_sources([initialisations(tmp_path, [1, 2, 3, 4, 5], operator="isolated")])
    synthetic.write(tmp_path / "plain" / "results.zarr", **SIZES)
    synthetic.write(tmp_path / "plain" / "init.zarr", **SIZES)
    with pytest.raises(StoreError, match="is not a group of random initialisations"):
        source.open_sources([tmp_path / "plain"])
