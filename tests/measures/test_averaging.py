import jax.numpy as jnp
import numpy as np

from jaxdyn import measures

from .samples import ginibre


def test_equal_matrices_survive_and_orthogonal_ones_do_not(rng):
    a = ginibre(rng, 6, 6)
    energy = np.linalg.norm(a) ** 2
    np.testing.assert_allclose(measures.surviving_energy(jnp.asarray(a), jnp.asarray(energy)), 1, rtol=1e-14)
    units = np.eye(36).reshape(36, 6, 6)
    np.testing.assert_allclose(
        measures.surviving_energy(jnp.asarray(units.mean(0)), jnp.asarray(1.0)), 1 / 36, rtol=1e-14
    )
    first, second = units[:18].mean(0), units[18:].mean(0)
    assert measures.surviving_energy_split(jnp.asarray(first), jnp.asarray(second), jnp.asarray(1.0)) == 0


def test_split_halves_have_no_sampling_bias(rng):
    common, noise, samples, repeats = ginibre(rng, 8, 8), 3.0, 10, 400
    stack = common + noise * ginibre(rng, repeats, samples, 8, 8)
    square = np.mean(np.sum(stack**2, axis=(-2, -1)), axis=-1)
    plain = measures.surviving_energy(jnp.asarray(stack.mean(1)), jnp.asarray(square)) * square
    first, second = jnp.asarray(stack[:, :5].mean(1)), jnp.asarray(stack[:, 5:].mean(1))
    split = measures.surviving_energy_split(first, second, jnp.asarray(square)) * square
    truth = np.linalg.norm(common) ** 2
    error = np.std(split, ddof=1) / np.sqrt(repeats)
    assert abs(np.mean(split) - truth) < 4 * error
    bias = noise**2 * 8 / samples  # noise^2 norm(G)^2 / N = 7.2
    assert abs(np.mean(plain) - truth - bias) < 4 * np.std(plain, ddof=1) / np.sqrt(repeats)
    assert bias > 10 * error
