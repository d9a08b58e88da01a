"""Curvature, arc length, principal paths, intrinsic dimension: shapes whose values are known."""

import numpy as np
import pytest

from jaxdyn.dynamics.curve import arc_length, curvature, orthogonal_null, straightness
from jaxdyn.dynamics.intrinsic import matched_gaussian, two_nn
from jaxdyn.dynamics.path import isotropic_walk
from jaxdyn.dynamics.settings import DynamicsSettings
from tests.dynamics import cases


def test_a_circle_has_the_curvature_of_its_radius_in_any_dimension(rng: np.random.Generator) -> None:
    angle = np.sort(rng.uniform(0, 3, 12))
    plane = np.linalg.qr(rng.standard_normal((7, 2)))[0]
    path = 2.5 * np.stack([np.cos(angle), np.sin(angle)], axis=-1) @ plane.T + rng.standard_normal(7)
    np.testing.assert_allclose(curvature(path)[1:-1], 1 / 2.5, rtol=1e-9)
    assert np.isnan(curvature(path)[[0, -1]]).all()
    chords = 5 * np.sin(np.diff(angle) / 2)
    np.testing.assert_allclose(arc_length(path), np.concatenate([[0], np.cumsum(chords)]), atol=1e-12)
    np.testing.assert_allclose(straightness(path), 5 * np.sin((angle[-1] - angle[0]) / 2) / chords.sum())


def test_a_line_is_straight_and_orthogonal_steps_are_the_null(rng: np.random.Generator) -> None:
    line = np.array([0.0, 1.0, 3.0, 4.0])[:, None] * np.array([3.0, 4.0])
    np.testing.assert_allclose(curvature(line)[1:-1], 0, atol=1e-9)
    assert straightness(line) == pytest.approx(1)
    lengths = np.array([1.0, 2.0, 0.5])
    path = np.concatenate([np.zeros((1, 3)), np.cumsum(np.diag(lengths), axis=0)])
    straight, bent = orthogonal_null(path)
    np.testing.assert_allclose(bent, curvature(path))
    np.testing.assert_allclose(straight, straightness(path))
    walk = isotropic_walk(np.cumsum(rng.standard_normal((9, 4000)), axis=0), 0)
    straight, bent = orthogonal_null(walk)
    np.testing.assert_allclose(curvature(walk)[1:-1], bent[1:-1], rtol=4 / np.sqrt(4000))
    assert abs(straightness(walk) - straight) < 4 / np.sqrt(4000)


def test_the_path_is_that_of_an_svd_and_the_walk_has_none_of_its_direction(rng: np.random.Generator, tmp_path) -> None:
    drift = np.arange(6)[:, None] * np.eye(10)[3] * 2
    states = drift + 0.3 * rng.standard_normal((50, 6, 10))
    settings = DynamicsSettings(controls=(), unit=16)
    found = cases.run_stage("path", cases.inputs(tmp_path, states[None], settings)).sel(control="trained")
    pooled = states.reshape(-1, 10)
    pooled = pooled - pooled.mean(axis=0)
    _, size, axes = np.linalg.svd(pooled, full_matrices=False)
    np.testing.assert_allclose(found["variance_share"], size**2 / (size**2).sum(), rtol=1e-9)
    mean = states.mean(axis=0) - states.mean(axis=(0, 1))
    np.testing.assert_allclose(np.abs(found["path"]), np.abs(mean @ axes.T), atol=1e-9)
    scatter = np.sqrt((((states - states.mean(axis=0)) @ axes.T) ** 2).mean(axis=0))
    np.testing.assert_allclose(found["scatter"], scatter, atol=1e-9)
    np.testing.assert_allclose(found["curvature"][1:-1], curvature(states.mean(axis=0))[1:-1], rtol=1e-9)
    assert float(found["straightness"]) > 0.95 > 0.55 > float(found["walk_straightness"])
    assert float(found["variance_share"][0]) > 0.9 > float(found["walk_variance_share"][0])
    assert (np.diff(found["path"][:, 0]) > 0).all()  # the largest loading is positive


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_planted_dimensions_are_found(dimension: int) -> None:
    rng = np.random.default_rng(dimension)
    inside = rng.uniform(0, 1, (1200, dimension))
    bent = np.concatenate([np.sin(2 * inside), np.cos(2 * inside), inside**2], axis=1)
    states = bent @ rng.standard_normal((3 * dimension, 20)) / np.sqrt(3 * dimension)
    found, error, distinct = two_nn(states)
    assert distinct == 1200
    assert error == pytest.approx(found / np.sqrt(1080))
    assert abs(found - dimension) < 3 * error + 0.06 * dimension  # edges bring 5 dimensions down a little


def test_equal_states_count_once_and_order_does_not_matter(rng: np.random.Generator) -> None:
    states = rng.standard_normal((60, 3))
    found = two_nn(states)
    assert two_nn(np.concatenate([states, states[:20]])) == found
    assert two_nn(states[rng.permutation(60)]) == found
    np.testing.assert_allclose(two_nn(5 * states[:, ::-1] + 2)[0], found[0], rtol=1e-9)
    assert np.isnan(two_nn(states[:9])[0])
    far = np.sort(np.linalg.norm(states[:, None] - states[None], axis=-1), axis=1)
    ratio = np.sort(np.log(far[:, 2] / far[:, 1]))[:54]
    fit = ratio @ -np.log(1 - np.arange(1, 55) / 60) / (ratio @ ratio)
    np.testing.assert_allclose(found[0], fit, rtol=1e-9)
    assert two_nn(states, discard=0.3)[0] != found[0]


def test_of_many_samples_evenly_spaced_ones_are_read(rng: np.random.Generator, tmp_path) -> None:
    states = rng.standard_normal((1, 30, 2, 3))
    read = cases.stored(tmp_path, states, DynamicsSettings(controls=(), unit=8))
    np.testing.assert_array_equal(read.at_point(1, most=30), states[0, :, 1])
    np.testing.assert_array_equal(read.at_point(1, most=4), states[0, [0, 9, 19, 29], 1])


def test_the_gaussian_null_has_the_covariance(rng: np.random.Generator) -> None:
    states = rng.standard_normal((400, 3)) @ np.diag([3.0, 1.0, 0.1]) + 5
    drawn = np.concatenate([matched_gaussian(states, rng) for _ in range(20)])
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(states.T), atol=0.25)
    np.testing.assert_allclose(drawn.mean(axis=0), states.mean(axis=0), atol=0.15)
