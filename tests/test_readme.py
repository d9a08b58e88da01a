"""The README: its example runs, its commands are found by CI, its files exist."""

import doctest
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_the_python_example_prints_what_it_says() -> None:
    block = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert block is not None
    example = doctest.DocTestParser().get_doctest(block[1], {}, "README", "README.md", 0)
    assert len(example.examples) >= 10
    runner = doctest.DocTestRunner()
    runner.run(example)
    assert runner.summarize(verbose=False).failed == 0


def test_the_doctest_runner_sees_a_wrong_answer() -> None:
    wrong = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)
    runner = doctest.DocTestRunner(verbose=False)
    runner.run(wrong, out=lambda _: None)
    assert runner.failures == 1


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
