"""What this process holds, as Linux counts it."""

from pathlib import Path

STATUS = Path("/proc/self/status")


def gigabytes(field: str) -> float:
    """Read a memory field of this process, in GB: "VmRSS" now, "VmHWM" the most since the start or ``reset_peak``."""
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return int(lines[field].split()[0]) * 1024 / 1e9


def reset_peak() -> None:
    """Let "VmHWM" begin again from what is held now."""
    Path("/proc/self/clear_refs").write_text("5")
