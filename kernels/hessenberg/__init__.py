"""Reduction to Hessenberg form by a unitary similarity."""
