"""`jaxdyn dynamics`: what it writes, prints and refuses, and its section beside a run of `jaxdyn analyze`."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

from jaxdyn import cli, open_tree
from jaxdyn.dynamics.stages import STAGES
from jaxdyn.errors import InputError
from jaxdyn.report import dynamics, dynamics_table, figures, page, source
from tests.report import browser, synthetic

SMALL = ("--epochs", "2", "--networks", "2", "--draws", "99", "--sample-draws", "19", "--bins", "4", "--formats", "png",
         "--information-units", "8")  # fmt: skip


@pytest.fixture
def invoke(capsys, monkeypatch):
    """Run the command in this process; exit code, standard output, standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["jaxdyn", "dynamics", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        written = capsys.readouterr()
        return int(stop.value.code or 0), written.out, written.err

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of the embedded model on its prompts, all stages but teleport, which test_teleport_report.py has."""
    stages = ",".join(stage.name for stage in STAGES if stage.name != "teleport")
    place = tmp_path_factory.mktemp("dynamics")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["jaxdyn", "dynamics", *SMALL, "--stages", stages, "--quiet", "--out", str(place)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert not stop.value.code
    return place


def charts(folder) -> dict:
    """Figures of a folder by name."""
    return {chart.name: chart for chart in dynamics.dynamics_charts([folder])}


def test_the_folder_holds_store_page_and_figures(folder) -> None:
    names = {path.name for path in folder.iterdir()}
    drawn = charts(folder)
    assert len(drawn) == len(dynamics.FIGURES) - 5 == 11
    assert {"dynamics.zarr", "report.html"} | {f"{name}.png" for name in drawn} <= names
    (embedded,) = re.findall(r'id="data">(.*?)</script>', (folder / "report.html").read_text(), re.DOTALL)
    data = json.loads(embedded)
    assert [chart["name"] for chart in data["charts"]] == list(drawn)
    assert data["commands"][0].startswith("jaxdyn dynamics --epochs 2")
    assert data["files"]["dynamics_path"] == [["PNG", "dynamics_path.png"]]


def test_every_caption_says_what_was_measured_and_beside_which_null(folder) -> None:
    for name, chart in charts(folder).items():
        for words in ("jaxdyn-embedded", "before attention and before the MLP", "N = 12 texts", "the last token"):
            assert words in chart.caption, name
        nulls = ("null", "Null", "Controls", "Skip-matched", "walk", "Gaussian")
        assert any(word in chart.caption for word in nulls), name
        shown = f"{chart.title} {chart.lead} {chart.caption}".lower()
        assert "attractor" not in shown
        assert "spiral" not in shown
        assert chart.panels
        assert all(panel.series or panel.grid is not None for panel in chart.panels)


def test_the_figures_show_the_stored_numbers(folder) -> None:
    tree, drawn = open_tree(folder / "dynamics.zarr"), charts(folder)
    (heat, *_) = drawn["dynamics_matrix"].panels
    np.testing.assert_array_equal(heat.grid, tree["continuity"]["correlation_matrix"].sel(control="trained"))
    rotation = tree["rotation"].to_dataset().sel(control="trained")
    turns = {series.label: series for series in drawn["dynamics_rotation"].panels[0].series}
    order = np.argsort(rotation["count_mean"].values)
    np.testing.assert_array_equal(turns["measured R"].y, rotation["count_mean"].values[order])
    band = turns["own walk null, mean ± 2 sd"]
    np.testing.assert_array_equal(band.y, rotation["mean_walk"].values[order])
    np.testing.assert_allclose(band.high - band.y, 2 * rotation["mean_walk_sd"].values[order])
    z = (rotation["count_mean"] - rotation["mean_walk"]) / rotation["mean_walk_sd"]
    first = drawn["dynamics_portraits"].panels[0]
    unit = int(np.argmin(z.values))
    assert first.title.startswith(f"unit {unit}: R {float(rotation['count_mean'][unit]):.2f}")
    np.testing.assert_array_equal(first.series[0].x, rotation["portrait_x"][unit])
    path = drawn["dynamics_path"].panels[0].series[0]
    np.testing.assert_array_equal(path.y, tree["path"]["path"].sel(control="trained")[:, 1])
    linear = next(one for one in drawn["dynamics_autoencoder"].panels[0].series if one.role == "linear")
    stored = np.asarray(tree["autoencoder"]["pca_r2"].sel(control="trained"))
    np.testing.assert_array_equal(linear.y, np.where(stored < -1, np.nan, stored))


def test_the_page_draws_and_answers_in_a_browser(folder, tmp_path) -> None:
    """Heat maps and paths tell the stored numbers where they are asked, by arrow key, in light and dark."""
    driver = browser.start(tmp_path / "profile", tmp_path)  # skips without a browser
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.wait import WebDriverWait

    try:
        browser.view(driver, width=1200, dark=True)
        driver.get((folder / "report.html").as_uri())
        drawn = "return document.documentElement.dataset.drawn"
        WebDriverWait(driver, 20).until(lambda one: one.execute_script(drawn))
        assert driver.execute_script(drawn) == "11"
        assert driver.get_log("browser") == []
        told = []
        for name in ("dynamics_matrix", "dynamics_path"):
            panel = driver.find_element("css selector", f"#{name} svg.plot")
            panel.send_keys(Keys.END)
            told.append(driver.find_element("id", "say").get_attribute("textContent"))
            assert panel.find_elements("css selector", "[fill^=rgb]")
        browser.view(driver, width=390)
        driver.refresh()
        WebDriverWait(driver, 20).until(lambda one: one.execute_script(drawn))
        assert driver.execute_script("return document.documentElement.scrollWidth") == 390
    finally:
        driver.quit()
    assert "point 15, point 15: 1" in told[0]
    last = np.asarray(open_tree(folder / "dynamics.zarr")["path"]["path"].sel(control="trained"))[-1]
    assert told[1].startswith("trained; point 15: ")
    said = [float(text.replace("\u2212", "-")) for text in told[1].split(": ")[1].split(", ")]
    np.testing.assert_allclose(said, last[:2], rtol=0.01)


def test_the_table_has_every_quantity_beside_its_null(folder) -> None:
    one = dynamics.open_dynamics(folder)
    assert one is not None
    rows = dynamics_table.as_dict(one)
    said = " ".join(row["quantity"] for row in rows)
    assert all(f"D{number} " in said for number in (1, 2, 3, 4, 5, 7, 8, 9))
    assert "two-NN" in said
    turning = [row for row in rows if row["quantity"].startswith("D7 units")]
    assert [row["null"] for row in turning if "BH" not in row["quantity"]] == ["by chance 1 in 20 runs"] * 3
    by_chance = [row["null"] for row in turning if "more, BH" in row["quantity"]]
    assert all(re.fullmatch(r"by chance \d+\.\d\d more or less", text) for text in by_chance)
    kurtosis = float(open_tree(folder / "dynamics.zarr")["density"]["kurtosis"].sel(control="rotated")[-1])
    (row,) = (row for row in rows if row["quantity"] == "D1 kurtosis, last point")
    assert row["controls"]["rotated"] == kurtosis
    assert "attractor" not in json.dumps(rows)


def test_beside_a_run_the_section_is_on_its_page(folder, tmp_path) -> None:
    beside = tmp_path / "run"
    synthetic.write(beside / "results.zarr", samples=4, unit_size=2, layers=3, width=16)
    before = figures.charts(source.open_sources([beside]))
    (beside / "dynamics.zarr").symlink_to(folder / "dynamics.zarr")
    sources = source.open_sources([beside])
    after = figures.charts(sources)
    assert [chart.name for chart in after] == [*(chart.name for chart in before), *charts(folder)]
    assert "Phase portraits of single units" in page.page_html(sources, after)
    two = dynamics.dynamics_charts([folder, folder])
    assert len(two[0].panels) == 2 * len(charts(folder)["dynamics_continuity"].panels)


def test_it_prints_a_table_or_json_and_goes_on(invoke, tmp_path) -> None:
    arguments = ("--samples", 8, "--controls", "rotated", "--formats", "png", "--out", tmp_path, "--stages", "density")
    code, out, _ = invoke(*arguments)
    assert code == 0
    assert re.search(r"D1 kurtosis, first point\s+│\s+\d\.\d{3} │ Gaussian units 3\.000", out)
    code, out, _ = invoke(*arguments, "--resume", "--json")
    facts = json.loads(out)
    assert facts["stages"] == ["density"]
    assert facts["table"][0]["controls"].keys() == {"rotated"}
    code, _, errors = invoke(*arguments, "--resume", "--seed", "3")
    assert code == 2
    assert "seed (got 3, stored 0)" in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("openai-community/gpt2",), "texts: give prompts with --texts FILE"),
        (("--controls", "walk"), "controls: got 'walk'"),
        (("--stages", "density,turns"), "stages: got 'turns'"),
        (("--samples", "5"), "samples: got 5; allowed 8 or more"),
        (("--formats", "pdf"), "formats: got 'pdf'"),
        (("--draws", "5"), "draws: got 5"),
    ],
)
def test_what_it_refuses_is_one_line_and_exit_code_two(invoke, tmp_path, arguments, message) -> None:
    code, _, errors = invoke(*arguments, "--quiet", "--out", tmp_path)
    assert code == 2
    assert message in errors
    assert len(errors.strip().splitlines()) == 1


def test_a_folder_without_a_store_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match=r"holds no finished dynamics\.zarr"):
        dynamics.write_dynamics(tmp_path)


def test_nothing_is_loaded_before_it_is_used() -> None:
    code = (
        "import sys, jaxdyn, jaxdyn.cli\n"
        "assert not [m for m in sys.modules if m.startswith(('jaxdyn.dynamics', 'flax'))]\n"
        "import jaxdyn.dynamics\n"
        "assert not [m for m in sys.modules if m.split('.')[0] == 'flax'], 'flax'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
