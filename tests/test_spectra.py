"""`decompose`: one Schur form for everything, its evidence, and the same results under every transform."""

import dataclasses

import jax
import jax.numpy as jnp
import jaxdyn_kernels as jk
import numpy as np
import pytest
from jaxdyn_kernels import Status, dispatch
from safetensors.numpy import load_file

from jaxdyn import spectra
from jaxdyn.spectra import decompose, shifted
from tests.assertions import assert_eigenpairs, assert_schur, assert_svd
from tests.matrices import matrix

SIZE = 24
FIELDS = [field.name for field in dataclasses.fields(spectra.Spectrum)]


def batch(dtype=np.float32, count=3):
    return np.stack([matrix("ginibre", SIZE, dtype, seed) for seed in range(count)])


@pytest.fixture(scope="module")
def full():
    """Everything that can be asked for, of a batch of three."""
    J = batch()
    return J, decompose(J, vectors=True, singular_vectors=True)


def test_all_equations(full):
    J, spectrum = full
    assert np.all(spectrum.status == Status.OK)
    for k in range(len(J)):
        piece = jax.tree.map(lambda x, k=k: x[k], spectrum)
        assert_schur(J[k], piece.T, piece.Q)
        assert_eigenpairs(J[k], piece.eigenvalues, piece.right, piece.left, piece.condition)
        assert_svd(J[k], piece.U, piece.singular_values, piece.Vh)
    assert np.all(spectrum.residual <= 20)
    assert np.all(spectrum.orthogonality <= 20)
    assert (spectrum.implementation, spectrum.device) == ("lapack", "cpu")


@pytest.mark.parametrize("name", ["grcar", "defective", "clustered", "graded", "zero", "permutation", "kahan"])
def test_structured_matrices(name):
    J = matrix(name, SIZE, np.float64)
    spectrum = decompose(J, vectors=True, singular_vectors=True)
    assert_schur(J, spectrum.T, spectrum.Q)
    assert_eigenpairs(J, spectrum.eigenvalues, spectrum.right, spectrum.left, spectrum.condition)
    assert_svd(J, spectrum.U, spectrum.singular_values, spectrum.Vh)


def test_options_change_what_is_there_and_nothing_else(full):
    J, spectrum = full
    plain = decompose(J)
    assert [name for name in FIELDS if getattr(plain, name) is None] == ["U", "Vh", "right", "left", "condition"]
    for name in ("eigenvalues", "T", "Q", "residual", "orthogonality", "status"):
        assert np.array_equal(getattr(plain, name), getattr(spectrum, name)), name
    assert np.allclose(plain.singular_values, spectrum.singular_values, rtol=1e-5)


@pytest.mark.parametrize("transform", ["jit", "vmap"])
def test_traced_is_the_same_as_eager(full, transform):
    J, spectrum = full
    function = jax.jit(decompose) if transform == "jit" else jax.jit(jax.vmap(decompose))
    traced = function(J)
    assert (traced.implementation, traced.device) == ("lapack", "cpu")
    assert np.allclose(traced.T, spectrum.T, atol=1e-5)
    assert np.allclose(traced.singular_values, spectrum.singular_values, atol=1e-5)
    for k in range(len(J)):
        assert_schur(J[k], traced.T[k], traced.Q[k])


def test_one_schur_form_a_matrix():
    """Everything asked for, one gees in the program."""
    program = jax.jit(lambda J: decompose(J, vectors=True, singular_vectors=True))
    text = program.lower(jax.ShapeDtypeStruct((SIZE, SIZE), jnp.float32)).as_text()
    assert text.count("@lapack_sgees") == 1
    assert "geev" not in text
    shift = jax.jit(lambda J: shifted(decompose(J), 1.0))
    assert shift.lower(jax.ShapeDtypeStruct((SIZE, SIZE), jnp.float32)).as_text().count("@lapack_sgees") == 1


@pytest.mark.parametrize("shift", [1.0, -0.37])
def test_shifted_is_the_spectrum_of_the_shifted_matrix(full, shift):
    J, spectrum = full
    update = shifted(spectrum, shift)
    A = J - np.float32(shift) * np.eye(SIZE, dtype=np.float32)
    assert np.all(update.status == Status.OK)
    for k in range(len(J)):
        piece = jax.tree.map(lambda x, k=k: x[k], update)
        assert_schur(A[k], piece.T, piece.Q)
        assert_eigenpairs(A[k], piece.eigenvalues, piece.right, piece.left, piece.condition)
        assert_svd(A[k], piece.U, piece.singular_values, piece.Vh)
    # The certificate is the one of the shifted matrix, not that of J.
    expected = jk.schur_residual(jnp.asarray(A), update.Q, update.T)
    assert np.allclose(update.residual, expected, rtol=0.3)
    assert not np.allclose(update.singular_values, spectrum.singular_values, rtol=0.1)


def test_shift_to_a_small_update_says_what_was_lost():
    """J = I + 1e-4 G in float32: the update's residual grows by the ratio of the norms."""
    J = (np.eye(SIZE) + 1e-4 * matrix("ginibre", SIZE, np.float64)).astype(np.float32)
    spectrum = decompose(J)
    update = shifted(spectrum, 1.0)
    A = J - np.eye(SIZE, dtype=np.float32)
    ratio = np.linalg.norm(J) / np.linalg.norm(A)
    assert update.residual == pytest.approx(float(spectrum.residual) * ratio, rel=1e-2)
    back = shifted(decompose(A), -1.0)
    assert_schur(J, back.T, back.Q)
    assert back.residual < spectrum.residual


def test_shift_of_the_identity_and_of_a_failed_matrix():
    J = np.stack([np.eye(SIZE), np.full((SIZE, SIZE), np.nan)] * 2).astype(np.float32)
    update = shifted(decompose(J), 1.0)
    assert update.status.tolist() == [Status.OK, Status.NONFINITE_INPUT] * 2
    assert np.all(np.asarray(update.singular_values)[::2] == 0)
    assert np.all(np.asarray(update.residual)[::2] == 0)
    assert np.all(np.isnan(np.asarray(update.T)[1::2]))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_bad_input_in_one_matrix_of_a_batch(full, bad):
    J, clean = full
    J = J.copy()
    J[1, 2, 3] = bad
    spectrum = decompose(J, vectors=True, singular_vectors=True)
    assert spectrum.status.tolist() == [Status.OK, Status.NONFINITE_INPUT, Status.OK]
    for before, after in zip(jax.tree.leaves(clean), jax.tree.leaves(spectrum), strict=True):
        assert np.array_equal(before[::2], after[::2])
        assert after.dtype == jnp.int32 or np.all(np.isnan(after[1]))


def test_overflow_of_a_singular_value_alone_is_a_status():
    """Entries of 2.5e38 at the corners of a triangle: T is J itself and finite, the largest singular value is not."""
    J = np.array([[2.5e38, 2.5e38], [0, 2.5e38]], np.float32)
    assert jk.schur(J).status == Status.OK
    spectrum = decompose(J)
    assert spectrum.status == Status.OVERFLOW
    assert np.all(np.isnan(spectrum.eigenvalues))
    assert decompose(J / 4).status == Status.OK


@pytest.mark.parametrize("shape", [(0, 3, 3), (2, 0, 0), (1, 1), (2, 2, 1, 1)])
def test_empty_and_small(shape):
    spectrum = decompose(np.full(shape, 2.0, np.float32), vectors=True, singular_vectors=True)
    for name in FIELDS[:-2]:
        axes = 2 if name in ("T", "Q", "U", "Vh", "right", "left") else 0
        axes = 1 if name in ("eigenvalues", "singular_values", "condition") else axes
        assert getattr(spectrum, name).shape == shape[: len(shape) - 2 + axes], name
    assert np.all(spectrum.singular_values == 2)


def test_real_jacobians(shared):
    """Henrici departures of five Jacobians of a trained model, from the strictly upper part of the Schur form."""
    tensors = load_file(shared / "data" / "jlens_stories15m.safetensors")
    J = np.stack([tensors[name] for name in sorted(tensors)]).astype(np.float32)
    assert J.shape == (5, 288, 288)
    spectrum = decompose(J)
    assert np.all(spectrum.status == Status.OK)
    assert np.all(spectrum.residual < 1)
    assert np.all(spectrum.orthogonality < 5)
    for k in range(5):
        assert_schur(J[k], spectrum.T[k], spectrum.Q[k])
    departure = [henrici(T) for T in np.asarray(spectrum.T, np.float64)]
    assert departure == pytest.approx([0.761, 0.728, 0.670, 0.609, 0.496], abs=6e-4)
    # What would come out without the correction inside the 2 x 2 blocks is not the same.
    assert np.linalg.norm(np.triu(spectrum.T[0], 1)) / np.linalg.norm(spectrum.T[0]) != pytest.approx(0.761, abs=6e-4)


def henrici(T):
    """Normalised departure from normality: a standard block [[a, b], [c, a]] gives (b + c)^2 and not b^2."""
    strict = np.triu(T, 1) + np.diag(np.diagonal(T, -1), 1)
    return np.linalg.norm(strict) / np.linalg.norm(T)


class TestPlatforms:
    def test_an_accelerator_takes_the_implementation_that_is_preferred_there(self, monkeypatch, full):
        monkeypatch.setattr(spectra, "platform_of", lambda J: "tpu")
        spectrum = decompose(batch())
        assert (spectrum.implementation, spectrum.device) == ("pallas", "tpu")  # interpreted here
        for found, expected in zip(spectrum.eigenvalues, full[1].eigenvalues, strict=True):
            np.testing.assert_allclose(np.sort(np.abs(found)), np.sort(np.abs(expected)), atol=1e-5)  # float32

    def test_an_accelerator_without_a_schur_form_is_an_error_with_a_remedy(self, monkeypatch):
        monkeypatch.setitem(dispatch.TABLE, "schur", dispatch.TABLE["schur"][:1])
        monkeypatch.setattr(spectra, "platform_of", lambda J: "tpu")
        with pytest.raises(NotImplementedError, match=r"'tpu'.*implementation='lapack'"):
            decompose(batch())

    def test_the_route_through_the_host_is_explicit_and_recorded(self, monkeypatch, full):
        monkeypatch.setattr(spectra, "platform_of", lambda J: "cuda")
        spectrum = decompose(batch(), implementation="lapack")
        assert (spectrum.implementation, spectrum.device) == ("lapack", "cpu")
        assert np.array_equal(spectrum.T, full[1].T)
        assert {device.platform for device in spectrum.T.devices()} == {"cpu"}

    def test_a_native_implementation_stays_on_its_device(self, monkeypatch):
        """An implementation for every platform is jitted as it is, and its device recorded."""
        native = dataclasses.replace(dispatch.TABLE["schur"][0], platforms=("cpu", "tpu"))
        monkeypatch.setitem(dispatch.TABLE, "schur", (native,))
        monkeypatch.setattr(spectra, "platform_of", lambda J: "tpu")
        assert decompose(batch()).device == "tpu"


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"decompose: J has shape \(3, 2\)"):
        decompose(np.ones((3, 2), np.float32))
    with pytest.raises(ValueError, match="dtype int64"):
        decompose(np.eye(2, dtype=np.int64))
    with pytest.raises(ValueError, match="implementation='xyz' is unknown"):
        decompose(np.eye(2), implementation="xyz")
