"""Who is at which piece of work: a file a piece, made by an atomic link, so that one process alone gets it.

Claims spare work and decide nothing: results are the same bytes whoever computes them, and what is done is what the
store's markers say.
"""

import os
import uuid
from contextlib import suppress
from pathlib import Path

from jaxdyn.store.files import reported

from .presence import Presence


class Claims:
    """The claims of a sweep, in a folder that all its processes see."""

    def __init__(self, folder: Path, presence: Presence) -> None:
        with reported(folder, "create"):
            folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._presence = folder, presence

    def take(self, piece: str) -> bool:
        """Claim a piece of work; False where a living process has it. A dead one's claim is taken over."""
        if self._link(piece):
            return True
        holder = self.holder(piece)
        if holder is None:
            return self._link(piece)
        if holder == self._presence.name:
            return True
        if self._presence.lives(holder):
            return False
        aside = self._folder / f".{piece}-{uuid.uuid4().hex}"
        try:
            os.rename(self._folder / piece, aside)  # of several who see the dead one, one has this succeed
        except FileNotFoundError:
            return False
        if aside.read_text() != holder:  # another was faster, and this is its new claim: put it back
            with suppress(FileExistsError):
                os.link(aside, self._folder / piece)
            aside.unlink()
            return False
        aside.unlink()
        return self._link(piece)

    def free(self, piece: str) -> bool:
        """Whether `take` would succeed now."""
        holder = self.holder(piece)
        return holder is None or holder == self._presence.name or not self._presence.lives(holder)

    def holder(self, piece: str) -> str | None:
        """Return the name of the process that has a piece; None where nobody has."""
        try:
            return (self._folder / piece).read_text()
        except FileNotFoundError:
            return None

    def release(self, piece: str) -> None:
        """Give a piece back, done or not."""
        if self.holder(piece) == self._presence.name:
            (self._folder / piece).unlink(missing_ok=True)

    def _link(self, piece: str) -> bool:
        """Make the claim with its content in one step; False where it exists."""
        own = self._folder / f".{self._presence.name}-{uuid.uuid4().hex}"
        with reported(self._folder, "write"):
            own.write_text(self._presence.name)
            try:
                os.link(own, self._folder / piece)
            except FileExistsError:
                return False
            finally:
                own.unlink()
        return True
