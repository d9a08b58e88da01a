"""Eigenvalues and eigenvectors, from one Schur form: api.py, from_schur.py, back_substitution.py."""
