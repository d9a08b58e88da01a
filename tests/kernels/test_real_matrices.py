"""Jacobians of trained language models through every implementation, where they are at hand."""

import jax
import jaxdyn_kernels as jk
import numpy as np
import pytest
from jaxdyn_kernels import Status

from tests.assertions import assert_eigenpairs, assert_same_eigenvalues, assert_schur, lapack_eig


@pytest.fixture(scope="module")
def lens(shared):
    """The five 288 x 288 Jacobians of a 15M-parameter model, in the type that they are stored in."""
    from safetensors.numpy import load_file

    tensors = load_file(shared / "data" / "jlens_stories15m.safetensors")
    A = np.stack([J for J in tensors.values() if J.shape == (288, 288)]).astype(np.float32)
    assert len(A) == 5
    return A, np.asarray(jk.schur(A, implementation="lapack").residual)


@pytest.fixture(scope="module")
def stories(shared):
    """The 64 x 64 Jacobians of the blocks of stories260k at the last token of one text."""
    import jaxdyn

    model = jaxdyn.load(shared / "models" / "stories260k")
    activations = jaxdyn.capture(model, ["Once upon a time there was a little girl"], tokens="last")
    layers = [jaxdyn.jacobian(model, activations, layer=layer, operator="in-context") for layer in range(5)]
    A = np.concatenate([np.asarray(J) for J in layers]).astype(np.float32)
    assert A.shape == (5, 64, 64)
    return A


@pytest.mark.parametrize("implementation", ["xla", "divide"])
def test_schur_forms_of_a_lens(lens, implementation):
    A, exact = lens
    form = jk.schur(A, implementation=implementation)
    assert np.all(form.status == Status.OK)
    assert not np.any(form.robust)
    assert np.all(form.residual <= 10 * exact)
    for k in range(5):
        assert_schur(A[k], form.T[k], form.Q[k])


@pytest.mark.parametrize("implementation", ["lapack", "xla"])
def test_portraits_of_a_small_model(stories, implementation):
    """Up to this order `divide` is `xla`."""
    found = jax.jit(lambda A: jk.eig(A, left=True, implementation=implementation))(stories)
    assert np.all(found.status == Status.OK)
    assert np.all(found.residual <= 20)
    for k, A in enumerate(stories):
        assert_eigenpairs(A, found.eigenvalues[k], found.right[k], found.left[k], found.condition[k])
        values, _, _, condition = lapack_eig(A.astype(np.float64))
        assert_same_eigenvalues(found.eigenvalues[k], values, A, condition)


def test_the_other_operations_on_a_small_model(stories):
    form = jk.schur(stories, implementation="lapack")
    values = np.asarray(jk.eigenvalues_from_schur(form.T))
    reduced = jk.hessenberg(stories, implementation="xla")
    sorted_ = jk.reorder(form.T, form.Q, order=-np.abs(values))
    fine = jk.refine(stories, form.Q, form.T, implementation="lapack")
    for found in (reduced, sorted_, fine):
        assert np.all(found.status == Status.OK)
        assert np.all(found.residual <= 20)
        assert np.all(found.orthogonality <= 20)
    assert np.all(fine.residual <= form.residual)
    z = np.array([0.5, 1 + 1j])
    norms = np.asarray(jk.resolvent_norm(form.T, z))
    for k, A in enumerate(stories.astype(np.float64)):
        assert_schur(stories[k], sorted_.T[k], sorted_.Q[k])
        smallest = [np.linalg.svd(x * np.eye(64) - A, compute_uv=False)[-1] for x in z]
        assert np.allclose(norms[k], 1 / np.array(smallest), rtol=2e-3)
