"""Stage 1 of 7: language models as pure JAX functions: description, layers, decoder, loading, generation."""

from jaxdyn.models.architecture import Architecture, LinearScaling, Llama3Scaling, Rope
from jaxdyn.models.convert import convert
from jaxdyn.models.model import Model, random_model
from jaxdyn.models.weights import load

__all__ = ["Architecture", "LinearScaling", "Llama3Scaling", "Model", "Rope", "convert", "load", "random_model"]
