"""How the programs of the tests are compiled, in this process and in those that tests start."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
QUICK = (
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
)
"""Most programs run once, on a few numbers, and compiling them well takes XLA four times as long."""

WELL = {"xla_backend_optimization_level": 1}
"""Compiler options of a program that runs often, or for long: twice the time to compile it, a quarter to run it."""


def compile_quickly() -> None:
    """Set XLA's flags for this process and its children, before jax compiles anything.

    `JAXDYN_TEST_OPTIMISED=1` leaves them as users have them; `.ci/run` runs test_float32.py that way, and the main job.
    """
    given = os.environ.get("XLA_FLAGS", "")
    if os.environ.get("JAXDYN_TEST_OPTIMISED") != "1" and QUICK not in given:
        os.environ["XLA_FLAGS"] = f"{QUICK} {given}".strip()


def environment(*, devices: int) -> dict[str, str]:
    """Return what a program gets that runs on so many devices of this machine's processor."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    return {**os.environ, "XLA_FLAGS": flags.strip(), "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
