"""Planes through the data, and how far their points are from it."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from jaxdyn.dynamics.teleport_plane import canonical, nearest, principal_plane, random_plane, scale_of, spacing
from jaxdyn.errors import InputError

S, D = 60, 12


def planted(rng):
    """Samples near a plane through a mean, and the plane's axes."""
    axes = np.linalg.qr(rng.normal(size=(D, 2)))[0].T
    c = rng.normal(size=(S, 2)) * [5.0, 2.0]
    return rng.normal(size=D) + c @ axes + 1e-6 * rng.normal(size=(S, D)), axes


def test_the_principal_plane_is_the_planted_one_and_its_grid_spans_the_data(rng):
    states, axes = planted(rng)
    plane = principal_plane(states, "none")
    np.testing.assert_allclose(plane.axes.T @ plane.axes, axes.T @ axes, atol=1e-5)
    np.testing.assert_allclose(plane.axes @ plane.axes.T, np.eye(2), atol=1e-14)
    assert plane.explained > 1 - 1e-10
    c = plane.coordinates(states)
    np.testing.assert_allclose(np.cov(c.T)[0, 1], 0.0, atol=1e-10)
    assert c[:, 0].var() > c[:, 1].var()
    grid = plane.grid(7)
    assert len(np.unique(grid, axis=0)) == 49
    first, second = grid.reshape(7, 7, 2)[..., 0], grid.reshape(7, 7, 2)[..., 1]
    assert (np.diff(first, axis=1) > 0).all()  # the first axis varies fastest
    assert (np.diff(second, axis=0) > 0).all()
    assert (np.diff(second, axis=1) == 0).all()
    np.testing.assert_allclose([grid.min(0), grid.max(0)], [c.min(0), c.max(0)])
    np.testing.assert_allclose(plane.coordinates(plane.lift(grid)), grid, atol=1e-12)
    np.testing.assert_allclose(plane.lift(c), states, atol=1e-4)


def test_the_plane_does_not_depend_on_the_order_of_the_samples_and_turns_with_the_units(rng):
    states, _ = planted(rng)
    one, other = principal_plane(states), principal_plane(states[rng.permutation(S)])
    for name in ("mean", "scale", "axes", "low", "high"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    order = rng.permutation(D)
    permuted = principal_plane(states[:, order])
    np.testing.assert_allclose(permuted.axes, one.axes[:, order], atol=1e-10)
    np.testing.assert_array_equal(canonical(states[::-1]), canonical(states))


def test_a_massive_coordinate_is_the_plane_unless_it_is_scaled(rng):
    states = rng.normal(size=(S, D))
    states[:, 3] = 5000 * (1 + 0.1 * rng.normal(size=S))
    raw, scaled, every = (principal_plane(states, scaling) for scaling in ("none", "massive", "all"))
    assert np.abs(raw.axes[0, 3]) > 0.999
    deviation = states.std(axis=0)
    assert scaled.scale[3] == pytest.approx(deviation[3] / np.median(deviation))
    assert (np.delete(scaled.scale, 3) == 1).all()
    assert np.abs(scaled.axes[0, 3]) < 0.9
    np.testing.assert_allclose(every.scale, deviation)
    wanted = np.linalg.eigh(np.corrcoef(states.T))[1][:, :-3:-1].T
    np.testing.assert_allclose(every.axes.T @ every.axes, wanted.T @ wanted, atol=1e-10)
    assert (scale_of(states[:, :3], "massive") == 1).all()
    states[:, 5] = 2.0
    assert scale_of(states, "all")[5] == 1


def test_a_random_plane_goes_through_the_mean_along_the_datas_range(rng):
    states, _ = planted(rng)
    plane = random_plane(states, np.random.default_rng(1))
    again = random_plane(states, np.random.default_rng(1))
    np.testing.assert_array_equal(plane.axes, again.axes)
    np.testing.assert_allclose(plane.axes @ plane.axes.T, np.eye(2), atol=1e-14)
    np.testing.assert_allclose(plane.mean, states.mean(axis=0))
    assert plane.explained < principal_plane(states).explained


def test_distances_to_the_data_are_those_of_scipy(rng):
    states, points, scale = rng.normal(size=(S, D)), 3 * rng.normal(size=(20, D)), rng.uniform(1, 2, D)
    np.testing.assert_allclose(nearest(states, points, scale), cdist(points / scale, states / scale).min(axis=1))
    between = cdist(states / scale, states / scale) + np.diag(np.full(S, np.inf))
    assert spacing(states, scale) == pytest.approx(np.median(between.min(axis=1)))


@pytest.mark.parametrize(
    ("states", "scaling", "match"),
    [
        (np.eye(2, 5), "none", "texts: got 2 samples"),
        (np.outer(np.arange(5.0), np.ones(4)), "none", "lie on a line"),
        (np.ones((5, 4)), "all", "lie on a line"),
        (np.eye(5), "some", "scaling: got 'some'"),
    ],
)
def test_data_without_a_plane_is_refused(states, scaling, match):
    with pytest.raises(InputError, match=match):
        principal_plane(states, scaling)
