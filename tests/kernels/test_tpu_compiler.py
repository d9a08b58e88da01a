"""Every operation compiles with the real XLA:TPU compiler, in little memory and without float64, on no TPU at all.

`JAXDYN_TEST_TPU=1 pytest -s tests/kernels/test_tpu_compiler.py` turns it on, with the extra `tpu` installed (684 MB);
it takes seconds to minutes a case, an hour for all on two cores, and prints what each took.
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

FROM_SCHUR = ("schur", "eigvals", "eig", "eig-left")
FUNCTIONS = (
    *("hessenberg", "resolvent_norm", "reorder", "refine", "refine-pairs", "singular_values"),
    *FROM_SCHUR,
)
"""Every public function, as the dispatch runs it on a TPU."""
REAL = ("hessenberg", "reorder", "schur-xla", "schur-pallas", "schur-wavefront")
"""What keeps real matrices in real arithmetic from end to end."""
REAL_PRODUCTS = ("schur", "schur-divide", "refine", "refine-pairs")
"""What takes complex numbers for 2 x 2 blocks and the triangular equation of a refinement alone."""
ROOT = Path(__file__).resolve().parents[2]
E, P = "v5e:2x2", "v5p:2x2x1"
CASES = [
    *((chip, name, n, batch) for n, batch in ((64, 8), (256, 8), (4096, 0)) for chip in (E, P) for name in FUNCTIONS),
    *((E, name, 64, 8) for name in ("schur-xla", "schur-wavefront", "schur-complex", "schur-divide")),
    *((E, name, 256, 8) for name in ("schur-xla", "schur-wavefront", "schur-divide")),
    (E, "schur-xla", 4096, 0),
    *((E, "schur", n, batch) for n, batch in ((64, 1024), (256, 64), (512, 16))),
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
        f"\n{topology} {name} {found['implementation']} {batch or 1} x {n}: {found['seconds']} s, "
        f"{found['processor']} s of processor time, {found['temporaries'] / 1e9:.3f} GB"
    )
    assert found["temporaries"] < MOST
    for word in ("float64", "callback", "host", "collective"):
        assert not found[word], word
    if name in REAL:
        assert not found["complex"]
    if name in REAL_PRODUCTS:
        assert not found["complex_products"]
    if name == "schur":
        assert found["implementation"] == ("pallas" if n <= 256 else "divide")
    if name == "schur-complex":
        assert found["implementation"] == "wavefront"
    # The kernel for small matrices, which is also how a division ends.
    assert found["kernels"] == (name in FROM_SCHUR or (name == "schur-divide" and n > 64))
