"""Singular values without vectors, and the projectors on the leading singular directions."""
