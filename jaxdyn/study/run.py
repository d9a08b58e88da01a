"""The whole study into one folder: stage after stage, each a store of its own as soon as it is done.

`DIR/study/STAGE.zarr` holds the group STAGE; a killed study goes on after the last finished stage. The claims follow
from the stages and come last, in `claims.zarr`, with the text of `claims.json` that was in force.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float

from jaxdyn import provenance
from jaxdyn.activations import Activations, capture, tokenise
from jaxdyn.errors import InputError
from jaxdyn.functional import FunctionalSettings, functional_test
from jaxdyn.jacobians import jacobian_stack
from jaxdyn.models import Model
from jaxdyn.pipeline.texts import hash_texts
from jaxdyn.store import StoreError, describe, open_for_resume
from jaxdyn.store.dataset import read_dataset, write_dataset
from jaxdyn.surrogates import SurrogateSettings, order_study, surrogate_study
from jaxdyn.topology import TopologySettings, topology
from jaxdyn.topology.run import LAYERS

from .conventions import AXES, OWN, Convention, every_convention
from .ladder import beside, measure, primary_ladder
from .measures import measures_ladder
from .settings import PAGE, StudySettings, claims, definitions
from .statistics import STATISTICS
from .survival import survival
from .verdict import judge, specification

FOLDER, CLAIMS = "study", "claims"
Tick = Callable[[str, int, int], None]


def study(
    model: Model,
    texts: Sequence[str],
    settings: StudySettings | None = None,
    *,
    out: str | Path,
    corpora: Mapping[str, Sequence[str]] | None = None,
    resume: bool = False,
    origin: Mapping[str, str] | None = None,
    progress: Tick = lambda stage, done, total: None,
) -> xr.Dataset:
    """Run the study.

    Parameters
    ----------
    model : with a tokenizer, and at least two blocks.
    texts : prompts; each is taken as an article of its own, and its last token is the sample.
    settings : default: everything, in context.
    out : folder; `out/study` gets a store a stage.
    corpora : further texts by name, which the conventions go through too.
    resume : keep the stages that are there, which must be of the same settings, model and texts.
    origin : kept with the stores' provenance: `command`.
    progress : called with (stage, done, total).

    Returns
    -------
    The claims: number, null, excess with `excess_low` and `excess_high`, floor, trend_p, rung, verdict, because, by
    claim; `by_rung` (claim, rung), the excess over each.

    Raises
    ------
    InputError : a model of one block, fewer than four texts. StoreError : a study is there and `resume` is off, or it
        is another.

    Notes
    -----
    Memory: all Jacobians of one operator, L S n^2 numbers, four times over. Cost: 1 + draws decompositions of each for
    the ladder, for every measure and for every convention; those of N4 and N5 twice; the surrogates' products, and the
    topology of every layer.
    """
    settings, folder = settings or StudySettings(), Path(out) / FOLDER
    every = {OWN: list(texts), **{name: list(more) for name, more in (corpora or {}).items()}}
    fewest = min(map(len, every.values()))
    if model.architecture.layers < 2 or fewest < 4:
        msg = (
            f"model, texts: got {model.architecture.layers} blocks, {fewest} texts; allowed 2 blocks and 4 texts "
            "or more: a study is about depth, and halves of the texts are compared"
        )
        raise InputError(msg, page=PAGE)
    fixed, about = _fixed(model, every, settings), _about(model, every, settings)
    work = _Work(model, every, settings, progress, folder)
    wanted = (*settings.stages, CLAIMS)
    found = {}
    _refuse_other(folder, wanted, fixed, resume=resume)
    for stage in settings.stages:
        path = folder / f"{stage}.zarr"
        if not _finished(path):
            told = provenance.provenance(**(origin or {}))
            computed = work.run(stage)
            computed = computed.assign_attrs(about | computed.attrs)
            write_dataset(path, stage, computed, fixed | {"stage": stage}, provenance=told)
            shutil.rmtree(folder / LAYERS, ignore_errors=True)  # kept while the topology was at work
        found[stage] = read_dataset(path, stage)
    told = provenance.provenance(**(origin or {}))
    last = judged(found).assign_attrs(about)
    path = write_dataset(folder / f"{CLAIMS}.zarr", CLAIMS, last, fixed | {"stage": CLAIMS}, provenance=told)
    return read_dataset(path, CLAIMS)


def read_study(out: str | Path) -> dict[str, xr.Dataset]:
    """Read the finished stages of a study, by name, `claims` among them."""
    folder = Path(out) / FOLDER
    paths = {path.stem: path for path in sorted(folder.glob("*.zarr")) if _finished(path)}
    if not paths:
        msg = f"out: no finished stage of a study in {folder}; run `jaxdyn study`"
        raise InputError(msg, page=PAGE)
    return {name: read_dataset(path, name) for name, path in paths.items()}


def judged(stages: dict[str, xr.Dataset]) -> xr.Dataset:
    """Judge every claim by the stages that ran."""
    listed = claims()
    rows = [judge(claim, stages) for claim in listed]
    rungs = list(dict.fromkeys(rung for claim in listed for rung in claim["ladder"]))
    numbers = {
        name: (("claim",), np.array([float(row.get(name, np.nan)) for row in rows]))
        for name in ("number", "null", "excess", "excess_low", "excess_high", "floor", "trend_p")
    }
    text = {name: (("claim",), [str(row.get(name, "")) for row in rows]) for name in ("rung", "verdict", "because")}
    fixed = {name: (("claim",), [str(claim[name]) for claim in listed]) for name in ("text", "formula", "statistic")}
    by_rung = np.array([[row["by_rung"].get(rung, np.nan) for rung in rungs] for row in rows])
    margin = (("claim",), [claim["margin"] for claim in listed])
    return xr.Dataset(
        {**numbers, **text, **fixed, "margin": margin, "by_rung": (("claim", "rung_of"), by_rung)},
        {"claim": [claim["name"] for claim in listed], "rung_of": rungs},
        {"claims": json.dumps(listed)},
    )


class _Work:
    """What the stages share: the Jacobians of each operator, made when first needed, one operator held at a time."""

    def __init__(
        self, model: Model, texts: dict[str, list[str]], settings: StudySettings, tick: Tick, folder: Path
    ) -> None:
        self._model, self._texts, self._settings, self._tick = model, texts, settings, tick
        self._folder = folder
        self._captured: dict[str, Activations] = {}
        self._held: tuple[tuple[str, str], Array] | None = None

    def run(self, stage: str) -> xr.Dataset:
        """Compute one stage."""
        return getattr(self, f"_{stage}")()

    def _acts(self, corpus: str = OWN) -> Activations:
        if corpus not in self._captured:
            prompts = tokenise(self._model, self._texts[corpus], max_tokens=self._settings.max_tokens)
            self._captured[corpus] = capture(self._model, prompts)
        return self._captured[corpus]

    def _blocks(self, operator: Any, corpus: str = OWN) -> Float[Array, "L S n n"]:
        if self._held is None or self._held[0] != (operator, corpus):
            self._held = None  # let go before the next is made
            self._held = (operator, corpus), jacobian_stack(self._model, self._acts(corpus), operator=operator)
        return self._held[1]

    def _ratio(self, corpus: str = OWN) -> Float[Array, "L S"]:
        """norm(input) / norm(output) of the residual stream at each block."""
        acts = self._acts(corpus)
        states = jnp.concatenate([acts.inputs, acts.final[None]])
        size = jnp.linalg.norm(states, axis=-1)
        return size[:-1] / size[1:]

    def _ladder(self) -> xr.Dataset:
        settings, done = self._settings, iter(range(1, 1000))
        steps = 2 + sum(rung in settings.rungs for rung in ("N2", "N4", "N5"))

        def tick(rung: str) -> None:
            self._tick("the ladder", next(done), steps)

        blocks = self._blocks(settings.operator)
        found = primary_ladder(self._model, self._acts(), blocks, self._ratio(), settings, tick=tick)
        self._tick("the ladder", steps, steps)
        return found.assign_attrs(operator=settings.operator, samples=blocks.shape[1], seed=settings.seed)

    def _measures(self) -> xr.Dataset:
        settings, done = self._settings, iter(range(1, 1000))
        steps = 2 + len({"N0", "N1", "N2", "N4", "N5"} & set(settings.rungs))
        blocks = self._blocks(settings.operator)
        return measures_ladder(
            self._model, self._acts(), blocks, settings, tick=lambda _: self._tick("every measure", next(done), steps)
        )

    def _conventions(self) -> xr.Dataset:
        """Every convention beside N0 and N1, and the verdict in it on each claim, by each definition of its number."""
        every, rows = every_convention(self._settings.operators, list(self._texts)), []
        own = [
            claim | {"label": label, "statistic": statistic}
            for claim in claims()
            for label, statistic in definitions(claim).items()
            if statistic in STATISTICS and {"N0", "N1"} & set(claim["ladder"])
        ]
        for done, convention in enumerate(every, start=1):
            rows.append(self._one_convention(convention, own))
            self._tick("conventions", done, len(every))
        keys = ("number", "null", "excess", "excess_low", "excess_high", "verdict")
        data = {key: (("convention", "claim"), np.array([[row[key] for row in line] for line in rows])) for key in keys}
        names = {name: ("convention", [getattr(one, name) for one in every]) for name in
                 AXES}  # fmt: skip
        names["of_claim"] = "claim", [one["name"] for one in own]
        names["margin"] = "claim", [one["margin"] for one in own]
        labels = {"convention": [str(one) for one in every], "claim": [one["label"] for one in own]}
        found = xr.Dataset(data, labels | names)
        return found.merge(survival(found, self._settings.operator))

    def _one_convention(self, convention: Convention, own: list[dict[str, Any]]) -> list[dict[str, Any]]:
        blocks, ratio = self._blocks(convention.operator, convention.corpus), self._ratio(convention.corpus)
        measured = measure(convention, blocks, ratio)
        ladder = beside(convention, blocks, ratio, measured, self._settings)
        rows = []
        for claim in own:
            at = STATISTICS.index(claim["statistic"])
            rungs = [type(null)(null.rung, null.draws[:, at]) for null in ladder if null.rung in claim["ladder"]]
            rows.append(specification(measured[at], rungs, claim["margin"]))
        return rows

    def _surrogates(self) -> xr.Dataset:
        blocks = self._blocks(self._settings.operator)
        settings = SurrogateSettings(draws=min(self._settings.draws, 4), seed=self._settings.seed)
        if self._settings.interventions == "claim":
            settings = replace(settings, names=("normal", "n1-of-normal"), alphas=(), sites=("all",))
            return surrogate_study(blocks, settings, progress=partial(self._tick, "surrogates"))
        settings = replace(settings, sites=self._settings.sites)
        found = surrogate_study(blocks, settings, progress=partial(self._tick, "surrogates"))
        if not self._settings.order_sweep:
            return found
        orders = order_study(blocks).rename({"effective_rank": "order_effective_rank", "alpha": "order_alpha"})
        return found.merge(orders, combine_attrs="override")

    def _functional(self) -> xr.Dataset:
        settings = FunctionalSettings(
            operator=self._settings.operator, count=self._settings.displacements, seed=self._settings.seed
        )
        return functional_test(self._model, self._acts(), settings, progress=partial(self._tick, "functional test"))

    def _topology(self) -> xr.Dataset:
        settings = TopologySettings(
            operator=self._settings.operator,
            nulls=self._settings.topology_nulls,
            draws=self._settings.topology_draws,
            refits=self._settings.refits,
            max_tokens=self._settings.max_tokens,
            seed=self._settings.seed,
        )
        texts, keep = self._texts[OWN], self._folder / LAYERS
        return topology(self._model, texts, settings, keep=keep, progress=self._tick)


def _fixed(model: Model, texts: dict[str, list[str]], settings: StudySettings) -> dict[str, Any]:
    """What must be equal for two studies to be one."""
    chosen = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(settings).items()}
    chosen.pop("stages")  # a stage more may be added later
    return {
        **chosen,
        "model": model.weights_hash,
        "texts": hash_texts(texts[OWN]),
        "corpora": {name: hash_texts(some) for name, some in texts.items() if name != OWN},
        "claims": json.dumps(claims(), sort_keys=True),
        **provenance.bits(),
    }


def _about(model: Model, texts: dict[str, list[str]], settings: StudySettings) -> dict[str, Any]:
    """What a reader of any one stage has to know; for words, not for numbers."""
    said = {"model": model.source, "operator": settings.operator, "texts": len(texts[OWN]), "seed": settings.seed}
    return {**said, "bos": str(model.adds_bos), "max_tokens": str(settings.max_tokens)}


def _refuse_other(folder: Path, stages: Sequence[str], fixed: dict[str, Any], *, resume: bool) -> None:
    """Refuse a folder whose stages are another study's, before anything is computed; drop what is to be made anew."""
    there = [stage for stage in stages if (folder / f"{stage}.zarr").exists()]
    if there and not resume:
        msg = f"{folder} holds a study ({', '.join(there)}); go on with --resume, or choose another --out"
        raise StoreError(msg, page=PAGE)
    for stage in there:
        path = folder / f"{stage}.zarr"
        open_for_resume(path, fixed | {"stage": stage})
        if stage == CLAIMS or not _finished(path):
            shutil.rmtree(path)  # the claims are judged anew; an unfinished stage holds nothing


def _finished(path: Path) -> bool:
    return path.exists() and describe(path).complete
