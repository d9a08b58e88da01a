"""Progress bars that name the stage and the time left; the pipeline reports to this and knows nothing of terminals."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars


class Progress:
    """A stack of progress bars on standard error, or nothing at all.

    Use as a context manager; `stage(name, total)` gives a function that advances the stage by one, `reach` sets a
    stage to what is done.
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
        self._reached: dict[str, TaskID] = {}

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

    def reach(self, name: str, done: int, total: int) -> None:
        """Show a stage, with `done` of `total` steps there; it appears when it is first named."""
        if name not in self._reached:
            self._reached[name] = self._bars.add_task(name, total=total)
        self._bars.update(self._reached[name], completed=done, total=total)
