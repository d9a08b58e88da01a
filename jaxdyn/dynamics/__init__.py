"""Stage 5 of 7: the residual stream as a trajectory through depth (paper 2)."""
