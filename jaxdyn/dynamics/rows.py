"""States as rows for training: split by sample, standardised unit by unit, in pieces that fit the memory.

The split is by sample, so that no point of a held-out text was seen. An epoch goes over the pieces in random order and
over each piece's rows in random order; a piece is as many units of work as fit `PIECE_BYTES`, or all of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from .stored import States

PIECE_BYTES = 256 * 2**20
SHARE = 0.15
"""Of the samples, for validation, and as many held out for R^2, as far as these fit `PIECE_BYTES`; others train."""


@dataclass
class Rows:
    """The rows of one set of weights.

    Attributes
    ----------
    states : where they are read.
    control : "trained", "random" or "skip".
    seed : of the split and of the orders.
    batch : most rows a step.
    """

    states: States
    control: str
    seed: int
    batch: int
    mean: np.ndarray = field(init=False)
    scale: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        """Split the samples; mean and scale of the units are the training part's, scale 1 where one is constant."""
        count = self.states.samples
        order = np.random.default_rng([self.seed, 9]).permutation(count)
        most = max(1, PIECE_BYTES // (4 * self.states.width * self.states.points))
        validate = min(max(1, round(SHARE * count)), most)
        train = count - 2 * validate
        self.part = np.empty(count, int)
        for number, members in enumerate(np.split(order, [train, train + validate])):
            self.part[members] = number
        total, square, rows = 0.0, 0.0, 0
        for chunk in self._raw(0):
            total = total + chunk.sum(axis=(0, 1))
            rows += chunk.shape[0] * chunk.shape[1]
        self.mean = np.asarray(total) / rows
        for chunk in self._raw(0):
            square = square + ((chunk - self.mean) ** 2).sum(axis=(0, 1))
        sd = np.sqrt(np.asarray(square) / rows)
        self.scale = np.where(sd > 0, sd, 1.0)
        self.training_rows = rows
        self._kept: np.ndarray | None = None

    def held(self, part: int) -> np.ndarray:
        """Return the samples of a part, (s, P, D) in float32, standardised: 0 training, 1 validation, 2 held out."""
        return np.concatenate(list(self.standardised(part)))

    def standardised(self, part: int) -> Iterator[np.ndarray]:
        """Give the samples of a part a unit of work at a time."""
        for chunk in self._raw(part):
            yield self._standard(chunk)

    def epoch(self, number: int) -> Iterator[np.ndarray]:
        """Give the training rows of an epoch, pieces (steps, batch, D); what does not fill a batch is left out."""
        rng = np.random.default_rng([self.seed, 10, number])
        each = 4 * self.states.width * self.states.points * self.states.store.unit_sizes["sample"]
        units = np.arange(self.states.store.unit_count)
        per_piece = max(1, PIECE_BYTES // each)
        if per_piece >= len(units):
            pieces = [units]
        else:
            mixed = rng.permutation(units)
            pieces = [mixed[start : start + per_piece] for start in range(0, len(mixed), per_piece)]
        for piece in pieces:
            rows = self._piece(piece, keep=len(pieces) == 1)
            batch = min(self.batch, len(rows))
            if batch:
                steps = len(rows) // batch
                yield rows[rng.permutation(len(rows))[: steps * batch]].reshape(steps, batch, -1)

    def _piece(self, units: np.ndarray, *, keep: bool) -> np.ndarray:
        if self._kept is not None:
            return self._kept
        found = [self._standard(chunk).reshape(-1, self.states.width) for chunk in self._raw(0, units)]
        rows = np.concatenate(found) if found else np.empty((0, self.states.width), np.float32)
        if keep:
            self._kept = rows
        return rows

    def _raw(self, part: int, units: np.ndarray | None = None) -> Iterator[np.ndarray]:
        for number in range(self.states.store.unit_count) if units is None else units:
            chunk = self.states.trajectories(int(number), self.control)
            start = self.states.store.unit_slice(int(number)).start
            chosen = chunk[self.part[start : start + len(chunk)] == part]
            if len(chosen):
                yield chosen

    def _standard(self, chunk: np.ndarray) -> np.ndarray:
        return ((chunk - self.mean) / self.scale).astype(np.float32)
