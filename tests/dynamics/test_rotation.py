"""Rotation counts: sign, closed forms, the null table of methods.md 2.3, nulls of own increments, the tests."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdyn.dynamics import phase_portrait, rotation_count
from jaxdyn.dynamics import rotation_nulls as nulls
from jaxdyn.dynamics.rotation_stage import against_null
from jaxdyn.errors import InputError

POINTS, PATHS = 64, 4000


def walks(rng: np.random.Generator, paths: int = PATHS, points: int = POINTS) -> np.ndarray:
    return np.cumsum(rng.standard_normal((paths, points)), axis=-1)


def autoregressive(rng: np.random.Generator, rho: float) -> np.ndarray:
    a = rng.standard_normal((PATHS, POINTS))
    for at in range(1, POINTS):
        a[:, at] = rho * a[:, at - 1] + np.sqrt(1 - rho**2) * a[:, at]
    return a


def interior_count(a: np.ndarray) -> np.ndarray:
    """R of interior differences alone, with complex numbers in place of arctangents: an oracle for the sum too."""
    g = (a[..., 2:] - a[..., :-2]) / 2
    step = np.diff(a[..., 1:-1] + 1j * g, axis=-1)
    return np.angle(step[..., 1:] / step[..., :-1]).sum(axis=-1) / (2 * np.pi)


TABLE = {
    "random walk": (walks, -10.95),
    "AR(1) .5": (lambda rng: autoregressive(rng, 0.5), -13.05),
    "AR(1) .9": (lambda rng: autoregressive(rng, 0.9), -11.38),
    "AR(1) .99": (lambda rng: autoregressive(rng, 0.99), -10.99),
    "white noise": (lambda rng: rng.standard_normal((PATHS, POINTS)), -14.9),
    "shuffled walk": (lambda rng: rng.permuted(walks(rng), axis=-1), -14.9),
}


@pytest.mark.parametrize("name", TABLE)
def test_the_null_table_is_reproduced(name: str) -> None:
    make, stated = TABLE[name]
    found = rotation_count(make(np.random.default_rng(1)))
    rounding = 0.05 if name in ("white noise", "shuffled walk") else 0.005  # the table gives so many digits
    assert abs(found.mean() - stated) < 3 * found.std() / np.sqrt(PATHS) + rounding


def test_a_walk_spreads_and_its_interior_differences_turn_less() -> None:
    paths = walks(np.random.default_rng(2))
    found = rotation_count(paths)
    assert abs(found.std() - 1.67) < 3 * 1.67 / np.sqrt(2 * PATHS) + 0.005
    inner = interior_count(paths)
    assert abs(inner.mean() + 10.59) < 3 * inner.std() / np.sqrt(PATHS) + 0.005
    longer = np.concatenate([paths[:, :1], paths, paths[:, -1:]], axis=1)
    assert abs(rotation_count(longer).mean() - inner.mean()) < 1.0  # both count the same inner turns, but for the ends


@pytest.mark.parametrize("cycles", [1, 2, 5, 10])
def test_a_sine_turns_clockwise_once_a_cycle(cycles: int) -> None:
    phase = 2 * np.pi * cycles * np.arange(POINTS) / POINTS
    lost = (2 * cycles + 1) / POINTS  # the two steps at the ends are cut short
    for start in (0.0, 1.0):
        assert abs(rotation_count(np.sin(phase + start)) + cycles) < lost + 0.15
    assert rotation_count(np.sin(phase)) < 0


def test_spirals_turn_as_often_inwards_as_outwards() -> None:
    at = np.arange(POINTS)
    turns = [rotation_count(np.exp(rate * at) * np.cos(2 * np.pi * 5 * at / POINTS)) for rate in (-0.02, 0.0, 0.02)]
    assert np.allclose(turns, -5, atol=0.5)


def test_a_straight_line_a_constant_and_a_parabola_do_not_turn() -> None:
    at = np.arange(12.0)
    assert rotation_count(at) == 0
    assert rotation_count(np.full(12, 3.0)) == 0
    assert abs(rotation_count(at**2)) < 0.3
    assert np.isnan(rotation_count(np.where(at == 4, np.nan, at)))


def test_it_follows_the_definition_along_the_last_axis() -> None:
    a = np.random.default_rng(3).standard_normal((2, 3, 9))
    x, y = phase_portrait(a)
    np.testing.assert_array_equal(x[..., 0], 0)
    np.testing.assert_array_equal(y[..., 0], 0)
    np.testing.assert_allclose(y[..., 1], (a[..., 2] - a[..., 0]) / 2 - (a[..., 1] - a[..., 0]))
    step = np.diff(x + 1j * y, axis=-1)
    turned = np.angle(step[..., 1:] / step[..., :-1]).sum(axis=-1) / (2 * np.pi)
    np.testing.assert_allclose(rotation_count(a), turned, atol=1e-12)
    np.testing.assert_allclose(rotation_count(-7 * a + 2), turned, atol=1e-12)


def test_numpy_and_jax_agree_also_under_jit_and_vmap() -> None:
    a = np.random.default_rng(4).standard_normal((5, 20))
    expected = rotation_count(a)
    for count in (rotation_count, jax.jit(rotation_count), jax.vmap(rotation_count)):
        found = count(jnp.asarray(a))
        assert isinstance(found, jax.Array)
        np.testing.assert_allclose(found, expected, atol=1e-6 if found.dtype == jnp.float32 else 1e-12)
    assert rotation_count(np.array([0, 1, 0, -1, 0])).dtype == np.float64


def test_too_short_a_trajectory_is_refused() -> None:
    with pytest.raises(InputError, match=r"trajectory: got shape \(4, 2\); allowed \(\.\.\., P\) with P of 3"):
        rotation_count(np.zeros((4, 2)))


def test_order_of_units_and_samples_changes_no_bit() -> None:
    rng = np.random.default_rng(5)
    a = np.cumsum(rng.standard_normal((30, 12, 10)), axis=-1)
    units, samples = rng.permutation(12), rng.permutation(30)
    np.testing.assert_array_equal(rotation_count(a)[:, units], rotation_count(np.ascontiguousarray(a[:, units])))
    for null in nulls.NULLS:
        drawn = nulls.null_counts(a, null, 40, 0)
        np.testing.assert_array_equal(drawn, nulls.null_counts(a[samples], null, 40, 0))
        np.testing.assert_array_equal(drawn[:, units], nulls.null_counts(a[:, units], null, 40, 0))
    measured, drawn = rotation_count(a[0]), nulls.null_counts(a[0], "walk", 99, 0)
    one, other = against_null(measured, drawn), against_null(measured[units], drawn[:, units])
    for name in ("p", "p_max_t", "bh"):
        np.testing.assert_array_equal(one[name][units], other[name])
    np.testing.assert_array_equal(one["average"], other["average"])
    np.testing.assert_array_equal(one["counts"], other["counts"])


def test_nulls_keep_the_sizes_of_increments_and_blocks_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    a = np.cumsum(rng.standard_normal((4, 9)) * np.arange(1, 10), axis=-1)
    steps = np.diff(a, axis=-1)
    flips = nulls.null_trajectories(a, "flip", nulls.draw_numbers("flip", 50, 9, rng))
    np.testing.assert_allclose(np.abs(np.diff(flips, axis=-1)), np.broadcast_to(np.abs(steps), (50, 4, 8)), atol=1e-12)
    np.testing.assert_allclose(flips[..., 0], np.broadcast_to(a[:, 0], (50, 4)))
    gauss = nulls.null_trajectories(a, "walk", nulls.draw_numbers("walk", 20_000, 9, rng))
    ratio = np.diff(gauss, axis=-1).std(axis=0) / np.abs(steps)
    np.testing.assert_allclose(ratio, 1, atol=4 / np.sqrt(2 * 20_000))
    shuffled = nulls.null_trajectories(a, "shuffle", nulls.draw_numbers("shuffle", 5, 9, rng))
    np.testing.assert_array_equal(np.sort(shuffled, axis=-1), np.broadcast_to(np.sort(a, axis=-1), (5, 4, 9)))
    many = np.cumsum(rng.standard_normal((7, 4, 9)), axis=-1)
    whole = nulls.null_counts(many, "walk", 30, 1)
    monkeypatch.setattr(nulls, "BLOCK", 100)
    np.testing.assert_array_equal(whole, nulls.null_counts(many, "walk", 30, 1))
    assert not np.array_equal(whole, nulls.null_counts(many, "walk", 30, 2))


def test_a_walk_is_its_own_null_and_rotating_units_are_found() -> None:
    rng = np.random.default_rng(7)
    a = walks(rng, 60, 32)
    a[:5] = 8 * np.cos(2 * np.pi * 12 * np.arange(32) / 32 + rng.uniform(0, 6, (5, 1)))  # about 12 turns
    a[5:10] = np.linspace(0, 20, 32) + 0.01 * a[5:10]  # hardly one
    drawn = nulls.null_counts(a, "walk", 1999, 0)
    found = against_null(rotation_count(a), drawn)
    assert (found["bh"][:5] == 1).all()
    assert (found["p_max_t"][:10] <= 0.05).all()
    assert (found["bh"][5:10] == -1).all()
    assert (found["bh"][10:] != 0).sum() <= 2
    names = dict(zip(("found", "more", "less", "chance", "max_t"), found["counts"][:5], strict=True))
    assert names["more"] >= 5 <= names["less"]
    assert names["found"] == names["more"] + names["less"]
    assert names["chance"] < 1
    mean, null, sd, p = found["average"]
    np.testing.assert_allclose([mean, null, sd], [rotation_count(a).mean(), drawn.mean(), drawn.mean(axis=1).std()])
    assert p > 0.05  # five up, five down
    turning = 8 * np.cos(2 * np.pi * 12 * np.arange(32) / 32 + np.arange(20)[:, None])
    assert against_null(rotation_count(turning), nulls.null_counts(turning, "walk", 199, 0))["average"][3] == 2 / 200
    share = against_null(rotation_count(walks(rng, 2000, 32)), nulls.null_counts(walks(rng, 2000, 32), "walk", 99, 1))
    assert abs((share["p"] <= 0.1).mean() - 0.1) < 0.03


def test_corrections_for_many_units() -> None:
    p = np.array([0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.324, 0.4262, 0.5719, 0.6528,
                  0.759, 1.0])  # fmt: skip
    assert nulls.benjamini_hochberg(p).tolist() == [True] * 4 + [False] * 11  # Benjamini and Hochberg's own example
    assert nulls.benjamini_hochberg(np.array([p[::-1], np.ones(15)])).sum(axis=1).tolist() == [4, 0]
    assert not nulls.benjamini_hochberg(np.array([np.nan, 0.04])).any()
    assert nulls.benjamini_hochberg(np.array([0.04, 0.05, 0.03])).all()  # a larger k carries the smaller ones
    null = np.random.default_rng(8).standard_normal((999, 50))
    measured = np.zeros(50)
    measured[3] = 9.0
    corrected = nulls.max_t(measured, null)
    assert corrected[3] == 1 / 1000
    assert (np.delete(corrected, 3) > 0.9).all()
    np.testing.assert_allclose(nulls.p_values(measured, null)[3], 2 / 1000)
    mean, sd = null.mean(axis=0), null.std(axis=0)
    edge = np.quantile(np.abs((null - mean) / sd).max(axis=1), 0.95)  # what one unit in 50 must pass: 3.3 sd, not 2
    assert 3 < edge < 3.6
    for side in (-1, 1):
        assert (nulls.max_t(mean + side * (edge + 0.05) * sd, null) <= 0.05).all()
        assert (nulls.max_t(mean + side * (edge - 0.05) * sd, null) > 0.05).all()
    assert nulls.found_by_chance(null) < 0.5
