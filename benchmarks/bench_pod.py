"""The sweep's step for Llama 3.1 8B, compiled for TPU slices that are not here.

Memory, operations and exchanges of a chip, by the TPU's own compiler: benchmarks/pod.md and pod.json. Takes half an
hour on an idle machine; needs the extra `tpu`.
"""

import fcntl
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import Row, environment
from benchmarks.pod_compile import Case, kept

ROOT = Path(__file__).resolve().parents[1]
JSON, PAGE = ROOT / "benchmarks/pod.json", ROOT / "benchmarks/pod.md"
LOCK = Path(tempfile.gettempdir()) / "jaxdyn-tpu-compiler.lock"


@dataclass(frozen=True)
class Chip:
    """What the maker says of a chip: main memory, products in bfloat16 a second, bytes a second of memory and links.

    `clock` follows from the rate: `units` matrix units of 128 x 128 multiplications and additions a cycle.
    """

    name: str
    memory: float
    products: float
    bandwidth: float
    links: float
    units: int

    @property
    def clock(self) -> float:
        """Cycles a second."""
        return self.products / (self.units * 128 * 128 * 2)


CHIPS = {
    "v5e": Chip("TPU v5e", 16e9, 197e12, 819e9, 200e9, 4),
    "v5p": Chip("TPU v5p", 95e9, 459e12, 2765e9, 600e9, 8),
}
PASSES = 6
"""Products in bfloat16 that one in float32 takes at the highest precision."""

CASES = (
    Case("v5p:4x4x4", "one"),
    Case("v5e:4x4", "fsdp"),
    Case("v5p:4x4x4", "data"),
    Case("v5e:16x16", "fsdp"),
    Case("v5p:4x4x4", "tensor", model=8),
    Case("v5e:4x4", "tensor", model=8),
    Case("v5e:4x4", "data"),
)


def run(options: Any) -> Iterator[Row]:
    """Compile every case in a process of its own, one at a time, then write the page; what fails keeps its figures."""
    if importlib.util.find_spec("libtpu") is None:
        print("pod: not compiled: needs the TPU compiler, pip install '.[tpu]'", file=sys.stderr)
        return
    found, earlier = [], {case_of(one): one for one in json.loads(JSON.read_text())["cases"] if "flops" in one}
    for case in CASES:
        result = compile_case(case, options.programs, options.limit)
        if "flops" not in result and "refused" not in result:
            result = earlier.get(case, result)
        found.append(result)
        write(found)
        name = name_of(case)
        if "flops" not in result:
            yield Row("pod", f"{name}: not compiled", 0, "", note=result.get("refused", "not within the time"))
            continue
        chip = CHIPS[case.topology.partition(":")[0]]
        used = memory_of(result)
        yield Row("pod", f"{name}: memory a chip", used / 1e9, "GB", target=f"<= {chip.memory / 1e9:g}")
        yield Row("pod", f"{name}: compilation", result["compile_seconds"], "s")
        yield Row("pod", f"{name}: projected", projected(result, chip)["cycles"], "s", note="a sample and layer")
    for result, share in weak_scaling(found):
        yield Row("pod", f"{name_of(case_of(result))}: operations over one chip's", share, "x", target="<= 1.03")


def write(found: list[dict[str, Any]]) -> None:
    """Write the page and its numbers; cases still to come are named as not compiled."""
    from benchmarks.pod_page import page

    before = {case_of(one): one for one in json.loads(JSON.read_text())["cases"]}
    every = found + [before.get(case, {"case": asdict(case)}) for case in CASES[len(found) :]]
    machine = environment()
    JSON.write_text(json.dumps({"environment": machine, "cases": every}, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(every, machine), encoding="utf-8")


def compile_case(case: Case, programs: Path | None, limit: float) -> dict[str, Any]:
    """Compile one case in a process of its own; where that takes longer than `limit` seconds, the case alone."""
    given = asdict(case)
    command = [sys.executable, "-m", "benchmarks.pod_compile", json.dumps(given)]
    if programs is not None:
        programs.mkdir(parents=True, exist_ok=True)
        command.append(str(programs.resolve()))
    if not limit and not (programs and kept(case, programs)[0].exists()):
        return {"case": given}
    with LOCK.open("w") as lock:
        if limit:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the compiler takes all cores, and some GB
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit or None, check=True)
        except subprocess.TimeoutExpired:
            return {"case": given}
    return json.loads(done.stdout.splitlines()[-1])


def case_of(result: dict[str, Any]) -> Case:
    """Return what was compiled."""
    return Case(**result["case"])


def name_of(case: Case) -> str:
    """Return a short name."""
    split = f" (model {case.model})" if case.model > 1 else ""
    return f"{case.topology} {case.layout}{split}"


def memory_of(result: dict[str, Any]) -> float:
    """Bytes of a chip: arguments, temporaries and outputs."""
    return result["arguments"] + result["temporaries"] + result["outputs"]


def weak_scaling(found: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], float]]:
    """Operations of a chip over those of the program of one chip, a v5p, with as many samples."""
    alone = [result["flops"] for result in found if result["case"]["layout"] == "one" and "flops" in result]
    for result in found:
        if alone and result["case"]["layout"] != "one" and "flops" in result:
            yield result, result["flops"] / alone[0]


def projected(result: dict[str, Any], chip: Chip) -> dict[str, float]:
    """Seconds a sample and layer: what products, memory and links take at least, and the compiler's cycles."""
    samples = result["case"]["samples"]
    exchanged = sum(one["bytes"] * one["times"] * one["count"] for one in result["exchanges"])
    return {
        "products": result["products"] * PASSES / chip.products / samples,
        "memory": result["bytes"] / chip.bandwidth / samples,
        "links": exchanged / chip.links / samples,
        "cycles": result["cycles"] / chip.clock / samples,
    }
