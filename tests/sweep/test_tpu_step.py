"""The step compiles for TPU slices that are not there, with the exchanges of its layout and no others.

`JAXDYN_TEST_TPU=1 pytest -s tests/sweep/test_tpu_step.py` turns it on, with the extra `tpu` installed (684 MB); a
minute or two a case. `python -m benchmarks pod` does the same for a large model.
"""

import fcntl
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import json, os, sys
os.environ |= {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1"}
from dataclasses import replace
import jax.numpy as jnp
from jax.experimental import topologies
from benchmarks import hlo
from jaxdyn.sharding import mesh_for
from jaxdyn.sweep.step import StepSettings, make_step
from tests.sweep.mesh_program import LLAMA
topology, layout, model = sys.argv[1], sys.argv[2], int(sys.argv[3])
devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
mesh = mesh_for(layout, devices, model=model)
arch = replace(LLAMA, width=128, head_dim=16, ff_dim=256, vocab=512)
step = make_step(arch, mesh, layout, StepSettings())
program = step.jitted.lower(*step.arguments(2 * mesh.devices.size, 32, 1, dtype=jnp.bfloat16)).compile()
text = program.as_text()
exchanges = hlo.parse(text).counts(lambda scope: 1).exchanges
print(json.dumps({"float64": "f64[" in text, "callback": "callback" in text,
                  "exchanges": sorted({one.kind + " " + one.scope.split("/")[-2] for one in exchanges})}))
"""
CASES = {
    ("v5e:4x4", "data", 1): [],
    ("v5e:4x4", "fsdp", 1): ["all-gather gather_embedding", "all-gather gather_layer"],
    ("v5p:2x2x2", "tensor", 4): [
        "all-reduce sum_attention", "all-reduce sum_embedding", "all-reduce sum_mlp", "all-reduce sum_mlp_jacobian",
        "all-to-all whole_matrices", "reduce-scatter columns_attention_jacobian",
    ],
}  # fmt: skip

pytestmark = [
    pytest.mark.skipif(os.environ.get("JAXDYN_TEST_TPU") != "1", reason="takes minutes; JAXDYN_TEST_TPU=1 turns it on"),
    pytest.mark.skipif(
        importlib.util.find_spec("libtpu") is None, reason="needs the TPU compiler: pip install '.[tpu]'"
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(map(str, case)))
def test_compiles_with_its_own_exchanges_alone(case):
    with (Path(tempfile.gettempdir()) / "jaxdyn-tpu-compiler.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the compiler takes all cores, and some GB
        command = [sys.executable, "-c", PROGRAM, *map(str, case)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1800, check=False
        )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert not found["float64"]
    assert not found["callback"]
    assert found["exchanges"] == CASES[case]
