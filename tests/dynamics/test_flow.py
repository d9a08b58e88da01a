"""Teleport through networks whose flow is known in closed form."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdyn.dynamics.flow import Frame, follow
from jaxdyn.dynamics.teleport_measures import linear_radius, plane_map, rotation, summarise

D, DEPTH, CONTEXTS, POINTS = 6, 4, 2, 40


@dataclass(frozen=True)
class Linear:
    """x -> A_l x + b_l, with data (A, b)."""

    depth: int = DEPTH

    def begin(self, data, first, x):
        return x

    def step(self, data, layer, state):
        A, b = data
        return jnp.einsum("ij,cpj->cpi", A[layer], state) + b[layer]

    def read(self, state):
        return state


@dataclass(frozen=True)
class Square(Linear):
    """x -> x + a x^2, element by element."""

    depth: int = 1

    def step(self, data, layer, state):
        return state + data * state**2


def orthogonal(rng, n):
    return np.linalg.qr(rng.normal(size=(n, n)))[0]


def network(rng, A, b=None, *, first=0, scale=None, axes=None, points=None, natural=None):
    """Teleport random points through x -> A_l x + b_l; returns (seen, natural, points)."""
    A = np.broadcast_to(A, (DEPTH, D, D))
    b = np.zeros((DEPTH, D)) if b is None else np.broadcast_to(b, (DEPTH, D))
    natural = rng.normal(size=(CONTEXTS, D)) if natural is None else natural
    points = rng.normal(size=(CONTEXTS, POINTS, D)) if points is None else points
    frame = Frame(np.zeros(D), np.ones(D) if scale is None else scale, np.eye(2, D) if axes is None else axes)
    seen = follow(Linear(), (A, b), jnp.asarray(first), jnp.asarray(natural), jnp.asarray(points), frame)
    return jax.tree.map(np.asarray, seen), natural, points


@pytest.mark.parametrize("first", [0, 2])
def test_a_scaled_rotation_contracts_by_its_scale_in_every_layer(first, rng):
    c = 0.7
    seen, _, _ = network(rng, c * orthogonal(rng, D), first=first)
    found = summarise(seen, first)
    layers = np.arange(DEPTH + 1 - first)
    wanted = np.concatenate([np.full(first, np.nan), c**layers])
    for name in ("contraction", "linear_contraction"):
        np.testing.assert_allclose(found[name], np.tile(wanted[:, None], CONTEXTS), rtol=1e-13)
    assert np.nanmax(found["linear_error"]) < 1e-13
    np.testing.assert_allclose(found["contraction_relative"][first:], 1.0, rtol=1e-13)  # norm(n) shrinks alike


def test_the_flow_in_the_plane_of_a_rotation_is_that_rotation(rng):
    angle, c = 0.5, 0.9
    axes = orthogonal(rng, D)[:2]
    turn = c * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    A = np.eye(D) + axes.T @ (turn - np.eye(2)) @ axes
    seen, _, points = network(rng, A, axes=axes)
    at = points @ axes.T
    for site in range(DEPTH + 1):
        np.testing.assert_allclose(seen.plane[site], at, atol=1e-13)
        np.testing.assert_allclose(seen.tangent_plane[site], at, atol=1e-13)
        at = at @ turn.T
    found = summarise(seen, 0)
    wanted = np.tile(angle * np.arange(DEPTH + 1)[:, None], CONTEXTS)
    np.testing.assert_allclose(found["plane_rotation"], wanted, atol=1e-12)
    np.testing.assert_allclose(found["plane_rotation_linear"], wanted, atol=1e-12)


def test_identity_layers_keep_every_distance_and_have_no_flow(rng):
    seen, _, _ = network(rng, np.eye(D))
    found = summarise(seen, 0)
    np.testing.assert_array_equal(found["contraction"], 1.0)
    for name in ("arrow_length", "natural_length", "inward_share", "inward_constant", "inward_moving", "linear_error"):
        np.testing.assert_array_equal(found[name], 0.0)
    np.testing.assert_array_equal(seen.plane, np.broadcast_to(seen.plane[0], seen.plane.shape))


def test_a_constant_flow_has_the_inward_share_of_its_null_and_contracts_nothing(rng):
    seen, _, _ = network(rng, np.eye(D), rng.normal(size=D))
    found = summarise(seen, 0)
    np.testing.assert_allclose(found["contraction"], 1.0, rtol=1e-13)
    np.testing.assert_array_equal(found["inward_excess"], 0.0)
    np.testing.assert_array_equal(found["inward_excess_plane"], 0.0)
    assert 0.1 < found["inward_share"][1:].mean() < 0.9


def test_a_pull_towards_the_natural_state_points_every_arrow_inwards_and_a_push_none(rng):
    for c, share in ((0.8, 1.0), (1.2, 0.0)):
        seen, _, _ = network(rng, c * np.eye(D), natural=np.zeros((CONTEXTS, D)))
        found = summarise(seen, 0)
        for name in ("inward_share", "inward_moving", "inward_share_plane", "inward_excess"):
            np.testing.assert_array_equal(found[name][1:], share)
        np.testing.assert_allclose(found["arrow_length"][1], abs(c - 1), rtol=1e-12)


def test_a_turned_displacement_counts_as_inward_though_nothing_contracts(rng):
    """An inward arrow is not a shorter distance: a quarter turn keeps all lengths."""
    turn = np.kron(np.eye(D // 2), [[0.0, -1.0], [1.0, 0.0]])
    seen, _, _ = network(rng, turn, natural=np.zeros((CONTEXTS, D)))
    found = summarise(seen, 0)
    np.testing.assert_allclose(found["contraction"], 1.0, rtol=1e-13)
    np.testing.assert_array_equal(found["inward_share"][1], 1.0)


def test_lengths_are_taken_in_the_scale_of_the_frame(rng):
    scale = np.ones(D)
    scale[0] = 1e6
    A = np.diag([5.0, *[0.5] * (D - 1)])
    raw = summarise(network(rng, A)[0], 0)["contraction"][1]
    scaled = summarise(network(rng, A, scale=scale)[0], 0)["contraction"][1]
    assert (raw > 1).all()
    np.testing.assert_allclose(scaled, 0.5, rtol=1e-6)


def test_measures_are_those_of_the_states_themselves(rng):
    A, b = rng.normal(size=(DEPTH, D, D)), rng.normal(size=(DEPTH, D))
    seen, natural, points = network(rng, A, b)
    found = summarise(seen, 0)
    z, n, J = points, natural, np.eye(D)
    for layer in range(DEPTH):
        z, n, J = z @ A[layer].T + b[layer], n @ A[layer].T + b[layer], A[layer] @ J
        home, offset = natural[:, None] - points, points - natural[:, None]
        length = np.linalg.norm(offset, axis=-1)
        wanted = {
            "inward_share": (((z - points) * home).sum(-1) > 0).mean(-1),
            "inward_constant": (((n - natural)[:, None] * home).sum(-1) > 0).mean(-1),
            "inward_moving": (((z - n[:, None] - offset) * home).sum(-1) > 0).mean(-1),
            "contraction": np.median(np.linalg.norm(z - n[:, None], axis=-1) / length, axis=-1),
            "linear_contraction": np.median(np.linalg.norm(offset @ J.T, axis=-1) / length, axis=-1),
            "arrow_length": np.median(np.linalg.norm(z - points, axis=-1) / length, axis=-1),
            "natural_length": np.linalg.norm(n - natural, axis=-1) / np.median(length, axis=-1),
        }
        wanted["contraction_relative"] = (
            wanted["contraction"] * np.linalg.norm(natural, axis=-1) / np.linalg.norm(n, axis=-1)
        )
        for name, value in wanted.items():
            np.testing.assert_allclose(found[name][layer + 1], value, rtol=1e-11, err_msg=name)


def test_the_linear_prediction_of_a_square_fails_where_the_algebra_says(rng):
    """x + x^2 from 0: the displacement d becomes d + d^2, J = I predicts d; the error passes e at d = e / (1 - e)."""
    radii = np.geomspace(1e-3, 1e3, 25)
    natural, offset = np.zeros((CONTEXTS, D)), np.ones((CONTEXTS, 3, D))
    frame = Frame(np.zeros(D), np.ones(D), np.eye(2, D))
    run = jax.jit(lambda r: follow(Square(), jnp.asarray(1.0), jnp.asarray(0), natural, r * offset, frame))
    found = [summarise(jax.tree.map(np.asarray, run(r)), 0) for r in radii]
    error = np.array([one["linear_error"][1] for one in found])
    np.testing.assert_allclose(error, np.tile((radii / (1 + radii))[:, None], CONTEXTS), rtol=1e-12)
    np.testing.assert_allclose([one["linear_error_update"][1] for one in found], 1.0, rtol=1e-12)
    for threshold in (0.5, 0.2):
        crossed = linear_radius(radii, error, threshold)
        np.testing.assert_allclose(crossed, threshold / (1 - threshold), rtol=0.03)


def test_the_radius_is_zero_before_the_sweep_infinite_beyond_it_and_unknown_where_the_error_is():
    radii = np.array([0.1, 1.0, 10.0])
    error = np.array([[0.6, 0.1, 0.1, np.nan], [0.7, 0.2, 0.4, 0.1], [0.8, 0.3, 0.6, 0.9]])
    found = linear_radius(radii, error, 0.5)
    np.testing.assert_allclose(found, [0.0, np.inf, 10**0.5, np.nan])


def test_the_map_of_the_plane_is_the_least_squares_fit(rng):
    before, after = rng.normal(size=(CONTEXTS, 30, 2)), rng.normal(size=(3, CONTEXTS, 30, 2))
    found = plane_map(before, after)
    for k in range(3):
        for c in range(CONTEXTS):
            rows = np.column_stack([before[c], np.ones(30)])
            wanted = np.linalg.lstsq(rows, after[k, c], rcond=None)[0][:2].T
            np.testing.assert_allclose(found[k, c], wanted, atol=1e-12)
    line = np.stack([np.arange(30.0), 2 * np.arange(30.0)], axis=-1)
    assert np.isnan(plane_map(np.stack([line, line]), after)).all()
    assert rotation(np.array([[0.0, -2.0], [2.0, 0.0]])) == pytest.approx(np.pi / 2)
