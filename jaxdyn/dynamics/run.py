"""The whole run: states into the store unit by unit, then stage by stage what follows from them.

The store is `DIR/dynamics.zarr`. Running the model is what a unit of work does; a killed run goes on with `resume`, in
the unit or in the stage it was in. Samples are in the order of their token ids, whatever order the texts came in: so
every number is the same, to the bit, for the same set of texts (coordinate `prompt` leads back).
"""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from jaxdyn import provenance
from jaxdyn.activations import Prompts, capture, pad, tokenise
from jaxdyn.errors import InputError
from jaxdyn.models.model import Model
from jaxdyn.store import Coordinate, Schema, Store, Variable, open_tree, start

from .settings import FEWEST, DynamicsSettings
from .stages import Inputs, chosen
from .state import Points, points, trajectory
from .stored import KEY, States

STORE = "dynamics.zarr"


def analyse(
    model: Model,
    texts: list[str],
    settings: DynamicsSettings | None = None,
    *,
    out: str | Path,
    resume: bool = False,
    origin: Mapping[str, str] | None = None,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> xr.DataTree:
    """Measure the dynamics of a model's residual stream along depth and store what comes out.

    Parameters
    ----------
    model : with a tokenizer.
    texts : prompts, 8 or more; the last token of each is the sample.
    settings : default: all stages and controls.
    out : folder of `dynamics.zarr`.
    resume : go on with the store there, which must be of the same settings; it may lack stages.
    origin : kept with the provenance: `command`, `corpus`.
    progress : called with (what, done, total).

    Returns
    -------
    The store, a group a stage (`stages.STAGES`).

    Raises
    ------
    InputError : too few texts, texts longer than the context, states that are not finite. StoreError : a store that is
        in the way, or of other settings.

    Notes
    -----
    The disk holds (1 + random) x N x 2L x D numbers; memory holds a unit of work, (D, D) matrices and 128 MiB. Source:
    methods.md 2.1-2.3, after Fernando and Guitchounts (arXiv 2502.12131).
    """
    settings = settings or DynamicsSettings()
    stages = chosen(settings.stages)
    if len(texts) < FEWEST:
        msg = f"samples: got {len(texts)}; allowed {FEWEST} or more: nearest neighbours and held-out shares need them"
        raise InputError(msg)
    prompts, order = in_order(tokenise(model, texts, max_tokens=settings.max_tokens))
    along = points(model.architecture)
    store = _open(model, texts, settings, prompts, order, along, Path(out), resume=resume, origin=origin)
    if len(store.done_units()) < store.unit_count:
        _capture(model, settings, prompts, store, progress)
    have = set(open_tree(store.path).children)
    states = States(store, settings, len(texts), len(along), model.architecture.width)
    inputs = Inputs(model, prompts, states, along, settings, Path(out), progress)
    for number, stage in enumerate(stages):
        if stage.name not in have:
            store.finish({stage.name: stage.run(inputs)}, complete=number == len(stages) - 1)
    return open_tree(store.path)


def in_order(prompts: Prompts) -> tuple[Prompts, np.ndarray]:
    """Sort prompts by their token ids; return them and the index that each had."""
    rows = [row[:n].tolist() for row, n in zip(prompts.token_ids, prompts.lengths, strict=True)]
    order = sorted(range(len(rows)), key=lambda i: rows[i])
    return Prompts(prompts.token_ids[order], prompts.lengths[order], prompts.bos), np.array(order)


def _open(model, texts, settings, prompts, order, along, out, *, resume, origin) -> Store:
    count = len(texts)
    unit = min(settings.unit, count)
    ids = b"".join(row[:n].tobytes() for row, n in zip(prompts.token_ids, prompts.lengths, strict=True))
    fixed = {
        **settings.as_dict(),
        "tokens_hash": hashlib.sha256(prompts.lengths.tobytes() + ids).hexdigest(),
        "model_hash": model.weights_hash,
        "dtype": np.dtype(model.dtype).name,
        "padded_tokens": int(prompts.token_ids.shape[1]),
        "unit": unit,
        **provenance.bits(),
    }
    schema = Schema(
        sizes={"weights": len(settings.weights), "control": len(settings.rows), "point": len(along), "sample": count,
               "coordinate": model.architecture.width, "step": len(along) - 1},
        units={"sample": unit},
        variables=(
            Variable(
                KEY,
                ("weights", "point", "sample", "coordinate"),
                store_dtype(model),
                {"long_name": "residual stream at the last token where a sublayer reads it", "units": "1"},
                split=("weights", "point"),
            ),
        ),
        coordinates=_coordinates(settings, along, prompts, order),
        attrs={
            "title": "jaxdyn: dynamics of the residual stream along depth",
            "model": model.source,
            "model_revision": model.revision or "",
            "model_hash": model.weights_hash,
            "tokens": "last",
            "samples": count,
            "bos": "yes" if prompts.bos else "no",
            "seed": settings.seed,
            "points": "one a block (parallel residual)" if along.site[0] == "both" else
            "before attention and before the MLP of every block",
        },
    )  # fmt: skip
    told = provenance.provenance(model_source=model.source, model_hash=model.weights_hash, **(origin or {}))
    return start(out / STORE, schema, fixed, provenance=told, resume=resume)


def _coordinates(
    settings: DynamicsSettings, along: Points, prompts: Prompts, order: np.ndarray
) -> tuple[Coordinate, ...]:
    last = prompts.token_ids[np.arange(len(order)), prompts.lengths - 1]
    return (
        Coordinate("weights", ("weights",), list(settings.weights)),
        Coordinate("control", ("control",), list(settings.rows)),
        Coordinate("point", ("point",), np.arange(len(along)), {"long_name": "point along depth"}),
        Coordinate("step", ("step",), np.arange(len(along) - 1), {"long_name": "step from this point to the next"}),
        Coordinate("block", ("point",), along.block, {"long_name": "block, 0-based"}),
        Coordinate("site", ("point",), list(along.site), {"long_name": "sublayer that reads the state"}),
        Coordinate("prompt", ("sample",), order.astype(np.int64), {"long_name": "index of the text as given"}),
        Coordinate("token", ("sample",), last.astype(np.int64), {"long_name": "token id of the sample"}),
        Coordinate("position", ("sample",), prompts.lengths.astype(np.int64) - 1, {"long_name": "0-based position"}),
    )


def _capture(
    model: Model,
    settings: DynamicsSettings,
    prompts: Prompts,
    store: Store,
    progress: Callable[[str, int, int], None],
) -> None:
    """Run the models over the prompts that are not stored yet."""
    done = store.done_units()
    models = [model] + ([model.initialised(settings.seed)] if "random" in settings.weights else [])
    length = prompts.token_ids.shape[1]
    for unit in range(store.unit_count):
        if unit not in done:
            part = store.unit_slice(unit)
            kept = zip(prompts.token_ids[part], prompts.lengths[part], strict=True)
            rows = pad([row[:n] for row, n in kept], bos=prompts.bos, length=length)
            found = [trajectory(capture(one, rows), one.architecture).astype(store_dtype(model)) for one in models]
            if not all(np.isfinite(one).all() for one in found):
                msg = f"texts: the residual stream of a text in {part.start}-{part.stop - 1} is not finite; use float32"
                raise InputError(msg)
            store.write_unit(unit, {KEY: np.stack([np.moveaxis(one, 1, 0) for one in found])})
        progress("texts", unit + 1, store.unit_count)


def store_dtype(model: Model) -> str:
    """Dtype of stored states: float64 for a float64 model, else float32."""
    return "float64" if np.dtype(model.dtype) == np.float64 else "float32"
