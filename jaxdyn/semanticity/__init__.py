"""Bound by semanticity: what a finite resolution allows of generalisation and identification, and where a model stands.

Beside the stages: `theory`, `kernels`, `segment`, `finite` hold the laws and `simulate` the tests by Monte Carlo; `toy`
and `slots` a network that learns a resolution; `stimuli`, `similarity`, `probe` and `run` put a model's layers to the
tests. Nothing else of jaxdyn imports this package, nor does it import flax before `toy` is used.

Source: Nurisso, Fernando, Deshpande et al., "Bound by semanticity" (arXiv 2506.14797); methods.md 3.
"""

from . import finite, kernels, segment, simulate, theory

__all__ = ["finite", "kernels", "segment", "simulate", "theory"]
