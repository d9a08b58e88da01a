"""Verdicts on numbers whose origin is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from jaxdyn.measures import nulls as drawn_nulls
from jaxdyn.nulls import Null
from jaxdyn.study import StudySettings, verdict
from jaxdyn.study.conventions import Convention
from jaxdyn.study.ladder import beside, measure
from jaxdyn.study.run import judged
from jaxdyn.study.settings import claims
from jaxdyn.study.statistics import STATISTICS


def specification(blocks, name, rungs=("N0", "N1")):
    claim = next(one for one in claims() if one["name"] == name)
    convention, ratio = Convention("isolated"), jnp.ones(blocks.shape[:2])
    measured = measure(convention, blocks, ratio)
    at = STATISTICS.index(claim["statistic"])
    ladder = beside(convention, blocks, ratio, measured, StudySettings(rungs=rungs, draws=6))
    rows = [Null(one.rung, one.draws[:, at]) for one in ladder]
    return verdict.specification(measured[at], rows, claim["margin"])


def test_random_singular_vectors_are_explained_by_n1_and_by_no_closed_form():
    """Singular values that spread more with depth make a gradient of the Henrici departure without any orientation."""
    n, samples = 24, 12
    layers = []
    for layer in range(4):
        spread = jnp.broadcast_to(jnp.exp(jnp.linspace(-0.2 - layer, 0.2 + layer, n)), (samples, n))
        keys = jnp.arange(samples)
        made = drawn_nulls.n1_matrices(jax.random.key(layer), spread, jnp.zeros(samples), keys, draws=1, full=True)
        layers.append(made.matrix[:, 0])
    row = specification(jnp.stack(layers), "depth gradient")
    assert row["verdict"] == "explained by N1"
    assert row["excess_low"] <= row["excess"] <= row["excess_high"]
    assert abs(row["by_rung"]["N0"]) > 3 * abs(row["by_rung"]["N1"])


def test_a_planted_orientation_is_above_every_null_with_its_sign(rng):
    """Symmetric early and random late: normal, then not."""
    n, samples = 24, 12
    symmetric, free = (rng.standard_normal((samples, n, n)) / n**0.5 for _ in range(2))
    symmetric = (symmetric + np.swapaxes(symmetric, -1, -2)) / 2**0.5
    steps = [(1 - w) * symmetric + w * free for w in (0.0, 0.33, 0.67, 1.0)]
    row = specification(jnp.asarray(np.stack(steps)), "depth gradient")
    assert row["verdict"] == "above every null"
    assert row["excess_low"] > 0.05


def row_of(number, null, spread=1e-3, samples=20, margin=0.05):
    rng = np.random.default_rng(0)
    measured = number + spread * rng.standard_normal(samples)
    draws = null + spread * rng.standard_normal((8, samples))
    return verdict.specification(measured, [Null("N1", draws)], margin)


@pytest.mark.parametrize(
    ("number", "spread", "expected"),
    [(0.02, 1e-3, "explained by N1"), (0.2, 1e-3, "above every null"), (0.05, 0.05, "undecided")],
)
def test_a_margin_is_held_by_the_whole_interval(number, spread, expected):
    assert row_of(number, 0.0, spread)["verdict"] == expected


def test_a_number_that_is_missing_decides_nothing():
    row = verdict.specification(np.array([np.nan, 1.0]), [Null("N1", np.zeros((3, 2)))], 0.1)
    assert row["verdict"] == "undecided"
    assert "finite" in row["because"]


def ladder_stage(number, n1, trend_p):
    rng = np.random.default_rng(1)
    shape = (1, 8, len(STATISTICS), 20)
    return xr.Dataset(
        {
            "number": (("statistic", "sample"), number + 1e-3 * rng.standard_normal((len(STATISTICS), 20))),
            "null_draws": (("rung", "draw", "statistic", "sample"), n1 + 1e-3 * rng.standard_normal(shape)),
            "null_count": (("rung",), [8]),
            "null_shared": (("rung",), [False]),
            "floor": (("statistic",), np.full(len(STATISTICS), 1e-3)),
            "trend_p": (("series",), [trend_p, trend_p]),
        },
        {"statistic": list(STATISTICS), "rung": ["N1"], "series": ["henrici", "alignment"]},
        {"operator": "in-context"},
    )


def verdict_of(stages, claim="depth gradient"):
    return str(judged(stages)["verdict"].sel(claim=claim).values)


def test_a_trend_that_a_walk_has_is_not_above_every_null():
    assert verdict_of({"ladder": ladder_stage(0.5, 0.0, trend_p=0.01)}) == "above every null"
    assert verdict_of({"ladder": ladder_stage(0.5, 0.0, trend_p=0.2)}) == "undecided"


@pytest.mark.parametrize(("other", "expected"), [("explained by N1", "convention-dependent"),
                                                 ("undecided", "above every null")])  # fmt: skip
def test_a_verdict_has_to_survive_the_metric_and_the_update(other, expected):
    conventions = xr.Dataset(
        {"verdict": (("convention", "claim"), [["above every null"], [other]])},
        {
            "convention": ["a", "b"],
            "claim": ["depth gradient"],
            "of_claim": ("claim", ["depth gradient"]),
            "operator": ("convention", ["in-context"] * 2),
        },
    )
    stages = {"ladder": ladder_stage(0.5, 0.0, trend_p=0.01), "conventions": conventions}
    assert verdict_of(stages) == expected


def test_a_stage_that_did_not_run_leaves_its_claims_without_verdict():
    found = judged({"ladder": ladder_stage(0.0, 0.0, trend_p=0.5)})
    assert str(found["verdict"].sel(claim="coupling").values) == "not run"
    assert str(found["verdict"].sel(claim="Schur intervention").values) == "not run"
    assert str(found["verdict"].sel(claim="depth gradient").values) == "explained by N1"
    assert np.isnan(found["number"].sel(claim="coupling"))


@pytest.mark.parametrize(("effect", "expected"), [(0.5, "explained by n1-of-normal"), (2.0, "above every null")])
def test_the_intervention_is_held_against_what_singular_values_do(effect, expected):
    names = ["normal", "n1-of-normal"]
    values = np.stack([np.full(6, effect), np.full(6, 0.52)])[:, None]
    rng = np.random.default_rng(0)
    noisy = values + 1e-3 * rng.standard_normal(values.shape)
    stage = xr.Dataset(
        {
            "effect": (("surrogate", "site", "sample"), noisy),
            "effect_single": (("surrogate", "site", "sample"), 0 * noisy),
        },
        {"surrogate": names, "site": ["all"]},
    )
    assert verdict_of({"surrogates": stage}, "Schur intervention") == expected
