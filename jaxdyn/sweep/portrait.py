"""The measures of whole matrices inside a program that runs on a device: Schur form first, one sample at a time."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxdyn_kernels.dispatch import choose
from jaxdyn_kernels.eig.from_schur import eigenvalues_from_schur, eigenvectors_from_schur
from jaxdyn_kernels.scaling import to_order_one
from jaxdyn_kernels.schur.api import SchurResult
from jaxdyn_kernels.singular.api import scaled_singular_values
from jaxdyn_kernels.singular.leading import leading_projectors
from jaxdyn_kernels.status import Status
from jaxtyping import Array, Float, Int

from jaxdyn import spectra
from jaxdyn.measures import measure_eigen, nonnormality
from jaxdyn.measures.arrays import frobenius, mean_trace
from jaxdyn.pipeline.spectral import Pieces, measure_view, pieces_of

from .step_types import StepSettings


def measure_sample(
    settings: StepSettings, platform: str, sample: tuple[Float[Array, "K D D"], SchurResult]
) -> dict[str, Any]:
    """Measure one sample's parts, (P, ...) each, in a program that runs on `platform`.

    On a TPU there is no singular value decomposition that compiles at a few thousand columns: singular values come by
    bisection there, and self_alignment from projectors (`pieces_without_vectors`).
    """
    matrices, form = sample
    kinds = settings.kinds
    index = jnp.asarray([kinds.index("block" if part == "update" else part) for part in settings.parts])
    shift = jnp.asarray([part == "update" for part in settings.parts], matrices.dtype)
    if settings.singular:
        name = settings.singular_implementation or choose("singular_values", platform).name
        # "cpu": one matrix after another, which is right here on every platform.
        spectrum = spectra.complete(matrices, form, vectors=True, singular_vectors=False, device="cpu", singular=name)
        spectrum = replace(spectrum, right=None, left=None)
        values = partial(scaled_singular_values, implementation=name)
        if name == "bisection":
            pieces = lax.map(lambda pair: pieces_without_vectors(pair[0], pair[1], values), (matrices, spectrum))
        else:
            pieces = lax.map(lambda pair: pieces_of(*pair)[0], (matrices, spectrum))
        found = lax.map(partial(measure_view, pieces, own=values), (index, jnp.ones_like(shift), shift))
        for evidence in ("residual", "orthogonality", "status", "frobenius_norm", "update_norm"):
            found.pop(evidence)
    else:
        condition = lax.map(_condition, form)
        found = lax.map(partial(_eigen_view, matrices, form, condition), (index, shift))
    values, singular = found.pop("eigenvalues"), found.pop("singular_values", None)
    return {"measures": found, "eigenvalues": values, "singular_values": singular}


def pieces_without_vectors(
    matrix: Float[Array, "n n"], spectrum: spectra.Spectrum, singular_values: Callable[[Array], Array]
) -> Pieces:
    """Return what `pieces_of` does by singular values and projectors alone, for platforms without an SVD that serves.

    `singular_values` takes (n, n) to (n,), descending, NaN for a matrix that is not finite.
    """
    n = matrix.shape[-1]
    centred, _ = to_order_one(matrix - mean_trace(matrix) * jnp.eye(n, dtype=matrix.dtype))
    projectors = leading_projectors(centred, singular_values(centred), nonnormality.leading(n))
    abscissa = nonnormality.numerical_abscissa(matrix, norm=spectrum.singular_values[0], values=singular_values)
    return Pieces(matrix, spectrum, abscissa, None, None, nonnormality.alignment_of_projectors(*projectors))


def unit_sums(
    matrices: Float[Array, "S K D D"], half: Int[Array, " S"], unit: int
) -> tuple[Float[Array, "U 2 K D D"], Int[Array, "U 2"]]:
    """Sum the Jacobians of each half within units of `unit` samples, failed samples left out; and count them."""
    good = jnp.all(jnp.isfinite(matrices), axis=(1, 2, 3))
    weight = (half[:, None] == jnp.arange(2)) & good[:, None]
    clean = jnp.where(good[:, None, None, None], matrices, 0)
    grouped = clean.reshape(-1, unit, *matrices.shape[1:])
    weights = weight.reshape(-1, unit, 2)
    sums = jnp.einsum("ush,uskij->uhkij", weights.astype(matrices.dtype), grouped, precision=lax.Precision.HIGHEST)
    return sums, jnp.sum(weights, axis=1, dtype=jnp.int32)


def _condition(form: SchurResult) -> Float[Array, " D"]:
    """Condition numbers of one matrix's eigenvalues, NaN where its Schur form failed."""
    ok, eye = form.status == Status.OK, jnp.eye(form.T.shape[-1], dtype=form.T.dtype)
    _, _, condition = eigenvectors_from_schur(jnp.where(ok, form.T, eye), jnp.where(ok, form.Q, eye))
    return jnp.where(ok, condition, jnp.nan)


def _eigen_view(matrices, forms, conditions, view):
    """Measures of one part that need no singular values: of the matrix number `index` less `shift` identities."""
    index, shift = view
    matrix, condition = matrices[index], conditions[index]
    form = jax.tree.map(lambda leaf: leaf[index], forms)
    n = matrix.shape[-1]
    eye, eps = shift * jnp.eye(n, dtype=matrix.dtype), float(jnp.finfo(matrix.dtype).eps)
    values = eigenvalues_from_schur(form.T) - shift
    error = form.residual * n * eps * frobenius(matrix)
    found = measure_eigen(matrix - eye, form.T - eye, values, condition=condition, backward_error=error)
    return found | {"eigenvalues": values}
