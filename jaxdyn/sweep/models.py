"""The models of a plan: whole, or in outline (description, tokenizer and shapes, no weights read)."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxdyn import embedded, models
from jaxdyn.models import parameters
from jaxdyn.models.config import read_json
from jaxdyn.models.locate import locate
from jaxdyn.models.model import Model
from jaxdyn.models.orbax_copy import read_manifest
from jaxdyn.models.tokenizer import load_tokenizer
from jaxdyn.models.weights import architecture_of
from jaxdyn.pipeline.texts import read_texts
from jaxdyn.sharding import Layout, shardings

from .plan import EMBEDDED, ModelEntry, Plan


def load(
    entry: ModelEntry,
    *,
    dtype: str,
    weights_dtype: str | None,
    mesh: Mesh | None = None,
    layout: Layout | None = None,
) -> Model:
    """Load a model in a plan's dtypes, split over a mesh where one is given; an `InputError` where that cannot be."""
    held = weights_dtype or dtype
    if entry.step is None:
        name = None if entry.source == EMBEDDED else entry.source
        model = models.load(name, dtype=held, revision=entry.revision, mesh=mesh, rules=layout)
    else:
        from jaxdyn.training import model_at

        model = model_at(entry.source, entry.step)
        model = model if held == "float32" else model.astype(held)
        model = model if mesh is None else _split(model, mesh, layout)
    return model.astype(dtype) if dtype == "float64" and weights_dtype else model


def _split(model: Model, mesh: Mesh, layout: Layout | None) -> Model:
    """Split a model that every process has read whole: a checkpoint of a training run."""
    flat = parameters.flatten(model.params)
    placed = shardings(model.architecture, {path: leaf.shape for path, leaf in flat.items()}, mesh, layout)
    hosted = {path: np.asarray(leaf) for path, leaf in flat.items()}
    parts = {
        path: jax.make_array_from_callback(leaf.shape, placed[path], lambda index, leaf=leaf: leaf[index])
        for path, leaf in hosted.items()
    }
    return dataclasses.replace(model, params=parameters.nest(parts))


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
