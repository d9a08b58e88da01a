"""Checkpoints with orbax: the initial state, the powers of two, the last step, and the newest for resuming.

A checkpoint is a folder `checkpoints/STEP`, written under another name and renamed when it is whole, so that a killed
run leaves only whole ones. STEP is the number of optimizer steps done.
"""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, CustomSteps, LatestN

from jaxdyn.errors import InputError
from jaxdyn.training.optimizer import State

FOLDER = "checkpoints"


def log_spaced(steps: int) -> list[int]:
    """Return the steps whose checkpoints stay: 0, 1, 2, 4, 8, ... below ``steps``, and ``steps``."""
    return [0, *(1 << power for power in range((steps - 1).bit_length())), steps]


class Checkpoints:
    """The checkpoints of one run; a context manager, since orbax holds threads."""

    def __init__(self, out: Path, *, steps: int, read_only: bool = False) -> None:
        policy = AnyPreservationPolicy([LatestN(1), CustomSteps(log_spaced(steps))])
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policy,
            enable_async_checkpointing=False,
            cleanup_tmp_directories=not read_only,
            read_only=read_only,
        )
        self._folder = (out / FOLDER).resolve()
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        self._manager.close()

    @property
    def latest(self) -> int | None:
        """The newest whole checkpoint's step, or None."""
        return self._manager.latest_step()

    @property
    def steps(self) -> list[int]:
        """Steps of all whole checkpoints, in order."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: State) -> None:
        """Write the state after ``step`` steps; durable on return. A full disk is an ``InputError``."""
        try:
            self._manager.save(step, args=ocp.args.StandardSave(state))  # pyright: ignore[reportCallIssue]
            self._manager.wait_until_finished()
        except OSError as error:
            msg = f"out: cannot write a checkpoint to {self._folder} ({error}); make room, then go on with --resume"
            raise InputError(msg) from error

    def restore(self, step: int, like: State) -> State:
        """Read the state after ``step`` steps, of the shapes and dtypes of ``like``."""
        have = self.steps
        if step not in have:
            msg = f"step: got {step}; allowed {', '.join(map(str, have))}, the checkpoints in {self._folder}"
            raise InputError(msg)
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        restored: Any = self._manager.restore(step, args=ocp.args.StandardRestore(abstract))  # pyright: ignore[reportCallIssue]
        return restored
