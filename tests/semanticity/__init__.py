"""Tests of semanticity: the laws of generalisation and identification, the toy network, the probe."""
