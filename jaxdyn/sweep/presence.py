"""Which processes of a sweep are at work: a heartbeat file each, in a folder that all of them see.

A process that ends removes its file; one that is killed leaves it behind. Another process counts as dead when its file
is gone, when it ran on this host and its pid is gone, or when its file has not changed for `stale` seconds of the
observer's own clock (clocks of different hosts need not agree). The last rule also gives up on a process that hangs.
To be wrong about it is harmless: a unit computed twice is written twice with the same bytes.
"""

import json
import os
import socket
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from jaxdyn.store.files import reported

STALE = 60.0
"""Seconds without a heartbeat after which a process on another host counts as dead."""


class Presence:
    """This process among those of a sweep; a context manager that beats until it ends.

    Parameters
    ----------
    folder : where the heartbeats are, made if need be.
    process, processes : its number and their count.
    stale : seconds, see `STALE`; it beats ten times as often, and every five seconds at least.
    """

    def __init__(self, folder: Path, *, process: int, processes: int, stale: float = STALE) -> None:
        self.folder, self.stale, self.process = folder, stale, process
        self.name = f"{process:05d}-{uuid.uuid4().hex[:12]}"
        self._facts: dict[str, Any] = {
            "name": self.name, "process": process, "processes": processes, "place": _place(), "pid": os.getpid(),
            "started": _started(os.getpid()), "units": 0, "doing": "starting",
        }  # fmt: skip
        self._beats, self._stop = 0, threading.Event()
        self._thread = threading.Thread(target=self._beat_on, daemon=True)
        self._seen: dict[str, tuple[int, float]] = {}

    def __enter__(self) -> "Presence":
        with reported(self.folder, "create"):
            self.folder.mkdir(parents=True, exist_ok=True)
        self._beat()
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()
        with suppress(OSError):
            self._file(self.name).unlink()

    def tell(self, **facts: Any) -> None:
        """Change what the next heartbeat says: units done, what is being done."""
        self._facts = {**self._facts, **facts}

    def lives(self, name: str) -> bool:
        """Whether the process of this name is still at work."""
        if name == self.name:
            return True
        try:
            content = self._file(name).read_text()
            found = json.loads(content)
        except (OSError, ValueError):  # removed at its end; heartbeats are replaced whole, so never half of one
            self._seen.pop(name, None)
            return False
        if found["place"] == _place() and _started(found["pid"]) != found["started"]:
            return False
        beat, since = self._seen.get(name, (None, 0.0))
        if found["beat"] != beat:
            self._seen[name] = (found["beat"], time.monotonic())
            return True
        return time.monotonic() - since < self.stale

    def others(self) -> list[dict[str, Any]]:
        """What the other living processes last said of themselves."""
        found = []
        for file in sorted(self.folder.glob("*.json")):
            if file.stem != self.name and self.lives(file.stem):
                with suppress(OSError, ValueError):
                    found.append(json.loads(file.read_text()))
        return found

    def forget_the_dead(self) -> None:
        """Remove what killed processes of this host have left."""
        for file in self.folder.glob("*.json"):
            if not self.lives(file.stem):
                file.unlink(missing_ok=True)

    def _beat_on(self) -> None:
        while not self._stop.wait(min(5.0, self.stale / 10)):
            self._beat()

    def _beat(self) -> None:
        self._beats += 1
        update = self._file(self.name).with_suffix(".partial")
        with suppress(OSError):  # a full disk is for those to report who write results
            update.write_text(json.dumps({**self._facts, "beat": self._beats, "time": time.time()}))
            os.replace(update, self._file(self.name))

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.json"


def _place() -> str:
    """Return the host and the namespace in which a pid means something."""
    try:
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{socket.gethostname()} {uuid.getnode()}"


def _started(pid: int) -> str | None:
    """When a process of this host was started, in its kernel's ticks: a pid is given out again; None for a dead one."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return _signalled(pid) if not Path("/proc/self/stat").exists() else None
    except OSError:
        return None
    return None if after_name[0] in "ZX" else after_name[19]


def _signalled(pid: int) -> str | None:
    """Without /proc: whether the pid exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "alive"
