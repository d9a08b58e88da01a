"""Sweeps over models, layers and samples, on one device or many."""
