"""Stage 5 of 7: the measures of one Jacobian, each with its null - pure functions of arrays, batched, under jit."""

from .averaging import surviving_energy, surviving_energy_split
from .eigen import (
    antisymmetric_share,
    complex_fraction,
    complex_undecided,
    imaginary_energy,
    mean_rotation_angle,
    spectral_radius,
)
from .graded import graded_singular_values
from .nonnormality import (
    eigenvector_condition,
    henrici,
    henrici_normalized,
    numerical_abscissa,
    numerical_radius,
    self_alignment,
    spectral_norm,
    symmetry_gap,
)
from .portrait import MEASURES, UNITS, Measure, measure_all, measure_eigen
from .pseudospectra import Pseudospectrum, kreiss_scaled, pseudospectrum, transient_growth
from .rank import effective_rank, participation_ratio, roy_vetterli_rank, stable_rank, threshold_count

__all__ = [
    "MEASURES",
    "UNITS",
    "Measure",
    "Pseudospectrum",
    "antisymmetric_share",
    "complex_fraction",
    "complex_undecided",
    "effective_rank",
    "eigenvector_condition",
    "graded_singular_values",
    "henrici",
    "henrici_normalized",
    "imaginary_energy",
    "kreiss_scaled",
    "mean_rotation_angle",
    "measure_all",
    "measure_eigen",
    "numerical_abscissa",
    "numerical_radius",
    "participation_ratio",
    "pseudospectrum",
    "roy_vetterli_rank",
    "self_alignment",
    "spectral_norm",
    "spectral_radius",
    "stable_rank",
    "surviving_energy",
    "surviving_energy_split",
    "symmetry_gap",
    "threshold_count",
    "transient_growth",
]
