"""The Schur form A = Q T Q^H: api.py is the public function, the other files are its implementations."""
