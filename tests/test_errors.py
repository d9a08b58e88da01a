"""Errors that name a page of the documentation: it is there, and the command line says where."""

import email.message
import json
import re
import sys
from pathlib import Path

import pytest

from jaxdyn import cli, errors
from jaxdyn.models.checkpoint import refuse_pickle
from jaxdyn.store import StoreError, open_results, start
from tests.report import synthetic

ROOT = Path(__file__).resolve().parents[1]
PAGE = re.compile(r'page="(docs/[^"]+)"')


def named() -> dict[str, list[str]]:
    """Pages that errors name, with the files that raise them."""
    found: dict[str, list[str]] = {}
    for file in (ROOT / "jaxdyn").rglob("*.py"):
        for page in PAGE.findall(file.read_text()):
            found.setdefault(page, []).append(file.name)
    return found


def test_every_page_that_an_error_names_is_there() -> None:
    assert set(named()) >= {"docs/models.md", "docs/jacobians.md", "docs/store.md", "docs/report.md", "docs/nulls.md"}
    assert [page for page in named() if not (ROOT / page).is_file()] == []


def said(*arguments: object, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Lines that the command writes to standard error."""
    monkeypatch.setattr(sys, "argv", ["jaxdyn", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    return capsys.readouterr().err.strip().splitlines()


def test_the_command_line_says_where_to_read_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mamba"}))
    (tmp_path / "model.safetensors").write_text("")
    family = said("models", tmp_path, capsys=capsys, monkeypatch=monkeypatch)
    assert "model_type 'mamba', supported families are" in family[0]
    assert family[1:] == ["see docs/models.md"]
    synthetic.write(tmp_path / "results.zarr", samples=2, unit_size=2, layers=1, units_done=0)
    empty = said("report", tmp_path, capsys=capsys, monkeypatch=monkeypatch)
    assert "no finished sample" in empty[0]
    assert empty[1:] == ["see docs/report.md"]
    assert len(said("report", tmp_path / "absent", capsys=capsys, monkeypatch=monkeypatch)) == 1


def test_formats_and_settings_that_are_refused_name_their_page(tmp_path: Path) -> None:
    with pytest.raises(errors.InputError) as refused:
        refuse_pickle(Path("model.bin"))
    assert refused.value.page == "docs/models.md"
    place = synthetic.write(tmp_path / "results.zarr", samples=2, unit_size=2, layers=1)
    with pytest.raises(StoreError, match="cannot resume") as refused:
        start(place, None, {"settings": {"truncate": 4}}, resume=True)
    assert refused.value.page == "docs/store.md"
    with pytest.raises(StoreError, match="no results at") as refused:
        open_results(tmp_path / "absent")
    assert refused.value.page is None


@pytest.mark.parametrize(
    ("links", "place"),
    [
        ([], "docs/models.md"),
        (["Repository, https://host/x/"], "https://host/x/blob/HEAD/docs/models.md"),
        (["Repository, https://host/x", "Documentation, https://docs.host"], "https://docs.host/models/"),
        (["Issues, https://host/x/issues"], "docs/models.md"),
    ],
)
def test_a_page_has_the_address_of_the_packages_links(monkeypatch: pytest.MonkeyPatch, links, place) -> None:
    described = email.message.Message()
    for link in links:
        described["Project-URL"] = link
    monkeypatch.setattr(errors, "metadata", lambda _: described)
    assert errors.address("docs/models.md") == place
