import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdyn import measures

RANKS = [measures.effective_rank, measures.roy_vetterli_rank, measures.participation_ratio, measures.stable_rank]
EPS = float(np.finfo(np.float64).eps)
EPS32 = float(np.finfo(np.float32).eps)


@pytest.mark.parametrize("rank", [*RANKS, measures.threshold_count])
def test_equal_singular_values_count_themselves(rank):
    values = jnp.concatenate([3 * jnp.ones(5), jnp.zeros(4)])
    np.testing.assert_allclose(rank(values), 5, rtol=16 * EPS)
    np.testing.assert_allclose(rank(values, removed=2), 3, rtol=16 * EPS)
    np.testing.assert_allclose(rank(jnp.log(values), log=True), 5, rtol=16 * EPS)


def test_two_values_by_hand():
    s = jnp.asarray([1.0, 2.0])
    p = np.array([0.2, 0.8])
    np.testing.assert_allclose(measures.effective_rank(s), np.exp(-np.sum(p * np.log(p))), rtol=8 * EPS)
    np.testing.assert_allclose(measures.participation_ratio(s), 1 / np.sum(p**2), rtol=8 * EPS)
    np.testing.assert_allclose(measures.stable_rank(s), 5 / 4, rtol=8 * EPS)
    q = np.array([1 / 3, 2 / 3])
    np.testing.assert_allclose(measures.roy_vetterli_rank(s), np.exp(-np.sum(q * np.log(q))), rtol=8 * EPS)


@given(
    logs=st.sampled_from([2, 9]).flatmap(lambda n: st.lists(st.floats(-300, 300), min_size=n, max_size=n)),
    scale=st.floats(-200, 200),
    removed=st.integers(0, 3),
)
@settings(max_examples=20, deadline=None, derandomize=True)
def test_order_scale_and_bounds(logs, scale, removed):
    values = jnp.asarray(logs)
    kept = len(logs) - removed
    results = [rank(values, removed=removed, log=True) for rank in RANKS]
    if kept <= 0:
        assert all(np.isnan(r) for r in results)
        return
    again = [rank(values[::-1] + scale, removed=removed, log=True) for rank in RANKS]
    np.testing.assert_allclose(results, again, rtol=2e-12)
    entropy, plain, participation, stable = results
    slack = 1e-12 * kept
    assert 1 - slack <= stable <= participation + slack <= entropy + 2 * slack <= plain + 3 * slack <= kept + 4 * slack


def test_logarithms_reach_where_floats_do_not():
    logs = jnp.asarray([1000.0, 1000.0, 999.0, -2000.0])
    np.testing.assert_allclose(
        measures.effective_rank(logs, log=True), measures.effective_rank(jnp.exp(logs[:3] - 1000)), rtol=1e-13
    )
    single = jnp.asarray([1e-30, 1e-30, 1e-32], dtype=jnp.float32)  # squares underflow
    np.testing.assert_allclose(measures.effective_rank(single), measures.effective_rank(1e30 * single), rtol=1e-4)


def test_removal_leaves_an_outlier_out():
    s = jnp.concatenate([jnp.asarray([1e3]), jnp.ones(40)])
    assert measures.participation_ratio(s) < 1.1
    for rank in RANKS:
        np.testing.assert_allclose(rank(s, removed=1), 40, rtol=1e-12)
        np.testing.assert_allclose(rank(s, removed=16), 25, rtol=1e-12)


def test_threshold():
    s = jnp.asarray([1.0, 0.5, 0.09, 0.01])
    assert measures.threshold_count(s) == 2
    assert measures.threshold_count(s, threshold=0.05) == 3
    assert measures.threshold_count(s, removed=1) == 2
    with pytest.raises(ValueError, match="threshold: got 0"):
        measures.threshold_count(s, threshold=0)


@pytest.mark.parametrize("rank", [*RANKS, measures.threshold_count])
def test_nothing_left_zero_and_nan_are_nan(rank):
    batch = jnp.asarray([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0], [1.0, jnp.nan, 2.0]])
    value = jax.jit(rank)(batch)
    np.testing.assert_array_equal(np.isnan(value), [False, True, True])
    np.testing.assert_allclose(value[0], rank(batch[0]), rtol=4 * EPS)
    assert np.all(np.isnan(rank(batch, removed=3)))
    with pytest.raises(ValueError, match="removed: got -1"):
        rank(batch, removed=-1)


@pytest.mark.parametrize("rank", RANKS)
def test_float32(rng, rank):
    s = np.abs(rng.standard_normal(64))
    value = rank(jnp.asarray(s, dtype=jnp.float32))
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, rank(jnp.asarray(s)), rtol=64 * EPS32)
