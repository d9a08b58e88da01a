"""Compile the sweep's step for a slice that is not here, and print what came of it as JSON: in a process of its own.

`python -m benchmarks.pod_compile '{"topology": "v5e:4x4", "layout": "fsdp"}' [FOLDER]`; the fields are those of `Case`.
Into FOLDER go the program and its figures, and a program that is there already is not compiled again. Needs the extra
`tpu`.
"""

import json
import os
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ |= {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1"}

from benchmarks import hlo
from benchmarks.llama import llama
from jaxdyn.models.architecture import Llama3Scaling, Rope

LLAMA = llama(
    width=4096,
    layers=32,
    heads=32,
    kv_heads=8,
    ff_dim=14336,
    vocab=128256,
    context=131072,
    rope=Rope(500000.0, Llama3Scaling(8.0, 1.0, 4.0, 8192)),
    tied_head=False,
)
"""Llama 3.1 8B."""

STAGES = ("forward", "jacobian", "schur", "measures")
"""The scopes of the step that have loops."""

STEPS = {256: (350, 46784), 512: (536, 155636), 1024: (1001, 551343)}
"""Order of the matrix -> sweeps and bulge positions that the Schur form took; `python -m benchmarks.pod_depth` measures
them."""

SIGN_STEPS = 20
"""Steps of the sign functions in self_alignment: the most that the program allows in float32."""


@dataclass(frozen=True)
class Case:
    """One program: for which slice, in which layout, and how much of the model and of the samples.

    Attributes
    ----------
    topology : of the slice, as XLA names it; the layout "one" takes one of its chips.
    layout, model : of `jaxdyn.sharding.mesh_for`.
    samples : of a chip.
    tokens : of a prompt; a prompt has one sample, its last token.
    """

    topology: str
    layout: str
    model: int = 1
    samples: int = 2
    tokens: int = 128


def trip_count(scope: str) -> float | None:
    """Trips of the loops whose length the program does not say.

    The forward pass goes to the average layer. Sweeps and positions of the Schur form are those measured at the order
    4096, or where that was not measured the ratios to n and n^2 at the largest order that was: they fall as n grows.
    """
    order, (sweeps, steps) = max(STEPS.items())
    grown = LLAMA.width / order
    if scope.endswith("forward/while"):
        return (LLAMA.layers - 1) / 2
    if scope.endswith("schur/while"):
        return sweeps * grown
    if scope.endswith("schur/while/body/while"):
        return steps / sweeps * grown
    if scope.endswith("sign/while"):
        return SIGN_STEPS
    return None


def compiled(case: Case, folder: Path | None = None) -> dict[str, Any]:
    """Compile one case; memory, operations and exchanges of one chip."""
    if folder is None:
        made, text = program_of(case)
    else:
        figures, program = kept(case, folder)
        if not figures.exists():
            made, text = program_of(case)
            program.write_text(text)
            figures.write_text(json.dumps(made))
        made, text = json.loads(figures.read_text()), program.read_text()
    return made | counted(text) if text else made


def kept(case: Case, folder: Path) -> tuple[Path, Path]:
    """Return where the figures and the program of a case are kept."""
    parts = (case.topology.replace(":", "_"), case.layout, case.model, case.samples, case.tokens)
    name = "_".join(map(str, parts))
    return folder / f"{name}.json", folder / f"{name}.hlo"


def program_of(case: Case) -> tuple[dict[str, Any], str]:
    """Compile; the compiler's own figures and the program, which is empty where it would not fit."""
    import jax.numpy as jnp
    from jax.experimental import topologies

    from jaxdyn.sharding import mesh_for
    from jaxdyn.sweep.step import StepSettings, make_step

    devices = topologies.get_topology_desc(platform="tpu", topology_name=case.topology).devices
    mesh = mesh_for(case.layout, devices, model=case.model)
    chips = int(mesh.devices.size)
    step = make_step(LLAMA, mesh, case.layout, StepSettings())
    lowered = step.jitted.lower(*step.arguments(case.samples * chips, case.tokens, 1, dtype=jnp.bfloat16))
    start, processor = time.perf_counter(), time.process_time()
    try:
        program = lowered.compile()
    except Exception as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return {"chips": chips, "refused": str(error).splitlines()[0][:300]}, ""
    seconds, processor = time.perf_counter() - start, time.process_time() - processor
    memory = program.memory_analysis()
    assert memory is not None
    return {
        "chips": chips,
        "compile_seconds": round(seconds, 1),
        "compile_processor_seconds": round(processor, 1),
        "arguments": memory.argument_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "outputs": memory.output_size_in_bytes - memory.alias_size_in_bytes,
        "compiler_flops": program.cost_analysis()["flops"],  # pyright: ignore[reportOptionalSubscript]
    }, program.as_text() or ""


def counted(text: str) -> dict[str, Any]:
    """What the program says of one chip's work."""
    parsed = hlo.parse(text)
    counts = parsed.counts(trip_count)
    exchanges = Counter((one.kind, one.scope, one.bytes, one.times) for one in counts.exchanges)
    loops = [
        {"scope": one.scope, "trips": trip_count(one.scope) if one.trips is None else one.trips,
         "given": one.trips is None}
        for one in parsed.loops
    ]  # fmt: skip
    return {
        "flops_once": counts.flops_once,
        "flops": counts.flops,
        "products": counts.products,
        "bytes": counts.bytes,
        "operations": counts.operations,
        "cycles": counts.cycles,
        "by_stage": {name: part.cycles for name, part in stages(parsed).items()},
        "exchanges": [
            {"kind": kind, "scope": scope, "bytes": size, "times": times, "count": count}
            for (kind, scope, size, times), count in exchanges.items()
        ],
        "loops": loops,
        "float64": "f64[" in text,
        "callback": "callback" in text,
    }


def stages(parsed: hlo.Program) -> dict[str, hlo.Counts]:
    """Counts of the loops of each stage, which are nearly all of it."""
    found: dict[str, hlo.Counts] = {}
    for one in parsed.computations[parsed.entry].values():
        stage = next((word for word in one.scope.split("/") if word in STAGES), None)
        if one.opcode == "while" and stage:
            counts = parsed.instruction_counts(parsed.entry, one, trip_count)
            found[stage] = found.get(stage, hlo.Counts()) + counts
    return found


if __name__ == "__main__":
    chosen = Case(**json.loads(sys.argv[1]))
    found = compiled(chosen, Path(sys.argv[2]) if len(sys.argv) > 2 else None)
    print(json.dumps(found | {"case": asdict(chosen)}))
