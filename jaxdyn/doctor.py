"""What `jaxdyn doctor` says: devices, versions, threads, and which implementation each decomposition will use."""

import dataclasses
import os
import shutil
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jax
import jaxdyn_kernels as jk
from rich.console import Console
from rich.table import Table

PACKAGES = (
    "jaxdyn", "jax", "jaxlib", "numpy", "scipy", "xarray", "zarr", "transformers", "safetensors", "huggingface-hub",
)  # fmt: skip


def examine() -> dict[str, Any]:
    """Collect plain facts about this machine; runs nothing heavy and touches no network."""
    return {
        "versions": {name: _version(name) for name in PACKAGES},
        "devices": [{"platform": d.platform, "kind": d.device_kind, "id": d.id} for d in jax.devices()],
        "default_backend": jax.default_backend(),
        "x64": bool(jax.config.values["jax_enable_x64"]),
        "matmul_precision": str(jax.config.values["jax_default_matmul_precision"] or "default"),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": _memory_gib(),
        "disk_free_gib": round(shutil.disk_usage(".").free / 2**30, 1),
        "kernels": [dataclasses.asdict(choice) for choice in jk.describe()],
        "hub_offline": os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0"),
        "hub_token": "set" if os.environ.get("HF_TOKEN") else "not set",
    }


def show(facts: dict[str, Any], console: Console) -> None:
    """Print the facts as tables."""
    console.print(_table("versions", facts["versions"]))
    machine = {
        "devices": "; ".join(f"{d['platform']} {d['kind']}" for d in facts["devices"]),
        "cores": facts["cores"],
        "memory": f"{facts['memory_gib']} GiB",
        "disk free here": f"{facts['disk_free_gib']} GiB",
        "x64 mode": "on" if facts["x64"] else "off (--dtype float64 turns it on for a run)",
        "matmul precision": f"{facts['matmul_precision']} (jaxdyn states HIGHEST where accuracy needs it)",
        "Hugging Face token": facts["hub_token"],
        "hub offline": "yes" if facts["hub_offline"] else "no",
    }
    console.print(_table("machine", machine))
    chosen = Table("operation", "platform", "runs", "for", title="decompositions", title_justify="left")
    for choice in facts["kernels"]:
        chosen.add_row(
            choice["operation"], choice["platform"], choice["implementation"] or "nothing yet", choice["when"]
        )
    console.print(chosen)
    here = [choice for choice in facts["kernels"] if choice["platform"] in (_platform(facts), "cpu")]
    for note in dict.fromkeys(choice["note"] for choice in here):
        names = ", ".join(f"{c['operation']} on {c['platform']}" for c in here if c["note"] == note)
        console.print(f"{names}: {note}", soft_wrap=True)
    console.print(
        "The analysis decomposes on the host's cores, one BLAS thread a matrix, wherever the Jacobians were made.",
        soft_wrap=True,
    )


def _platform(facts: dict[str, Any]) -> str:
    return "cuda" if facts["default_backend"] == "gpu" else facts["default_backend"]


def _table(title: str, rows: dict[str, Any]) -> Table:
    table = Table(title=title, title_justify="left", show_header=False)
    for name, value in rows.items():
        table.add_row(name, str(value))
    return table


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _memory_gib() -> float | None:
    """Physical memory, where the system tells."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None
