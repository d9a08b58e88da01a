"""The samples of a run and their division into units of work of fixed shape."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from jaxdyn.activations import SINK_POSITIONS, Prompts, choose_positions


@dataclass(frozen=True)
class Samples:
    """Every (prompt, position) of a run, in order, and what is needed to run a unit of them at a fixed shape.

    Attributes
    ----------
    prompts : the padded prompts; their common length is part of the run's settings.
    prompt, position : int (S,), row of `prompts` and position of each sample.
    unit : samples a unit.
    """

    prompts: Prompts
    prompt: Int[np.ndarray, " S"]
    position: Int[np.ndarray, " S"]
    unit: int

    @property
    def count(self) -> int:
        """Number of samples S."""
        return len(self.prompt)

    @property
    def units(self) -> int:
        """Number of units."""
        return -(-self.count // self.unit)

    @property
    def token(self) -> Int[np.ndarray, " S"]:
        """Token id at each sample."""
        return self.prompts.token_ids[self.prompt, self.position]

    @property
    def sink(self) -> np.ndarray:
        """Whether each sample lies among the first positions, where attention sinks live."""
        return self.position < SINK_POSITIONS

    @property
    def prompts_per_unit(self) -> int:
        """Most prompts any unit touches: every unit runs with this many rows."""
        starts = range(0, self.count, self.unit)
        return max(len(np.unique(self.prompt[start : start + self.unit])) for start in starts)

    def members(self, unit: int) -> Int[np.ndarray, " s"]:
        """Global numbers of the samples of a unit; the last unit may have fewer."""
        return np.arange(unit * self.unit, min((unit + 1) * self.unit, self.count))

    def padded(self, unit: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Arrays of a unit at fixed shape: token ids (B, T), row of each sample, position, global number (unit,).

        A short last unit repeats its samples; what comes back for the repeats is dropped.
        """
        members = np.resize(self.members(unit), self.unit)
        rows = np.unique(self.prompt[members])
        ids = np.zeros((self.prompts_per_unit, self.prompts.token_ids.shape[1]), np.int32)
        ids[: len(rows)] = self.prompts.token_ids[rows]
        return ids, np.searchsorted(rows, self.prompt[members]), self.position[members], members

    def row_lengths(self, row: Int[np.ndarray, " s"], members: Int[np.ndarray, " s"]) -> Int[np.ndarray, " B"]:
        """Real tokens of each of a unit's rows, which `padded` gives; 1 in a row that no sample is in."""
        lengths = np.ones(self.prompts_per_unit, np.int32)
        lengths[row] = self.prompts.lengths[self.prompt[members]]
        return lengths


def make_samples(prompts: Prompts, *, tokens: str, unit: int) -> Samples:
    """Apply the token rule and fix the units."""
    prompt, position = choose_positions(prompts.lengths, tokens)
    return Samples(prompts, prompt, position, min(unit, len(prompt)))
