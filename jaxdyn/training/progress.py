"""The bar of a training run on standard error: steps, loss, tokens a second, time left."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars


class TrainingBar:
    """One progress bar, or nothing at all where not enabled; a context manager."""

    def __init__(self, *, enabled: bool = True, console: Console | None = None) -> None:
        self._bars = Bars(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}  {task.fields[rate]} tokens/s  elapsed"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console or Console(stderr=True),
            speed_estimate_period=120,
            disable=not enabled,
        )

    def __enter__(self) -> "TrainingBar":
        self._bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bars.stop()

    def begin(self, steps: int, *, done: int) -> None:
        """Show ``steps`` steps, ``done`` of them already there."""
        self._task = self._bars.add_task("training", total=steps, completed=done, loss="-", rate="-")

    def update(self, done: int, loss: float, rate: float) -> None:
        """Show where the run is: steps done, loss of the last step in nats, tokens a second."""
        shown = f"{rate:,.0f}" if rate else "-"
        self._bars.update(self._task, completed=done, loss=f"{loss:.3f}", rate=shown)
