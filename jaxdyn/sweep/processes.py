"""How the processes of a sweep are started: here, by a cluster's launcher, or one by one.

`--processes N` starts N on this machine; under SLURM, Open MPI or on a pod the launcher has started them, and jax
detects it. The presets of a sweep send nothing between processes, so that a common folder is enough for them; with
`--distributed` they join in jax's runtime too. Each gets a fixed number of cores, because the number of threads decides
the last bits.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from jaxdyn_kernels import cores as cores

from jaxdyn.errors import InputError
from jaxdyn.store.files import reported

from .strict_yaml import PAGE

LAUNCHERS = {
    "SLURM": ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID"),
    "Open MPI": ("OMPI_MCA_orte_hnp_uri", "OMPI_COMM_WORLD_SIZE"),
    "a TPU slice": ("TPU_WORKER_ID", "TPU_WORKER_HOSTNAMES"),
}
"""Environment variables that a launcher sets for each process that it starts, and that jax (0.10) detects it by."""

COUNTS = {"SLURM": "SLURM_NTASKS", "Open MPI": "OMPI_COMM_WORLD_SIZE", "a TPU slice": "TPU_WORKER_HOSTNAMES"}
LOCAL = ("JAXDYN_LOCAL_PROCESS", "SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK")
GRACE = 30.0
"""Seconds that interrupted processes get to end by themselves."""
AGAIN = 3.0
"""Seconds between two interrupts."""


def launcher(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the launcher that has started several processes of which this is one; None for a process by itself."""
    for name, variables in LAUNCHERS.items():
        if all(variable in environment for variable in variables):
            told = environment[COUNTS[name]]
            if (int(told) if told.isdigit() else len(told.split(","))) > 1:
                return name
    return None


def limit_cores(count: int) -> None:
    """Keep this process to so many cores, before anything has started a device; more than it may use are refused.

    Processes that were started together on this machine get different cores while there are enough.
    """
    if not hasattr(os, "sched_setaffinity"):  # macOS: there XLA reads this alone
        os.environ["PJRT_NPROC"] = str(count)
        return
    allowed = sorted(os.sched_getaffinity(0))
    if count > len(allowed):
        msg = (
            f"threads: got {count}; this process may use {len(allowed)} cores; give it more, or make a sweep with fewer"
        )
        raise InputError(msg, page=PAGE)
    if count == len(allowed):
        return
    start = count * next((int(os.environ[name]) for name in LOCAL if name in os.environ), 0)
    os.sched_setaffinity(0, {allowed[(start + k) % len(allowed)] for k in range(count)})


def start_here(arguments: Sequence[str], count: int, threads: int, logs: Path, *, joined: bool) -> int:
    """Start the processes of `--processes N` on this machine and wait for them.

    Parameters
    ----------
    arguments : of `jaxdyn sweep`, without those that say which process it is.
    count, threads : number of processes, and cores of each.
    logs : where what the processes but 0 print goes, `process-00001.out`.
    joined : whether they are to join in jax's runtime, process 0 being the coordinator. When that is killed, jax ends
        the others.

    Returns
    -------
    0 or 3 (some matrices failed) where a process has seen the sweep complete: others that were killed meanwhile are
    reported, and those left have done their work. Else the code of the first that ended with an error, or 1.
    """
    address = []
    if joined:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = ["--coordinator", f"127.0.0.1:{free.getsockname()[1]}"]
    with reported(logs, "create"):
        logs.mkdir(parents=True, exist_ok=True)
    running: list[subprocess.Popen] = []
    before = signal.signal(signal.SIGTERM, _stop)  # else those started here would live on without their parent
    with ExitStack() as files:
        try:
            for number in range(count):
                place = {**QUIET, LOCAL[0]: str(number), **devices_of(number, count)}
                own = [*address, "--process-id", str(number), "--num-processes", str(count), "--threads", str(threads)]
                said = None if number == 0 else files.enter_context((logs / f"process-{number:05d}.out").open("ab"))
                running.append(
                    subprocess.Popen(
                        [sys.executable, "-c", _CHILD, *arguments, *own],
                        stdout=said, stderr=said, env={**os.environ, **place},
                    )
                )  # fmt: skip
            codes = [one.wait() for one in running]
        except BaseException:
            _interrupt(running)
            raise
        finally:
            signal.signal(signal.SIGTERM, before)
    for number, code in enumerate(codes):
        if code not in (0, 3):
            what = f"was killed (signal {-code})" if code < 0 else f"ended with code {code}"
            where = f"; what it said: {logs / f'process-{number:05d}.out'}" if number else ""
            print(f"process {number} {what}{where}", file=sys.stderr)
    if done := [code for code in codes if code in (0, 3)]:
        return max(done)
    print("the sweep is not complete; the same command goes on from here", file=sys.stderr)
    return next((code for code in codes if code > 0), 1)


def _interrupt(running: Sequence[subprocess.Popen]) -> None:
    """Interrupt processes until they end, and kill those that have not within `GRACE`.

    Once is not enough: an interrupt that falls into a callback of Python's collector is reported and ignored.
    """
    deadline = time.monotonic() + GRACE
    while left := [one for one in running if one.poll() is None]:
        late = time.monotonic() > deadline
        for one in left:
            one.send_signal(signal.SIGKILL if late else signal.SIGINT)
        again = time.monotonic() + AGAIN
        while time.monotonic() < again and any(one.poll() is None for one in left):
            time.sleep(0.05)


def _stop(number: int, frame: object) -> None:
    """End as a process does that a signal has ended, after those that it has started."""
    del frame
    raise SystemExit(128 + number)


QUIET = {"TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2")}
"""Keeps XLA's runtime from warning of the feature that lets the others live when one process dies."""

_CHILD = "import sys; from jaxdyn.cli import main; sys.argv[0] = 'jaxdyn'; sys.argv[1:1] = ['sweep']; main()"


PCI = Path("/sys/bus/pci/devices")
TPU_VENDOR = "0x1ae0"
TPU_DEVICES = frozenset({"0x0027", "0x0056", "0x005e", "0x0062", "0x0063", "0x006f", "0x0076"})
"""Numbers by which jax (0.10) knows a TPU among the PCI devices of a host."""


def tpu_chips(devices: Path = PCI) -> int:
    """Count the TPU chips of this host as jax does, on the PCI bus: their files in /dev differ (accel0, vfio/0)."""

    def told(device: Path, name: str) -> str:
        try:
            return (device / name).read_text().strip()
        except OSError:
            return ""

    return sum(
        told(one, "vendor") == TPU_VENDOR and told(one, "device") in TPU_DEVICES for one in sorted(devices.glob("*"))
    )


def devices_of(number: int, count: int, cards: Sequence[str] | None = None, pci: Path = PCI) -> dict[str, str]:
    """Say by environment variables which accelerators one of `count` processes of this machine gets.

    The machine's NVIDIA GPUs are dealt out, all of them: several to a process where there are more than processes.
    Nothing is said where there are none, where the caller has chosen some, or where jax is kept to the CPU.

    Raises
    ------
    InputError : more processes than GPUs; several processes on a host of TPU chips, all of which one process has.
    """
    if "cpu" in os.environ.get("JAX_PLATFORMS", ""):
        return {}
    if count > 1 and tpu_chips(pci):
        msg = f"processes: got {count} on a host of TPU chips; allowed 1, which computes on all its chips at once"
        raise InputError(msg, page=PAGE)
    cards = sorted(one.name for one in Path("/proc/driver/nvidia/gpus").glob("*")) if cards is None else cards
    if not cards or "CUDA_VISIBLE_DEVICES" in os.environ:
        return {}
    if count > len(cards):
        msg = (
            f"processes: got {count}, this machine has {len(cards)} GPUs; allowed one process a GPU, or "
            "JAX_PLATFORMS=cpu"
        )
        raise InputError(msg, page=PAGE)
    return {"CUDA_VISIBLE_DEVICES": ",".join(str(card) for card in range(number, len(cards), count))}


def check_address(text: str) -> str:
    """Return HOST:PORT, refusing what is not."""
    if not re.fullmatch(r"\S+:\d{1,5}", text):
        msg = f"coordinator: got {text!r}; allowed HOST:PORT, of process 0"
        raise InputError(msg, page=PAGE)
    return text
