"""The examples of docs/semanticity.md print what they say."""

import doctest
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "semanticity.md"


def test_the_examples_print_what_they_say() -> None:
    example = doctest.DocTestParser().get_doctest(PAGE.read_text().replace("```", ""), {}, "semanticity", str(PAGE), 0)
    assert len(example.examples) >= 10
    runner = doctest.DocTestRunner()
    runner.run(example)
    assert runner.summarize(verbose=False).failed == 0
