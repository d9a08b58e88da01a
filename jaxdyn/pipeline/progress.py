"""Progress bars that name the stage and the time left; the pipeline reports to this and knows nothing of terminals."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars


class Progress:
    """A stack of progress bars on standard error, or nothing at all.

    Use as a context manager; `stage(name, total)` gives a function that advances the stage by one.
    """

    def __init__(self, *, enabled: bool = True, console: Console | None = None) -> None:
        self._bars = Bars(
            TextColumn("{task.description:<22}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("elapsed"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console or Console(stderr=True),
            disable=not enabled,
        )

    def __enter__(self) -> "Progress":
        self._bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bars.stop()

    @contextmanager
    def stage(self, name: str, total: int, *, done: int = 0) -> Iterator[Callable[[], None]]:
        """Show one stage: `total` steps, `done` of them already there."""
        task = self._bars.add_task(name, total=total, completed=done)
        yield lambda: self._bars.advance(task)
