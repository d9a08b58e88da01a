"""What an analysis will take, from the architecture alone: a stated cost model over rates measured in half a second.

Time is the sum of
- forward: 2 N_b T flops a prompt, N_b the parameters of the blocks, T the tokens;
- Jacobians: 2 d^2 f + 2 d^2 H K + 2 d^3 flops a sample and layer (f hidden units, H K the heads' width), both at the
  rate of a matrix product on the default device;
- decompositions: a matrix, and each of its N1 draws, costs p (``CUBIC`` (n / m)^3 + ``LINEAR`` n) seconds, twice that
  with the Kreiss constant; p is the measured time of one Schur form of m = ``PROBE`` columns on one core, the linear
  term is what small matrices spend between LAPACK's calls. Samples spread over the cores; the averaged Jacobians, one
  a layer and part, run on one;
- the start: imports, reading compiled programs, the store and its figures, ``START`` seconds.

The first run of its kind also compiles (``COMPILE`` seconds), which is given apart. The constants were measured as
`benchmarks/README.md` says; expect the total within a factor of 3 on a machine that is otherwise idle.
"""

import time
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import jaxdyn_kernels as jk
import numpy as np

from jaxdyn.errors import InputError
from jaxdyn.models import parameters
from jaxdyn.models.architecture import Architecture

from .settings import Settings

PROBE = 256
CUBIC = 2.0
LINEAR = 1 / 200
START = 20.0
COMPILE = 25.0
PROCESS = 1.1e9
HOST_MATRICES = 24
"""Matrices (n, n) that the measurement of one Jacobian holds at once: Schur form, singular vectors, complex
eigenvectors of both sides, their scaled copies, and what LAPACK works in."""


@dataclass(frozen=True)
class Rates:
    """What this machine does: seconds of one Schur form of ``PROBE`` columns on one core, flops a second, cores."""

    schur_seconds: float
    flops: float
    cores: int
    device: str


@dataclass(frozen=True)
class Work:
    """What is asked of an analysis.

    Attributes
    ----------
    settings : as for the run.
    prompts, length : number of prompts and tokens of each.
    dtype, weights_dtype : of the computation and of the weights.
    """

    settings: Settings
    prompts: int
    length: int
    dtype: str = "float32"
    weights_dtype: str = "float32"

    def samples(self) -> int:
        """Positions measured: of each prompt the last, all, or the last N."""
        rule = self.settings.tokens
        if rule == "last":
            return self.prompts
        if rule == "all":
            return self.prompts * self.length
        if rule.startswith("last:") and rule[5:].isdecimal() and int(rule[5:]) > 0:
            return self.prompts * min(int(rule[5:]), self.length)
        msg = f"tokens: got {rule!r}; allowed 'last', 'all' or 'last:N' with a positive N"
        raise InputError(msg)


def measure_rates(dtype: str = "float32") -> Rates:
    """Time a Schur form on one core and a matrix product on the default device, each for a quarter of a second."""
    random = np.random.default_rng(0)
    matrix = np.eye(PROBE, dtype=dtype) + (random.standard_normal((PROBE, PROBE)) / PROBE**0.5).astype(dtype)
    with jk.single_threaded_blas():
        schur = _seconds(lambda: jk.schur(matrix, implementation="lapack").T)
    size = 1024
    square = jnp.asarray(random.standard_normal((size, size)), dtype)
    product = jax.jit(lambda a: jnp.matmul(a, a, precision=jax.lax.Precision.HIGHEST))
    flops = 2 * size**3 / _seconds(lambda: product(square))
    return Rates(schur, flops, jk.cores(), jax.devices()[0].device_kind)


def estimate(arch: Architecture, work: Work, rates: Rates) -> dict[str, Any]:
    """Estimate memory and time of an analysis.

    Parameters
    ----------
    arch : the description; nothing of the model is loaded.
    work : what is asked for.
    rates : from `measure_rates`.

    Returns
    -------
    dict of plain values: "samples", "matrices" (decomposed, without the averages), "bytes" (process, weights,
    jacobians, decompositions, total) and "seconds" (forward, jacobians, decompositions, averages, start, total; and
    first_run_compilation, which is not in the total). The process itself takes ``PROCESS`` bytes (Python, jax, compiled
    programs); Jacobians 4 d^2 + d f numbers a sample of a unit; decompositions ``HOST_MATRICES`` n^2 numbers a core
    and kind, and the running products 2 n^2 a sample and round.
    """
    settings, n = work.settings, arch.width
    layers, kinds, rounds = len(settings.resolved_layers(arch)), len(settings.matrices), settings.draws + 1
    samples = work.samples()
    unit = min(settings.unit, samples)
    matrices = samples * layers * kinds

    one = round_seconds(rates, n, kreiss=settings.kreiss)
    waves = (samples // unit) * -(-unit // rates.cores) + -(-(samples % unit) // rates.cores)
    blocks = sum(int(np.prod(s)) for path, s in parameters.shapes(arch).items() if path.startswith("blocks/"))
    flops_forward = 2.0 * blocks * work.length * work.prompts
    flops_jacobian = 2.0 * n * n * (arch.ff_dim + arch.heads * arch.head_dim + n) * samples * layers
    seconds = {
        "forward": flops_forward / rates.flops,
        "jacobians": flops_jacobian / rates.flops,
        "decompositions": waves * layers * kinds * rounds * one,
        "averages": layers * kinds * rounds * one,
        "start": START,
    }

    size, weight = np.dtype(work.dtype).itemsize, jnp.dtype(work.weights_dtype).itemsize
    products = 2 * n * n * unit * rounds if "block" in settings.matrices else 0
    taken = {
        "process": PROCESS,
        "weights": weight * sum(int(np.prod(shape)) for shape in parameters.shapes(arch).values()),
        "jacobians": size * unit * (4 * n * n + n * arch.ff_dim),
        "decompositions": size * (HOST_MATRICES * n * n * min(rates.cores, unit) * kinds + products),
    }
    return {
        "samples": samples,
        "matrices": matrices,
        "bytes": {**taken, "total": sum(taken.values())},
        "seconds": {**seconds, "total": sum(seconds.values()), "first_run_compilation": COMPILE},
    }


def round_seconds(rates: Rates, n: int, *, kreiss: bool) -> float:
    """Estimate the seconds that one core takes to measure one matrix of n columns, or one draw of its null."""
    return rates.schur_seconds * (CUBIC * (n / PROBE) ** 3 + LINEAR * n) * (2 if kreiss else 1)


def _seconds(call: Any) -> float:
    """Seconds of a call, warm: the least of those in a quarter of a second, which others on the machine touch least."""
    jax.block_until_ready(call())
    taken, end = [], time.perf_counter() + 0.25
    while time.perf_counter() < end or len(taken) < 3:
        start = time.perf_counter()
        jax.block_until_ready(call())
        taken.append(time.perf_counter() - start)
    return min(taken)
