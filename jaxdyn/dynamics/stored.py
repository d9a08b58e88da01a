"""Stored states read back in pieces that do not grow with the number of texts: by unit of work, or by coordinates."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from jaxdyn.store import Store

from .controls import haar, noise_walk, orders, skip_matched
from .settings import DynamicsSettings

KEY = "state"
BLOCK_BYTES = 128 * 2**20
"""Most bytes of a block of coordinates that needs all samples at once."""


@dataclass(frozen=True)
class States:
    """The states (S, P, D) of every set of weights, on the disk.

    Attributes
    ----------
    store : with the variable `state` (weights, point, sample, coordinate).
    settings : of the run.
    samples, points, width : S, P, D.
    """

    store: Store
    settings: DynamicsSettings
    samples: int
    points: int
    width: int

    @cached_property
    def _basis(self) -> np.ndarray:
        return haar(self.width, self.settings.seed)

    @cached_property
    def _orders(self) -> np.ndarray:
        return orders(self.points, self.width, self.settings.seed)

    def unit(self, number: int, weights: str = "trained") -> np.ndarray:
        """Read the states of one unit of work, (s, P, D) in float64."""
        found = self.store.read(number, KEY, at={"weights": self.settings.weights.index(weights)})
        return np.moveaxis(np.asarray(found, np.float64), 0, 1)

    def chunks(self, control: str = "trained") -> Iterator[np.ndarray]:
        """Read the trajectories (s, P, D) of all samples, a unit of work at a time.

        `control` is "trained", "random", "rotated", "shuffled" or "skip" (here the noise walk, which is a
        whole trajectory).
        """
        for number in range(self.store.unit_count):
            yield self.trajectories(number, control)

    def pairs(self, control: str = "trained") -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Read each point with the next one, (s, P-1, D) twice, a unit of work at a time.

        With "skip" the next point is the skip-matched null's, a_l + n_l.
        """
        for number in range(self.store.unit_count):
            if control == "skip":
                states = self.unit(number)
                yield states[:, :-1], skip_matched(states, self.settings.seed, number)
            else:
                states = self.trajectories(number, control)
                yield states[:, :-1], states[:, 1:]

    def columns(self, coordinates: np.ndarray, control: str = "trained") -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Read all samples of some coordinates, a block of them at a time.

        Yields (coordinates (c,), pairs (2, S, P-1, c)): each point and the next.
        """
        each = 2 * 8 * self.samples * (self.points - 1)
        size = max(1, BLOCK_BYTES // each)
        for start in range(0, len(coordinates), size):
            chosen = coordinates[start : start + size]
            block = np.empty((2, self.samples, self.points - 1, len(chosen)))
            row = 0
            for before, after in self.pairs(control):
                block[0, row : row + len(before)] = before[..., chosen]
                block[1, row : row + len(before)] = after[..., chosen]
                row += len(before)
            yield chosen, block

    def trajectories(self, number: int, control: str) -> np.ndarray:
        """Read the trajectories (s, P, D) of one unit of work under a control, as `chunks` names them."""
        if control == "rotated":
            return self.unit(number) @ self._basis
        if control == "skip":
            return noise_walk(self.unit(number), self.settings.seed, number)
        if control == "shuffled":
            return np.take_along_axis(self.unit(number), self._orders[None], axis=-1)
        return self.unit(number, control)

    def at_point(self, point: int, weights: str = "trained", *, most: int) -> np.ndarray:
        """Read the samples of one point, (S, D) in float64; of more than `most`, evenly spaced ones."""
        at = {"weights": self.settings.weights.index(weights), "point": point}
        wanted = np.unique(np.linspace(0, self.samples - 1, min(most, self.samples)).astype(int))
        read = []
        for number in range(self.store.unit_count):
            start = self.store.unit_slice(number).start
            found = self.store.read(number, KEY, at=at)
            read.append(found[wanted[(wanted >= start) & (wanted < start + len(found))] - start])
        return np.concatenate(read).astype(np.float64)
