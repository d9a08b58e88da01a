"""Stage 5 of 7: the functional test of a surrogate - what the model makes of it, on natural displacements."""

from .continuation import advance_rows, rows_at, run_on
from .natural import KINDS, displacements, relative_norm
from .run import BASE, FunctionalSettings, functional_test, operator_matrices
from .score import beats, divergences, normalised, radius_of

__all__ = [
    "BASE",
    "KINDS",
    "FunctionalSettings",
    "advance_rows",
    "beats",
    "displacements",
    "divergences",
    "functional_test",
    "normalised",
    "operator_matrices",
    "radius_of",
    "relative_norm",
    "rows_at",
    "run_on",
]
