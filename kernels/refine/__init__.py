"""Refinement of a Schur form: api.py, newton.py (a step), commutator.py (its equation), arithmetic.py (precisions)."""
