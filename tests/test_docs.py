"""The documentation: every code block runs or parses, what is made is current, the site builds without a warning."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import jaxdyn
from docs import fill, gallery, studies
from jaxdyn import embedded
from jaxdyn.measures import MEASURES, henrici_normalized, nulls
from jaxdyn.pipeline.texts import read_texts
from tests import markdown

ROOT = markdown.ROOT
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("*/README.md")), *DOCS]
PAGES += [ROOT / "jaxdyn/embedded/README.md"]
NAMED = (
    "index", "models", "activations", "jacobians", "spectra", "measures", "nulls", "products", "store", "report",
    "kernels", "training", "sweeps",
)  # fmt: skip
"""Pages that error messages point to."""

NEEDS = {"docs/report.md": ("store.md",)}
"""Pages that show the run of another page."""

NUMBER = re.compile(r"\d+\.\d+|\d+")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str]]:
    """A reader's folder, and the pages that were run in it: a page may use what an earlier one made."""
    return tmp_path_factory.mktemp("reader"), set()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_runs(page: Path, reader: tuple[Path, set[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, ran = reader
    monkeypatch.chdir(folder)
    for one in (*(page.with_name(name) for name in NEEDS.get(name_of(page), ())), page):
        if name_of(one) not in ran:
            markdown.run_page(one, monkeypatch)
            ran.add(name_of(one))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_parses(page: Path) -> None:
    for block in markdown.blocks(page):
        assert block.language in ("python", "sh", "text", "yaml", ""), f"{page}, line {block.line}: {block.language}"
        for command in markdown.commands(block) if block.language == "sh" else []:
            markdown.check(command)
        markdown.check_data(block)
    for said in re.findall(r"`jaxdyn ([a-z]+[^`]*)`", page.read_text(encoding="utf-8")):
        words = shlex.split(said)
        markdown.parse(words, name_only=len(words) == 1)


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("jaxdyn analyze --no-such-option 1", "No such option"),
        ("jaxdyn report", "Missing"),
        ("jaxdyn invent", "No such command"),
        ("jaxdyn analyze --samples many", "valid integer"),
        ("make docs", "do not know"),
        ("python -m docs.nothing", "no module"),
        ("pytest tests/nothing.py", "nothing"),
    ],
)
def test_a_command_that_would_fail_is_seen(command: str, complaint: str) -> None:
    with pytest.raises(Exception, match=complaint):  # the parser has its own types
        markdown.check(command)


def test_a_wrong_answer_in_a_block_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\n>>> x = 2\n```\n- in a list\n  ```python\n  >>> x + 1\n  4\n  ```\n")
    with pytest.raises(AssertionError, match="Expected"):
        markdown.run_page(page, monkeypatch)
    page.write_text("```python\nassert 1 == 2\n```\n")
    with pytest.raises(AssertionError):
        markdown.run_page(page, monkeypatch)


@pytest.mark.parametrize("page", fill.PAGES)
def test_what_is_made_is_current(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert fill.filled(text) == text, "run python -m docs.fill"
    assert text.count("<!-- made: ") == text.count("<!-- /made -->") == len(fill.MADE.findall(text))


def test_the_table_of_the_readme_is_that_of_the_run() -> None:
    (shown,) = [block for block in markdown.blocks(ROOT / "README.md") if block.text.startswith("block J")]
    assert fill.data("stories260k")["terminal"].startswith(shown.text)


def test_the_numbers_in_the_prose_are_those_of_the_runs() -> None:
    text = " ".join((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("index.md", "nulls.md"))
    block = fill.data("embedded")["parts"]["block"]
    for measure, said in (("henrici_normalized", ".022"), ("complex_fraction", ".027")):
        furthest = np.max(np.abs(np.subtract(block[measure]["measured"], block[measure]["N1"])))
        assert float(said) - 0.001 < furthest <= float(said)
        assert said in text
    assert "On the embedded model 8 to 21 % of the energy" in text
    assert "0.08 to 0.21 over the layers" in fill.data("embedded")["captions"]["depth_profiles"]
    for run, blocks in (("embedded", 8), ("stories260k", 5)):
        of = fill.data(run)["product"]
        assert of["effective_rank"][0] < 20
        assert len(of["effective_rank"]) == blocks
    of = fill.data("embedded")["product"]
    assert of["effective_rank"][-1] < of["effective_rank_null"][-1]


def test_every_measure_has_its_row() -> None:
    page = (ROOT / "docs/measures.md").read_text(encoding="utf-8")
    for measure in MEASURES:
        assert re.search(rf"^\| `{measure.name}` \| .*\| {re.escape(measure.formula)} \|", page, re.MULTILINE)


def test_the_pages_that_errors_name_exist() -> None:
    assert {path.stem for path in DOCS} >= set(NAMED)


def test_the_figures_are_there_and_small() -> None:
    files = list(gallery.FIGURES.iterdir())
    shown = {f"{run}_{figure}" for run, figures in gallery.SHOWN.items() for figure in figures} | {"hero"}
    shown |= {f"{run}_{figure}" for run, figures in studies.SHOWN.items() for figure in figures}
    assert {file.stem for file in files} == shown
    assert sum(file.stat().st_size for file in files) < 3e6


def test_the_quoted_numbers_are_those_of_the_embedded_model() -> None:
    """One layer of the committed table, computed again without pipeline, store and report."""
    quoted, layer = fill.data("embedded")["parts"]["block"]["henrici_normalized"], 5
    model = jaxdyn.load()
    J = jaxdyn.jacobian(model, jaxdyn.capture(model, read_texts(embedded.PROMPTS)), layer=layer)
    assert np.mean(henrici_normalized(jaxdyn.decompose(J).T)) == pytest.approx(quoted["measured"][layer], rel=1e-3)
    size = np.linalg.norm(J - np.eye(128, dtype=np.float32), axis=(1, 2))
    closed = nulls.closed_form(np.ones_like(size), size, 128)["henrici_normalized"]
    assert np.mean(closed) == pytest.approx(quoted["N0"][layer], rel=1e-3)


def test_the_notebook_gives_what_it_shows(tmp_path: Path) -> None:
    """From a model to a figure, in a kernel of its own; numbers agree to the two digits that are printed."""
    for name in ("nbclient", "ipykernel"):
        pytest.importorskip(name, reason=f"needs {name}: pip install -e '.[test]'")
    fresh = tmp_path / "fresh.ipynb"
    run = [sys.executable, "-m", "docs.notebook", str(fresh)]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    shown, given = shown_by(ROOT / "docs/notebooks/first_look.ipynb"), shown_by(fresh)
    assert [kinds for kinds, _ in shown] == [kinds for kinds, _ in given]
    assert sum("image/png" in kinds for kinds, _ in shown) == 2
    for (_, one), (_, other) in zip(shown, given, strict=True):
        assert NUMBER.sub("#", one) == NUMBER.sub("#", other)
        assert np.allclose(
            [float(n) for n in NUMBER.findall(one)], [float(n) for n in NUMBER.findall(other)], atol=0.02
        )


def shown_by(notebook: Path) -> list[tuple[list[str], str]]:
    """What each output of a notebook holds: its types, and its text without the spaces that align it."""
    found = []
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", []):
            text = output.get("text", output.get("data", {}).get("text/plain", []))
            found.append((sorted(output.get("data", {})), " ".join("".join(text).split())))
    return found


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="needs mkdocs: pip install -e '.[test]'")
    site = tmp_path / "site"
    # Not --quiet: what is not logged is not counted, and --strict then passes over it.
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(build, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert {f"{path.stem}.html" for path in DOCS} <= {path.name for path in site.iterdir()}
    pages = "".join(page.read_text(encoding="utf-8") for page in site.glob("*.html"))
    asked = set(re.findall(r'(?:src|<link[^>]*href)="(https?://[^"]+)"', pages))
    assert not asked, "the site must open without a network"
    assert "henrici_normalized" in (site / "api.html").read_text(encoding="utf-8")
