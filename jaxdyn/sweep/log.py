"""What a process writes about its work: a log for people, and a line of JSON a unit for programs."""

import json
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jaxdyn.store.files import reported


class Log:
    """`logs/process-00000.log` and `metrics/process-00000.jsonl` in the sweep's folder, appended to."""

    def __init__(self, out: Path, process: int) -> None:
        self.log = out / "logs" / f"process-{process:05d}.log"
        self.metrics = out / "metrics" / f"process-{process:05d}.jsonl"
        self._process = process
        for file in (self.log, self.metrics):
            with reported(file.parent, "create"):
                file.parent.mkdir(parents=True, exist_ok=True)

    def say(self, text: str) -> None:
        """Add a line to the log."""
        self._append(self.log, f"{datetime.now(UTC).isoformat(timespec='seconds')} {text}")

    def metric(self, **facts: Any) -> None:
        """Add a line to the metrics: the facts, the time in seconds since 1970, the process and what it holds."""
        told = {"time": round(time.time(), 3), "process": self._process, "resident_bytes": resident_bytes(), **facts}
        self._append(self.metrics, json.dumps(told))

    def _append(self, file: Path, line: str) -> None:
        with suppress(OSError), file.open("a", encoding="utf-8") as out:  # a full disk is for the store to report
            out.write(line + "\n")


def resident_bytes() -> int | None:
    """Bytes of memory that this process holds now; None where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    import resource

    return pages * resource.getpagesize()


def read_metrics(out: Path) -> list[dict[str, Any]]:
    """Return every line of every process of a sweep, in the order of time."""
    lines = [
        json.loads(line) for file in sorted((out / "metrics").glob("*.jsonl")) for line in file.read_text().splitlines()
    ]
    return sorted(lines, key=lambda line: line["time"])
