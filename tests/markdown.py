"""Code blocks of a Markdown page: found, run, parsed. Shared by the tests of README and docs."""

import contextlib
import doctest
import importlib.util
import io
import re
import shlex
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import typer
import yaml

from jaxdyn import application, cli

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(
    r"(?:^[ ]*<!-- (?P<marker>[^\n]*?) -->\n)?^(?P<indent>[ ]*)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)"
    r"^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
OTHER_COMMANDS = {".ci/run", "cd", "cp", "git", "mkdocs", "pip", "pytest", "python", "python3", "source"}
"""What a shell block may call beside `jaxdyn`; what of it can be checked without running it is."""


class Block(NamedTuple):
    """One fenced block: its language, its text, its line in the page and the comment above it."""

    language: str
    text: str
    line: int
    marker: str


def blocks(path: Path) -> list[Block]:
    """All fenced blocks of a page, in order, without the indent they have in a list."""
    page = path.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(page):
        indent = match["indent"]
        text = "".join(line.removeprefix(indent) for line in match["text"].splitlines(keepends=True))
        line = page[: match.start("text")].count("\n")
        found.append(Block(match["language"], text, line, match["marker"] or ""))
    assert len(found) * 2 == len(re.findall(r"^ *```", page, re.MULTILINE)), f"{path}: a fence is not closed"
    return found


def run_page(path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a page's Python blocks in one namespace and its shell blocks marked `runs`, in order; return how many.

    A block marked `file: NAME` is written into the folder, for those after it.
    """
    names: dict[str, object] = {"__name__": "page"}
    ran = 0
    for block in blocks(path):
        if block.language == "python":
            run_python(path, block, names)
        elif block.language == "sh" and block.marker == "runs":
            run_shell(block, monkeypatch)
        elif block.marker.startswith("file: "):
            Path(block.marker.removeprefix("file: ")).write_text(block.text, encoding="utf-8")
        else:
            continue
        ran += 1
    return ran


def run_python(path: Path, block: Block, names: dict[str, object]) -> None:
    """Run one block, as a doctest where it has prompts; the names it makes stay for the next."""
    if ">>>" not in block.text:
        exec(compile("\n" * block.line + block.text, str(path), "exec"), names)
        return
    example = doctest.DocTestParser().get_doctest(block.text, names, path.name, str(path), block.line)
    said = io.StringIO()
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    failed, _ = runner.run(example, out=said.write, clear_globs=False)
    assert failed == 0, said.getvalue()
    names |= example.globs


def commands(block: Block) -> list[str]:
    """The command lines of a shell block, continued lines joined, comments and empty lines left out."""
    joined = re.sub(r"\\\n\s*", " ", block.text)
    lines = [shlex.join(shlex.split(line, comments=True)) for line in joined.splitlines()]
    return [line for line in lines if line]


def check(command: str) -> None:
    """Parse one command line as its program would, without running it."""
    for one in " ".join("\n" if word == "&&" else shlex.quote(word) for word in shlex.split(command)).split("\n"):
        program, *arguments = shlex.split(one)
        if program == "jaxdyn":
            parse(arguments)
            continue
        assert program in OTHER_COMMANDS, f"{program}: a command that the tests do not know"
        if program == "python" and arguments[0] == "-m":
            assert importlib.util.find_spec(arguments[1]), f"no module {arguments[1]}"
        elif program == "python" and arguments[0] == "-c":
            compile(arguments[1], "-c", "exec")
        elif program == "pytest":
            places = [word for word in arguments if word.startswith("tests")]
            assert all((ROOT / place.partition("::")[0]).exists() for place in places), places
        elif "/" in program:
            assert (ROOT / program).is_file()


def parse(arguments: list[str], *, name_only: bool = False) -> None:
    """Parse the arguments of `jaxdyn`; an unknown command or option, or one that lacks its value, raises.

    With `name_only` nothing but the command's name is looked up, as prose speaks of it.
    """
    group = typer.main.get_command(cli.app)
    with group.make_context("jaxdyn", list(arguments)) as context:
        rest = [*context._protected_args, *context.args]
        name, command, rest = group.resolve_command(context, rest)  # pyright: ignore[reportAttributeAccessIssue]
        if not name_only:
            command.make_context(name, rest, parent=context)


def run_shell(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the `jaxdyn` lines of a block in this process and folder."""
    said = io.StringIO()
    monkeypatch.setattr(application, "keep_compiled", lambda: None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for command in commands(block):
        program, *arguments = shlex.split(command)
        assert program == "jaxdyn", f"{program}: only jaxdyn is run here"
        monkeypatch.setattr(sys, "argv", ["jaxdyn", *arguments])
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), pytest.raises(SystemExit) as stop:
            cli.main()
        assert stop.value.code == 0, f"{command}: exit code {stop.value.code}\n{said.getvalue()}"


def check_data(block: Block) -> None:
    """Read a block of YAML or JSON."""
    if block.language in ("yaml", "json"):
        yaml.safe_load(block.text)
