"""What a dry run has found, for people: a table, and why a plan does not fit."""

from typing import Any

from rich.console import Console
from rich.table import Table

from jaxdyn.catalogue import duration as _time
from jaxdyn.catalogue import size as _size


def refusal(found: dict[str, Any]) -> str | None:
    """Say why a plan does not fit, with the number that does; None where it fits."""
    memory, size = found["memory"], found["bytes"]
    if memory["total"] > memory["limit"]:
        need, have = _size(memory["total"]), _size(memory["limit"])
        if memory["largest_unit"]:
            advice = f"the largest unit that fits is unit: {memory['largest_unit']}"
        else:
            advice = f"not even unit: 1 fits, since the weights alone take {_size(memory['weights'])}"
        return f"unit: got {found['unit']}, which takes {need} of a device's {have} ({memory['run']}); {advice}"
    if size["on_disk"] > found["free"]:
        fit = int(found["samples"] * found["free"] / size["on_disk"])
        largest, most = max(size["by_output"].items(), key=lambda item: item[1])
        return (
            f"out: the results take {_size(size['on_disk'])}, {found['out']} has {_size(found['free'])} free; about "
            f"{fit} of the {found['samples']} samples fit; the largest output is {largest}, {_size(most)}"
        )
    return None


def show(found: dict[str, Any], console: Console) -> None:
    """Print the estimate."""
    flops, memory, seconds, size = found["flops"], found["memory"], found["seconds"], found["bytes"]
    table = Table("model", "operator", "samples", "units", "matrices", "stored", title="runs", title_justify="left")
    for run in found["runs"]:
        numbers = (run["samples"], run["units"], run["matrices"], _size(run["bytes"]["total"]))
        table.add_row(run["model"], run["operator"], *map(str, numbers))
    console.print(table)
    parts = ", ".join(f"{name} {_size(value)}" for name, value in memory.items() if name in _PARTS)
    rows = {
        "work": f"{found['units']} units, {found['samples']} samples, {found['matrices']} matrices",
        "operations": f"{sum(flops.values()):.2e}: " + ", ".join(f"{name} {n:.2e}" for name, n in flops.items()),
        "stored": f"{_size(size['total'])} in {size['files']} files ({_size(size['on_disk'])} on the disk, "
        f"{_size(found['free'])} free): "
        + ", ".join(f"{name} {_size(value)}" for name, value in size["by_output"].items()),
        "memory a device": f"{_size(memory['total'])} of {_size(memory['limit'])} ({memory['run']}): {parts}",
        "time": f"{_time(seconds['total'])} on {found['processes']} x {found['threads']} threads and "
        f"{found['device']}, and about half a minute to start and compile the first time: "
        + ", ".join(f"{name} {_time(value)}" for name, value in seconds.items() if name != "total"),
    }
    table = Table(title="the sweep", title_justify="left", show_header=False)
    for name, text in rows.items():
        table.add_row(name, text)
    console.print(table)


_PARTS = ("weights", "contexts", "programs", "measuring", "process")
