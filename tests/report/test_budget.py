"""What explains Henrici: the three steps on matrices whose answer is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from jaxdyn.measures import nulls
from jaxdyn.report.budget import budget, budget_chart
from jaxdyn.report.source import of_tree

N, DRAWS = 96, 4


def henrici(matrix: np.ndarray) -> float:
    """Normalised departure, straight from its definition."""
    norm = np.linalg.norm(matrix)
    return float(np.sqrt(max(0.0, norm**2 - np.sum(np.abs(np.linalg.eigvals(matrix)) ** 2))) / norm)


def store_of(matrices: list[np.ndarray]) -> xr.Dataset:
    """What a run would have stored of one layer of these matrices, each beside the mean of its N1 draws."""
    values, null = [], []
    for number, matrix in enumerate(matrices):
        trace = np.trace(matrix) / N
        singular = np.linalg.svd(matrix - trace * np.eye(N), compute_uv=False)
        drawn = nulls.n1_matrices(
            jax.random.key(7), jnp.asarray(singular)[None], jnp.asarray([trace]), jnp.asarray([number]), draws=DRAWS
        )
        values.append(henrici(matrix))
        null.append(np.mean([henrici(np.asarray(one)) for one in np.asarray(drawn.matrix).reshape(-1, N, N)]))
    dims = ("part", "layer", "sample")
    measured, level = np.array(values)[None, None], np.stack([np.full(len(values), np.nan), null], axis=-1)[None, None]
    return xr.Dataset(
        {
            "henrici_normalized": (dims, measured),
            "henrici_normalized_null": ((*dims, "rung"), level),
            "henrici_normalized_excess": ((*dims, "rung"), measured[..., None] - level),
            "eigenvalues": ((*dims, "eig"), np.linalg.eigvals(np.stack(matrices))[None, None]),
            "frobenius_norm": (dims, np.linalg.norm(np.stack(matrices), axis=(1, 2))[None, None]),
        },
        {"part": ["block"], "layer": [0], "rung": ["N0", "N1"], "article": ("sample", np.arange(len(matrices)))},
    )


def gaussian(rng) -> np.ndarray:
    return rng.standard_normal((N, N)) / np.sqrt(N)


def rotation(rng) -> np.ndarray:
    q, r = np.linalg.qr(rng.standard_normal((N, N)))
    return q * np.sign(np.diag(r))


GINIBRE = np.sqrt(0.5)
CASES = {
    # noise about a multiple of the identity: the trace says it all
    "shifted noise": (lambda rng: np.eye(N) + 0.5 * gaussian(rng), np.sqrt(0.25 / 1.25 / 2), 0.0, 0.0),
    # a product of two: Henrici sqrt(2/3), from the spread of the singular values (1.7, N0)
    "product of two": (lambda rng: gaussian(rng) @ gaussian(rng), GINIBRE, np.sqrt(2 / 3) - GINIBRE, 0.0),
    # a rotation is normal, and so is every matrix of equal singular values without a trace
    "rotation": (rotation, GINIBRE, -GINIBRE, 0.0),
    # a symmetric matrix has the singular values of noise; that it is normal lies in their directions
    "symmetric": (lambda rng: (lambda g: (g + g.T) / np.sqrt(2))(gaussian(rng)), GINIBRE, None, None),
}


@pytest.mark.parametrize("name", CASES)
def test_each_step_is_what_it_says(name, rng):
    make, trace, singular, orientation = CASES[name]
    steps = {key: float(value[0]) for key, value in budget(store_of([make(rng) for _ in range(4)]), "block").items()}
    # a matrix of n = 96 departs from the limit by order 1/n = .01
    assert steps["trace"] == pytest.approx(trace, abs=0.015)
    if singular is None:
        assert steps["measured"] == pytest.approx(0.0, abs=1e-6)
        assert steps["orientation"] < -0.6
        assert abs(steps["singular"]) < 0.05
    else:
        assert steps["singular"] == pytest.approx(singular, abs=0.02)
        assert steps["orientation"] == pytest.approx(orientation, abs=0.01)
    assert steps["trace"] + steps["singular"] + steps["orientation"] == pytest.approx(steps["measured"], abs=1e-12)
    assert steps["low"] <= steps["measured"] <= steps["high"]


def test_the_trace_step_is_the_closed_form_with_the_mean_eigenvalue_as_shift(rng):
    matrix = 0.7 * np.eye(N) + gaussian(rng) * 1.3
    shift = np.trace(matrix) / N
    form = nulls.closed_form(jnp.asarray(shift), jnp.asarray(np.linalg.norm(matrix - shift * np.eye(N))), N)
    found = budget(store_of([matrix, matrix]), "block")["trace"][0]
    assert found == pytest.approx(float(form["henrici_normalized"]), rel=1e-6)
    other = nulls.closed_form(jnp.asarray(1.0), jnp.asarray(np.linalg.norm(matrix - np.eye(N))), N)
    assert abs(float(other["henrici_normalized"]) - found) > 0.001  # c = 1 is another null


def test_a_failed_sample_is_left_out_of_every_step(rng):
    good = [np.eye(N) + gaussian(rng) for _ in range(3)]
    root = store_of(good)
    broken = xr.concat([root, xr.full_like(root.isel(sample=[0]), np.nan)], dim="sample")
    broken = broken.assign_coords(article=("sample", np.arange(4)))
    for name, value in budget(root, "block").items():
        np.testing.assert_allclose(budget(broken, "block")[name], value, rtol=1e-12)


def test_the_figure_stacks_the_steps_and_needs_n1(tree, unfinished):
    from jaxdyn import store

    chart = budget_chart([of_tree(tree)])
    assert chart is not None
    for panel in chart.panels:
        trace, singular, orientation, measured = panel.series
        np.testing.assert_allclose(trace.high, singular.low)
        np.testing.assert_allclose(singular.high, orientation.low)
        np.testing.assert_allclose(orientation.high, measured.y, rtol=1e-6)
        stored = tree.to_dataset().sel(part=panel.key)["henrici_normalized"].mean("sample").values
        np.testing.assert_allclose(measured.y, stored, rtol=1e-6)
    assert "n t² / norm(M)²" in chart.caption
    assert budget_chart([of_tree(store.open_tree(unfinished))]) is None
