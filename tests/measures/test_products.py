import jax.numpy as jnp
import numpy as np
import pytest

from jaxdyn import measures
from jaxdyn.measures import nulls

from .samples import ginibre, pieces


def test_values_of_the_methods():
    ranks = [nulls.ginibre_product_effective_rank(512, factors) for factors in (1, 2, 4, 8, 16)]
    np.testing.assert_allclose(ranks, [310, 222, 142, 82, 45], atol=1)
    assert nulls.ginibre_product_effective_rank(4096, 32) == pytest.approx(187, abs=1)
    participations = [nulls.ginibre_product_participation_ratio(512, factors) for factors in (4, 8, 32)]
    np.testing.assert_allclose(participations, [102.1, 56.6, 15.1], rtol=0.03)  # the methods' values are at finite n


def test_products_near_the_identity():
    layers, n = 32, 512
    for scale, share in ((0.05, 0.862), (0.2, 0.289)):
        norms = jnp.full(layers, scale * n**0.5)
        curve = nulls.shifted_product_participation_ratio(jnp.ones(layers), norms, n)
        np.testing.assert_allclose(curve[-1] / n, share, atol=0.005)
        assert np.all(np.diff(curve) < 0)


def test_free_law_of_ginibre_factors_is_their_closed_form():
    n, layers = 64, 5
    curve = nulls.free_product_participation_ratio(jnp.full((layers, 3), n / 2), n)
    np.testing.assert_allclose(curve[:, 0], [n / (k + 1) for k in range(1, layers + 1)], rtol=1e-14)
    unchanged = nulls.free_product_participation_ratio(jnp.full(layers, float(n)), n)
    np.testing.assert_allclose(unchanged, n, rtol=1e-14)  # orthogonal factors cost nothing


def test_monte_carlo_of_products(rng):
    n, factors, draws = 64, 3, 40
    product = np.linalg.multi_dot(list(ginibre(rng, factors, n, n)))
    stack = np.stack([np.linalg.multi_dot(list(ginibre(rng, factors, n, n))) for _ in range(draws)] + [product])
    p = pieces(stack)
    for value, null, finite in (
        (measures.effective_rank(p.singular_values), nulls.ginibre_product_effective_rank(n, factors), 0.02),
        (measures.participation_ratio(p.singular_values), nulls.ginibre_product_participation_ratio(n, factors), 0.02),
        (measures.henrici_normalized(p.schur), nulls.ginibre_product_henrici(factors), 0.01),
        (measures.complex_fraction(p.schur), nulls.ginibre_product_complex_fraction(n, factors), 0.03),
    ):
        error = np.std(value, ddof=1) / np.sqrt(draws)
        assert abs(np.mean(value) - null) < 4 * error + finite * null
        assert error < 0.015 * null


@pytest.mark.parametrize("ratio", [1, 4])
def test_monte_carlo_of_an_expansion(rng, ratio):
    n, draws = 48, 40
    down, up = rng.standard_normal((draws, n, ratio * n)), rng.standard_normal((draws, ratio * n, n))
    value = measures.henrici_normalized(pieces(down @ up).schur)
    error = np.std(value, ddof=1) / np.sqrt(draws)
    assert abs(np.mean(value) - nulls.expansion_henrici(ratio)) < 4 * error + 0.006
    assert error < 0.004


def test_cross_layer_alignment_of_free_and_aligned_factors(rng):
    n, layers = 64, 4
    single = ginibre(rng, n, n)
    s = jnp.linalg.svd(single, compute_uv=False)
    participation = jnp.full(layers, measures.participation_ratio(s))
    aligned = jnp.log(s) * jnp.arange(1, layers + 1)[:, None]  # the same symmetric factor again and again
    ratio = nulls.cross_layer_alignment(aligned, participation)
    np.testing.assert_allclose(ratio[0], 1, rtol=1e-12)
    assert ratio[-1] < 0.9
    product, free = np.eye(n), []
    for _ in range(layers):
        q, r = np.linalg.qr(rng.standard_normal((n, n)))
        product = single @ (q * np.sign(np.diag(r))) @ product
        free.append(np.log(np.linalg.svd(product, compute_uv=False)))
    np.testing.assert_allclose(
        nulls.cross_layer_alignment(jnp.asarray(np.stack(free)), participation), 1, atol=0.12
    )  # one draw at n = 64


def test_refusals():
    with pytest.raises(ValueError, match="factors: got 0"):
        nulls.ginibre_product_effective_rank(8, 0)
    with pytest.raises(ValueError, match=r"ratio: got 0\.5"):
        nulls.expansion_henrici(0.5)
    assert nulls.ginibre_product_complex_fraction(4, 100) == 0
