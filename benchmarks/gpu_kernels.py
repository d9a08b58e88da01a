"""`python -m benchmarks gpu`: batched nonsymmetric eigendecompositions on the accelerator, against its libraries.

Unattended, and bounded: every case runs in turn in a process of its own with a time limit, prints one line when it is
done, and a case that fails prints its error in that line and the next one goes on. Needs jax, numpy and scipy; torch
and cupy are compared with where they are installed.
"""

import argparse
import importlib
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CASES = ((1024, 64), (256, 128), (64, 256), (16, 512), (4, 1024), (1, 4096))
METHODS = ("xla", "divide", "cusolver", "jnp", "torch", "cupy")
TYPES = ("float32", "float64")
SECONDS = 570.0
"""All cases together."""

MOST = 60.0
"""One case, its compilation included; the process starts in some seconds."""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks gpu", description=__doc__)
    parser.add_argument("--cases", default=",".join(f"{b}x{n}" for b, n in CASES), help="batch x n, comma-separated")
    parser.add_argument("--methods", default=",".join(METHODS), help="default %(default)s")
    parser.add_argument("--types", default=",".join(TYPES), help="default %(default)s")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for everything, default %(default)s")
    parser.add_argument("--most", type=float, default=MOST, help="seconds for one case, default %(default)s")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        method, batch, n, dtype = options.one.split(",")
        print(json.dumps(measured(method, int(batch), int(n), dtype)))
        return
    print(_row("method", "batch x n", "type", "ms a batch", "residual", "of the product rate", "compile s", "note"))
    start = time.monotonic()
    for case in options.cases.split(","):
        batch, n = (int(x) for x in case.split("x"))
        for dtype in options.types.split(","):
            for method in options.methods.split(","):
                left = options.seconds - (time.monotonic() - start)
                found = _apart(f"{method},{batch},{n},{dtype}", min(options.most, left))
                print(_row(method, case, dtype, *_columns(found)), flush=True)


def measured(method: str, batch: int, n: int, dtype: str) -> dict[str, Any]:
    """Time, residual and share of the matrix-product rate of one method on Gaussian matrices of norm about one."""
    if method in ("torch", "cupy") and importlib.util.find_spec(method) is None:
        return {"note": f"{method} is not installed"}
    A = (np.random.default_rng(0).standard_normal((batch, n, n)) / np.sqrt(n)).astype(dtype)
    start = time.perf_counter()
    run, values_and_vectors, note = _prepared(method, A)
    run()
    compiled = time.perf_counter() - start
    seconds, found = _timed(run)
    values, vectors = values_and_vectors(found)
    return {
        "milliseconds": 1e3 * seconds,
        "residual": _residual(A, values, vectors),
        "share": _flops(batch, n) / seconds / _product_rate(n, batch, dtype),
        "compile": compiled - seconds,
        "note": note(found),
    }


def _prepared(method: str, A: np.ndarray) -> tuple[Callable[[], Any], Callable[[Any], Any], Callable[[Any], str]]:
    """A call that ends when the device has, its eigenvalues and right vectors, and a note."""
    if method == "torch":
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        there = torch.as_tensor(A, device=device)

        def run():
            found = torch.linalg.eig(there)
            if device == "cuda":
                torch.cuda.synchronize()
            return found

        return run, lambda found: tuple(x.cpu().numpy() for x in found), lambda _: device
    if method == "cupy":
        import cupy

        there = cupy.asarray(A)

        def run():
            found = cupy.linalg.eig(there)
            cupy.cuda.Device().synchronize()
            return found

        return run, lambda found: tuple(cupy.asnumpy(x) for x in found), lambda _: ""
    import jax
    import jax.numpy as jnp

    jk = _kernels()
    jax.config.update("jax_enable_x64", A.dtype == np.float64)
    there = jax.device_put(A)
    platform = there.devices().pop().platform
    if method == "jnp":
        function = jax.jit(lambda A: jnp.linalg.eig(A))
        return (
            lambda: jax.block_until_ready(function(there)),
            lambda found: (np.asarray(found[0]), np.asarray(found[1])),
            lambda _: platform,
        )
    function = jax.jit(lambda A: jk.eig(A, implementation=method))

    def note(found):
        failed, robust = int(np.sum(np.asarray(found.status) != 0)), int(np.sum(np.asarray(found.robust)))
        return f"{platform}; {failed} failed, {robust} by the robust method"

    return (
        lambda: jax.block_until_ready(function(there)),
        lambda found: (np.asarray(found.eigenvalues), np.asarray(found.right)),
        note,
    )


def _kernels() -> Any:
    """Import the package, from its folder where it is not installed."""
    if importlib.util.find_spec("jaxdyn_kernels") is None:
        folder = Path(__file__).resolve().parents[1] / "kernels"
        spec = importlib.util.spec_from_file_location(
            "jaxdyn_kernels", folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["jaxdyn_kernels"] = module
        spec.loader.exec_module(module)
    return importlib.import_module("jaxdyn_kernels")


def _timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Median of up to five calls, fewer where one takes seconds; the first was the compilation's."""
    seconds: list[float] = []
    found = None
    while len(seconds) < 5 and sum(seconds) < 5:
        start = time.perf_counter()
        found = run()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds)), found


def _residual(A: np.ndarray, values: np.ndarray, vectors: np.ndarray) -> float:
    """Largest norm(A v - lambda v)_2 / norm(A)_F of unit vectors over the first four matrices, in double precision."""
    worst = 0.0
    for M, w, V in zip(A[:4].astype(float), values[:4], vectors[:4], strict=True):
        V = V / np.linalg.norm(V, axis=0)
        worst = max(worst, float(np.linalg.norm(M @ V - V * w, axis=0).max() / np.linalg.norm(M)))
    return worst


def _flops(batch: int, n: int) -> float:
    """25 n^3 for a Schur form with vectors and 4 n^3 for right vectors (Golub and Van Loan, sections 7.5 and 7.6)."""
    return 29.0 * batch * n**3


def _product_rate(n: int, batch: int, dtype: str) -> float:
    """Operations a second of batched products of the same shape on the same device, in full precision."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", dtype == "float64")
    A = jnp.asarray(np.random.default_rng(1).standard_normal((batch, n, n)), dtype)
    product = jax.jit(lambda A: jnp.matmul(A, A, precision=jax.lax.Precision.HIGHEST))
    jax.block_until_ready(product(A))
    seconds, _ = _timed(lambda: jax.block_until_ready(product(A)))
    return 2.0 * batch * n**3 / seconds


def _apart(case: str, limit: float) -> dict[str, Any]:
    """One case in a process of its own; what it printed, or why it did not."""
    if limit <= 1:
        return {"note": "no time left"}
    command = [sys.executable, "-m", "benchmarks.gpu_kernels", "--one", case]
    root = Path(__file__).resolve().parents[1]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, cwd=root)
    except subprocess.TimeoutExpired:
        return {"note": f"stopped after {limit:.0f} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        words = (done.stderr.strip() or "no output").splitlines()
        errors = [line for line in words if "Error" in line] or words
        return {"note": f"failed: {errors[-1][:160]}"}
    return json.loads(lines[-1])


def _columns(found: dict[str, Any]) -> list[str]:
    if "milliseconds" not in found:
        return ["-", "-", "-", "-", found["note"]]
    return [
        f"{found['milliseconds']:.2f}",
        f"{found['residual']:.1e}",
        f"{found['share']:.4f}",
        f"{found['compile']:.1f}",
        found["note"],
    ]


def _row(*columns: str) -> str:
    return "".join(f"{x:<{width}}" for x, width in zip(columns, (10, 12, 9, 13, 11, 21, 11, 0), strict=True)).rstrip()


if __name__ == "__main__":
    main()
