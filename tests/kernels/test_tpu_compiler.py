"""Every operation compiles with the real XLA:TPU compiler, in little memory and without float64, on no TPU at all.

`JAXDYN_TEST_TPU=1 pytest -s tests/kernels/test_tpu_compiler.py` turns it on, with the extra `tpu` installed (684 MB);
it takes some minutes a case and prints what each took.
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

OPERATIONS = (
    "schur",
    "schur-pallas",
    "schur-wavefront",
    "schur-divide",
    "reorder",
    "eig",
    "eigvals",
    "hessenberg",
    "refine",
    "refine-pairs",
    "resolvent_norm",
)
ROOT = Path(__file__).resolve().parents[2]
CASES = [
    *(("v5e:2x2", name, 64, 8) for name in OPERATIONS),
    *(("v5e:2x2", name, 256, 8) for name in OPERATIONS),
    *(("v5p:2x2x1", name, 64, 8) for name in ("schur", "eig", "refine-pairs")),
    ("v5p:2x2x1", "schur-divide", 256, 8),
    ("v5p:2x2x1", "schur-pallas", 64, 8),
    ("v5p:2x2x1", "schur-pallas", 256, 8),
    *(
        ("v5e:2x2", name, 4096, 0)
        for name in ("hessenberg", "schur", "schur-divide", "eigvals", "refine", "refine-pairs")
    ),
]
MOST = 12e9
"""Bytes of temporaries that may be needed, of the 16 GB of a v5e."""

pytestmark = [
    pytest.mark.skipif(
        os.environ.get("JAXDYN_TEST_TPU") != "1", reason="takes minutes a case; JAXDYN_TEST_TPU=1 turns it on"
    ),
    pytest.mark.skipif(
        importlib.util.find_spec("libtpu") is None, reason="needs the TPU compiler: pip install '.[tpu]'"
    ),
]


@pytest.mark.parametrize(("topology", "name", "n", "batch"), CASES)
def test_compiles(topology, name, n, batch):
    with (Path(tempfile.gettempdir()) / "jaxdyn-tpu-compiler.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the compiler takes all cores, and some GB
        command = [sys.executable, "-m", "tests.kernels.tpu_compile", topology, name, str(n), str(batch)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    print(
        f"\n{topology} {name} {batch or 1} x {n}: {found['seconds']} s, {found['processor']} s of processor time, "
        f"{found['temporaries'] / 1e9:.3f} GB"
    )
    assert found["temporaries"] < MOST
    assert not found["float64"]
    assert not found["callback"]
    assert not found["collective"]
    if name == "schur-pallas":
        assert found["kernels"] == 1
