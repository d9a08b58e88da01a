"""`curve.csv`: one row a step, without times, so that two runs of the same curve are the same file.

Columns: step (done), tokens (seen), learning_rate and train_loss (of that step, nats a token), then a column for each
held-out file (nats a token, empty between validations).
"""

import csv
import os
from collections.abc import Sequence
from pathlib import Path

NAME = "curve.csv"
COLUMNS = ("step", "tokens", "learning_rate", "train_loss")


class Curve:
    """The rows of a run on disk. Opening it for a resumed run drops the rows behind the checkpoint."""

    def __init__(self, folder: Path, held_out: Sequence[str], *, done: int | None) -> None:
        self._path = folder / NAME
        header = [*COLUMNS, *held_out]
        rows = [] if done is None else [row for row in read(folder) if int(row[0]) <= done]
        temporary = self._path.with_suffix(".tmp")
        with temporary.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([header, *rows])
            _durable(file)
        temporary.replace(self._path)

    def append(self, rows: Sequence[Sequence[object]]) -> None:
        """Add rows; on the disk when it returns. Numbers with nine digits, which give back a float32."""
        with self._path.open("a", newline="", encoding="utf-8") as file:
            written = [[f"{value:.9g}" if isinstance(value, float) else value for value in row] for row in rows]
            csv.writer(file, lineterminator="\n").writerows(written)
            _durable(file)


def read(folder: Path) -> list[list[str]]:
    """Return the rows below the header, a half-written last one left out."""
    with (folder / NAME).open(newline="", encoding="utf-8") as file:
        lines = [line for line in file.read().splitlines(keepends=True) if line.endswith("\n")]
    return list(csv.reader(lines))[1:]


def _durable(file) -> None:
    file.flush()
    os.fsync(file.fileno())
