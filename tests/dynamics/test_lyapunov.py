"""Stretching rates of products with known singular values, and their nulls."""

import numpy as np
import pytest

from jaxdyn.dynamics.lyapunov import NULLS, stretching
from jaxdyn.errors import InputError

N, LAYERS, CONTEXTS = 8, 5, 3


def of(J, **options):
    return stretching(lambda layer: J[layer], range(len(J)), **options)


def test_rates_are_the_logarithms_of_the_products_singular_values(rng):
    J = np.eye(N) + 0.3 * rng.normal(size=(LAYERS, CONTEXTS, N, N))
    found = of(J, draws=2)
    for c in range(CONTEXTS):
        product = np.linalg.multi_dot([J[layer, c] for layer in reversed(range(LAYERS))])
        wanted = np.log(np.linalg.svd(product, compute_uv=False)) / LAYERS
        np.testing.assert_allclose(found.rate[c], wanted, atol=1e-11)
    assert (found.digits > 10).all()
    assert (found.null_sd > 0).all()


def test_identity_layers_have_rate_zero_and_so_have_their_nulls():
    found = of(np.broadcast_to(np.eye(N), (LAYERS, CONTEXTS, N, N)), draws=2)
    for values in (found.rate, found.null_mean, found.null_sd):
        np.testing.assert_allclose(values, 0.0, atol=1e-13)


def test_scaled_rotations_stretch_alike_everywhere_and_so_do_they_turned_at_random(rng):
    c = 0.8
    J = c * np.linalg.qr(rng.normal(size=(LAYERS, CONTEXTS, N, N)))[0]
    found = of(J, draws=2)
    np.testing.assert_allclose(found.rate, np.log(c), atol=1e-13)
    np.testing.assert_allclose(found.null_mean[NULLS.index("N2")], np.log(c), atol=1e-13)
    assert found.null_sd[NULLS.index("N1")].max() > 1e-2  # N1 keeps the trace and breaks the rotation


def test_a_null_of_one_layer_keeps_what_it_says_it_keeps(rng):
    J = rng.normal(size=(1, CONTEXTS, N, N))
    J -= np.trace(J, axis1=-2, axis2=-1)[..., None, None] / N * np.eye(N)  # without a trace N1 keeps J's own
    found = of(J, draws=2)
    np.testing.assert_allclose(found.null_mean, np.broadcast_to(found.rate, (2, CONTEXTS, N)), atol=1e-12)
    two = of(np.concatenate([J, J]), draws=2)
    assert np.abs(two.null_mean - two.rate).max() > 1e-2


def test_the_random_layers_of_n1_stretch_and_read_unrelated_directions(rng):
    """Rank-one layers with a shared direction to read would stretch one direction, however many they are."""
    u, v = np.linalg.qr(rng.normal(size=(N, 2)))[0].T
    J = np.eye(N) + 50 * np.outer(u, v) * np.ones((LAYERS, CONTEXTS, 1, 1))
    found = of(J, draws=2)
    stretched = (found.null_mean[NULLS.index("N1")] > 0.1).sum(axis=-1)
    assert (stretched > 1).all()
    assert ((found.rate > 0.1).sum(axis=-1) == 1).all()


def test_draws_depend_on_layer_context_and_seed_alone(rng):
    J = rng.normal(size=(LAYERS, CONTEXTS, N, N))
    whole, again, other = of(J, draws=2), of(J, draws=2), of(J, draws=2, seed=1)
    np.testing.assert_array_equal(whole.null_mean, again.null_mean)
    assert (whole.null_mean != other.null_mean).all()
    np.testing.assert_array_equal(whole.rate, other.rate)


def test_a_jacobian_that_is_not_finite_spoils_its_own_context_only(rng):
    J = rng.normal(size=(LAYERS, CONTEXTS, N, N))
    J[2, 1, 0, 0] = np.nan
    found = of(J, draws=2)
    assert np.isnan(found.rate).all(axis=1).tolist() == [False, True, False]
    assert np.isnan(found.null_mean).any(axis=(0, 2)).tolist() == [False, True, False]


@pytest.mark.parametrize(("layers", "draws", "match"), [((), 2, "layers: got none"), ((0,), -1, "draws: got -1")])
def test_what_cannot_be_run_is_refused(layers, draws, match):
    with pytest.raises(InputError, match=match):
        stretching(lambda layer: np.eye(N)[None], layers, draws=draws)
