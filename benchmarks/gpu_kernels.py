"""`python -m benchmarks gpu`: batched nonsymmetric eigendecompositions on the accelerator, against its libraries.

Unattended, and bounded: the cases run one after another in a process beside this one; one that takes too long ends with
that process, and the next gets another. Each prints a line, a case that fails its error. float32 comes first, so that
half of the table is there whatever happens. Needs jax, numpy and scipy; torch and cupy are compared with where they are
installed.
"""

import argparse
import contextlib
import importlib
import importlib.util
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CASES = ((1024, 64), (256, 128), (64, 256), (16, 512), (4, 1024), (1, 4096))
METHODS = ("jnp", "divide", "wavefront", "xla", "torch", "cupy", "cusolver")
ORDERS = {"xla": (0, 512), "wavefront": (32, 512), "divide": (65, 1 << 30)}
"""Orders that a method is measured at: shifted QR step by step takes minutes above, `divide` is `xla` below."""
TYPES = ("float32", "float64")
SECONDS = 570.0
"""All cases together."""

MOST = 60.0
"""One case, its compilation included."""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks gpu", description=__doc__)
    parser.add_argument("--cases", default=",".join(f"{b}x{n}" for b, n in CASES), help="batch x n, comma-separated")
    parser.add_argument("--methods", default=",".join(METHODS), help="default %(default)s")
    parser.add_argument("--types", default=",".join(TYPES), help="default %(default)s")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for everything, default %(default)s")
    parser.add_argument("--most", type=float, default=MOST, help="seconds for one case, default %(default)s")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        for line in sys.stdin:
            print(json.dumps(_answered(line)), flush=True)
        return
    print(_row("method", "batch x n", "type", "ms a batch", "residual", "of the product rate", "compile s", "note"))
    start = time.monotonic()
    worker = Worker()
    for dtype in options.types.split(","):
        for case in options.cases.split(","):
            batch, n = (int(x) for x in case.split("x"))
            for method in options.methods.split(","):
                low, high = ORDERS.get(method, (0, 1 << 30))
                if low <= n <= high:
                    left = min(options.most, options.seconds - (time.monotonic() - start))
                    found = worker.ask(f"{method},{batch},{n},{dtype}", left)
                    print(_row(method, case, dtype, *_columns(found)), flush=True)
    worker.end()


class Worker:
    """A process that answers one case after another; a new one after one that had to be ended."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None
        self.lines: queue.Queue[str] = queue.Queue()

    def ask(self, case: str, limit: float) -> dict[str, Any]:
        """One case, or why there is no answer within `limit` seconds."""
        if limit <= 1:
            return {"note": "no time left"}
        if self.process is None:
            self._start()
        assert self.process is not None
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it is gone, and the loop below says so
            self.process.stdin.write(case + "\n")
            self.process.stdin.flush()
        end = time.monotonic() + limit
        while (left := end - time.monotonic()) > 0:
            try:
                return json.loads(self.lines.get(timeout=min(left, 1)))
            except queue.Empty:
                if self.process.poll() is not None:
                    code = self.process.returncode
                    self.end()
                    return {"note": f"failed: the process ended with {code}"}
        self.end()
        return {"note": f"stopped after {limit:.0f} s"}

    def end(self) -> None:
        """End the process; what it may still have said is forgotten."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):  # what it did not read any more
                        pipe.close()
        self.process = None

    def _start(self) -> None:
        self.lines = lines = queue.Queue()
        self.process = process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.gpu_kernels", "--worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=Path(__file__).resolve().parents[1],
            # torch and cupy share the device's memory with jax.
            env=os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
        )

        def read():
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("{"):
                    lines.put(line)

        threading.Thread(target=read, daemon=True).start()


def _answered(line: str) -> dict[str, Any]:
    """Measure what a line asks for, or say which error stopped it."""
    method, batch, n, dtype = line.strip().split(",")
    try:
        return measured(method, int(batch), int(n), dtype)
    except Exception as error:  # any library's own; the next case goes on
        words = str(error).strip().splitlines() or [""]
        return {"note": f"failed: {type(error).__name__}: {words[0][:160]}"}


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
        cupy = importlib.import_module("cupy")
        there = cupy.asarray(A)

        def run_cupy():
            found = cupy.linalg.eig(there)
            cupy.cuda.Device().synchronize()
            return found

        return run_cupy, lambda found: tuple(cupy.asnumpy(x) for x in found), lambda _: ""
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
