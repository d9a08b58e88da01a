"""Stage 5 of 7: all measures of one matrix at once, by name, and the table that describes them.

`measure_all` is the only route from a decomposition to stored numbers: measured matrices and the draws of their nulls
go through it alike, so a difference between them is never a difference of code.
"""

from typing import NamedTuple

from jaxtyping import Array, Complex, Float

from jaxdyn.errors import InputError

from . import eigen, nonnormality, pseudospectra, rank


class Measure(NamedTuple):
    """One stored measure.

    Attributes
    ----------
    name : the variable's name in the store.
    formula : id of the methods, E2 to E7 or the section 1.4.
    unit : "1" (dimensionless), "rad" (radian) or "gain" (output norm over input norm, the unit of M).
    long_name : for axes and tables.
    definition : one line.
    null : N0, the closed form for cI + sG, in the limit of large n; "" where there is none.
    """

    name: str
    formula: str
    unit: str
    long_name: str
    definition: str
    null: str


MEASURES = (
    Measure(
        "henrici",
        "E4",
        "gain",
        "Henrici departure from normality",
        "sqrt(norm(M)_F^2 - sum |lambda|^2), from the Schur form",
        "norm(A)_F / sqrt 2",
    ),
    Measure(
        "henrici_normalized",
        "E4",
        "1",
        "normalised Henrici departure",
        "Henrici departure over norm(M)_F",
        "s / sqrt(2 (c^2 + s^2))",
    ),
    Measure(
        "complex_fraction",
        "E2",
        "1",
        "share of complex eigenvalues",
        "eigenvalues in standardised 2x2 blocks of the real Schur form, over n",
        "1 - sqrt(2 / (pi n))",
    ),
    Measure(
        "complex_undecided",
        "E2",
        "1",
        "share of undecided eigenvalues",
        "eigenvalues that lie within condition times backward error of a change from real to complex, over n",
        "0",
    ),
    Measure(
        "mean_rotation_angle",
        "E3",
        "rad",
        "mean rotation angle",
        "mean |arg(lambda - t)|, t = tr M / n",
        "pi / 2",
    ),
    Measure(
        "imaginary_energy",
        "E3",
        "1",
        "imaginary share of the eigenvalue energy",
        "sum (Im lambda)^2 / sum |lambda - t|^2, t = tr M / n",
        "1 / 2",
    ),
    Measure(
        "antisymmetric_share",
        "E3",
        "1",
        "antisymmetric share of the energy",
        "norm((M - M^T)/2)_F^2 / norm(M - tI)_F^2, t = tr M / n",
        "1 / 2",
    ),
    Measure(
        "self_alignment",
        "E5",
        "1",
        "self-alignment of leading singular directions",
        "norm(U_k^T V_k)_F^2 / k for the k = ceil(n/10) leading singular vectors of M - tI",
        "k / n",
    ),
    Measure(
        "symmetry_gap",
        "E6",
        "1",
        "distance from the transpose",
        "norm(M - M^T)_F / norm(M)_F",
        "s sqrt(2 / (c^2 + s^2))",
    ),
    Measure("spectral_radius", "E7", "gain", "spectral radius", "max |lambda|", "c + s"),
    Measure(
        "spectral_norm",
        "E7",
        "gain",
        "spectral norm",
        "largest singular value",
        "sqrt((a + 3 s)^3 / (8 (a + s))), a = sqrt(s^2 + 8 c^2)",
    ),
    Measure(
        "numerical_abscissa",
        "E7",
        "gain",
        "numerical abscissa",
        "largest eigenvalue of (M + M^T)/2",
        "c + s sqrt 2",
    ),
    Measure(
        "eigenvector_condition",
        "E7",
        "1",
        "median eigenvalue condition number",
        "median of 1 / |y^H x| over unit left and right eigenvectors",
        "median of sqrt(n (1 - r^2) / gamma), gamma ~ Gamma(2)",
    ),
    Measure(
        "eigenvector_condition_q90",
        "E7",
        "1",
        "90 % quantile of eigenvalue condition numbers",
        "90 % quantile of 1 / |y^H x| over unit left and right eigenvectors",
        "90 % quantile of sqrt(n (1 - r^2) / gamma), gamma ~ Gamma(2)",
    ),
    Measure(
        "eigenvector_condition_max",
        "E7",
        "1",
        "largest eigenvalue condition number",
        "max of 1 / |y^H x| over unit left and right eigenvectors",
        "",
    ),
    Measure(
        "effective_rank",
        "1.4",
        "1",
        "effective rank",
        "exp(-sum p log p), p = sigma^2 / sum sigma^2",
        "n exp(-E[x log x]), x = sigma^2 of mean 1; n exp(-1/2) for c = 0",
    ),
    Measure(
        "participation_ratio",
        "1.4",
        "1",
        "participation ratio of squared singular values",
        "(sum sigma^2)^2 / sum sigma^4",
        "n (c^2 + s^2)^2 / (c^4 + 4 c^2 s^2 + 2 s^4)",
    ),
    Measure(
        "stable_rank",
        "1.4",
        "1",
        "stable rank",
        "norm(M)_F^2 / sigma_max^2",
        "n (c^2 + s^2) / sigma_max^2",
    ),
    Measure(
        "kreiss_scaled",
        "E7",
        "1",
        "Kreiss constant of M over its spectral radius",
        "sup over |z| > 1 of (|z| - 1) norm((zI - M/rho)^-1), a lower bound; it describes the block iterated, which a "
        "transformer does not do",
        "",
    ),
)
"""Every per-matrix measure, in the order of the methods. In `null`, A = M - cI, s = norm(A)_F / sqrt n, c = 1 or 0."""

UNITS = {"1": "dimensionless", "rad": "radian", "gain": "output norm over input norm"}
"""What the units of `MEASURES` mean."""


def measure_all(
    matrix: Float[Array, "*batch n n"],
    schur: Float[Array, "*batch n n"],
    eigenvalues: Complex[Array, "*batch n"],
    *,
    singular_values: Float[Array, "*batch n"],
    left: Float[Array, "*batch n m"] | None = None,
    right_h: Float[Array, "*batch m n"] | None = None,
    condition: Float[Array, "*batch n"],
    backward_error: Float[Array, "*batch"],
    abscissa: Float[Array, "*batch"] | None = None,
    alignment: Float[Array, "*batch"] | None = None,
    top: int | None = None,
    kreiss: bool = True,
) -> dict[str, Float[Array, "*batch"]]:
    """Every measure of `MEASURES` for each matrix of a batch.

    Block and update share one decomposition: for J - I pass schur - I and eigenvalues - 1, the same left, right_h,
    condition and backward_error, and the singular values of J - I.

    Parameters
    ----------
    matrix : (..., n, n), M.
    schur : (..., n, n), its real Schur form with standardised 2x2 blocks.
    eigenvalues : (..., n), those of M.
    singular_values : (..., n), those of M.
    left, right_h : (..., n, m) and (..., m, n), leading singular vectors of M - tI, t = tr M / n; m >= k. Needed
        unless `alignment` is given.
    condition : (..., n), eigenvalue condition numbers in the order of the eigenvalues.
    backward_error : (...), norm(A Q - Q T)_F of the decomposition, not scaled.
    abscissa : (...), the numerical abscissa of M where it is known: that of J - I is that of J less 1.
    alignment : (...), the self_alignment of M where it is known.
    top : k of self_alignment; default ceil(n/10).
    kreiss : whether to compute kreiss_scaled, the only measure that is not a by-product of the decomposition.

    Returns
    -------
    Name -> (...) in the real dtype of the matrix, for all names of `MEASURES`, without kreiss_scaled where that is off.
    A matrix that failed has NaN in every measure that uses what failed.

    Raises
    ------
    InputError : `top` outside 1..m; neither singular vectors nor `alignment`.

    References
    ----------
    1.3, 1.4, as amended by 1.8.
    """
    if alignment is None:
        if left is None or right_h is None:
            msg = "left, right_h: got none, and no alignment; give the leading singular vectors of M - tI, or alignment"
            raise InputError(msg)
        alignment = nonnormality.self_alignment(left, right_h, top=top)
    measured = measure_eigen(matrix, schur, eigenvalues, condition=condition, backward_error=backward_error) | {
        "self_alignment": alignment,
        "spectral_norm": nonnormality.spectral_norm(singular_values),
        "numerical_abscissa": nonnormality.numerical_abscissa(matrix) if abscissa is None else abscissa,
        "effective_rank": rank.effective_rank(singular_values),
        "participation_ratio": rank.participation_ratio(singular_values),
        "stable_rank": rank.stable_rank(singular_values),
    }
    if kreiss:
        measured["kreiss_scaled"] = pseudospectra.kreiss_scaled(schur, eigenvalues, condition)
    return {measure.name: measured[measure.name] for measure in MEASURES if measure.name in measured}


def measure_eigen(
    matrix: Float[Array, "*batch n n"],
    schur: Float[Array, "*batch n n"],
    eigenvalues: Complex[Array, "*batch n"],
    *,
    condition: Float[Array, "*batch n"],
    backward_error: Float[Array, "*batch"],
) -> dict[str, Float[Array, "*batch"]]:
    """Those measures of `measure_all` that need a Schur form and the matrix, and no singular value.

    Parameters
    ----------
    matrix, schur, eigenvalues, condition, backward_error : as for `measure_all`.

    Returns
    -------
    Name -> (...), a part of what `measure_all` returns, the same numbers.
    """
    median, ninth, largest = nonnormality.eigenvector_condition(condition)
    return {
        "henrici": nonnormality.henrici(schur),
        "henrici_normalized": nonnormality.henrici_normalized(schur),
        "complex_fraction": eigen.complex_fraction(schur),
        "complex_undecided": eigen.complex_undecided(eigenvalues, condition, backward_error),
        "mean_rotation_angle": eigen.mean_rotation_angle(eigenvalues),
        "imaginary_energy": eigen.imaginary_energy(eigenvalues),
        "antisymmetric_share": eigen.antisymmetric_share(matrix),
        "symmetry_gap": nonnormality.symmetry_gap(matrix),
        "spectral_radius": eigen.spectral_radius(eigenvalues),
        "eigenvector_condition": median,
        "eigenvector_condition_q90": ninth,
        "eigenvector_condition_max": largest,
    }
