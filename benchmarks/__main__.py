"""`python -m benchmarks [name ...]`: run the benchmarks and print a table, or one line of JSON a number."""

import argparse
import importlib
import json
import sys
from pathlib import Path

NAMES = ("jacobian", "memory", "loading", "kernels", "analyze", "topology", "sweep")
LONG = ("study", "pod", "growth", "classes")
"""Run when named only: they take minutes, up to a quarter of an hour."""
MODEL = Path(__file__).resolve().parents[2] / "shared" / "models" / "stories260k"


def main() -> None:
    if sys.argv[1:2] == ["gpu"]:
        # Needs neither jaxdyn nor what that needs: a machine with an accelerator may have jax, numpy and scipy alone.
        importlib.import_module("benchmarks.gpu_kernels").main(sys.argv[2:])
        return
    from benchmarks.harness import as_json, as_text, environment

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Ratios measured in one run; or `gpu`, which has options of its own."
    )
    parser.add_argument(
        "name", nargs="*", help=f"which to run, of {', '.join(NAMES)} (these by default), {', '.join(LONG)}"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    parser.add_argument("--repeats", type=int, default=7, help="rounds in which the candidates take turns")
    parser.add_argument(
        "--model", type=Path, default=MODEL, help="model folder for analyze and sweep; default %(default)s"
    )
    parser.add_argument("--programs", type=Path, help="pod: keep compiled programs here, and take those that are here")
    parser.add_argument(
        "--limit", type=float, default=1800, help="pod: seconds a compilation may take; 0 takes what --programs has"
    )
    options = parser.parse_args()
    unknown = sorted(set(options.name) - {*NAMES, *LONG})
    if unknown:
        parser.error(f"name: got {unknown[0]!r}; allowed {', '.join((*NAMES, *LONG))}")
    if options.repeats < 1:
        parser.error(f"--repeats: got {options.repeats}; allowed 1 or more")
    print(json.dumps({"environment": environment()}) if options.json else _heading(environment()), flush=True)
    for name in options.name or NAMES:
        for row in importlib.import_module(f"benchmarks.bench_{name}").run(options):
            print(as_json(row) if options.json else as_text(row), flush=True)


def _heading(found: dict) -> str:
    names = ("device_kind", "cpu_count", "load", "commit", "date", "version_jax", "version_torch", "version_scipy")
    return ", ".join(f"{name.removeprefix('version_')} {found[name]}" for name in names)


if __name__ == "__main__":
    main()
