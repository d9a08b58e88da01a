"""Compile one operation for a TPU that is not there, and print what came of it as JSON: run in a process of its own.

`python -m tests.kernels.tpu_compile v5e:2x2 schur 64 8` takes the topology, a name of OPERATIONS, n and the batch (0:
one matrix). A name without an implementation takes what the dispatch chooses on a TPU, one of COMPLEX complex matrices.
Needs the extra `tpu`.
"""

import json
import os
import re
import sys
import time
from typing import Any

os.environ |= {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1"}

import jax
import jax.numpy as jnp
import jaxdyn_kernels as jk
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

GRID = (64, 64)
"""Points of the resolvent norm."""

OPERATIONS = {
    "schur": jk.schur,
    "schur-complex": jk.schur,
    "schur-xla": lambda A: jk.schur(A, implementation="xla"),
    "schur-pallas": lambda A: jk.schur(A, implementation="pallas"),
    "schur-wavefront": lambda A: jk.schur(A, implementation="wavefront"),
    "schur-divide": lambda A: jk.schur(A, implementation="divide"),
    "eig": jk.eig,
    "eig-left": lambda A: jk.eig(A, left=True),
    "eigvals": jk.eigvals,
    "hessenberg": jk.hessenberg,
    "refine": lambda A: jk.refine(A, A, A),
    "refine-pairs": lambda A: jk.refine(A, A, A, residual="double-single"),
    "reorder": lambda A: jk.reorder(A, A, order=jnp.diagonal(A, axis1=-2, axis2=-1)),
    "singular_values": jk.singular_values,
    "resolvent_norm": lambda A: jk.resolvent_norm(A, jnp.ones(GRID, jnp.complex64)),
}

COMPLEX = ("schur-complex",)
"""Operations that get complex64."""


def compiled(topology: str, name: str, n: int, batch: int) -> dict[str, Any]:
    """Seconds to compile (also of the processor, which other work does not stretch), bytes of temporaries, and whether
    the program holds what a TPU should not see.
    """
    devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    everywhere = NamedSharding(Mesh(np.array(devices[:1]), ("one",)), PartitionSpec())
    shape = (batch, n, n) if batch else (n, n)
    A = jax.ShapeDtypeStruct(shape, jnp.complex64 if name in COMPLEX else jnp.float32, sharding=everywhere)
    # The dispatch asks for the platform of the default device.
    with jax.default_device(devices[0]):
        traced = jax.jit(OPERATIONS[name]).trace(A)
        lowered = traced.lower()
    # XLA replaces complex numbers by pairs of real ones, so the program before it is looked at for those.
    given = lowered.as_text()
    start, processor = time.perf_counter(), time.process_time()
    program = lowered.compile()
    seconds, processor = time.perf_counter() - start, time.process_time() - processor
    text = program.as_text() or ""
    memory = program.memory_analysis()
    assert memory is not None
    products = (line.rsplit(" : ", 1)[-1] for line in given.splitlines() if "dot_general" in line)
    return {
        "implementation": getattr(traced.out_info, "implementation", ""),
        "seconds": round(seconds, 1),
        "processor": round(processor, 1),
        "temporaries": memory.temp_size_in_bytes,
        "float64": "f64[" in text or bool(re.search(r"x(complex<)?f64", given)),
        "complex": "complex<" in given,
        "complex_products": any("complex<" in types for types in products),
        "callback": "callback" in text or "callback" in given,
        "host": "lapack" in given,
        "kernels": text.count("tpu_custom_call"),
        "collective": any(word in text for word in ("all-reduce", "all-gather", "collective-permute")),
    }


if __name__ == "__main__":
    where, what, size, count = sys.argv[1:]
    print(json.dumps(compiled(where, what, int(size), int(count))))
