"""Every surrogate by name: what it keeps, what it changes; effects on products; the study."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import jaxdyn
from jaxdyn import surrogates
from jaxdyn.jacobians import jacobian_stack
from jaxdyn.measures import effective_rank, henrici
from jaxdyn.surrogates import controls
from jaxdyn.surrogates.split import above_blocks
from tests.measures.samples import ginibre, orthogonal

N = 20


@pytest.fixture
def blocks(rng):
    return jnp.asarray(np.eye(N) + 0.7 * ginibre(rng, 2, 3, N, N))


def singular(matrices):
    return np.linalg.svd(np.asarray(matrices), compute_uv=False)


def eigen(matrices):
    return np.linalg.eigvals(np.asarray(matrices))


def moduli(matrices):
    return -np.sort(-np.abs(eigen(matrices)), axis=-1)


def test_what_each_keeps(blocks):
    on = "A"  # the block itself is in the tests below
    prepared = surrogates.prepare(blocks, on=on)
    eye = np.eye(N)
    M = np.asarray(blocks) - (on == "A") * eye
    made = {
        name: np.asarray(surrogates.surrogate(prepared, name, alpha=0.3 if name.endswith("schur") else None))
        - (on == "A") * eye
        for name in surrogates.SURROGATES
    }
    np.testing.assert_allclose(made["actual"], M, atol=1e-15)
    t = np.trace(M, axis1=-2, axis2=-1)[..., None] / N
    for name in ("schur", "normal", "complex-schur", "complex-normal", "n-permuted", "n-gaussian", "n-without-leading"):
        np.testing.assert_allclose(moduli(made[name]), moduli(M), atol=1e-8, err_msg=name)  # condition x 1e-15
        assert np.max(np.abs(made[name] - M)) > 0.05, name
    for name in ("n-permuted", "n-gaussian", "n-without-leading"):
        departure = [henrici(jaxdyn.decompose(jnp.asarray(one)).T) for one in (M, made[name])]
        np.testing.assert_allclose(*departure, rtol=1e-9, err_msg=name)
    for name in ("normal", "complex-normal", "own-vectors"):
        np.testing.assert_allclose(singular(made[name]), moduli(M), atol=1e-12, err_msg=name)
    shifted = -np.sort(-np.abs(eigen(M) - t), axis=-1)
    np.testing.assert_allclose(singular(made["n1-of-normal"] - t[..., None] * eye), shifted, atol=1e-12)
    for name in ("n1", "n1-of-normal"):
        assert np.max(np.abs(made[name] - M)) > 0.1
    np.testing.assert_allclose(singular(made["n1"] - t[..., None] * eye), singular(M - t[..., None] * eye), atol=1e-12)
    u, s, vh = np.linalg.svd(M)
    np.testing.assert_allclose(u * moduli(M)[..., None, :] @ vh, made["own-vectors"], atol=1e-12)
    np.testing.assert_allclose(np.swapaxes(vh, -1, -2) * s[..., None, :] @ vh, made["polar"], atol=1e-12)
    np.testing.assert_allclose(made["symmetrised"], (M + np.swapaxes(M, -1, -2)) / 2, atol=1e-15)


def test_controls_of_n_keep_the_spectrum_to_the_bit_of_the_form(blocks):
    prepared = surrogates.prepare(blocks)
    split = prepared.split
    plain = split._replace(vectors=jnp.broadcast_to(jnp.eye(N), split.vectors.shape))  # so that forms are compared
    keys = controls.matrix_keys(prepared.places, 0)
    place = np.asarray(above_blocks(split.normal))
    old = np.asarray(split.above)
    made = {
        "permuted": controls.permuted_above(plain, keys),
        "gaussian": controls.gaussian_above(plain, keys),
        "leading": controls.without_leading_above(plain, top=2),
    }
    for name, form in made.items():
        new = np.where(place, form, 0)
        assert np.array_equal(np.where(place, 0, form), np.asarray(split.normal + split.inside)), (
            name
        )  # to 2e-15 and better
        np.testing.assert_allclose(np.linalg.norm(new, axis=(-2, -1)), np.linalg.norm(old, axis=(-2, -1)), rtol=1e-13)
        assert not np.any(np.isclose(new[place], old[place], rtol=1e-6).mean() > 0.2)
    for new, was, where in zip(*(a.reshape(-1, N, N) for a in (np.asarray(made["permuted"]), old, place)), strict=True):
        np.testing.assert_array_equal(np.sort(new[where]), np.sort(was[where]))
    direction = np.outer(np.arange(N) < N // 2, np.arange(N) >= N // 2) * 1.0  # strictly upper, of rank one
    planted = plain._replace(above=jnp.asarray(np.where(place, 0.01 * old + direction * place, 0)))
    left = controls.without_leading_above(planted, top=1) - planted.normal - planted.inside
    shares = [values[..., 0] ** 2 / np.sum(values**2, axis=-1) for values in map(singular, (planted.above, left))]
    assert np.all(shares[0] > 0.9)
    assert np.all(shares[1] < 0.5)
    with pytest.raises(ValueError, match="top: got 0"):
        controls.without_leading_above(split, top=0)


def test_schur_interventions_of_block_and_update_are_one(blocks):
    for name, same in (
        ("normal", True),
        ("schur", True),
        ("n-permuted", True),
        ("own-vectors", False),
        ("polar", False),
    ):
        alpha = 0.3 if name == "schur" else None
        of_J, of_A = (
            surrogates.surrogate(surrogates.prepare(blocks, on=on, order="real"), name, alpha=alpha) for on in "JA"
        )
        if name == "n-permuted":  # of forms that may differ in the last digit: their ranks, not their entries
            of_J, of_A = (np.linalg.norm(one, axis=(-2, -1)) for one in (of_J, of_A))
        assert np.allclose(of_J, of_A, atol=1e-10) == same, name


def test_options_matter_and_refusals(blocks):
    prepared = surrogates.prepare(blocks)
    kept = surrogates.surrogate(prepared, "normal", keep_norm=True)
    norms = [np.linalg.norm(one, axis=(-2, -1)) for one in (kept, blocks, surrogates.surrogate(prepared, "normal"))]
    np.testing.assert_allclose(norms[0], norms[1], rtol=1e-12)
    assert np.all(norms[2] < 0.95 * norms[1])
    first, again, other = (surrogates.surrogate(prepared, "n-gaussian", seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)
    turned = surrogates.reordered(prepared, "modulus", descending=False)
    assert not np.allclose(surrogates.surrogate(turned, "normal"), surrogates.surrogate(prepared, "normal"))
    same = surrogates.surrogate(surrogates.prepare(blocks, descending=False), "normal")
    np.testing.assert_allclose(surrogates.surrogate(turned, "normal"), same, atol=1e-10)
    two = [surrogates.surrogate(prepared, "n-without-leading", top=top) for top in (1, 5)]
    assert not np.allclose(*two)
    for name, options, said in (
        ("norm", {}, "name: got 'norm'"),
        ("schur", {}, "alpha, top: got None"),
        ("normal", {"alpha": 0.5}, "alpha, top: got 0.5"),
        ("normal", {"top": 2}, "top for 'n-without-leading'"),
    ):
        with pytest.raises(ValueError, match=said):
            surrogates.surrogate(prepared, name, **options)
    with pytest.raises(ValueError, match="on: got 'B'"):
        surrogates.prepare(blocks, on="B")
    broken = surrogates.prepare(blocks.at[0, 1, 0, 0].set(jnp.nan))
    made = surrogates.surrogate(broken, "normal")
    assert np.isnan(made[0, 1]).all()
    assert np.isfinite(made[0, 0]).all()


def test_effects_are_split_where_the_answer_is_known(rng):
    layers, samples, n = 3, 6, 24
    bases = np.stack([orthogonal(rng, n) for _ in range(samples)])
    values = np.exp(rng.standard_normal((layers, samples, n)))
    shared = (bases * np.sort(values)[..., None, :]) @ np.swapaxes(bases, -1, -2)  # aligned layer by layer
    turned = np.stack([[orthogonal(rng, n) for _ in range(samples)] for _ in range(layers)])
    apart = turned @ shared @ np.swapaxes(turned, -1, -2)
    flat = (bases * np.sqrt(np.sort(values))[..., None, :]) @ np.swapaxes(bases, -1, -2)
    aligned, free, flatter = (surrogates.product_ranks(jnp.asarray(one), draws=6) for one in (shared, apart, flat))
    for split in (surrogates.effect_on_effective_rank, surrogates.effect_on_participation_ratio):
        effect = split(aligned, free)  # only the alignment goes
        np.testing.assert_allclose(effect.total, effect.single + effect.alignment, atol=1e-12)
        assert effect.alignment.mean() > 0.2
        assert abs(effect.single.mean()) < 4 * effect.single.std() / np.sqrt(samples)
        assert split(aligned, flatter).single.mean() > 0.4  # flatter singular values
        np.testing.assert_allclose(split(aligned, aligned), 0, atol=1e-12)
    plain = np.linalg.svd(shared[2] @ shared[1] @ shared[0], compute_uv=False)
    np.testing.assert_allclose(aligned.effective_rank, effective_rank(jnp.asarray(plain)), rtol=1e-9)


def test_sites():
    found = surrogates.layer_sets(5, ("all", "early", "late", "each"))
    assert {name: np.flatnonzero(chosen).tolist() for name, chosen in found.items()} == {
        "all": [0, 1, 2, 3, 4], "early": [0, 1], "late": [3, 4], **{str(one): [one] for one in range(5)}
    }  # fmt: skip
    for sites, layers in (((), 3), (("middle",), 3), (("early",), 1)):
        with pytest.raises(ValueError, match="sites: got"):
            surrogates.layer_sets(layers, sites)


def test_the_study_is_a_table_of_products(blocks):
    settings = surrogates.SurrogateSettings(
        names=("schur", "normal", "n1"), alphas=(0.0, 0.5), sites=("all", "late"), draws=2, seed=3
    )
    told = []
    table = surrogates.surrogate_study(blocks, settings, progress=lambda *done: told.append(done))
    assert table["surrogate"].values.tolist() == ["actual", "schur 0", "schur 0.5", "normal", "n1"]
    assert told[-1] == (10, 10)
    normal = surrogates.surrogate(surrogates.prepare(blocks), "normal")
    mixed = np.linalg.svd(normal[1] @ blocks[0], compute_uv=False)
    at = table.sel(surrogate="normal")
    np.testing.assert_allclose(at["effective_rank"].sel(site="late"), effective_rank(mixed), rtol=1e-8)
    np.testing.assert_allclose(table["effect"], table["effect_single"] + table["effect_alignment"], atol=1e-12)
    np.testing.assert_allclose(
        at["effect"], np.log(at["effective_rank"] / table["effective_rank"].sel(surrogate="actual")), atol=1e-12
    )
    ratio = np.linalg.norm(normal, axis=(-2, -1)) / np.linalg.norm(blocks, axis=(-2, -1))
    np.testing.assert_allclose(at["norm_ratio"], ratio.mean(axis=0), rtol=1e-9)
    assert surrogates.surrogate_study(blocks, settings).identical(table)
    with pytest.raises(ValueError, match="names: got 'actual'"):
        surrogates.SurrogateSettings(names=("actual",))
    with pytest.raises(ValueError, match="draws: got 0"):
        surrogates.SurrogateSettings(draws=0)
    with pytest.raises(ValueError, match=r"blocks: got an array of shape \(3, 20, 20\)"):
        surrogates.surrogate_study(blocks[0])


def test_a_sample_has_its_numbers_whatever_others_are_taken_with_it(blocks, monkeypatch):
    """Random surrogates, rotations and random orders too."""
    settings = surrogates.SurrogateSettings(names=("n-gaussian", "n1"), alphas=(), sites=("all",), draws=1)
    sweep = {"alphas": (0.5,), "orders": (("random", True, 1),)}
    at_once = surrogates.surrogate_study(blocks, settings), surrogates.order_study(blocks, **sweep)
    monkeypatch.setattr(surrogates.study, "HELD", blocks[:, :1].nbytes)
    told = []
    parts = surrogates.surrogate_study(blocks, settings, progress=lambda *done: told.append(done))
    assert told[-1] == (9, 9)
    xr.testing.assert_allclose(parts, at_once[0], rtol=1e-9)
    xr.testing.assert_allclose(surrogates.order_study(blocks, **sweep), at_once[1], rtol=1e-9)


def test_the_order_of_eigenvalues_matters_until_all_of_n_is_there(blocks):
    table = surrogates.order_study(blocks, alphas=(0.0, 1.0), orders=(("modulus", True, 0), ("modulus", False, 0)))
    whole = table["effective_rank"].sel(alpha=1.0)
    np.testing.assert_allclose(whole[0], whole[1], rtol=1e-9)
    assert np.all(np.abs(table["effective_rank"].sel(alpha=0.0).diff("order")) > 1e-3)
    assert table["order"].values.tolist() == ["modulus down", "modulus up"]
    np.testing.assert_allclose(table["above_share"][0], table["above_share"][1], rtol=0.05)


def test_a_trained_model_gives_the_known_ranks(shared):
    """Entropy ranks reported for this model, isolated: 8.8 actual, 7.8 rotated, 15.1 normal, 16.9 normal and rotated.

    Of 32 stories cut at 64 tokens, in the order of eigenvalues that LAPACK leaves; rotations are single draws there.
    """
    model = jaxdyn.load(shared / "models" / "stories260k")
    texts = json.loads((shared / "data" / "tinystories_1000.json").read_text())[:32]
    acts = jaxdyn.capture(model, texts, max_tokens=64)
    assert acts.prompts.bos
    isolated = jacobian_stack(model, acts, operator="isolated")
    settings = surrogates.SurrogateSettings(names=("normal",), sites=("all",), order="given", draws=4)
    table = surrogates.surrogate_study(isolated, settings).sel(site="all").mean("sample")
    np.testing.assert_allclose(table["effective_rank"], [8.69, 14.85], atol=0.1)  # rounding decides that order
    np.testing.assert_allclose(table["effective_rank"], [8.8, 15.1], rtol=0.03)
    np.testing.assert_allclose(table["rotated_effective_rank"], [7.8, 16.9], rtol=0.1)
