"""`jaxdyn sweep`: argument parsing, starting the processes, printing; `jaxdyn.sweep` does the work."""

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from . import application
from .errors import InputError

SOME_FAILED = 3


def sweep(
    plan: Annotated[list[Path] | None, typer.Argument(help="PLAN.yaml; with --merge the folders to merge.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it will take, load no weights, stop.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Compute units with a failed matrix once more.")
    ] = False,
    merge: Annotated[bool, typer.Option("--merge", help="Merge the stores of finished sweeps into --out.")] = False,
    processes: Annotated[int | None, typer.Option(help="Start so many processes on this machine.")] = None,
    distributed: Annotated[
        bool,
        typer.Option(
            "--distributed", help="Join the others in jax's runtime; the default under a launcher it detects."
        ),
    ] = False,
    coordinator: Annotated[
        str | None, typer.Option(help="HOST:PORT of process 0, for processes begun by hand.")
    ] = None,
    process_id: Annotated[int | None, typer.Option(help="The number of this one of several that share out.")] = None,
    num_processes: Annotated[int | None, typer.Option(help="With --process-id: how many there are.")] = None,
    threads: Annotated[
        int | None, typer.Option(help="Cores of a process, fixed when the sweep is made; default all, or its share.")
    ] = None,
    stale: Annotated[
        float, typer.Option(help="Seconds without a heartbeat after which a process of another host is dead.")
    ] = 60.0,
    out: Annotated[Path | None, typer.Option(help="In place of the plan's out.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar, no summary.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Run a plan of models, texts and operators, on any number of processes; the same command goes on after a stop."""
    application.show_tracebacks(debug)
    folders = plan or []
    if merge:
        _merge(folders, out, as_json=as_json, quiet=quiet)
        return
    if len(folders) != 1:
        msg = f"plan: got {len(folders)} arguments; give one PLAN.yaml, or folders with --merge"
        raise InputError(msg, page="docs/sweeps.md")
    from .sweep import processes as start
    from .sweep.plan import TOGETHER, load_plan

    chosen = load_plan(folders[0], out=out)
    lockstep = chosen.mesh in TOGETHER
    _check(processes, coordinator, process_id, num_processes, distributed=distributed)
    if dry_run:
        _dry_run(chosen, processes or num_processes or 1, threads, as_json=as_json)
        return
    from .sweep.manifest import read_manifest

    made = read_manifest(chosen.out)
    wanted = threads or (made.threads if made else chosen.threads)
    if processes is not None:
        each = wanted or max(1, start.cores() // processes)
        arguments = [str(folders[0]), *_passed_on(out, stale, retry_failed, quiet, as_json, debug)]
        logs = chosen.out / "logs"
        joined = distributed or (lockstep and processes > 1)
        raise typer.Exit(start.start_here(arguments, processes, each, logs, joined=joined))
    if wanted:
        start.limit_cores(wanted)
    application.configure(chosen.dtype, chosen.weights_dtype)
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    place, joined = (process_id or 0, num_processes or 1), True
    if coordinator is not None:
        start.check_address(coordinator)
        local = coordinator.startswith("127.0.0.1:")
        place = application.join(coordinator, process_id, num_processes, local=local, lockstep=lockstep, stale=stale)
    elif distributed or (process_id is None and start.launcher()):
        place = application.join(None, None, None, lockstep=lockstep, stale=stale)
    else:
        joined = False
    command = shlex.join(["jaxdyn", "sweep", str(folders[0]), *([] if out is None else ["--out", str(out)])])
    _run(chosen, place, command, joined=joined, retry_failed=retry_failed, stale=stale, quiet=quiet, as_json=as_json)


def _run(
    plan: Any,
    place: tuple[int, int],
    command: str,
    *,
    joined: bool,
    retry_failed: bool,
    stale: float,
    quiet: bool,
    as_json: bool,
) -> None:
    from .pipeline.progress import Progress
    from .sweep import sweep as run

    process, processes = place
    origin = {"command": command, "corpus": Path(plan.texts.file).name}
    with Progress(enabled=not quiet and process == 0) as progress:
        outcome = run(
            plan, process=process, processes=processes, retry_failed=retry_failed, stale=stale, progress=progress,
            origin=origin, leave=application.leave if joined else None,
        )  # fmt: skip
    if process == 0:
        if as_json:
            typer.echo(json.dumps(outcome.as_dict()))
        elif not quiet:
            console = Console(highlight=False, soft_wrap=True, markup=False)
            console.print("\n".join([outcome.summary(), *map(str, outcome.stores)]))
    if outcome.failed:
        raise typer.Exit(SOME_FAILED)


def _check(
    processes: int | None, coordinator: str | None, process: int | None, count: int | None, *, distributed: bool
) -> None:
    """Refuse options that contradict each other."""
    if (processes is not None or distributed) and (process is not None or coordinator is not None):
        msg = (
            "processes: got --processes or --distributed, and --process-id or --coordinator; give the first to have "
            "processes started or detected, or the second to say which this one is"
        )
        raise InputError(msg, page="docs/sweeps.md")
    if processes is not None and processes < 1:
        msg = f"processes: got {processes}; allowed 1 or more"
        raise InputError(msg, page="docs/sweeps.md")
    if (process is None) != (count is None) or (coordinator is not None and process is None):
        msg = "process-id: --process-id and --num-processes come together, and --coordinator needs both; give them"
        raise InputError(msg, page="docs/sweeps.md")
    if process is not None and count is not None and not 0 <= process < count:
        msg = f"process-id: got {process} of {count}; allowed 0 to {count - 1}"
        raise InputError(msg, page="docs/sweeps.md")


def _passed_on(
    out: Path | None, stale: float, retry_failed: bool, quiet: bool, as_json: bool, debug: bool
) -> list[str]:
    """Options that every started process gets."""
    flags = {"--retry-failed": retry_failed, "--quiet": quiet, "--json": as_json, "--debug": debug}
    where = [] if out is None else ["--out", str(out)]
    return [*where, "--stale", str(stale), *(flag for flag, on in flags.items() if on)]


def _dry_run(plan: Any, processes: int, threads: int | None, *, as_json: bool) -> None:
    application.configure(plan.dtype, plan.weights_dtype)
    from .sweep.dry_run import dry_run
    from .sweep.estimate_page import refusal, show

    found = dry_run(plan, processes=processes, threads=threads)
    if as_json:
        typer.echo(json.dumps(found))
    else:
        show(found, Console(highlight=False, width=None if sys.stdout.isatty() else 110))
    if problem := refusal(found):
        raise InputError(problem, page="docs/sweeps.md")


def _merge(folders: list[Path], out: Path | None, *, as_json: bool, quiet: bool) -> None:
    if out is None:
        msg = "out: got none; --merge writes the merged stores into --out DIR"
        raise InputError(msg, page="docs/sweeps.md")
    from .sweep.merge import merge

    found = merge(folders, out)
    if as_json:
        typer.echo(json.dumps(found))
    elif not quiet:
        console = Console(highlight=False, soft_wrap=True, markup=False)
        for row in found["stores"]:
            console.print(
                f"{row['store']}: {row['samples']} samples of {row['units']} units from {row['sources']} stores"
            )
