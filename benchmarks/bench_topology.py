"""One layer's topology at the width of an 8B model: graph, 20 Leiden seeds, boundary, gains, coupling; no nulls."""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.harness import Row
from jaxdyn.topology import (
    adjusted_rand,
    amplifications,
    correlation,
    coupling,
    find_communities,
    moments,
    signed_modularity,
    top_k_graph,
)
from jaxdyn.topology.boundary import boundaries, rewired_graphs
from jaxdyn.topology.coupling import bootstrap, community_coupling

WIDTH, SAMPLES, K, SEEDS, ITERATIONS, COMMUNITIES = 4096, 1000, 20, 20, 2, 40
LIMIT = "<= 60"


def run(options: Any) -> Iterator[Row]:
    """Time a graph with planted communities and one of pure noise; once each, since one takes half a minute."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, COMMUNITIES, WIDTH)
    factors = rng.standard_normal((SAMPLES, COMMUNITIES))
    noise = rng.standard_normal((SAMPLES, WIDTH))
    sign = rng.choice([-1.0, 1.0], WIDTH)
    jacobian = np.eye(WIDTH) + rng.standard_normal((WIDTH, WIDTH)) * (0.3 / WIDTH**0.5)
    setting = f"D = {WIDTH}, N = {SAMPLES}, k = {K}, {SEEDS} seeds, n_iterations = {ITERATIONS}"
    for name, states, truth in (
        ("planted communities", noise + 0.7 * factors[:, labels] * sign, 2 * labels + (sign > 0)),
        ("pure noise", noise, None),
    ):
        start = time.perf_counter()
        r = correlation(moments(states))
        made = time.perf_counter() - start
        start, busy = time.perf_counter(), time.process_time()
        graph = top_k_graph(r, K)
        ours = time.perf_counter()
        found = find_communities(graph, seeds=SEEDS, iterations=ITERATIONS)
        divided = time.perf_counter()
        at = boundaries(graph, found.best, rewired_graphs(graph, 20, rng))
        gains = amplifications(jacobian)
        coupling(at, gains)
        community_coupling(graph, found.best, at, gains)
        bootstrap(at, gains, rng)
        done, busy = time.perf_counter(), time.process_time() - busy
        said = f"modularity {found.modularity:.3f}, {found.best.max() + 1} communities, ARI {found.mean_agreement:.2f}"
        if truth is not None:
            said += f" (planted: {signed_modularity(graph, truth):.3f}, ARI {adjusted_rand(truth, found.best):.3f})"
        yield Row(
            "topology",
            f"one layer, {name}",
            done - start,
            "s",
            target=LIMIT,
            note=f"{setting}; processor {busy:.0f} s; {said}",
        )
        yield Row("topology", "of it the 20 seeds and their consensus", divided - ours, "s")
        yield Row("topology", "apart: the correlation", made, "s", error=float(np.abs(r - np.corrcoef(states.T)).max()))
