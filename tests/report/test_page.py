"""The page without a browser: its numbers are the store's, its text is escaped, its size is bounded."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import xarray as xr

from jaxdyn import store
from jaxdyn.errors import InputError
from jaxdyn.report import chart as charts_module
from jaxdyn.report import figures, page, source
from jaxdyn.report.clouds import MAX_POINTS
from jaxdyn.report.product import MAX_PROMPTS
from tests.report import synthetic
from tests.report.test_figures import NEVER

SCRIPT_TAG = "</script><script>alert(1)</script>"


class Elements(HTMLParser):
    """Scripts and attributes of a page, as a browser splits them."""

    def __init__(self):
        super().__init__()
        self.scripts: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.inside = False

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = tag == "script"
        if self.inside:
            self.scripts.append("")

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.scripts[-1] += data


def parsed(text: str) -> Elements:
    elements = Elements()
    elements.feed(text)
    return elements


def page_of(*folders) -> tuple[str, dict]:
    """The page of one or two stores, and the data in it."""
    sources = source.open_sources(folders)
    text = page.page_html(sources, figures.charts(sources))
    return text, json.loads(parsed(text).scripts[0])


@pytest.fixture(scope="module")
def shown(results) -> tuple[str, dict]:
    return page_of(results.parent)


def panel(data: dict, name: str, key: str, group: str = "") -> dict:
    (chart,) = [chart for chart in data["charts"] if chart["name"] == name]
    (found,) = [one for one in chart["panels"] if one["key"] == key and one["group"] == group]
    return found


def line(found: dict, role: str, view: str = "") -> dict:
    (one,) = [one for one in found["series"] if one["role"] == role and one.get("view", "") == view]
    return one


def test_every_figure_stands_in_the_order_of_the_page(shown):
    names = [chart["name"] for chart in shown[1]["charts"]]
    assert names == ["depth_profiles", "budget", "bottleneck", "eigenvalues", "directions", "energy", "pseudospectra"]
    assert shown[1]["charts"][-1]["title"] == "Pseudospectra: the block iterated"


def test_the_profiles_on_the_page_are_those_of_the_store(shown, tree):
    at = tree.to_dataset().sel(part="update")
    found = panel(shown[1], "depth_profiles", "effective_rank", "update")
    mean = at["effective_rank"].mean("sample", dtype=np.float64).values
    np.testing.assert_allclose(line(found, "measured", "raw")["y"], mean, rtol=1e-8)
    n1 = at["effective_rank_null"].sel(rung="N1").mean("sample", dtype=np.float64).values
    sd = at["effective_rank_null_sd"].sel(rung="N1").mean("sample", dtype=np.float64).values
    band = line(found, "N1", "raw")
    np.testing.assert_allclose(band["high"], n1 + 2 * sd, rtol=1e-8)
    excess = at["effective_rank_excess"].sel(rung="N1").mean("sample", dtype=np.float64).values
    np.testing.assert_allclose(line(found, "measured", "excess")["y"], excess, rtol=1e-8)
    assert found["x"] == at["layer"].values.tolist()


def test_single_eigenvalues_and_products_keep_every_bit(shown, tree):
    block = tree.to_dataset().sel(part="block", layer=3)
    cloud = line(panel(shown[1], "eigenvalues", "layer_3"), "measured")
    stored = block["eigenvalues"].values.ravel()
    assert np.array_equal(np.float32(cloud["y"]), stored.imag)
    x = cloud.get("x") or panel(shown[1], "eigenvalues", "layer_3")["x"]
    assert np.array_equal(np.float32(x), stored.real)
    fans = [one for one in panel(shown[1], "bottleneck", "participation_ratio")["series"] if one["role"] == "fan"]
    stored = tree["cumulative"]["participation_ratio"].values
    assert np.array_equal(np.float32([one["y"] for one in fans]), stored)
    assert fans[1]["label"] == "prompt 1, token ' b'"
    decoded = next(chart for chart in shown[1]["charts"] if chart["name"] == "directions")["rows"]
    assert decoded[0]["plus"] == tree["decoded"]["tokens"].values[0, 0, 0, 0].tolist()


def test_the_table_is_that_of_the_store_with_the_mean_over_layers_first(shown, tree):
    columns = shown[1]["summary"]["values"][0]["raw"]["block"]["henrici_normalized"]
    at = tree.to_dataset().sel(part="block")
    excess = at["henrici_normalized_excess"].sel(rung="N1").astype(np.float64)
    assert columns["excess"][0] == pytest.approx(float(excess.mean()), rel=1e-8)
    np.testing.assert_allclose(columns["excess"][1:], excess.mean("sample"), rtol=1e-8)
    halves = [excess.sel(sample=excess["article"] % 2 == half).mean("sample") for half in (0, 1)]
    np.testing.assert_allclose(columns["floor"][1:], np.abs(halves[0] - halves[1]) / 2, rtol=1e-6)
    outside = np.array(columns["excessLow"]) > 0
    outside |= np.array(columns["excessHigh"]) < 0
    beyond = np.abs(columns["excess"]) > np.maximum(columns["floor"], 2 * np.array(columns["sd"]))
    assert columns["out"] == (outside & beyond).tolist()


def test_captions_are_complete_and_say_nothing_that_must_not_be_said(shown):
    words = [shown[1]["summary"]["caption"], *(chart["caption"] for chart in shown[1]["charts"])]
    for caption in words:
        for part in (
            "In-context Jacobian",
            "metric: raw",
            "Samples: 16; prompts: 16; articles: 8",
            "tokens: last",
            "BOS",
        ):
            assert part in caption
        assert re.search(r"N1 has 8 draws a matrix, seed 0|Null: ", caption), caption
        assert "not recorded" not in caption
    leads = " ".join([*words, *(chart["lead"] + chart["title"] for chart in shown[1]["charts"])])
    assert not re.search(NEVER, leads, re.IGNORECASE)
    assert re.search(NEVER, "a stable block", re.IGNORECASE)


def test_prompts_tokens_and_names_cannot_become_markup(tmp_path):
    hostile = (SCRIPT_TAG, "<!--<script>", "\u2028\U0001f600&lt;'\"", "<img src=x onerror=alert(1)>")
    path = synthetic.write(
        tmp_path / "results.zarr", samples=4, unit_size=4, layers=2, tokens=hostile, model=f"{SCRIPT_TAG}$title"
    )
    text, data = page_of(path)
    elements = parsed(text)
    assert len(elements.scripts) == 2  # the data and the page's own
    assert sum(tag == "img" for tag, _ in elements.tags) == 0
    assert "alert" not in elements.scripts[1]
    assert not set("<>&\u2028\u2029") & set(elements.scripts[0])
    rows = next(chart for chart in data["charts"] if chart["name"] == "directions")["rows"]
    assert {word for row in rows for word in row["plus"]} <= set(hostile)
    assert SCRIPT_TAG in {word for row in rows for word in (*row["plus"], *row["minus"])}
    assert data["stores"] == [f"{SCRIPT_TAG}$title"]
    naive = f'<script type="application/json">{json.dumps(data)}</script>'
    assert len(parsed(naive).scripts) > 1  # what the escaping is for


def test_nothing_on_the_page_points_to_the_network(shown):
    text = shown[0]
    assert not re.search(r"(?:src|href)\s*=\s*[\"']?(?:https?:)?//", text)
    assert not re.search(r"@import|url\(\s*[\"']?http|fetch\(|XMLHttpRequest|importScripts", text)
    elements = parsed(text)
    policy = next(
        attrs["content"] for tag, attrs in elements.tags if attrs.get("http-equiv") == "Content-Security-Policy"
    )
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert any(attrs.get("property") == "og:image" and attrs["content"] == "card.png" for _, attrs in elements.tags)


def test_the_line_and_the_commands_say_what_the_store_records(tmp_path, shown):
    made = json.dumps({"command": "jaxdyn analyze x --text '$<b>'", "corpus": "tales.json"})
    described = {"model_revision": "v2", "model_hash": "ab" * 32, "texts_hash": "cd" * 32, "provenance": made}
    path = synthetic.write(tmp_path / "results.zarr", samples=2, unit_size=2, layers=1)
    tree = store.open_tree(path).load()
    tree.attrs |= described
    one = source.of_tree(tree)
    assert source.one_line(one) == (
        "invented-$64d @ v2 (weights abababababab) · tales.json (sha256 cdcdcdcdcdcd) · 2 samples of 2 prompts · "
        "in-context Jacobian, exact derivative · raw metric"
    )
    assert source.commands([one]) == ["jaxdyn analyze x --text '$<b>'"]
    text = page.page_html([one], figures.charts([one]))
    assert "tales.json (sha256 cdcdcdcdcdcd)" in text
    assert "<b>" not in text
    assert shown[1]["commands"][0].startswith("# invented-$64d: written by jaxdyn.analyze(..., operator='in-context'")


def test_a_layer_that_failed_is_a_gap(failed):
    text, data = page_of(failed)
    assert line(panel(data, "depth_profiles", "symmetry_gap", "block"), "measured", "raw")["y"][1] is None
    assert line(panel(data, "budget", "block", "block"), "orientation")["y"][1] is None
    assert data["summary"]["values"][0]["raw"]["block"]["symmetry_gap"]["mean"][2] is None
    assert "16 of 48 matrices did not decompose" in data["charts"][0]["caption"]
    assert "pseudospectra" not in [chart["name"] for chart in data["charts"]]
    assert "NaN" not in parsed(text).scripts[0]


def test_an_unfinished_store_says_so_and_what_is_missing(unfinished):
    text, data = page_of(unfinished)
    assert "8 of 16 samples are done" in text
    assert "null N1: --draws 8" in text
    names = [chart["name"] for chart in data["charts"]]
    assert names == ["depth_profiles", "bottleneck", "eigenvalues"]
    assert data["charts"][0]["views"] == ["raw"]
    assert "n1" not in data["summary"]["values"][0]["raw"]["block"]["effective_rank"]


def test_two_stores_of_other_width_and_layers_overlay_and_say_so(results, tmp_path):
    other = synthetic.write(
        tmp_path / "results.zarr", samples=4, unit_size=4, layers=3, width=16, described={"operator": "isolated"}
    )
    text, data = page_of(results, other)
    assert len(data["stores"]) == 2
    assert "differ in operator (in-context, isolated)" in text
    assert "width (24, 16): ranks and null levels depend on it" in text
    assert "layers (6, 3)" in text
    found = panel(data, "depth_profiles", "henrici_normalized", "block")
    lines = [one for one in found["series"] if one["role"] == "measured" and one["view"] == "raw"]
    assert [one["label"] for one in lines] == ["measured, A", "measured, B"]
    stored = store.open_tree(other).to_dataset().sel(part="block")["henrici_normalized"]
    np.testing.assert_allclose(lines[1]["y"], stored.mean("sample", dtype=np.float64), rtol=1e-8)
    assert lines[1]["x"] == [0, 1, 2]
    assert lines[1]["store"] == 1
    assert [one["title"] for one in next(c for c in data["charts"] if c["name"] == "budget")["panels"]] == [
        "A, block J", "A, update J - I", "B, block J", "B, update J - I",
    ]  # fmt: skip


def test_folders_that_cannot_be_shown_are_refused(results, tmp_path):
    with pytest.raises(InputError, match=r"nothing at .*absent; give the --out folder"):
        source.open_sources([tmp_path / "absent"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no results\.zarr"):
        source.open_sources([tmp_path / "empty"])
    (tmp_path / "foreign" / "results.zarr").mkdir(parents=True)
    with pytest.raises(InputError, match="is not a jaxdyn store"):
        source.open_sources([tmp_path / "foreign"])
    synthetic.write(tmp_path / "results.zarr", samples=2, unit_size=2, layers=1, units_done=0)
    with pytest.raises(InputError, match="no finished sample yet"):
        source.open_sources([tmp_path])
    with pytest.raises(InputError, match=r"got .* twice"):
        source.open_sources([results, results.parent])
    with pytest.raises(InputError, match="got 3; allowed one, or two"):
        source.open_sources([results] * 3)
    with pytest.raises(InputError, match="formats: got 'pdf'"):
        source.parse_formats("png,pdf")
    assert source.parse_formats("svg, png") == ("svg", "png")


def test_an_unwritable_folder_is_named(results, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(store.StoreError, match=r"cannot write the report in .*file"):
        page.write_report(source.open_sources([results]), tmp_path / "file", formats=("png",))


def large(samples=1000, layers=32, width=4096) -> xr.DataTree:
    """A store of a large model as the report sees it, without the memory: every big array is one value, repeated."""
    parts, rng = ["block", "update", "attention", "mlp"], np.random.default_rng(3)
    dims, shape = ("part", "layer", "sample"), (4, layers, samples)

    def repeated(shape, value):
        return np.broadcast_to(value, shape)

    row = (1 + rng.standard_normal(width) + 1j * rng.standard_normal(width)).astype(np.complex64)
    data: dict = {"done": ("sample", np.ones(samples, bool)), "status": (dims, repeated(shape, np.int8(0))),
                  "frobenius_norm": (dims, repeated(shape, np.float32(90)))}  # fmt: skip
    for name in ("eigenvalues", "eigenvalues_null"):
        data[name] = ((*dims, "eig"), repeated((*shape, width), row))
    numbers = rng.standard_normal(shape).astype(np.float32)
    for name in [measure.name for measure in page_measures()]:
        data[name] = (dims, numbers)
        for suffix in ("null", "null_sd", "excess"):
            data[f"{name}_{suffix}"] = ((*dims, "rung"), repeated((*shape, 2), np.float32(0.123456789)))
    root = xr.Dataset(
        data,
        {"part": parts, "layer": range(layers), "rung": ["N0", "N1"], "article": ("sample", np.arange(samples)),
         "prompt": ("sample", np.arange(samples)), "token_text": ("sample", ["token"] * samples)},
        {"operator": "in-context", "metric": "raw", "model": "large", "null_draws": 8, "seed": 0},
    )  # fmt: skip
    product = 1 + rng.random((samples, layers)).astype(np.float32)
    ranks = [
        f"{name}{suffix}" for name in ("effective_rank", "participation_ratio") for suffix in ("", "_null", "_null_sd")
    ]
    cumulative = {name: (("prompt_sample", "depth"), product) for name in ranks}
    words = np.array(["measured tokens"] * (layers * 3 * 4 * 2 * 8), dtype=object).reshape(layers, 3, 4, 2, 8)
    return xr.DataTree.from_dict(
        {
            "/": root,
            "/relative": root.drop_vars(["eigenvalues", "eigenvalues_null", "done", "article", "prompt", "token_text"]),
            "/cumulative": xr.Dataset(cumulative, {"depth": np.arange(1, layers + 1)}),
            "/mean": xr.Dataset({"surviving_energy": (("part", "layer"), numbers[..., 0])}),
            "/decoded": xr.Dataset(
                {"tokens": (("layer", "kind", "direction", "sign", "token_rank"), words),
                 "size": (("layer", "kind", "direction"), rng.random((layers, 3, 4)))},
                {"kind": ["output", "input", "eigenvector"], "sign": ["+", "-"]},
            ),
            "/pseudospectra": xr.Dataset(
                {"real": (("pseudo_layer", "grid_column"), rng.random((3, 64))),
                 "imaginary": (("pseudo_layer", "grid_row"), rng.random((3, 64))),
                 "log_resolvent": (("pseudo_layer", "grid_row", "grid_column"), rng.random((3, 64, 64)))},
                {"pseudo_layer": [0, 15, 31]},
            ),
        }
    )  # fmt: skip


def page_measures():
    from jaxdyn.measures import MEASURES

    return MEASURES


def test_the_page_of_a_large_model_stays_small_and_says_what_it_left_out():
    sources = [source.of_tree(large())]
    drawn = figures.charts(sources)
    text = page.page_html(sources, drawn)
    assert len(text.encode()) < 15e6
    clouds = next(chart for chart in drawn if chart.name == "eigenvalues")
    assert all(len(one.x) <= MAX_POINTS for panel in clouds.panels for one in panel.series)
    assert "Eigenvalues of 4 of the 1000 samples, evenly spaced." in clouds.caption
    bottleneck = next(chart for chart in drawn if chart.name == "bottleneck")
    assert f"Thin lines: {MAX_PROMPTS} of 1000 samples." in bottleneck.caption
    data = json.loads(parsed(text).scripts[0])
    assert len(data["summary"]["values"][0]["raw"]["mlp"]["henrici"]["mean"]) == 33
    assert set(data["summary"]["metrics"]) == {"raw", "relative"}


def test_numbers_are_plain_json_and_give_float32_back(rng):
    values = rng.standard_normal(50).astype(np.float32) * np.float32(10.0) ** rng.integers(-20, 20, 50)
    back = json.loads(json.dumps(charts_module.numbers(values), allow_nan=False))
    assert np.array_equal(np.float32(back), values.astype(np.float32))
    assert charts_module.numbers(np.array([[np.nan, 1.0], [np.inf, 2.0]])) == [[None, 1.0], [None, 2.0]]
    assert charts_module.numbers(np.array([True, False])) == [True, False]
