"""Correlation, direction, speed and density on trajectories whose values are known; orders that must not matter."""

import numpy as np
import pytest

from jaxdyn.dynamics import density
from jaxdyn.dynamics.controls import haar, noise_walk, orders, skip_matched
from jaxdyn.dynamics.correlation import correlation_matrix, pair_correlation
from jaxdyn.dynamics.motion import motion
from jaxdyn.dynamics.settings import DynamicsSettings
from tests.dynamics import cases


def pairs(states: np.ndarray, pieces: int = 1):
    return lambda: ((part[:, :-1], part[:, 1:]) for part in np.array_split(states, pieces))


def chunks(states: np.ndarray, pieces: int = 1):
    return lambda: iter(np.array_split(states, pieces))


def cloud(rng: np.random.Generator, samples: int = 40, points: int = 5, width: int = 6) -> np.ndarray:
    return np.cumsum(rng.standard_normal((samples, points, width)), axis=1) + 100 * rng.standard_normal(width)


def white(rng: np.random.Generator, samples: int, width: int) -> np.ndarray:
    """Samples of mean 0 whose covariance is the identity exactly."""
    x = rng.standard_normal((samples, width))
    return np.linalg.qr(x - x.mean(axis=0))[0] * np.sqrt(samples)


def test_correlations_are_pearsons(rng: np.random.Generator) -> None:
    a = cloud(rng)
    found = pair_correlation(pairs(a), len(a))
    expected = [[np.corrcoef(a[:, p, u], a[:, p + 1, u])[0, 1] for u in range(6)] for p in range(4)]
    np.testing.assert_allclose(found, expected, atol=1e-13)
    matrix = correlation_matrix(chunks(a), len(a))
    expected = np.mean([np.corrcoef(a[:, :, u].T) for u in range(6)], axis=0)
    np.testing.assert_allclose(matrix, expected, atol=1e-13)
    np.testing.assert_allclose(np.diag(matrix, 1), found.mean(axis=1), atol=1e-13)


def test_units_that_do_not_vary_are_left_out(rng: np.random.Generator) -> None:
    a = cloud(rng)
    a[:, 2, 1] = 3.0
    found = pair_correlation(pairs(a), len(a))
    assert np.isnan(found[1:3, 1]).all()
    assert np.isfinite(np.delete(found, 1, axis=1)).all()
    with np.errstate(invalid="ignore"):
        each = np.array([np.corrcoef(a[:, :, unit].T) for unit in range(6)])
    np.testing.assert_allclose(correlation_matrix(chunks(a), len(a)), np.nanmean(each, axis=0), atol=1e-13)
    a[:, 0] = 0.1 * np.arange(1, 7)  # its mean is rounded, so its scatter is not 0
    assert np.isnan(pair_correlation(pairs(a), len(a))[0]).all()
    matrix = correlation_matrix(chunks(a), len(a))
    assert np.isnan(matrix[0]).all()
    np.testing.assert_allclose(matrix[1:, 1:], np.nanmean(each, axis=0)[1:, 1:], atol=1e-13)
    assert np.isnan(correlation_matrix(chunks(np.ones((4, 3, 2))), 4)).all()


def test_order_of_units_and_samples_and_pieces_change_no_bit(rng: np.random.Generator) -> None:
    a = cloud(rng, 50, 5, 16)
    units, samples = rng.permutation(16), rng.permutation(50)
    b = np.ascontiguousarray(a[samples][..., units])
    np.testing.assert_array_equal(pair_correlation(pairs(a), 50)[:, units], pair_correlation(pairs(b, 7), 50))
    np.testing.assert_array_equal(correlation_matrix(chunks(a), 50), correlation_matrix(chunks(b, 7), 50))
    for name, values in motion(a[:, :-1], a[:, 1:]).items():
        np.testing.assert_array_equal(values[samples], motion(b[:, :-1], b[:, 1:])[name])
    for name, values in density.density(a, 1.0).items():
        np.testing.assert_array_equal(values[samples], density.density(b, 1.0)[name])


def test_a_linear_residual_network_has_the_correlation_of_its_matrix(rng: np.random.Generator) -> None:
    x = white(rng, 60, 8)
    step = np.eye(8) + 0.4 * rng.standard_normal((8, 8))
    a = np.stack([x, x @ step.T, x @ (step @ step).T], axis=1)
    found = pair_correlation(pairs(a), 60)
    np.testing.assert_allclose(found[0], np.diag(step) / np.linalg.norm(step, axis=1), atol=1e-12)
    second = step @ step
    both = np.einsum("ij,ij->i", step, second) / np.linalg.norm(step, axis=1) / np.linalg.norm(second, axis=1)
    np.testing.assert_allclose(found[1], both, atol=1e-12)
    far = np.diag(second) / np.linalg.norm(second, axis=1)
    np.testing.assert_allclose(correlation_matrix(chunks(a), 60)[0, 2], far.mean(), atol=1e-12)


def test_identity_layers_stand_still(rng: np.random.Generator) -> None:
    a = np.repeat(rng.standard_normal((20, 1, 8)), 4, axis=1)
    moved = motion(a[:, :-1], a[:, 1:])
    assert (moved["velocity"] == 0).all()
    assert (moved["acceleration"][:, :-1] == 0).all()
    np.testing.assert_allclose(moved["cosine"], 1, atol=1e-15)
    assert np.isnan(moved["turn"]).all()
    np.testing.assert_allclose(pair_correlation(pairs(a), 20), 1, atol=1e-15)
    np.testing.assert_allclose(correlation_matrix(chunks(a), 20), 1, atol=1e-14)
    np.testing.assert_array_equal(skip_matched(a + 0.0, 0)[:, :1], a[:, 1:2])


def test_a_rotation_turns_by_its_angle_and_straight_steps_do_not_accelerate() -> None:
    angle = 0.3 * np.arange(6)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=-1)[None]
    moved = motion(circle[:, :-1], circle[:, 1:])
    np.testing.assert_allclose(moved["cosine"], np.cos(0.3))
    np.testing.assert_allclose(moved["velocity"], 2 * np.sin(0.15))
    np.testing.assert_allclose(moved["relative_velocity"], 2 * np.sin(0.15))
    np.testing.assert_allclose(moved["turn"][:, :-1], np.cos(0.3))
    np.testing.assert_allclose(moved["acceleration"][:, :-1], (2 * np.sin(0.15)) ** 2)
    line = np.arange(6.0)[:, None] * np.array([3.0, 4.0])
    straight = motion(line[None, :-1], line[None, 1:])
    np.testing.assert_allclose(straight["velocity"], 5)
    np.testing.assert_allclose(straight["acceleration"][:, :-1], 0, atol=1e-12)
    np.testing.assert_allclose(straight["turn"][:, :-1], 1)


def test_density_of_gaussian_one_hot_and_flat_states(rng: np.random.Generator) -> None:
    found = density.density(3 * rng.standard_normal((4, 5, 4000)), 3.0)
    for name, value in density.GAUSSIAN.items():
        error = found[name].std() / np.sqrt(20)
        assert abs(found[name].mean() - value) < 3.5 * error + (0.005 if name == "kurtosis" else 0.0005)
    np.testing.assert_allclose(found["mean_abs"].mean(), 3 * np.sqrt(2 / np.pi), rtol=0.01)
    np.testing.assert_allclose(found["share_above"].mean(), density.GAUSSIAN["share_above_rms"], atol=0.005)
    one_hot = density.density(np.eye(8)[None], 0.5)
    np.testing.assert_allclose(one_hot["participation"], 1 / 8)
    np.testing.assert_allclose(one_hot["share_above"], 1 / 8)
    flat = density.density(np.array([[[2.0, -2.0] * 4]]), 1.0)
    np.testing.assert_allclose(flat["participation"], 1)
    np.testing.assert_allclose(flat["kurtosis"], 1)
    np.testing.assert_allclose(flat["mean_abs_relative"], 1)


def test_controls_keep_what_they_say(rng: np.random.Generator) -> None:
    a = cloud(rng, 200, 4, 32)
    steps = np.linalg.norm(np.diff(a, axis=1), axis=-1)
    np.testing.assert_allclose(np.linalg.norm(skip_matched(a, 0) - a[:, :-1], axis=-1), steps)
    walk = noise_walk(a, 0)
    np.testing.assert_array_equal(walk[:, 0], a[:, 0])
    np.testing.assert_allclose(np.linalg.norm(np.diff(walk, axis=1), axis=-1), steps)
    noise = skip_matched(a, 0) - a[:, :-1]
    assert abs((noise * np.diff(a, axis=1)).sum(axis=-1).mean() / (steps**2).mean()) < 4 / np.sqrt(32 * 600)
    assert not np.array_equal(skip_matched(a, 0), skip_matched(a, 1))
    assert not np.array_equal(skip_matched(a, 0, 0), skip_matched(a, 0, 1))
    q = haar(32, 0)
    np.testing.assert_allclose(q @ q.T, np.eye(32), atol=1e-13)
    order = orders(4, 32, 0)
    assert (order[0] == np.arange(32)).all()
    assert all(sorted(row) == list(range(32)) for row in order.tolist())
    assert (order[1] != order[0]).sum() > 20


def test_every_control_gives_what_it_is_made_for(rng: np.random.Generator, tmp_path) -> None:
    """A continuous trajectory in which each unit has its own scale, and a second, unrelated set of weights."""
    steps = rng.standard_normal((150, 6, 24)) * 0.3
    steps[:, 0] *= 4
    trained = np.cumsum(steps, axis=1) * np.linspace(0.5, 2, 24)
    random = rng.standard_normal(trained.shape)
    settings = DynamicsSettings(unit=64)
    found = cases.run_stage("continuity", cases.inputs(tmp_path, np.stack([trained, random]), settings))
    mean = {row: float(mean_steps(found, row).mean()) for row in settings.rows}
    np.testing.assert_allclose(
        found["unit_correlation"].sel(control="trained"), pair_correlation(pairs(trained), 150), atol=0
    )
    np.testing.assert_allclose(
        found["unit_correlation"].sel(control="random"), pair_correlation(pairs(random), 150), atol=0
    )
    rotated = trained @ haar(24, 0)
    np.testing.assert_allclose(
        found["unit_correlation"].sel(control="rotated"), pair_correlation(pairs(rotated), 150), atol=1e-12
    )
    assert abs(mean["shuffled"]) < 0.05 > abs(mean["random"])
    assert abs(mean["trained"] - mean["skip"]) < 0.05 < mean["skip"]  # this walk *is* what the skip null assumes
    matrix = found["correlation_matrix"]
    np.testing.assert_allclose(np.diagonal(matrix.sel(control="trained"), 1), mean_steps(found, "trained"), atol=1e-12)
    assert np.isnan(found["cosine"].sel(control="rotated")).all()
    speed = found["velocity"]
    np.testing.assert_allclose(speed.sel(control="skip"), speed.sel(control="trained"), rtol=1e-12)
    assert found["crosses"].values.tolist() == ["attention", "MLP"] * 2 + ["attention"]


def mean_steps(found, control: str) -> np.ndarray:
    return found["mean_correlation"].sel(control=control).values


@pytest.mark.parametrize("controls", [(), ("skip",)])
def test_controls_that_were_not_asked_for_are_not_there(rng: np.random.Generator, tmp_path, controls) -> None:
    given = cases.inputs(tmp_path, cloud(rng, 20)[None], DynamicsSettings(controls=controls, unit=9))
    found = cases.run_stage("density", given)
    assert found.sizes["control"] == 1 + len(controls)
    every = np.abs(np.concatenate(list(given.states.chunks()))).mean(axis=-1)
    assert found.attrs["tau"] == pytest.approx(every.mean())
    np.testing.assert_allclose(found["mean_abs"][0], every.mean(axis=0))
    np.testing.assert_allclose(found["mean_abs_sd"][0], every.std(axis=0))


@pytest.mark.parametrize("name", ["density", "continuity", "information", "rotation"])
def test_a_whole_stage_is_the_same_to_the_bit_in_any_order(rng: np.random.Generator, tmp_path, name: str) -> None:
    """Units and samples in another order, samples in other units of work."""
    a = cloud(rng, 60, 5, 12)
    units, samples = rng.permutation(12), rng.permutation(60)
    quick = {"controls": (), "draws": 99, "sample_draws": 19, "bins": 6}
    one = cases.run_stage(name, cases.inputs(tmp_path / "one", a[None], DynamicsSettings(unit=16, **quick)))
    b = a[samples][..., units]
    other = cases.run_stage(name, cases.inputs(tmp_path / "other", b[None], DynamicsSettings(unit=25, **quick)))
    for key, values in one.data_vars.items():
        if key.endswith("_shuffled"):
            continue  # this null shuffles samples by their place
        for dim in {"coordinate", "measured_unit"} & set(values.dims):
            values = values.isel({dim: units})
        np.testing.assert_array_equal(values, other[key], err_msg=key)
