"""Tests of training: the decoder's own parameters."""
