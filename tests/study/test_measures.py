"""Every measure beside every rung: constructed blocks whose rung is known, and the table made of them."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import ortho_group

from jaxdyn import nulls
from jaxdyn.nulls.named import EVERY, EVERY_SINGLE, PRODUCT, every_measure, every_product
from jaxdyn.report.measures_table import measures_chart
from jaxdyn.study.measures import OF_LAW, measures_ladder
from jaxdyn.study.settings import StudySettings

LAYERS, SAMPLES, N = 3, 8, 16
SETTINGS = StudySettings(rungs=("N0", "N1", "N2"), draws=4)


def blocks_of_n1(seed: int) -> np.ndarray:
    """tI + U S V^T with Haar vectors, S far from a Ginibre matrix's."""
    rng = np.random.default_rng(seed)
    u, v = (ortho_group.rvs(N, (LAYERS * SAMPLES), rng).reshape(LAYERS, SAMPLES, N, N) for _ in range(2))
    return 0.8 * np.eye(N) + u * np.geomspace(2, 0.02, N) @ v


@pytest.fixture(scope="module")
def found():
    blocks = blocks_of_n1(0)
    blocks[1] = (blocks[1] + np.swapaxes(blocks[1], -1, -2)) / 2  # the layer in the middle is symmetric
    return measures_ladder(None, None, jnp.asarray(blocks), SETTINGS)  # pyright: ignore[reportArgumentType]


def test_all_measures_at_once_are_those_one_by_one():
    blocks = jnp.asarray(blocks_of_n1(1))
    for names, every in ((EVERY, every_measure(blocks)), (tuple(PRODUCT), every_product(blocks))):
        assert every.shape == (len(names), LAYERS, SAMPLES)
        for name, values in zip(names, every, strict=True):
            np.testing.assert_allclose(values, nulls.measured(blocks, name), rtol=1e-8, atol=1e-12, err_msg=name)


def test_what_is_made_of_n1_has_no_excess_over_it_and_a_planted_symmetry_has(found):
    at = found.sel(rung="N1", measure=[name for name in EVERY_SINGLE if name != "antisymmetric_share"]).isel(
        layer=[0, 2]
    )
    error = (at["excess_high"] - at["excess_low"]) / (2 * 2.4)  # t of about 7 degrees of freedom
    assert float(np.abs(at["excess"] / error).mean()) < 1.2
    assert float(np.mean(np.abs(at["excess"]) > 3 * error)) < 0.05
    planted = found.sel(measure="antisymmetric_share").isel(layer=1)
    assert float(planted["measured"]) == pytest.approx(0, abs=1e-12)
    assert planted["state"].sel(rung=["N0", "N1"]).values.tolist() == ["beyond", "beyond"]
    assert str(planted["verdict"].values) == "above every null"
    assert float(planted["excess"].sel(rung="N1")) == pytest.approx(-float(planted["null"].sel(rung="N1")), rel=1e-9)


def test_a_rung_accounts_for_a_number_to_a_twentieth_of_it(found):
    size = 0.05 * np.abs(found["measured"])
    within = (found["excess_low"] >= -size) & (found["excess_high"] <= size)
    spoken = (found["state"] != "") & (found["measured"].fillna(0) != 0) & (size > 1e-9)
    assert ((found["state"] == "explained") == within).where(spoken, other=True).all()
    assert bool((within & spoken).any())
    assert bool((~within & spoken).any())


def test_a_rung_is_silent_where_it_says_nothing(found):
    assert found["rung"].values.tolist() == ["N0", "N1", "N2", "N3"]
    assert found["measure"].values.tolist() == list(EVERY)
    assert (found["state"].sel(rung="N2", measure=list(EVERY_SINGLE)) == "").all()
    rest = [name for name in found["measure"].values if name not in OF_LAW]
    assert (found["state"].sel(rung="N3", measure=rest) == "").all()
    assert (found["state"].sel(rung="N3", measure=list(OF_LAW)) != "").all()
    products = found.sel(rung="N2", measure="product_effective_rank")
    assert float(products["excess"].isel(layer=0)) == pytest.approx(0, abs=1e-9)  # one matrix has no neighbours
    assert float(products["null_sd"].isel(layer=2)) > 0.01


def test_the_law_and_the_floor_are_those_of_the_functions(found):
    blocks = blocks_of_n1(0)
    blocks[1] = (blocks[1] + np.swapaxes(blocks[1], -1, -2)) / 2
    law = nulls.n3(jnp.asarray(blocks)).draws[0].mean(axis=-1)
    at = found.sel(measure="product_participation_ratio")
    np.testing.assert_allclose(at["null"].sel(rung="N3"), law, rtol=1e-9)
    values = nulls.measured(jnp.asarray(blocks), "product_participation_ratio")
    np.testing.assert_allclose(at["floor"], nulls.n6(values, np.arange(SAMPLES)).sd, rtol=1e-9)
    assert float(at["trend"]) == pytest.approx(-1)


def test_the_table_counts_the_layers_that_a_rung_accounts_for(found):
    stored = found.assign(state=found["state"].astype(np.dtypes.StringDType()))  # as a store gives text back
    chart = measures_chart(stored.assign_attrs(tolerance=0.05), "Data.")
    header, *rows = chart.table
    assert header[2:6] == ("N0", "N1", "N2", "N3")
    row = dict(zip(header, next(row for row in rows if row[0] == "antisymmetric share"), strict=True))
    states = found["state"].sel(measure="antisymmetric_share", rung="N1").values
    excess = found["excess"].sel(measure="antisymmetric_share", rung="N1").values
    largest = f"{excess[np.argmax(np.abs(excess))]:+.3g}".replace("-", "\N{MINUS SIGN}")
    assert row["N1"] == f"{largest} ({np.sum(states == 'explained')} of {LAYERS})"
    assert row["N2"] == ""
    assert "5 %" in chart.caption
