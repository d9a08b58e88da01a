"""The norm of the resolvent of triangular matrices: api.py is the public function, xla.py the method."""
