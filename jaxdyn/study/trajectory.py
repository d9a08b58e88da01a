"""Controls by training: every claim's number and its excess at the checkpoints of one run or of several seeds.

Each checkpoint gets a study of its own, a folder `OUT/checkpoints/RUN/STEP`; what follows from all of them comes last,
in `OUT/trajectory.zarr`. A killed trajectory goes on after the last finished stage of the last checkpoint. The first
checkpoint of a run, before any step, is its initialisation, so N5 is not drawn again at each.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.scipy.special import logsumexp

from jaxdyn import provenance
from jaxdyn.activations import tokenise
from jaxdyn.errors import InputError
from jaxdyn.models import Model
from jaxdyn.pipeline.texts import hash_texts
from jaxdyn.store import StoreError, describe, open_for_resume
from jaxdyn.store.dataset import read_dataset, write_dataset

from .run import Tick, study
from .settings import PAGE, StudySettings, claims

STORE, GROUP, FOLDER = "trajectory.zarr", "trajectory", "checkpoints"
STAGES = ("ladder", "surrogates", "topology")
SETTINGS = StudySettings(
    operators=("in-context",),
    stages=STAGES,
    rungs=("N0", "N1", "N2"),
    draws=4,
    interventions="claim",
    topology_nulls=("rotated", "shuffled"),
    topology_draws=99,
    refits=20,
)
"""What is computed at each checkpoint where nothing else is asked for: what the figures draw."""

BATCH = 16  # texts whose logits are held at once
NUMBERS = ("number", "null", "excess", "excess_low", "excess_high", "floor", "trend_p")
WORDS = ("rung", "verdict", "because")


@dataclass(frozen=True)
class Checkpoint:
    """One point of a trajectory.

    Attributes
    ----------
    run : name of the run, such as a seed; runs share their steps.
    step : optimizer steps done.
    load : gives the model.
    """

    run: str
    step: int
    load: Callable[[], Model]


def trajectory(
    checkpoints: Sequence[Checkpoint],
    texts: Sequence[str],
    settings: StudySettings | None = None,
    *,
    out: str | Path,
    resume: bool = False,
    origin: Mapping[str, str] | None = None,
    progress: Tick = lambda stage, done, total: None,
) -> xr.Dataset:
    """Follow every claim over training.

    Parameters
    ----------
    checkpoints : of one architecture and tokenizer; two or more steps, every run at the same ones.
    texts : prompts, the same at each checkpoint.
    settings : default `SETTINGS`; those of `study`.
    out : folder of the studies and of `trajectory.zarr`.
    resume : keep what is there, which must be of the same settings and texts.
    origin, progress : as in `study`.

    Returns
    -------
    Over (run, step, claim): number, null, excess, excess_low, excess_high, floor, trend_p, rung, verdict, because, and
    `by_rung` (..., rung_of), the excess over each null; `loss` (run, step), nats a token of the texts under the model.
    NaN and "not run" where a stage was left out.

    Raises
    ------
    InputError : runs with different steps, a checkpoint twice, fewer than two steps. Those of `study`.

    Notes
    -----
    Cost: a study a checkpoint. methods.md 1.7 (N5), 1.8: seeds are the replicates.
    """
    settings, texts, out = settings or SETTINGS, list(texts), Path(out)
    runs, steps = _grid(checkpoints)
    fixed = {
        **{name: list(value) if isinstance(value, tuple) else value for name, value in asdict(settings).items()},
        "runs": runs, "steps": steps, "texts": hash_texts(texts), "claims": json.dumps(claims(), sort_keys=True),
        **provenance.bits(),
    }  # fmt: skip
    path = out / STORE
    if path.exists():
        if not resume:
            msg = f"{out} holds a trajectory; go on with --resume, or choose another --out"
            raise StoreError(msg, page=PAGE)
        open_for_resume(path, fixed)
        if describe(path).complete:
            return read_dataset(path, GROUP)
        shutil.rmtree(path)
    rows = {}
    for done, one in enumerate(checkpoints):
        progress("checkpoints", done, len(checkpoints))
        place = out / FOLDER / one.run / f"{one.step:08d}"
        rows[one.run, one.step] = _at(one, texts, settings, place, origin)
    progress("checkpoints", len(checkpoints), len(checkpoints))
    told = provenance.provenance(**(origin or {}))
    write_dataset(path, GROUP, _joined(rows, runs, steps), fixed, provenance=told)
    return read_dataset(path, GROUP)


def _at(one: Checkpoint, texts: list[str], settings: StudySettings, place: Path, origin: Any) -> xr.Dataset:
    """Study one checkpoint."""
    model = one.load()
    found = study(model, texts, settings, out=place, resume=True, origin=origin)
    return found.assign(loss=_loss(model, texts, settings.max_tokens))


def _loss(model: Model, texts: list[str], max_tokens: int | None) -> float:
    """Mean cross-entropy of the texts' tokens but the first of each, nats a token."""
    prompts, total = tokenise(model, texts, max_tokens=max_tokens), 0.0
    for at in range(0, len(prompts.lengths), BATCH):
        ids = prompts.token_ids[at : at + BATCH]
        scores = jnp.asarray(model.logits(ids)[:, :-1], "float32")
        chosen = jnp.take_along_axis(scores, jnp.asarray(ids)[:, 1:, None], axis=-1)[..., 0]
        real = np.arange(1, ids.shape[1]) < prompts.lengths[at : at + BATCH, None]
        total += float(np.sum(np.asarray(logsumexp(scores, axis=-1) - chosen, float), where=real))
    return total / float(np.sum(prompts.lengths - 1))


def _grid(checkpoints: Sequence[Checkpoint]) -> tuple[list[str], list[int]]:
    """Return the runs and the steps, in order; refuse a grid with holes."""
    runs = list(dict.fromkeys(one.run for one in checkpoints))
    steps = sorted({one.step for one in checkpoints})
    if len(steps) < 2 or sorted((one.run, one.step) for one in checkpoints) != sorted(product(runs, steps)):
        said = "; ".join(f"{run}: {sorted(one.step for one in checkpoints if one.run == run)}" for run in runs)
        msg = f"checkpoints: got {said or 'none'}; allowed two steps or more, each once, the same for every run"
        raise InputError(msg, page=PAGE)
    return runs, steps


def _joined(rows: dict[tuple[str, int], xr.Dataset], runs: list[str], steps: list[int]) -> xr.Dataset:
    first = rows[runs[0], steps[0]]
    dims = ("run", "step")
    found: dict[str, Any] = {
        name: ((*dims, *first[name].dims), np.array([[rows[run, step][name].values for step in steps] for run in runs]))
        for name in (*NUMBERS, *WORDS, "by_rung", "loss")
    }
    same = {name: first[name] for name in ("margin", "text", "formula")}
    labels = {"run": runs, "step": steps, "claim": first["claim"].values, "rung_of": first["rung_of"].values}
    return xr.Dataset(found | same, labels, first.attrs | {"model": ", ".join(runs)})
