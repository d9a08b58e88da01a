"""Stage 5 of 7: measures by name, of any array of matrices, so that every rung of the ladder can be asked for any.

A name is one of `jaxdyn.measures.MEASURES`, a measure of each matrix (..., n, n) -> (...), or one of `PRODUCT`, a
measure of the running product of layers (L, ..., n, n) -> (L, ...). Anything else is given as a function.
"""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdyn import measures, propagate, spectra
from jaxdyn.errors import InputError
from jaxdyn.measures import arrays, nonnormality, nulls, rank

Measure = str | Callable[[Array], Array | np.ndarray]
"""A name, or a function of an array of matrices."""

OF_SINGULAR_VALUES = {
    "effective_rank": rank.effective_rank,
    "participation_ratio": rank.participation_ratio,
    "stable_rank": rank.stable_rank,
    "roy_vetterli_rank": rank.roy_vetterli_rank,
    "effective_rank_without_1": partial(rank.effective_rank, removed=1),
    "effective_rank_without_4": partial(rank.effective_rank, removed=4),
    "effective_rank_without_16": partial(rank.effective_rank, removed=16),
    "threshold_count": rank.threshold_count,
}
"""Measures of one matrix, or with `log=True` of a product, from its singular values alone."""

PRODUCT = {
    **{f"product_{name}": f"{name} of J_l ... J_1" for name in OF_SINGULAR_VALUES},
    "product_alignment_ratio": "participation ratio of J_l ... J_1 over the free-product law: 1 for unrelated layers",
    "cross_layer_overlap": "norm(V_k(l)^T U_k(l-1))_F^2 / k of the leading tenth of the singular vectors of M - tI "
    "of neighbouring layers: k/n for unrelated ones; NaN for the first layer",
}
"""Measures along the product of layers, (L, ..., n, n) -> (L, ...), with what each is."""

_OF_MATRIX = {
    "antisymmetric_share": measures.antisymmetric_share,
    "symmetry_gap": measures.symmetry_gap,
    "numerical_abscissa": measures.numerical_abscissa,
}
_OF_SCHUR = {
    "henrici": lambda spectrum: measures.henrici(spectrum.T),
    "henrici_normalized": lambda spectrum: measures.henrici_normalized(spectrum.T),
    "complex_fraction": lambda spectrum: measures.complex_fraction(spectrum.T),
    "mean_rotation_angle": lambda spectrum: measures.mean_rotation_angle(spectrum.eigenvalues),
    "imaginary_energy": lambda spectrum: measures.imaginary_energy(spectrum.eigenvalues),
    "spectral_radius": lambda spectrum: measures.spectral_radius(spectrum.eigenvalues),
}
_KNOWN = {measure.name for measure in measures.MEASURES} | OF_SINGULAR_VALUES.keys() | PRODUCT.keys()
EVERY_SINGLE = (
    *(one.name for one in measures.MEASURES if one.name not in ("kreiss_scaled", "complex_undecided")),
    *(name for name in OF_SINGULAR_VALUES if name not in {one.name for one in measures.MEASURES}),
)
"""Measures of one matrix that follow from its decomposition; complex_undecided, which says how sure another number is,
is none of them."""
EVERY = (*EVERY_SINGLE, *PRODUCT)
"""What `every_measure` gives, in its order."""


def measured(matrices: Float[Array, "*batch n n"], measure: Measure) -> np.ndarray:
    """Apply a measure to an array of matrices.

    Parameters
    ----------
    matrices : (..., n, n); layers first where the measure is one of a product.
    measure : a name of `jaxdyn.measures.MEASURES` or of `PRODUCT`, or a function of the array.

    Returns
    -------
    (...) for a measure of each matrix, (L, ...) for one of a product, whatever a function returns. A matrix that does
    not decompose has NaN. Cost: only the decomposition that the measure needs; products: `propagate.cumulative`.

    Raises
    ------
    InputError : an unknown name, or a product of something that has no layers.
    """
    if callable(measure):
        return np.asarray(measure(matrices))
    if measure not in _KNOWN:
        msg = f"measure: got {measure!r}; allowed a function, or one of {', '.join(sorted(_KNOWN))}"
        raise InputError(msg)
    if measure in PRODUCT:
        if matrices.ndim < 3:
            msg = f"measure: {measure} needs layers in front, (L, ..., n, n); got an array of shape {matrices.shape}"
            raise InputError(msg)
        return np.asarray(_of_product(matrices, measure))
    return np.asarray(_of_each(matrices, measure))


def every_measure(factors: Float[Array, "L ... n n"]) -> Float[np.ndarray, "K L ..."]:
    """All of `EVERY`, (K, L, ...): the numbers that `measured` gives name by name, from one decomposition a matrix.

    Parameters
    ----------
    factors : (L, ..., n, n), first layer first; a layer is decomposed at a time.

    Returns
    -------
    NaN where a matrix does not decompose, and for the overlap of the first layer.
    """
    eps, n = float(jnp.finfo(factors.dtype).eps), factors.shape[-1]
    k, rows, values, before = nonnormality.leading(n), [], [], None
    for layer in factors:
        spectrum = spectra.decompose(layer, vectors=True)
        left, _, right_h = spectra.svd(arrays.deviator(layer))
        assert spectrum.condition is not None, "asked for with the vectors"
        found = measures.measure_all(
            layer, spectrum.T, spectrum.eigenvalues, singular_values=spectrum.singular_values, left=left,
            right_h=right_h, condition=spectrum.condition, kreiss=False,
            backward_error=spectrum.residual * n * eps * arrays.frobenius(layer),
        )  # fmt: skip
        found |= {name: of(spectrum.singular_values) for name, of in OF_SINGULAR_VALUES.items() if name not in found}
        overlap = nonnormality.self_alignment(left if before is None else before, right_h)
        found["cross_layer_overlap"] = jnp.full_like(overlap, jnp.nan) if before is None else overlap
        rows.append({name: np.asarray(value, float) for name, value in found.items()})
        values.append(spectrum.singular_values)
        before = left[..., :k]
    single = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    products = _every_product(factors, rank.participation_ratio(jnp.stack(values)))
    return np.stack([(single | products)[name] for name in EVERY])


def every_product(factors: Float[Array, "L ... n n"]) -> Float[np.ndarray, "K L ..."]:
    """All of `PRODUCT`, (K, L, ...), from one running product; see `every_measure`."""
    found = _every_product(factors, rank.participation_ratio(spectra.singular_values(factors)))
    found["cross_layer_overlap"] = np.asarray(cross_layer_overlap(factors), float)
    return np.stack([found[name] for name in PRODUCT])


def _every_product(factors, single):
    logs = propagate.product_log_singular_values(factors, running=True)
    found = {f"product_{name}": of(logs, log=True) for name, of in OF_SINGULAR_VALUES.items()}
    found["product_alignment_ratio"] = nulls.cross_layer_alignment(logs, single)
    return {name: np.asarray(value, float) for name, value in found.items()}


def unit_of(measure: Measure) -> str:
    """Unit of a measure: that of `MEASURES`, dimensionless for products, empty where it cannot be known."""
    if not isinstance(measure, str):
        return ""
    return next((one.unit for one in measures.MEASURES if one.name == measure), "1")


def _of_each(matrices, name):
    if name in OF_SINGULAR_VALUES:
        return OF_SINGULAR_VALUES[name](spectra.singular_values(matrices))
    if name == "spectral_norm":
        return measures.spectral_norm(spectra.singular_values(matrices))
    if name in _OF_MATRIX:
        return _OF_MATRIX[name](matrices)
    if name == "self_alignment":
        left, _, right_h = spectra.svd(arrays.deviator(matrices))
        return measures.self_alignment(left, right_h)
    if name in _OF_SCHUR:
        return _OF_SCHUR[name](spectra.decompose(matrices))
    spectrum = spectra.decompose(matrices, vectors=True)
    assert spectrum.condition is not None, "asked for with the vectors"
    if name == "kreiss_scaled":
        return measures.kreiss_scaled(spectrum.T, spectrum.eigenvalues, spectrum.condition)
    if name == "complex_undecided":
        n, eps = matrices.shape[-1], float(jnp.finfo(matrices.dtype).eps)
        error = spectrum.residual * n * eps * arrays.frobenius(matrices)
        return measures.complex_undecided(spectrum.eigenvalues, spectrum.condition, error)
    median, ninth, largest = measures.eigenvector_condition(spectrum.condition)
    return {"": median, "_q90": ninth, "_max": largest}[name.removeprefix("eigenvector_condition")]


def _of_product(factors, name):
    if name == "cross_layer_overlap":
        return cross_layer_overlap(factors)
    logs = propagate.product_log_singular_values(factors, running=True)
    if name == "product_alignment_ratio":
        single = rank.participation_ratio(spectra.singular_values(factors))
        return nulls.cross_layer_alignment(logs, single)
    return OF_SINGULAR_VALUES[name.removeprefix("product_")](logs, log=True)


def cross_layer_overlap(factors: Float[Array, "L ... n n"]) -> Float[Array, "L ..."]:
    """Overlap of what a layer writes most with what the next one reads most.

    s_l = norm(V_k(l)^T U_k(l-1))_F^2 / k,  M_l - t_l I = U(l) S(l) V(l)^T,  k = ceil(n / 10)

    Parameters
    ----------
    factors : (L, ..., n, n), first layer first.

    Returns
    -------
    (L, ...), dimensionless, 0 to 1: k/n for unrelated layers, NaN for the first one. It says which neighbours are
    related; `product_alignment_ratio` says what that does to the product.
    """
    left, _, right_h = spectra.svd(arrays.deviator(factors))
    overlap = nonnormality.self_alignment(left[:-1], right_h[1:])
    return jnp.concatenate([jnp.full_like(overlap[:1], jnp.nan), overlap])
