"""The whole run: samples into units, units into the store, averages at the end; killed at any point, it goes on."""

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jaxdyn_kernels import Status, cores, single_threaded_blas

from jaxdyn import provenance
from jaxdyn.activations import Prompts, tokenise
from jaxdyn.models.model import Model
from jaxdyn.store import Store, StoreError, start

from .averaged import averaged_groups
from .layout import make_schema
from .progress import Progress
from .samples import Samples, make_samples
from .settings import Settings
from .texts import hash_texts
from .unit import Arrays, run_unit

STORE = "results.zarr"


@dataclass(frozen=True)
class Outcome:
    """What a run did.

    Attributes
    ----------
    store : the finished store.
    samples, matrices : how many samples and decomposed matrices (update is not counted: it shares the block's).
    failed : matrices whose status is not OK, by status name.
    seconds : wall time by stage.
    """

    store: Path
    samples: int
    matrices: int
    failed: dict[str, int]
    seconds: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**dataclasses.asdict(self), "store": str(self.store)}

    def summary(self) -> str:
        """Return one line for the terminal."""
        bad = ", ".join(f"{count} {name}" for name, count in self.failed.items())
        spent = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.seconds.items())
        verdict = f"{sum(self.failed.values())} failed ({bad})" if bad else "all decomposed"
        return f"{self.samples} samples, {self.matrices} matrices, {verdict}; {spent}"


def run(
    model: Model,
    texts: list[str],
    settings: Settings,
    *,
    out: Path,
    resume: bool,
    progress: Progress,
    origin: Mapping[str, str] | None = None,
    name: str = STORE,
    title: str = "",
) -> Outcome:
    """Run an analysis into `out/name`; the command line's form of `analyze`.

    `origin` is kept with a new store's provenance: `command` (the command line), `corpus` (where the texts are from).
    `title` precedes the names of the stages that are shown.
    """
    seconds = {}
    clock = time.perf_counter()
    layers = settings.resolved_layers(model.architecture)
    prompts = tokenise(model, texts, max_tokens=settings.max_tokens)
    samples = make_samples(prompts, tokens=settings.tokens, unit=settings.unit)
    store = open_store(
        model, texts, settings, prompts, samples, layers, out=out, resume=resume, origin=origin, name=name
    )
    if not store.complete:
        done = store.done_units()
        per_unit = len(layers)
        before = sum(len(samples.members(unit)) for unit in done) * per_unit
        with progress.stage(f"{title}blocks x samples", samples.count * per_unit, done=before) as tick:
            for unit in range(samples.units):
                if unit not in done:
                    store_unit(store, unit, run_unit(model, settings, samples, layers, unit, tick))
        seconds["units"] = time.perf_counter() - clock
        clock = time.perf_counter()
        with progress.stage(f"{title}averaged blocks", len(layers)) as tick:
            finish(store, model, settings, layers, tick)
        seconds["averages"] = time.perf_counter() - clock
    return outcome(store, settings, seconds)


def outcome(store: Store, settings: Settings, seconds: dict[str, float]) -> Outcome:
    """Count what a store holds."""
    counted = [part != "update" or "block" not in settings.parts for part in settings.parts]
    status = store.read_all(["status"])["status"][counted]
    failed = {Status(int(code)).name: int(np.sum(status == code)) for code in np.unique(status) if code != 0}
    return Outcome(store.path, status.shape[-1], status.size, failed, seconds)


def finish(store: Store, model: Model, settings: Settings, layers: tuple[int, ...], tick: Callable[[], None]) -> None:
    """Merge the units' sums in order, measure the averages, and mark the store complete."""
    groups = {}
    if "averages" in settings.outputs:
        with single_threaded_blas():  # matrices come singly here: BLAS's threads would wait more than they work
            groups = averaged_groups(store, model, settings, layers, tick)
    store.finish(groups)


def store_unit(store: Store, unit: int, pieces: Iterable[tuple[int | None, Arrays]]) -> None:
    """Write one unit and mark it done."""
    writer = UnitWriter(store, unit)
    for layer, arrays in pieces:
        writer.add(layer, arrays)
    writer.commit()


class UnitWriter:
    """Writes one unit: matrices layer by layer as they come, numbers all at once, because a write has a price."""

    def __init__(self, store: Store, unit: int) -> None:
        self._store, self._unit = store, unit
        self._numbers: dict[str, list[np.ndarray]] = {}

    def add(self, layer: int | None, arrays: Arrays) -> None:
        """Take one layer's arrays, layers in order; without a layer, those that span all."""
        if layer is None:
            self._store.write(self._unit, arrays)
            return
        matrices = {key: value for key, value in arrays.items() if key.startswith(("units/", "matrices/"))}
        if matrices:
            self._store.write(self._unit, matrices, at={"layer": layer})
        for key in arrays.keys() - matrices.keys():
            self._numbers.setdefault(key, []).append(arrays[key])

    def commit(self) -> None:
        """Write what is left and mark the unit done."""
        self._store.write(self._unit, {key: np.stack(values, axis=1) for key, values in self._numbers.items()})
        self._store.commit(self._unit)


def open_store(
    model: Model,
    texts: list[str],
    settings: Settings,
    prompts: Prompts,
    samples: Samples,
    layers: tuple[int, ...],
    *,
    out: Path,
    resume: bool,
    origin: Mapping[str, str] | None = None,
    name: str = STORE,
) -> Store:
    """Create or reopen the store, with everything in its settings that two runs of the same bits must share."""
    fixed = fixed_settings(model, texts, settings, prompts, samples, layers)
    informative = provenance.provenance(
        model_source=model.source,
        model_revision=model.revision,
        model_hash=model.weights_hash,
        samples=samples.count,
        **(origin or {}),
    )
    store = start(
        out / name, make_schema(model, settings, samples, layers), fixed, provenance=informative, resume=resume
    )
    if name != STORE:
        return store
    config = {"model": model.source, "revision": model.revision, **fixed, "provenance": informative}
    try:
        (out / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    except OSError as error:
        msg = f"out: cannot write {out / 'config.yaml'}: {error.strerror}; free space or choose another --out"
        raise StoreError(msg) from error
    return store


def fixed_settings(
    model: Model, texts: list[str], settings: Settings, prompts: Prompts, samples: Samples, layers: tuple[int, ...]
) -> dict[str, Any]:
    """All that two runs of the same bits must share."""
    return {
        **settings.as_dict(),
        "layers": list(layers),
        "model_hash": model.weights_hash,
        "texts_hash": hash_texts(texts),
        "dtype": np.dtype(model.dtype).name,
        "weights_dtype": str(model.params["embed"]["tokens"].dtype),
        "mesh": model.mesh,
        "padded_tokens": int(prompts.token_ids.shape[1]),
        "unit": samples.unit,
        "cores": cores(),
        **provenance.bits(),
    }
