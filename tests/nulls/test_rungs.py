"""Rungs N0 to N3 and N6 of arrays of matrices, against scipy's decompositions, closed forms and constructed inputs."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdyn import measures, nulls
from tests.measures.samples import ginibre, orthogonal, pieces


def haar_stack(rng, *lead, n):
    return np.stack([orthogonal(rng, n) for _ in range(int(np.prod(lead)))]).reshape(*lead, n, n)


def test_named_measures_are_those_of_a_reference_decomposition(rng):
    matrices = np.eye(6) + 0.8 * ginibre(rng, 2, 2, 6, 6)
    expected = jax.jit(partial(measures.measure_all, kreiss=False))(**pieces(matrices)._asdict())
    for measure in measures.MEASURES:
        if measure.name == "kreiss_scaled":  # dear, and one more call of what test_pseudospectra.py tests
            continue
        value = nulls.measured(jnp.asarray(matrices), measure.name)
        np.testing.assert_allclose(value, expected[measure.name], rtol=1e-8, atol=1e-12, err_msg=measure.name)


@pytest.mark.parametrize("complex_part", [0.0, 1.0])
def test_measures_of_products_are_those_of_the_plain_product(rng, complex_part):
    factors = ginibre(rng, 3, 2, 8, 8) + complex_part * 1j * ginibre(rng, 3, 2, 8, 8)
    factors = factors if complex_part else factors.real
    running = [factors[0], factors[1] @ factors[0], factors[2] @ factors[1] @ factors[0]]
    values = np.linalg.svd(np.stack(running), compute_uv=False)
    for name, removed in (("effective_rank", 0), ("effective_rank_without_4", 4)):
        expected = measures.effective_rank(jnp.asarray(values), removed=removed)
        np.testing.assert_allclose(nulls.measured(jnp.asarray(factors), f"product_{name}"), expected, rtol=1e-10)
    share = values**2 / np.sum(values**2, axis=-1, keepdims=True)
    participation = 1 / np.sum(share**2, axis=-1)
    np.testing.assert_allclose(
        nulls.measured(jnp.asarray(factors), "product_participation_ratio"), participation, rtol=1e-10
    )
    single = np.linalg.svd(factors, compute_uv=False)
    cost = np.sum(8 * np.sum(single**4, axis=-1) / np.sum(single**2, axis=-1) ** 2 - 1, axis=0)
    law = nulls.free_law(jnp.asarray(factors))
    np.testing.assert_allclose(law.free, 8 / (1 + cost), rtol=1e-10)
    np.testing.assert_allclose(law.ratio, participation[-1] * (1 + cost) / 8, rtol=1e-10)
    np.testing.assert_allclose(
        law.outlier, np.max(single[..., 0] ** 2 / np.sum(single**2, axis=-1), axis=0), rtol=1e-10
    )


def test_overlap_of_neighbours_finds_what_was_planted(rng):
    n, u, v = 24, orthogonal(rng, 24), orthogonal(rng, 24)
    values = np.linspace(3, 0.1, n)
    handed_on = np.stack([u * values @ v.T, v * values @ u.T])[:, None]  # the second reads what the first writes
    turned = np.stack([u * values @ v.T, orthogonal(rng, n) * values @ orthogonal(rng, n).T])[:, None]
    overlap = nulls.measured(jnp.asarray(handed_on), "cross_layer_overlap")
    assert np.isnan(overlap[0, 0])
    assert overlap[1, 0] > 0.95  # the trace is taken out, so not exactly 1
    assert nulls.measured(jnp.asarray(turned), "cross_layer_overlap")[1, 0] < 0.4


def test_n0_of_a_matrix_is_its_closed_form_and_of_a_product_the_ginibre_law(rng):
    n, layers = 24, 4
    matrices = jnp.asarray(ginibre(rng, layers, 8, n, n))
    closed = nulls.n0(matrices, "henrici_normalized", shift=0.0)
    assert closed.exact
    np.testing.assert_allclose(closed.mean, 2**-0.5, rtol=1e-12)
    drawn = nulls.n0(matrices, "product_participation_ratio", shift=0.0, draws=6)
    error = drawn.draws[:, -1].std() / np.sqrt(48)
    assert abs(drawn.draws[:, -1].mean() - n / (layers + 1)) < 4 * error + 0.05 * n / (layers + 1)  # finite n
    assert error < 0.05 * n / (layers + 1)
    shifted = nulls.n0(matrices, lambda M: np.trace(M, axis1=-2, axis2=-1) / n, shift=1.0, draws=3)
    assert np.all(np.abs(shifted.mean - 1) < 0.2)


def constructed(rng, n=24, samples=32):
    """Matrices that N1 itself could have drawn: t I + U S V^T."""
    values = np.sort(rng.exponential(size=(samples, n)))[:, ::-1]
    u, v = haar_stack(rng, samples, n=n), haar_stack(rng, samples, n=n)
    return np.eye(n) + (u * values[:, None, :]) @ v


MEASURED = ("henrici_normalized", "antisymmetric_share", "self_alignment", "mean_rotation_angle")


def test_what_n1_could_have_drawn_has_no_excess(rng):
    matrices = jnp.asarray(constructed(rng))
    for name in MEASURED:
        null = nulls.n1(matrices, name, draws=6)
        found = nulls.excess(nulls.measured(matrices, name), null, replicates=np.arange(32), level=0.9973)
        assert found.low < 0 < found.high, name  # 3 standard errors
        assert found.high - found.low < 0.6 * null.mean.mean(), name


def test_planted_orientation_is_recovered_with_its_sign(rng):
    n, samples = 24, 12
    values = np.sort(rng.exponential(size=(samples, n)))[:, ::-1]
    u = haar_stack(rng, samples, n=n)
    symmetric = np.eye(n) + (u * values[:, None, :]) @ np.swapaxes(u, 1, 2)
    shift = np.roll(np.eye(n), 1, axis=0)
    nilpotent = np.triu(shift.T, 1) * values[:, None, ::-1]
    nilpotent = u @ nilpotent @ np.swapaxes(u, 1, 2)
    for matrices, sign in ((symmetric, -1), (nilpotent, 1)):
        null = nulls.n1(jnp.asarray(matrices), "henrici_normalized", draws=4)
        found = nulls.excess(
            nulls.measured(jnp.asarray(matrices), "henrici_normalized"), null, replicates=np.arange(12)
        )
        assert sign * found.value > 0.05
        assert sign * (found.low if sign > 0 else found.high) > 0
    aligned = nulls.n1(jnp.asarray(symmetric), "self_alignment", draws=4)
    assert np.all(nulls.measured(jnp.asarray(symmetric), "self_alignment") - aligned.mean > 0.5)


def test_n2_keeps_each_layer_and_kills_their_alignment(rng):
    n, layers, samples = 24, 4, 8
    values = np.sort(rng.exponential(size=n))[::-1]
    u, v = orthogonal(rng, n), orthogonal(rng, n)
    one = u * values @ v.T
    matrices = jnp.asarray(np.broadcast_to(np.stack([one, one.T] * 2)[:, None], (layers, samples, n, n)))
    for name in ("henrici", "effective_rank", "complex_fraction"):
        null = nulls.n2(matrices, name, draws=2)
        expected = np.broadcast_to(nulls.measured(matrices, name), null.draws.shape)
        np.testing.assert_allclose(null.draws, expected, rtol=1e-9)
    product = nulls.measured(matrices, "product_effective_rank")[-1]
    null = nulls.n2(matrices, "product_effective_rank", draws=4)
    found = nulls.excess(product, nulls.Null("N2", null.draws[:, -1]), replicates=np.arange(samples))
    assert found.high < -0.2 * product.mean()  # it reads what it wrote: fewer directions than free layers have
    assert np.unique(null.draws[:, -1].round(6)).size == 4 * samples  # every sample and draw in bases of its own


def test_free_law_holds_for_haar_factors_and_not_for_outliers(rng):
    n, layers, samples = 24, 4, 8
    flat = rng.uniform(0.7, 1.3, (layers, samples, n))
    outlier = flat.copy()
    outlier[..., 0] = np.sqrt(np.sum(outlier[..., 1:] ** 2, axis=-1))  # half of the energy in one direction
    u, v = haar_stack(rng, layers, samples, n=n), haar_stack(rng, layers, samples, n=n)
    law, broken = (nulls.free_law(jnp.asarray((u * s[..., None, :]) @ v)) for s in (flat, outlier))
    assert law.holds.all()
    assert not broken.holds.any()
    assert abs(law.ratio.mean() - 1) < 4 * law.ratio.std() / np.sqrt(samples) + 0.03
    assert broken.ratio.mean() > 1.5
    null = nulls.n2(jnp.asarray((u * outlier[..., None, :]) @ v), "product_participation_ratio", draws=4)
    found = nulls.excess(broken.measured, nulls.Null("N2", null.draws[:, -1]), replicates=np.arange(samples))
    assert found.low < 0 < found.high  # where the law fails the same null, drawn, does not
    exact = nulls.n3(jnp.asarray((u * flat[..., None, :]) @ v))
    np.testing.assert_allclose(exact.mean[-1], law.free, rtol=1e-12)
    assert np.all(nulls.n3(jnp.asarray(flat[..., None] * u), "product_alignment_ratio").mean == 1)
    with pytest.raises(ValueError, match="use n2 for others"):
        nulls.n3(jnp.asarray(flat[..., None] * u), "product_effective_rank")


def test_draws_repeat_and_depend_on_the_seed(rng):
    matrices = jnp.asarray(ginibre(rng, 2, 2, 6, 6))
    for rung in (partial(nulls.n0, shift=0.0), nulls.n1, nulls.n2):
        first, again, other = (rung(matrices, lambda M: M[..., 0, 0], draws=2, seed=seed).draws for seed in (3, 3, 4))
        assert np.array_equal(first, again)
        assert not np.any(np.isclose(first, other, rtol=1e-6))
    with pytest.raises(ValueError, match="draws: got 0"):
        nulls.n1(matrices, "henrici", draws=0)
    with pytest.raises(ValueError, match="measure: got 'henricy'; allowed"):
        nulls.measured(matrices, "henricy")
    with pytest.raises(ValueError, match="needs layers in front"):
        nulls.measured(matrices[0, 0], "product_effective_rank")


def test_halves_by_article_give_the_standard_error(rng):
    articles = np.repeat(np.arange(40), 2)
    effect = rng.standard_normal(40)[articles] + 0.3 * rng.standard_normal(80)
    floor = nulls.n6(effect, articles, splits=400)
    by_article = effect.reshape(40, 2).mean(axis=1)
    assert floor.sd == pytest.approx(by_article.std(ddof=1) / np.sqrt(40), rel=0.1)
    assert nulls.n6(effect, np.arange(80), splits=400).sd < 0.85 * floor.sd  # parted articles pretend to be more
    matrices = jnp.asarray(ginibre(rng, 2, 80, 5, 5))
    of_mean = nulls.n6_of_mean(matrices, articles, "spectral_norm", splits=4)
    assert of_mean.draws.shape == (4, 2)
    assert np.all(of_mean.sd > 0)
    linear = nulls.n6_of_mean(matrices, articles, lambda M: jnp.trace(M, axis1=-2, axis2=-1), splits=4)
    expected = nulls.n6(np.trace(matrices, axis1=-2, axis2=-1), articles, splits=4)
    np.testing.assert_allclose(linear.draws, expected.draws, rtol=1e-8)
    with pytest.raises(ValueError, match="1 articles"):
        nulls.n6(effect, np.zeros(80))


def test_haar_bases_are_the_same_for_the_same_shape():
    turned = [nulls.rotated(jnp.broadcast_to(jnp.diag(jnp.arange(4.0) * s), (2, 3, 4, 4)), 1) for s in (1.0, 2.0)]
    np.testing.assert_allclose(2 * turned[0], turned[1], rtol=1e-12)
    assert jax.eval_shape(partial(nulls.rotated, seed=0), jnp.zeros((2, 3, 4, 4), jnp.float32)).dtype == jnp.float32
