"""Teleport of a whole tiny model: what it stores is what its own states do, and each option and control bites."""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdyn.activations import capture, pad
from jaxdyn.dynamics import teleport as teleport_module
from jaxdyn.dynamics.flow_decoder import DecoderSystem, data_of
from jaxdyn.dynamics.teleport import contexts_of, of_activations, on_plane, random_displacement, spread, teleport
from jaxdyn.dynamics.teleport_dataset import NAMES
from jaxdyn.dynamics.teleport_plane import principal_plane
from jaxdyn.dynamics.teleport_settings import CONTROLS, TeleportSettings
from jaxdyn.errors import InputError
from tests.jacobians.cases import relative
from tests.models.tiny import random_ids, tiny_llama

GRID = 3
SETTINGS = TeleportSettings(grid=GRID, layers=(0, 1), contexts=2, radii=(1e-4, 1.0), rate_draws=0)


@cache
def captured(seed=0):
    _, model = tiny_llama(hidden_size=16, intermediate_size=24, num_hidden_layers=2, seed=seed)
    ids = random_ids(model, 9, 6, seed=1)
    return model, capture(model, pad([row[: 4 + i % 3] for i, row in enumerate(ids)]))


def samples(seed=0):
    return of_activations(*captured(seed))


@cache
def found():
    return teleport(samples(), SETTINGS, initial=[samples(1)])


def test_what_is_stored_is_what_the_models_states_do():
    given, ds = samples(), found()
    model, chosen = given.model, spread(9, 2)
    assert ds["context"].values.tolist() == chosen.tolist() == [0, 8]
    context = contexts_of(given, chosen)
    system, data = DecoderSystem(model.architecture), data_of(model.params, context)
    step = jax.jit(system.step)
    for number, start in enumerate((0, 1)):
        plane = principal_plane(given.states(start))
        natural = np.asarray(context.states[start])
        points = plane.lift(plane.grid(GRID))
        state = system.begin(data, jnp.asarray(start), jnp.asarray(np.tile(points, (2, 1, 1))))
        for layer in range(start, 2):
            state = step(data, jnp.asarray(layer), state)
        ended = np.asarray(state.x)
        at = ds.sel(teleport_control="grid").isel(start=number)
        distance = np.linalg.norm(points - natural[:, None], axis=-1)
        apart = np.linalg.norm(ended - np.asarray(context.states[-1])[:, None], axis=-1)
        np.testing.assert_allclose(at["contraction"][:, -1], np.median(apart / distance, axis=-1), rtol=1e-10)
        home = natural[:, None] - points
        np.testing.assert_array_equal(at["inward_share"][:, -1], (((ended - points) * home).sum(-1) > 0).mean(-1))
        arrows = ds.isel(start=number).sel(horizon="last block")
        wanted = plane.coordinates(ended)
        assert relative(np.stack([arrows["arrow_x"], arrows["arrow_y"]], -1), wanted) < 1e-10
        assert relative(np.stack([arrows["grid_x"], arrows["grid_y"]], -1), plane.grid(GRID)) < 1e-12
        np.testing.assert_allclose(at["contraction"][:, start], 1.0, rtol=1e-13)
        assert np.isnan(at["contraction"][:, :start]).all()


def test_every_variable_is_there_with_its_unit_and_dimensions():
    ds = found()
    assert set(ds.data_vars) == set(NAMES)
    for name, (text, dims, unit) in NAMES.items():
        assert ds[name].dims == dims
        assert ds[name].attrs["long_name"] == text
        assert ds[name].attrs["units"] == unit
    assert np.isnan(ds["stretching_rate_null"]).all()  # no draws were asked for
    assert np.isfinite(ds["stretching_rate"]).all()
    assert ds["teleport_control"].values.tolist() == ["grid", *CONTROLS]


def test_a_small_displacement_goes_where_the_jacobians_send_it_and_a_large_one_does_not():
    ds = found().isel(stop=-1)
    small, large = (ds.sel(radius=r) for r in SETTINGS.radii)
    assert small["sweep_linear_error_update"].max() < 1e-2
    assert large["sweep_linear_error_update"].min() > 5 * small["sweep_linear_error_update"].max()
    np.testing.assert_allclose(small["sweep_contraction"], small["sweep_linear_contraction"], rtol=1e-2)
    assert ((ds["linear_radius_update"] > 1e-4) | (ds["linear_radius_update"] == np.inf)).all()
    grid = found().sel(teleport_control="grid").isel(stop=-1)
    np.testing.assert_allclose(large["sweep_contraction"], grid["contraction"], rtol=1e-10)


def test_the_controls_are_what_they_say(rng):
    by_control = found()["contraction"].isel(stop=-1)
    measured = by_control.sel(teleport_control="grid").values
    for control in CONTROLS:
        assert np.isfinite(by_control.sel(teleport_control=control)).all()
        assert np.abs(by_control.sel(teleport_control=control).values - measured).min() > 1e-6, control
    assert np.isnan(found()["plane_rotation"].sel(teleport_control="random-displacement")).all()
    scale = rng.uniform(1, 3, 16)
    displacement = rng.normal(size=(2, 500, 16))
    drawn = random_displacement(displacement, scale, rng)
    lengths = [np.linalg.norm(one / scale, axis=-1) for one in (displacement, drawn)]
    np.testing.assert_allclose(*lengths, rtol=1e-12)
    direction = drawn / scale / lengths[0][..., None]
    assert np.abs(direction.mean(axis=(0, 1))).max() < 0.03
    np.testing.assert_allclose((direction**2).mean(axis=(0, 1)), 1 / 16, atol=0.01)


def test_points_keep_what_lies_off_the_plane_of_the_mean_or_of_the_natural_state(rng):
    plane = principal_plane(rng.normal(size=(20, 5)))
    natural, c = rng.normal(size=(2, 5)), plane.grid(2)
    for off_plane, part in (("mean", np.tile(plane.mean, (2, 1))), ("natural", natural)):
        points = on_plane(plane, c, natural, off_plane)
        np.testing.assert_allclose(plane.coordinates(points), np.tile(c, (2, 1, 1)), atol=1e-12)
        projector = np.eye(5) - plane.axes.T @ plane.axes
        wanted = np.broadcast_to((part @ projector)[:, None], points.shape)
        np.testing.assert_allclose(points @ projector, wanted, atol=1e-12)


@pytest.mark.parametrize(
    "change", [{"scaling": "all"}, {"off_plane": "natural"}, {"seed": 1}, {"random_planes": 2}, {"threshold": 1e-3}]
)
def test_every_option_changes_what_is_found(change):
    short = replace(SETTINGS, controls=("random-plane",))
    one, other = (teleport(samples(), replace(short, **given)) for given in ({}, change))
    assert not one.drop_vars("context").equals(other.drop_vars("context"))


def test_the_layers_of_the_paper_are_scaled_to_the_models_depth():
    assert TeleportSettings().sites(32) == (0, 7, 15, 23, 31)
    assert TeleportSettings().sites(8) == (0, 2, 3, 5, 7)
    assert TeleportSettings().sites(2) == (0, 1)
    assert TeleportSettings(layers=(3, 1, 3)).sites(4) == (1, 3)
    assert spread(3, 9).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"grid": 1}, "grid: got 1"),
        ({"contexts": 0}, "contexts: got 0"),
        ({"scaling": "half"}, "scaling: got 'half'"),
        ({"off_plane": "zero"}, "off_plane: got 'zero'"),
        ({"controls": ("frozen",)}, "controls: got 'frozen'"),
        ({"radii": (1.0, 0.5)}, "radii: got"),
        ({"radii": (0.0, 0.5)}, "radii: got"),
        ({"threshold": 0.0}, "threshold: got 0.0"),
        ({"rate_draws": -1}, "rate_draws: got -1"),
    ],
)
def test_settings_that_cannot_be_run_are_refused(change, match):
    with pytest.raises(InputError, match=match):
        TeleportSettings(**change)


def test_layers_and_samples_that_are_not_there_are_refused():
    with pytest.raises(InputError, match="layers: got 2"):
        teleport(samples(), replace(SETTINGS, layers=(2,)))
    model, acts = captured()
    with pytest.raises(InputError, match="replaces the last token"):
        of_activations(model, replace(acts, rule="all"))


def test_a_layer_where_the_samples_span_no_plane_is_left_out_unless_it_was_named():
    def same_at_the_first(layer):
        return np.ones((9, 16)) if layer == 0 else samples().states(layer)

    given = replace(samples(), states=same_at_the_first)
    short = replace(SETTINGS, layers=(), controls=(), radii=(0.5,))
    ds = teleport(given, short)
    assert ds["start"].values.tolist() == [1]
    assert ds.attrs["left_out"] == "0"
    with pytest.raises(InputError, match="lie on a line or a point"):
        teleport(given, replace(short, layers=(0,)))
    with pytest.raises(InputError, match="lie on a line or a point"):
        teleport(replace(given, states=lambda layer: np.ones((9, 16))), short)


def test_one_program_serves_all_layers_controls_and_radii():
    teleport(samples(), replace(SETTINGS, layers=(0,), controls=()))
    before = teleport_module.follow._cache_size()  # now, not of an earlier test: programs are let go of between tests
    assert before > 0
    teleport(samples(), replace(SETTINGS, layers=(1,), radii=(0.2, 0.5)))
    assert teleport_module.follow._cache_size() == before
