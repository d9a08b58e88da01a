"""`jaxdyn report`: what it writes and prints, and what it says to folders that it cannot show."""

import sys

import pytest

from jaxdyn import cli
from tests.report import synthetic


@pytest.fixture
def invoke(capsys, monkeypatch):
    """Run the command in this process; exit code, standard output, standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["jaxdyn", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        written = capsys.readouterr()
        return int(stop.value.code or 0), written.out, written.err

    return run


@pytest.fixture
def folder(tmp_path):
    """A small finished run of another width, in a folder of its own."""
    synthetic.write(tmp_path / "run" / "results.zarr", samples=4, unit_size=2, layers=3, width=16)
    return tmp_path / "run"


def test_report_writes_page_card_and_the_asked_figures_beside_the_store(invoke, folder):
    code, out, _ = invoke("report", folder, "--formats", "svg")
    assert code == 0
    assert "4 of 4 samples done, complete" in out
    assert str(folder / "report.html") in out
    names = {path.name for path in folder.iterdir()}
    assert {"report.html", "card.png", "depth_profiles.svg", "depth_excess.svg", "budget.svg"} <= names
    assert {name for name in names if name.endswith(".png")} == {"card.png"}
    text = (folder / "report.html").read_text()
    assert '["SVG","depth_profiles.svg"]' in text
    assert '"PNG"' not in text
    assert f"jaxdyn report {folder}" in text


def test_two_runs_go_to_a_folder_of_their_own(invoke, folder, results, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = invoke("report", results.parent, folder, "--formats", "png")
    assert code == 0
    assert "A: " in out
    assert "B: " in out
    assert not (folder / "report.html").exists()
    assert (tmp_path / "jaxdyn-report" / "report.html").is_file()


def test_an_unfinished_run_is_shown_with_its_progress(invoke, unfinished, tmp_path):
    code, out, _ = invoke("report", unfinished.parent, "--out", tmp_path, "--formats", "png")
    assert code == 0
    assert "8 of 16 samples done, not finished" in out
    assert "8 of 16 samples are done" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent"], "folder: nothing at absent; give the --out folder of a run"),
        (["."], "folder: . holds no results.zarr"),
        (["run", "run"], "got run twice"),
        (["run", "run", "run"], "got 3; allowed one, or two"),
        (["run", "--formats", "pdf"], "formats: got 'pdf'; allowed png, svg"),
        (["run", "--out", "file/x"], "cannot write the report in file/x"),
    ],
)
def test_what_cannot_be_shown_is_one_line_and_exit_code_two(invoke, folder, monkeypatch, arguments, message):
    monkeypatch.chdir(folder.parent)
    (folder.parent / "file").write_text("in the way")
    code, _, errors = invoke("report", *arguments)
    assert code == 2
    assert message in errors
    assert len(errors.strip().splitlines()) == 1
    assert "Traceback" not in errors
