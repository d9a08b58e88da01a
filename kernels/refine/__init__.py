"""Refinement of a Schur form: api.py, newton.py (the step), commutator.py (its equation), arithmetic.py (precisions)."""
