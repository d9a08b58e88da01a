"""How many dependent steps the portable Schur form takes: `python -m benchmarks.pod_depth N ...`, one matrix of each N.

A Jacobian of a block is the identity plus a matrix whose eigenvalues fill a disc; so is the matrix here, I + G with G a
real Ginibre matrix of spectral radius one. The count is that of the algorithm, the same on every chip up to rounding;
on a CPU a count at N = 1024 takes a minute and at 2048 ten, and grows as N^3 and more.
"""

import sys
import time

import jax
import numpy as np
from jaxdyn_kernels.schur import xla


def main(orders: list[int]) -> None:
    for n in orders:
        G = np.random.default_rng(0).standard_normal((1, n, n)) / np.sqrt(n)
        start = time.perf_counter()
        count = jax.jit(xla.depth)(((np.eye(n) + G) / 4).astype(np.float32))
        sweeps, steps = int(count.sweeps), int(count.steps)
        seconds = time.perf_counter() - start
        print(f"{n}: ({sweeps}, {steps}),  # {sweeps / n:.3f} n, {steps / n**2:.3f} n^2; {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]])
