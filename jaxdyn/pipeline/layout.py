"""The schema of a run's store: every array, its dimensions, units and formula, fixed before the first number."""

from collections.abc import Mapping

import numpy as np

from jaxdyn.measures import MEASURES, Measure, nulls
from jaxdyn.models.model import Model
from jaxdyn.store import Coordinate, Schema, Variable

from . import products
from .decode import token_texts
from .rounds import relative_measures
from .samples import Samples
from .settings import Settings
from .spectral import make_plan


def rungs(settings: Settings) -> tuple[str, ...]:
    """Rungs of the null ladder that the run computes."""
    return nulls.RUNGS if settings.draws else nulls.RUNGS[:1]


def make_schema(model: Model, settings: Settings, samples: Samples, layers: tuple[int, ...]) -> Schema:
    """Declare the store of a run.

    Parameters
    ----------
    model, settings : what runs.
    samples : the samples and their units.
    layers : the analysed blocks, ascending.
    """
    width = model.architecture.width
    sizes = {
        "part": len(settings.parts),
        "layer": len(layers),
        "sample": samples.count,
        "rung": len(rungs(settings)),
        "eig": width,
        "sv": width,
        "unit": samples.units,
        "half": 2,
        "matrix": len(settings.matrices),
        "row": width,
        "column": width,
        "prompt_sample": samples.count,
        "depth": len(layers),
        "rate": min(width, settings.truncate or width),
    }
    units = {"sample": samples.unit, "prompt_sample": samples.unit, "unit": 1}
    real = np.dtype(model.dtype).name
    measures = tuple(m for m in MEASURES if settings.kreiss or m.name != "kreiss_scaled")
    plan = make_plan(settings, product=False)
    relative = tuple(m for m in measures if m.name in relative_measures(plan))
    variables = [
        *_portrait(real),
        *_measures(real, measures, "", settings.draws),
        *_measures(real, relative, "relative", settings.draws),
        *(_units(real) if "averages" in settings.outputs else ()),
        *_matrices(real, settings),
    ]
    if has_product(settings, layers):
        variables += _cumulative(real, settings.draws)
    absent = left_out(settings) | (set() if settings.draws else {"eigenvalues_null"})
    variables = [v for v in variables if v.key not in absent]
    used = {dim for variable in variables for dim in variable.dims} | {"rung", "part", "layer"}
    return Schema(
        sizes={name: size for name, size in sizes.items() if name in used},
        units={name: size for name, size in units.items() if name in used},
        variables=tuple(variables),
        coordinates=tuple(c for c in _coordinates(model, settings, samples, layers) if set(c.dims) <= used),
        attrs=_attributes(model, settings, samples),
        group_attrs=_group_attributes({variable.group for variable in variables}),
    )


def left_out(settings: Settings) -> set[str]:
    """Names of the spectra that are measured and, by `Settings.outputs`, not stored."""
    spectra = {"eigenvalues": {"eigenvalues", "eigenvalues_null"}, "singular-values": {"singular_values"}}
    return set().union(*(names for output, names in spectra.items() if output not in settings.outputs))


def has_product(settings: Settings, layers: tuple[int, ...]) -> bool:
    """Whether the running product exists: the block's Jacobian is there for every layer from first to last."""
    return "block" in settings.matrices and layers == tuple(range(layers[0], layers[-1] + 1))


def measure_attributes(measure: Measure) -> dict[str, str]:
    """Attributes of a measure: long name, units, formula id, definition, and N0's form or why there is none."""
    return {
        "long_name": measure.long_name,
        "units": measure.unit,
        "formula": measure.formula,
        "definition": measure.definition,
        "null": measure.null or nulls.UNAVAILABLE[measure.name],
    }


def _portrait(real: str) -> list[Variable]:
    complex_name = np.result_type(real, np.complex64).name
    block = ("part", "layer", "sample")
    schur_residual = "scaled residual norm(AQ - QT)_F / (n eps norm(A)_F) of the Schur form"
    return [
        Variable("eigenvalues", (*block, "eig"), complex_name, {"long_name": "eigenvalues", "formula": "E1"}),
        Variable("singular_values", (*block, "sv"), real, {"long_name": "singular values, descending"}),
        Variable("residual", block, real, {"long_name": schur_residual, "units": "1"}),
        Variable("orthogonality", block, real, {"long_name": "scaled orthogonality error of the Schur vectors"}),
        Variable("status", block, "int8", {"long_name": "status of the decomposition, 0 is OK"}),
        Variable("frobenius_norm", block, real, {"long_name": "Frobenius norm"}),
        Variable("update_norm", block, real, {"long_name": "Frobenius norm of the part less the identity"}),
        Variable(
            "eigenvalues_null",
            (*block, "eig"),
            complex_name,
            {"long_name": "eigenvalues of the first N1 draw", "rung": "N1"},
        ),
        Variable("input_norm", block, real, {"long_name": "norm of the residual stream at the part's input"}),
        Variable("output_norm", block, real, {"long_name": "norm of the residual stream at the part's output"}),
    ]


def _measures(real: str, measures: tuple[Measure, ...], group: str, draws: int) -> list[Variable]:
    dims = ("part", "layer", "sample")
    variables = []
    for measure in measures:
        name, attributes = measure.name, measure_attributes(measure)
        variables.append(Variable(name, dims, real, attributes, group))
        for suffix, text in (
            ("null", "mean under the null"),
            ("null_sd", "standard deviation over draws of the null"),
            ("excess", "measure less the mean under the null"),
        ):
            if suffix == "null_sd" and not draws:
                continue  # N0 is a closed form
            described = {**attributes, "long_name": f"{attributes['long_name']}: {text}"}
            variables.append(Variable(f"{name}_{suffix}", (*dims, "rung"), real, described, group))
    return variables


def _units(real: str) -> list[Variable]:
    return [
        Variable(
            "jacobian_sum",
            ("unit", "half", "matrix", "layer", "row", "column"),
            real,
            {"long_name": "sum of the Jacobians over the unit's samples"},
            "units",
            split=("layer",),
        ),
        Variable(
            "count", ("unit", "half", "layer"), "int32", {"long_name": "samples in each sum"}, "units", split=("layer",)
        ),
    ]


def _matrices(real: str, settings: Settings) -> list[Variable]:
    """Whole matrices, a sample and layer, of the outputs that ask for them."""
    dims = ("matrix", "layer", "sample", "row", "column")
    texts = {"jacobian": ("jacobians", "Jacobian J")} | {
        name: ("schur", f"{name[-1]} of the Schur form J = Q T Q^T") for name in ("schur_T", "schur_Q")
    }
    return [
        Variable(name, dims, real, {"long_name": text}, "matrices", split=("layer",))
        for name, (output, text) in texts.items()
        if output in settings.outputs
    ]


def _cumulative(real: str, draws: int) -> list[Variable]:
    dims = ("prompt_sample", "depth")
    variables = [
        Variable(
            "stretching_rate",
            ("prompt_sample", "rate"),
            real,
            {"long_name": "finite-time stretching rates log(s_i) / L of the whole product; NaN beyond the digits kept"},
            "cumulative",
        ),
        Variable(
            "stretching_digits",
            ("prompt_sample", "rate"),
            real,
            {"long_name": "decimal digits kept in each singular value of the product"},
            "cumulative",
        ),
        *(Variable(name, dims, real, {"long_name": text}, "cumulative") for name, text in products.LAWS.items()),
    ]
    for name, text in products.MEASURES.items():
        attributes = {"long_name": text, "units": "1", "formula": "1.4"}
        variables.append(Variable(name, dims, real, attributes, "cumulative"))
        for suffix in ("null", "null_sd", "excess") if draws else ():
            variables.append(
                Variable(f"{name}_{suffix}", dims, real, {**attributes, "rung": "N1 in every layer"}, "cumulative")
            )
    return variables


def _coordinates(model: Model, settings: Settings, samples: Samples, layers: tuple[int, ...]) -> list[Coordinate]:
    token = samples.token
    text = [""] * len(token) if model.tokenizer is None else token_texts(model, token)
    depth = [layer - layers[0] + 1 for layer in layers]
    position = {"long_name": "0-based position in the prompt"}
    return [
        Coordinate("part", ("part",), list(settings.parts)),
        Coordinate("layer", ("layer",), list(layers), {"long_name": "block, 0-based; its input is the block's entry"}),
        Coordinate("sample", ("sample",), np.arange(samples.count)),
        Coordinate("rung", ("rung",), list(rungs(settings))),
        Coordinate("matrix", ("matrix",), list(settings.matrices)),
        Coordinate("depth", ("depth",), depth, {"long_name": "number of blocks in the product"}),
        Coordinate("prompt", ("sample",), samples.prompt.astype(np.int64), {"long_name": "index of the prompt"}),
        Coordinate("article", ("sample",), samples.prompt.astype(np.int64), {"long_name": "index of the text"}),
        Coordinate("position", ("sample",), samples.position.astype(np.int64), position),
        Coordinate("token", ("sample",), token.astype(np.int64), {"long_name": "token id at the position"}),
        Coordinate("token_text", ("sample",), text, {"long_name": "the token, decoded"}),
        Coordinate("sink", ("sample",), samples.sink, {"long_name": "among the first 16 positions"}),
    ]


def _attributes(model: Model, settings: Settings, samples: Samples) -> Mapping[str, object]:
    return {
        "title": "jaxdyn: spectra of transformer blocks",
        "operator": settings.operator,
        "derivative": settings.derivative,
        "metric": "raw",
        "model": model.source,
        "model_revision": model.revision or "",
        "model_hash": model.weights_hash,
        "tokens": settings.tokens,
        "prompts": len(samples.prompts.lengths),
        "articles": len(samples.prompts.lengths),
        "samples": samples.count,
        "bos": "yes" if samples.prompts.bos else "no",
        "nulls": ", ".join(rungs(settings)),
        "null_draws": settings.draws,
        "seed": settings.seed,
        **({} if settings.truncate is None else {"truncate": settings.truncate}),
    }


def _group_attributes(groups: set[str]) -> dict[str, dict[str, str]]:
    relative = (
        "relative: M scaled by norm(input) / norm(output) of its part, so that it maps relative changes to relative "
        "changes; update is that matrix less the identity"
    )
    texts = {
        "relative": {"metric": relative},
        "units": {"title": "sums over the samples of each unit, by half of the articles; merged in order"},
        "matrices": {"title": "whole matrices of each sample"},
        "cumulative": {"title": "running product of the block Jacobians, J_l ... J_first, of each sample"},
    }
    return {name: text for name, text in texts.items() if name in groups}
