"""The README: its commands are found by CI, its files exist. That its blocks run is in test_docs.py."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", ["run", "test"])
def test_ci_finds_each_command(name: str) -> None:
    assert re.search(rf"<!-- command: {name} -->\n```sh\n(.+?)```", README, re.DOTALL)


def test_the_files_that_it_names_exist() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert all((ROOT / link).exists() for link in links), links
    paths = re.findall(r"`((?:jaxdyn|kernels)/[a-z_/]*(?:\.py)?)`", README)
    assert paths
    assert all((ROOT / path).exists() for path in paths), paths
