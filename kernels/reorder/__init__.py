"""A Schur form with its eigenvalues in another order: api.py is the public function, swaps.py the method."""
