import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdyn import measures, propagate
from jaxdyn.measures import nulls

from .measures.samples import ginibre, orthogonal

EPS = float(np.finfo(np.float64).eps)

cumulative = jax.jit(propagate.cumulative, static_argnames=("rank", "method"))
start = jax.jit(propagate.start, static_argnames="rank")
step = jax.jit(propagate.step)
log_singular_values = jax.jit(propagate.log_singular_values, static_argnames="method")
stretching_rates = jax.jit(propagate.stretching_rates, static_argnames=("method", "least_digits"))
effective_rank = jax.jit(partial(measures.effective_rank, log=True))
participation_ratio = jax.jit(partial(measures.participation_ratio, log=True))


def high_precision(factors):
    """Logarithms of the singular values of the product, by 60-digit arithmetic."""
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workdps(60):
        product = mpmath.eye(factors.shape[-1])
        for factor in factors:
            product = mpmath.matrix(factor.tolist()) * product
        values = mpmath.svd_r(product, compute_uv=False)
        return np.array(sorted((float(mpmath.log(s)) for s in values), reverse=True))


def plain_qr(factors):
    """Logarithms of the accumulated |r_ii| of the usual QR recursion, without sorting."""
    q, logs = np.eye(factors.shape[-1]), 0
    for factor in factors:
        q, r = np.linalg.qr(factor @ q)
        logs = logs + np.log(np.abs(np.diag(r)))
    return logs


def dense(product):
    """The product as one matrix, where its range fits a float."""
    return np.asarray((product.left * jnp.exp(product.log_scale)[..., None, :]) @ product.right)


def test_short_products_are_the_plain_product(rng):
    factors = ginibre(rng, 4, 2, 6, 6)  # 4 layers, batch of 2
    product = start(jnp.asarray(factors[0]))
    expected = factors[0]
    for factor in factors[1:]:
        product = step(product, factor)
        expected = factor @ expected
    np.testing.assert_allclose(dense(product), expected, atol=1e-13)
    identity = np.swapaxes(product.left, -1, -2) @ np.asarray(product.left)
    np.testing.assert_allclose(identity, np.broadcast_to(np.eye(6), identity.shape), atol=1e-14)
    assert product.factors == 4
    last, curve = cumulative(jnp.asarray(factors))
    np.testing.assert_allclose(dense(last), expected, atol=1e-13)
    for layer in range(4):
        part = np.linalg.multi_dot([np.eye(6), *factors[layer::-1, 0]])
        np.testing.assert_allclose(
            np.exp(curve[layer, 0]), np.linalg.svd(part, compute_uv=False), rtol=1e-9, atol=1e-13
        )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_singular_values_against_sixty_digits(rng, dtype):
    factors = ginibre(rng, 24, 24, 24).astype(dtype)
    truth = high_precision(factors.astype(np.float64))
    assert truth[0] - truth[-1] > -np.log(EPS) + 4  # beyond the reach of a plain product even in float64
    product, curve = cumulative(jnp.asarray(factors))
    values = log_singular_values(product, method="jacobi")
    assert values.dtype == dtype
    error = np.abs(values - truth)
    assert np.all(error <= product.error)  # the estimate holds
    assert np.all(product.error < 2e5 * np.finfo(dtype).eps)  # and says something
    for method, tolerance in (("jacobi", 0), ("svd", 24 * np.finfo(dtype).eps * np.exp(truth[0] - truth))):
        value = np.asarray(log_singular_values(product, method=method))
        assert np.all(np.abs(value - truth) <= np.asarray(product.error) + tolerance), method
    rank = effective_rank(jnp.asarray(truth))
    np.testing.assert_allclose(effective_rank(curve[-1]), rank, rtol=1e4 * np.finfo(dtype).eps)


def test_diagonals_of_plain_qr_are_not_the_singular_values(rng):
    # 1.4: at n = 24 and 24 layers their effective rank is too high, 5.38 against 3.05 in one case
    factors = ginibre(rng, 24, 10, 24, 24)
    true = effective_rank(cumulative(jnp.asarray(factors))[1][-1])
    plain = effective_rank(jnp.asarray(np.stack([plain_qr(factors[:, k]) for k in range(10)])))
    assert np.mean(plain) > 1.25 * np.mean(true)
    assert np.sum(plain > true) >= 8


def test_known_rates_over_a_range_no_float_holds(rng):
    n, layers = 12, 40
    bases = [orthogonal(rng, n) for _ in range(layers + 1)]
    rates = np.linspace(1, -19, n)  # 40 layers: from e^40 to e^-760
    factors = np.stack([bases[k + 1] @ np.diag(np.exp(rates)) @ bases[k].T for k in range(layers)])
    product, _ = cumulative(jnp.asarray(factors))
    found, kept = stretching_rates(product)
    known = np.asarray(kept) >= 1
    assert known[:8].all()
    np.testing.assert_allclose(found[known], rates[known], atol=1e-2)
    np.testing.assert_allclose(found[:4], rates[:4], rtol=1e-8)
    assert np.all(np.diff(kept[known]) <= 0.1)  # digits are lost from the top down
    np.testing.assert_array_equal(np.isnan(found), ~known)
    strict, _ = stretching_rates(product, least_digits=8)
    assert np.isnan(strict).sum() > np.isnan(found).sum()
    by_svd, svd_kept = stretching_rates(product, method="svd")
    assert np.isnan(by_svd).sum() > np.isnan(found).sum()
    assert np.all(svd_kept <= kept)


def test_float32_loses_the_rates_it_cannot_hold(rng):
    n = 6
    rates = np.array([0.0, -1, -2, -18, -19, -20])  # condition e^20 a factor, far above 1/eps of float32
    bases = [orthogonal(rng, n) for _ in range(6)]
    factors = np.stack([bases[k + 1] @ np.diag(np.exp(rates)) @ bases[k].T for k in range(5)]).astype(np.float32)
    found, _ = stretching_rates(cumulative(jnp.asarray(factors))[0])
    np.testing.assert_allclose(found[:3], rates[:3], atol=1e-4)
    assert np.all(np.isnan(found[3:]))


def test_curve_of_ginibre_products_is_the_closed_form(rng):
    n, layers, draws = 48, 6, 6
    _, curve = cumulative(jnp.asarray(ginibre(rng, layers, draws, n, n)))
    participation = participation_ratio(curve)
    entropy = effective_rank(curve)
    for layer in range(layers):
        expected = nulls.ginibre_product_participation_ratio(n, layer + 1)
        np.testing.assert_allclose(np.mean(participation[layer]), expected, rtol=0.08)  # 6 draws at n = 48
        expected = nulls.ginibre_product_effective_rank(n, layer + 1)
        np.testing.assert_allclose(np.mean(entropy[layer]), expected, rtol=0.05)


def test_products_near_the_identity_follow_the_free_law(rng):
    n, layers, scale = 48, 16, 0.2
    noise = scale * ginibre(rng, layers, 4, n, n)
    _, curve = cumulative(jnp.asarray(np.eye(n) + noise))
    participation = np.mean(participation_ratio(curve), axis=1)
    norms = jnp.asarray(np.linalg.norm(noise, axis=(-2, -1)))
    law = np.mean(nulls.shifted_product_participation_ratio(jnp.ones((layers, 4)), norms, n), axis=1)
    np.testing.assert_allclose(participation, law, rtol=0.06)
    single = jnp.linalg.svd(np.eye(n) + noise, compute_uv=False)
    ratio = nulls.cross_layer_alignment(curve, measures.participation_ratio(single))
    np.testing.assert_allclose(np.mean(ratio, axis=1), 1, atol=0.06)


def test_truncation_keeps_the_leading_directions(rng):
    factors = ginibre(rng, 3, 10, 10)
    first = start(jnp.asarray(factors[0]), rank=4)
    u, s, vh = np.linalg.svd(factors[0])
    cut = (u[:, :4] * s[:4]) @ vh[:4]
    np.testing.assert_allclose(dense(first), cut, atol=1e-14)
    last, curve = cumulative(jnp.asarray(factors), rank=4)
    assert curve.shape == (3, 4)
    np.testing.assert_allclose(dense(last), factors[2] @ factors[1] @ cut, atol=1e-13)
    # cutting again after each step changes nothing: the rank is 4 already
    again = propagate.truncate(step(propagate.truncate(step(first, factors[1]), 4), factors[2]), 4)
    np.testing.assert_allclose(dense(again), dense(last), atol=1e-13)
    with pytest.raises(ValueError, match="rank: got 11; allowed: 1 to 10"):
        propagate.start(jnp.asarray(factors[0]), rank=11)


def test_singular_factor_and_nan_stay_in_their_matrix(rng):
    factors = ginibre(rng, 4, 3, 6, 6)
    factors[1, 0, :, 2] = 0  # singular
    factors[1, 1, 0, 0] = np.nan
    product, _ = cumulative(jnp.asarray(factors))
    for method in ("svd", "jacobi"):
        values = log_singular_values(product, method=method)
        np.testing.assert_array_equal(np.isnan(values).any(1), [False, True, False])
        clean = np.linalg.multi_dot(list(factors[::-1, 2]))
        np.testing.assert_allclose(np.exp(values[2]), np.linalg.svd(clean, compute_uv=False), rtol=1e-11)
        singular = np.linalg.multi_dot(list(factors[::-1, 0]))
        np.testing.assert_allclose(np.exp(values[0]), np.linalg.svd(singular, compute_uv=False), rtol=1e-11, atol=1e-15)
    rates, kept = stretching_rates(product)
    assert np.isnan(rates[0, -1])
    assert np.isfinite(rates[0, :5]).all()
    assert kept[0, -1] == 0


def test_product_with_a_zero_factor_is_zero(rng):
    factors = ginibre(rng, 4, 2, 6, 6)
    factors[1, 0] = 0
    product, curve = cumulative(jnp.asarray(factors))
    assert np.all(curve[1:, 0] == -np.inf)
    assert np.all(log_singular_values(product, method="jacobi")[0] == -np.inf)
    assert np.all(np.isfinite(curve[:, 1]))
    cut = propagate.truncate(product, 3)
    assert np.all(cut.log_scale[0] == -np.inf)
    assert np.all(np.isfinite(cut.log_scale[1]))


def test_batch_and_single_agree(rng):
    factors = jnp.asarray(ginibre(rng, 4, 2, 6, 6))
    _, together = cumulative(factors)
    for i in range(2):
        np.testing.assert_allclose(together[:, i], cumulative(factors[:, i])[1], rtol=1e-11)


def test_method_is_checked(rng):
    with pytest.raises(ValueError, match="method: got 'qr'; allowed"):
        propagate.log_singular_values(propagate.start(jnp.eye(2)), method="qr")  # pyright: ignore[reportArgumentType]


def test_a_batch_on_a_cpu_ends():
    """Two LAPACK calls on whole batches waited for each other for ever; so this runs in a process of its own."""
    code = """
import jax
jax.config.update("jax_enable_x64", True)
from jaxdyn.propagate import cumulative
print(cumulative(jax.random.normal(jax.random.key(1), (8, 16, 128, 128)) / 128**0.5)[1].shape)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=180, check=True)
    assert done.stdout.strip() == "(8, 16, 128)"
