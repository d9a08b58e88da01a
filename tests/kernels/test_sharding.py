"""A batch spread over devices: the same numbers as on one, and nothing that passes between the devices."""

import json
import subprocess
import sys

from tests.programs import ROOT, environment

CODE = """
import json
import jax, jax.numpy as jnp, numpy as np
import jaxdyn_kernels as jk
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

assert len(jax.devices()) == 8
mesh = Mesh(np.array(jax.devices()), ("batch",))
spread, one = NamedSharding(mesh, P("batch")), jax.devices()[0]
# Simple eigenvalues: of others the vectors are a choice, which rounding makes.
A = np.random.default_rng(5).normal(size=(8, 7, 7)).astype(np.float32)

def everything(A):
    portrait = jk.eig(A, left=True, implementation="xla")
    form = jk.schur(A, implementation="xla")
    mapped = jax.vmap(lambda M: jk.eigvals(M, implementation="xla"))(A)
    fine = jk.refine(A, form.Q, form.T, implementation="xla")
    return form, portrait, mapped, fine

local = jax.shard_map(everything, mesh=mesh, in_specs=P("batch"), out_specs=P("batch"), check_vma=False)
found = {}
for name, function in (("jit", everything), ("shard_map", local)):
    like = jax.ShapeDtypeStruct(A.shape, A.dtype, sharding=spread)
    program = jax.jit(function).lower(like).compile()
    text = program.as_text()
    result = program(jax.device_put(A, spread))
    found[name] = [word for word in ("all-reduce", "all-gather", "all-to-all", "collective-permute") if word in text]
    alone = jax.jit(everything)(jax.device_put(A, one)) if name == "jit" else alone
    leaves = zip(jax.tree_util.tree_leaves_with_path(result), jax.tree.leaves(alone), strict=True)
    # Residuals are rounding errors themselves, in units of n eps.
    near = {".residual": 0.5, ".orthogonality": 0.5}
    found[name + " equal"] = all(
        np.allclose(x, y, atol=next((a for end, a in near.items() if jax.tree_util.keystr(path).endswith(end)), 1e-5))
        for (path, x), y in leaves
    )
    found[name + " devices"] = len(result[0].T.sharding.device_set)
print(json.dumps(found))
"""


def test_a_batch_over_eight_devices():
    """Under jit only the loops' own ends are agreed on; inside shard_map nothing passes between the devices at all."""
    options = {"cwd": ROOT, "env": environment(devices=8), "capture_output": True, "text": True, "timeout": 600}
    done = subprocess.run([sys.executable, "-c", CODE], **options)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["jit equal"]
    assert found["shard_map equal"]
    assert found["jit devices"] == found["shard_map devices"] == 8
    assert found["shard_map"] == []
    assert "all-to-all" not in found["jit"]
    assert "collective-permute" not in found["jit"]
