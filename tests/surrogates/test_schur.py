"""The Schur split, its family and its order, against the equations and LAPACK's eigenvalues, in float64."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

import jaxdyn
from jaxdyn import surrogates
from jaxdyn.surrogates.split import above_blocks
from tests.assertions import assert_schur
from tests.measures.samples import ginibre


def form_of(matrices):
    spectrum = jaxdyn.decompose(jnp.asarray(matrices))
    return spectrum.T, spectrum.Q


def furthest(first, second):
    """Largest distance between two sets of eigenvalues, matched."""
    distance = np.abs(np.asarray(first)[:, None] - np.asarray(second)[None])
    return distance[linear_sum_assignment(distance)].max()


def norm(matrix):
    return np.linalg.norm(np.asarray(matrix), axis=(-2, -1))


def test_the_real_recipe(rng):
    matrices = ginibre(rng, 3, 24, 24) + 0.5 * np.eye(24)
    split = surrogates.schur_split(*form_of(matrices))
    normal = np.asarray(surrogates.normal_end(split))
    transposed = np.swapaxes(normal, -1, -2)
    assert normal.dtype == np.float64
    commutator = norm(normal @ transposed - transposed @ normal) / norm(normal) ** 2
    assert np.all(commutator < 1e-14)  # a few n eps; 7e-16 to 2e-15 seen
    for one, made in zip(matrices, normal, strict=True):
        assert furthest(np.linalg.eigvals(one), np.linalg.eigvals(made)) < 1e-12  # condition numbers of M up to 30
    back = surrogates.intervene(split, 1.0)
    assert np.all(norm(back - matrices) < 1e-13 * norm(matrices))
    half = surrogates.intervene(split, 0.5)
    whole, none = surrogates.intervene(split, 1.0), surrogates.intervene(split, 0.0)
    np.testing.assert_allclose(half, (whole + none) / 2, atol=1e-13)
    assert np.all(norm(half - matrices) > 0.1)


def test_parts_live_where_they_belong(rng):
    T, Q = form_of(ginibre(rng, 3, 24, 24))
    split = surrogates.schur_split(T, Q)
    np.testing.assert_allclose(split.normal + split.inside + split.above, T, atol=1e-15)
    blocks = ~np.asarray(above_blocks(T)) & (np.triu(np.ones((24, 24), bool), 1) | np.tril(np.ones((24, 24), bool), -1))
    assert np.all(np.asarray(split.above)[~np.asarray(above_blocks(T))] == 0)
    assert np.all(np.asarray(split.inside)[~blocks] == 0)
    below = np.diagonal(T, -1, 1, 2) != 0
    assert below.any()
    for part in (split.normal, split.above):
        paired = np.diagonal(part, -1, 1, 2) != 0
        assert np.array_equal(paired, below if part is split.normal else np.zeros_like(below))
    skew = np.asarray(split.normal) * (1 - np.eye(24))
    assert np.array_equal(skew, -np.swapaxes(skew, 1, 2))


def test_the_complex_form_comes_from_the_real_one(rng):
    matrices = ginibre(rng, 3, 24, 24)
    T, Q = form_of(matrices)
    complex_T, complex_Q = surrogates.complex_form(T, Q)
    for one, form, vectors in zip(matrices, complex_T, complex_Q, strict=True):
        assert_schur(one + 0j, form, vectors)
    values = jaxdyn.decompose(jnp.asarray(matrices)).eigenvalues
    np.testing.assert_allclose(np.diagonal(complex_T, 0, 1, 2), values, atol=1e-13)
    split = surrogates.schur_split(complex_T, complex_Q)
    normal = np.asarray(surrogates.normal_end(split))
    adjoint = np.conj(np.swapaxes(normal, 1, 2))
    assert np.all(norm(normal @ adjoint - adjoint @ normal) < 1e-14 * norm(normal) ** 2)
    np.testing.assert_allclose(surrogates.intervene(split, 1.0), matrices, atol=1e-13)
    assert np.max(np.abs(surrogates.intervene(split, 0.0).imag)) > 0.01  # not real: another matrix than the real end


KEYS = {"modulus": np.abs, "real": np.real, "argument": lambda z: np.abs(np.angle(z))}


@pytest.mark.parametrize("of", ["real", "complex"])
def test_orders(rng, of):
    matrices = ginibre(rng, 3, 24, 24) + (1j * ginibre(rng, 3, 24, 24) if of == "complex" else 0)
    T, Q = form_of(matrices)
    before = np.array(T)
    seen = []
    for by in ("modulus", "real", "argument", "random"):
        for descending in (True, False):
            new_T, new_Q = surrogates.reorder(T, Q, by, descending=descending, seed=int(descending))
            seen.append(np.asarray(new_T))
            for one, form, vectors in zip(matrices, new_T, new_Q, strict=True):
                assert_schur(one, form, vectors)
                values = np.diagonal(surrogates.complex_form(form, vectors)[0] if of == "real" else form)
                assert furthest(values, np.linalg.eigvals(one)) < 1e-12
                if by != "random":
                    key = KEYS[by](values)
                    assert np.all(np.diff(key if not descending else -key) > -1e-12), (by, descending)
    assert np.array_equal(before, T)  # the caller's arrays are left alone
    assert len({one[0].tobytes() for one in seen}) == len(seen)
    again = surrogates.reorder(T, Q, "random", seed=1)[0]
    assert np.array_equal(again, seen[-2])
    assert surrogates.reorder(T, Q, "given")[0] is T


def test_a_failed_matrix_stays_alone_and_precision_is_kept(rng):
    T, Q = form_of(ginibre(rng, 2, 6, 6).astype(np.float32))
    T = T.at[0, 0, 0].set(jnp.nan)
    new_T, new_Q = surrogates.reorder(T, Q, "real")
    assert new_T.dtype == new_Q.dtype == jnp.float32
    assert np.isnan(new_T[0]).all()
    assert np.isfinite(new_T[1]).all()
    with pytest.raises(ValueError, match="by: got 'size'; allowed 'modulus'"):
        surrogates.reorder(T, Q, "size")
