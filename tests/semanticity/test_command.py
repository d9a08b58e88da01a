"""`jaxdyn semanticity`: what it writes, prints and refuses, and its section beside a run of `jaxdyn analyze`."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

from jaxdyn import cli
from jaxdyn.report import figures, page, semanticity, source
from tests.report import synthetic

SMALL = ("--samples", "16", "--layers", "0,8", "--items", "2,4", "--trials", "200", "--formats", "png", "--quiet")


@pytest.fixture
def invoke(capsys, monkeypatch):
    """Run the command in this process; exit code, standard output, standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["jaxdyn", "semanticity", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        written = capsys.readouterr()
        return int(stop.value.code or 0), written.out, written.err

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A probe of the embedded model and a toy network, in one folder."""
    place = tmp_path_factory.mktemp("semanticity")
    with pytest.MonkeyPatch.context() as patch:
        for arguments in (
            ("--stimuli", "words", *SMALL),
            ("--toy", "--networks", "2", "--epochs", "20", "--quiet", "--formats", "svg"),
        ):
            patch.setattr(sys, "argv", ["jaxdyn", "semanticity", *arguments, "--out", str(place)])
            with pytest.raises(SystemExit) as stop:
                cli.main()
            assert not stop.value.code
    return place


def charts(folder) -> dict:
    """Figures of a folder by name."""
    return {chart.name: chart for chart in semanticity.semanticity_charts([folder])}


def test_the_folder_holds_stores_page_and_figures(folder) -> None:
    names = {path.name for path in folder.iterdir()}
    assert {"semanticity.zarr", "semanticity-toy.zarr", "report.html"} <= names
    for stem in ("semanticity_plane", "semanticity_layers", "semanticity_collapse"):
        assert {f"{stem}.png", f"{stem}.svg"} <= names
    text = (folder / "report.html").read_text()
    (embedded,) = re.findall(r'id="data">(.*?)</script>', text, re.DOTALL)
    data = json.loads(embedded)
    assert [chart["name"] for chart in data["charts"]] == list(charts(folder))
    assert data["summary"] is None
    assert ["--stimuli words" in line for line in data["commands"]] == [True, False]
    assert "--toy" in data["commands"][1]
    assert data["files"]["semanticity_plane"] == [["SVG", "semanticity_plane.svg"]]


def test_the_figures_show_the_stored_numbers_on_the_fronts(folder) -> None:
    from jaxdyn.store import open_tree

    found = open_tree(folder / "semanticity.zarr")["semanticity"].to_dataset()
    layers, toy = charts(folder)["semanticity_plane"].panels
    drawn = {series.role: series for series in layers.series}
    np.testing.assert_array_equal(drawn["measured"].x, found["p_i"].sel(control="trained"))
    np.testing.assert_array_equal(drawn["measured"].y, found["p_s"].sel(control="trained"))
    np.testing.assert_array_equal(drawn["N5"].y, found["p_s"].sel(control="random"))
    np.testing.assert_array_equal(drawn["rotated"].y, found["p_s"].sel(control="rotated"))
    front = drawn["front"]
    np.testing.assert_allclose(front.y, 0.5 + 2 * (1 - front.x) - 4 * (1 - front.x) ** 2, atol=1e-6)
    assert [series.role for series in toy.series].count("fan") == 2
    assert "only the constant kernel's is free of geometry" in charts(folder)["semanticity_plane"].caption
    (panel,) = charts(folder)["semanticity_collapse"].panels
    bound, points = (next(one for one in panel.series if one.role == role) for role in ("floor", "points"))
    np.testing.assert_allclose(bound.y, 1 / (1 + 10**bound.x), rtol=1e-9)
    assert len(points.x) == 4  # two layers, two numbers of items
    assert (points.y > 1 / (1 + 10**points.x) - 0.02).all()  # 200 trials


def test_beside_a_run_the_section_is_on_its_page(folder, tmp_path) -> None:
    beside = tmp_path / "run"
    synthetic.write(beside / "results.zarr", samples=4, unit_size=2, layers=3, width=16)
    before = figures.charts(source.open_sources([beside]))
    for name in ("semanticity.zarr", "semanticity-toy.zarr"):
        (beside / name).symlink_to(folder / name)
    sources = source.open_sources([beside])
    after = figures.charts(sources)
    assert [chart.name for chart in after] == [*(chart.name for chart in before), *charts(folder)]
    assert "The 1/n collapse" in page.page_html(sources, after)


def test_it_prints_a_table_or_json_and_goes_on(invoke, folder, tmp_path) -> None:
    arguments = ("--stimuli", "words", *SMALL, "--out", folder, "--resume")
    code, out, _ = invoke(*(one for one in arguments if one != "--quiet"))
    assert code == 0
    assert re.search(r"trained\s+│\s+8 │ 0\.\d{3} │", out)
    code, out, _ = invoke(*arguments, "--json")
    facts = json.loads(out)
    assert np.shape(facts["p_s_law"]) == (3, 2, 3, 2)
    assert facts["layer"] == [0, 8]
    code, _, errors = invoke(*arguments, "--seed", "3")
    assert code == 2
    assert "seed (got 3, stored 0)" in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--toy", "--layers", "0"), "layers: got '0' with --toy"),
        (("--toy", "--resume"), "resume: got True with --toy"),
        (("--slots", "8,8"), "slots: got '8,8' without --toy"),
        (("--toy", "--slots", "8,x"), "slots: got '8,x'"),
        (("--stimuli", "colours"), "stimuli: got 'colours'"),
        (("--items", "2,b"), "items: got '2,b'"),
        (("--controls", "shuffled"), "controls: got 'shuffled'"),
        (("--layers", "9", "--samples", "16"), "layers: got 9; allowed 0 to 8"),
        (("--formats", "pdf"), "formats: got 'pdf'"),
        (("--toy", "--space", "plane"), "space: got 'plane'"),
    ],
)
def test_what_it_refuses_is_one_line_and_exit_code_two(invoke, tmp_path, arguments, message) -> None:
    code, _, errors = invoke(*arguments, "--out", tmp_path)
    assert code == 2
    assert message in errors
    assert len(errors.strip().splitlines()) == 1


def test_a_folder_without_a_store_is_refused(tmp_path) -> None:
    from jaxdyn.errors import InputError

    with pytest.raises(InputError, match=r"holds no finished semanticity\.zarr"):
        semanticity.write_semanticity(tmp_path)


def test_nothing_is_loaded_before_it_is_used() -> None:
    code = (
        "import sys, jaxdyn, jaxdyn.cli\n"
        "assert not [m for m in sys.modules if m.startswith(('jaxdyn.semanticity', 'flax'))]\n"
        "import jaxdyn.semanticity, jaxdyn.semanticity.run\n"
        "assert not [m for m in sys.modules if m.split('.')[0] == 'flax'], 'flax'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
