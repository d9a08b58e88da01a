"""Stage 7 of 7: a second process that draws half of the figures, started early so that its imports cost no waiting.

It is told what to draw in one line of JSON on its standard input and answers in one line on its standard output; when
its input closes without a word, as it does when its parent is gone, it ends. It opens the stores itself. Whatever goes
wrong there is no loss: the caller then draws those figures as well, and shows the error if it meets it.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import jaxdyn_kernels as jk


class Painter:
    """The second process, ended by a `with` block or with this one; without a second core there is none."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        if jk.cores() > 1 and sys.executable:
            with suppress(OSError):
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-c", "from jaxdyn.report.painter import main; main()"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                    env=os.environ | {"JAX_PLATFORMS": "cpu"},
                    start_new_session=True,  # Ctrl-C is the parent's; this one ends when its input closes
                )

    def __enter__(self) -> "Painter":
        """Begin the block that ends it."""
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, traceback: TracebackType | None) -> None:
        """Let it end, at once after an error."""
        if self._process is None:
            return
        if kind is not None:
            self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):  # it may be gone
                assert pipe is not None
                pipe.close()
        self._process.wait()

    def draw(self, stores: Sequence[Path | None], folder: Path, formats: Sequence[str], names: Sequence[str]) -> bool:
        """Ask for figures by file name; return whether it was asked: not without a process or for a store in memory."""
        places = [str(store.absolute()) for store in stores if store is not None]
        if self._process is None or self._process.stdin is None or len(places) < len(stores):
            return False
        order = {"stores": places, "folder": str(folder.absolute()), "formats": list(formats), "names": list(names)}
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        except OSError:
            return False
        return True

    def files(self) -> dict[str, list[Path]]:
        """Wait for the files by figure; empty where nothing was asked for or something went wrong."""
        if self._process is None or self._process.stdout is None:
            return {}
        try:
            drawn = json.loads(self._process.stdout.readline())
        except (OSError, ValueError):
            return {}
        return {name: [Path(file) for file in files] for name, files in drawn.items()}


def main() -> None:
    """Draw what standard input asks for."""
    from . import figures
    from .source import open_sources

    if not (line := sys.stdin.readline()):
        return
    order = json.loads(line)
    drawn = figures.charts(open_sources(order["stores"]))
    files = figures.save_some(drawn, Path(order["folder"]), order["formats"], order["names"])
    print(json.dumps({name: [str(file) for file in made] for name, made in files.items()}), flush=True)
