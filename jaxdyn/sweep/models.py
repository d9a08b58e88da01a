"""The models of a plan: whole, or in outline (description, tokenizer and shapes, no weights read)."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxdyn import embedded, models
from jaxdyn.models import parameters
from jaxdyn.models.config import read_json
from jaxdyn.models.locate import locate
from jaxdyn.models.model import Model
from jaxdyn.models.orbax_copy import read_manifest
from jaxdyn.models.tokenizer import load_tokenizer
from jaxdyn.models.weights import architecture_of
from jaxdyn.pipeline.texts import read_texts

from .plan import EMBEDDED, ModelEntry, Plan


def load(entry: ModelEntry, *, dtype: str, weights_dtype: str | None) -> Model:
    """Load a model in a plan's dtypes; what cannot be loaded is an `InputError`."""
    held = weights_dtype or dtype
    if entry.step is None:
        name = None if entry.source == EMBEDDED else entry.source
        model = models.load(name, dtype=held, revision=entry.revision)
    else:
        from jaxdyn.training import model_at

        model = model_at(entry.source, entry.step)
        model = model if held == "float32" else model.astype(held)
    return model.astype(dtype) if dtype == "float64" and weights_dtype else model


def outline(entry: ModelEntry, plan: Plan) -> Model:
    """Return a model without its weights, their shapes in their place; its hash is empty."""
    if entry.step is None:
        located = locate(None if entry.source == EMBEDDED else entry.source, entry.revision)
        kept = read_manifest(located.folder)
        arch = architecture_of(read_json(located.folder / "config.json", what="model"))
        tokenizer = load_tokenizer(located.folder)
        source, commit = (located.name, located.revision) if kept is None else (kept.source, kept.revision)
    else:
        from jaxdyn.training.run import description_at

        arch, tokenizer = description_at(entry.source)
        source, commit = f"{entry.source}, step {entry.step}", None
    held = plan.dtype if plan.dtype == "float64" else plan.weights_dtype or plan.dtype
    shapes: dict[str, Any] = {
        path: jax.ShapeDtypeStruct(shape, jnp.dtype(held)) for path, shape in parameters.shapes(arch).items()
    }
    return Model(arch, parameters.nest(shapes), tokenizer, source, commit, "")


def texts_of(plan: Plan) -> list[str]:
    """Read the plan's prompts."""
    file = embedded.PROMPTS if plan.texts.file == EMBEDDED else plan.texts.file
    return read_texts(file, samples=plan.texts.samples)
