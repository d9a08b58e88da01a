"""A sweep whose units cost nothing: drawn numbers in place of Jacobians, so that many runs can be killed in seconds.

The store, the claims, the processes and the order in which sums are merged are the real ones. `install` puts the stub
in place in this process; `Child` runs it in another.
"""

import base64
import dataclasses
import hashlib
import multiprocessing
import os
import pickle
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from jaxdyn import application, sweep
from jaxdyn.models import parameters, weights
from jaxdyn.models.model import Model
from jaxdyn.pipeline import unit
from jaxdyn.pipeline.averaged import merged_means, store_sums
from jaxdyn.pipeline.layout import make_schema
from jaxdyn.store import Store
from jaxdyn.sweep import claiming, lockstep, manifest, models, presets, processes, worker
from jaxdyn.sweep.plan import TOGETHER, ModelEntry, Plan, Texts
from jaxdyn.training.settings import TrainSettings
from tests.words import WordTokenizer

ARCHITECTURE = TrainSettings(
    width=8, layers=2, heads=2, kv_heads=1, ff_dim=12, context=32, steps=1, warmup=0
).architecture(61)
SHAPES = parameters.shapes(ARCHITECTURE)
WORDS = "the cat sat on the mat and looked at the rain under the old stone bridge".split()


def make_plan(folder: Path, **changes: Any) -> Plan:
    """A plan of two models and eleven texts in units of two, its texts written beside `out`."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = folder / "texts.txt"
    texts.write_text("\n".join(" ".join(WORDS[: 2 + k]) for k in range(11)))
    entries = (ModelEntry("one", "one"), ModelEntry("two", "two"))
    plan = Plan(entries, Texts(str(texts)), folder / "out", parts=("block",), draws=0, unit=2)
    return dataclasses.replace(plan, **changes)


def model_of(entry: ModelEntry, *_: object, **__: object) -> Model:
    """A model known by its name alone."""
    name = hashlib.sha256(entry.source.encode()).hexdigest()
    zeros: dict[str, Any] = {path: jnp.asarray(np.zeros(shape, np.float32)) for path, shape in SHAPES.items()}
    return Model(ARCHITECTURE, parameters.nest(zeros), WordTokenizer(), entry.source, None, name)


def compute(model, settings, samples, layers, unit, tick, *, delay: Callable[[], None] = lambda: None) -> Iterator:
    """The arrays of a unit, drawn from a seed that its model, operator and number give."""
    del tick
    schema, size = make_schema(model, settings, samples, layers), len(samples.members(unit))
    lengths = {**schema.sizes, "sample": size, "prompt_sample": size, "unit": 1}
    arrays = {}
    for variable in schema.variables:
        told = f"{model.weights_hash} {settings.operator} {unit} {variable.key}"
        rng = np.random.default_rng(list(hashlib.sha256(told.encode()).digest()))
        shape = [lengths[dim] for dim in variable.dims]
        drawn = rng.standard_normal(shape) if variable.dtype[0] in "fc" else np.zeros(shape)
        arrays[variable.key] = np.asarray(drawn + size * (variable.name == "count"), variable.dtype)
    dims = {variable.key: variable.dims for variable in schema.variables}
    for index in range(len(layers)):
        delay()
        layered = {key: array for key, array in arrays.items() if "layer" in dims[key]}
        yield index, {key: np.take(array, index, axis=dims[key].index("layer")) for key, array in layered.items()}
    yield None, {key: array for key, array in arrays.items() if "layer" not in dims[key]}


def compute_units(models, settings, samples, layers, units, tick, **given: Any) -> Iterator:
    """Several units side by side."""
    work = [(model, settings, samples, layers, unit, tick) for model, unit in zip(models, units, strict=True)]
    yield from map(list, zip(*(compute(*one, **given) for one in work), strict=True))


def finish(store: Store, model, settings, layers, tick) -> None:
    """The merged means alone, in place of what is measured of them."""
    del model, tick
    if "averages" not in settings.outputs:
        store.finish({})
        return
    means = [merged_means(*store_sums(store, index))[0] for index in range(len(layers))]
    store.finish({"mean": xr.Dataset({"mean_jacobian": (("layer", "matrix", "row", "column"), np.stack(means))})})


class Measures:
    """In place of `Measurer`: of each Jacobian its size and the norms that came with it, zeros for the rest."""

    schema: Any = None
    """Of the store that was made or opened last."""

    def __init__(self, arch, settings, layers, members) -> None:
        del arch, layers
        self._settings, self._count = settings, len(members)

    def measure(self, layer: int, matrices, norms, tick) -> dict[str, np.ndarray]:
        """Arrays by key, (parts, samples, ...)."""
        del layer, tick
        sizes, found = {**self.schema.sizes, "sample": self._count}, {}
        for variable in self.schema.variables:
            if variable.group not in ("units", "matrices"):
                shape = [sizes[dim] for dim in variable.dims if dim != "layer"]
                found[variable.key] = np.zeros(shape, variable.dtype)
        kinds = self._settings.matrices
        for part, name in enumerate(self._settings.parts):
            kind = kinds.index("block" if name == "update" else name)
            found["henrici"][part] = np.linalg.norm(matrices[kind], axis=(-2, -1))
            found["input_norm"][part], found["output_norm"][part] = norms[kind]
        return found

    def cumulative(self) -> dict[str, np.ndarray]:
        """Nothing: the plan's layers have gaps."""
        return {}


def real_jacobians(delay: float) -> None:
    """Real models, Jacobians and sums of units, with stubs for what is measured of them, for good in this process."""
    begin, measure = worker.Worker._work, Measures.measure

    def slow(self: Any, *given: Any) -> Any:
        time.sleep(delay)
        return measure(self, *given)

    def begun(self: Any, run: Any) -> Any:
        work, fixed = begin(self, run)
        Measures.schema = worker.schema_of(work, ["0"] * work.samples.units)
        return work, fixed

    patches = (
        (worker.Worker, "_work", begun),
        (Measures, "measure", slow),
        (unit, "Measurer", Measures),
        (claiming, "finish", finish),
        (lockstep, "finish", finish),
    )
    for place, name, value in patches:
        setattr(place, name, value)
    with_words()


def with_words() -> None:
    """Real models with a tokenizer that takes no seconds to import, for good in this process."""
    for place in (weights, models):
        place.load_tokenizer = lambda _: WordTokenizer()
    worker.POLL = 0.02


PATCHES = (
    (presets, "load", model_of),
    (manifest, "outline", model_of),
    (presets, "run_units", compute_units),
    (claiming, "finish", finish),
    (worker, "POLL", 0.02),
)


def install(delay: float = 0.0) -> None:
    """Put the stub in place, for good: in a process of its own. A unit then takes `delay` seconds a layer."""
    for module, name, value in PATCHES:
        setattr(module, name, value)
    if delay:
        presets.run_units = lambda *work: compute_units(*work, delay=lambda: time.sleep(delay))  # pyright: ignore


PATIENCE = 240.0
"""Seconds after which a process counts as stuck, on a machine that does other work too."""


class Child:
    """A process that does its part of a sweep with stub units."""

    def __init__(self, plan: Plan, process: int = 0, processes: int = 1, **options: Any) -> None:
        """Begin; with `devices`, so many of this machine's processor, units have real Jacobians.

        With `measured` too they are really decomposed and measured, and nothing is a stub.
        """
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        self._reader, writer = context.Pipe(duplex=False)
        self.process = context.Process(target=_child, args=(plan, process, processes, options, writer))
        self.process.start()
        writer.close()

    def kill(self) -> None:
        """End it now, as a power cut would."""
        self.process.kill()

    def wait(self) -> int | None:
        """Wait for its end; its exit code."""
        self.process.join(PATIENCE)
        return self.process.exitcode

    def result(self) -> Any:
        """What it returned: the outcome as plain values, or the error's text."""
        try:
            return self._reader.recv() if self._reader.poll(PATIENCE) else f"silent for {PATIENCE} s"
        except EOFError:
            return "gone"


class Starter:
    """A process that starts others for a sweep, as `--processes N` does; a unit of theirs takes a second."""

    def __init__(self, plan: Plan, count: int) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        self._process = context.Process(target=_start, args=(plan, count))
        self._process.start()

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._process.terminate()

    def wait(self) -> int | None:
        """Wait for its end; its exit code."""
        self._process.join(PATIENCE)
        return self._process.exitcode


def _start(plan: Plan, count: int) -> None:
    told = base64.b64encode(pickle.dumps(plan)).decode()
    program = f"from tests.sweep import stub; stub.started({told!r})"
    processes._CHILD = program  # pyright: ignore[reportPrivateUsage]
    raise SystemExit(processes.start_here([], count, 1, plan.out / "logs", joined=False))


def started(told: str) -> None:
    """Do the part of a process that `Starter` has started."""
    install(0.4)
    place = [int(sys.argv[sys.argv.index(name) + 1]) for name in ("--process-id", "--num-processes")]
    sweep.sweep(pickle.loads(base64.b64decode(told)), process=place[0], processes=place[1])


def _child(plan: Plan, process: int, processes: int, options: dict[str, Any], writer: Any) -> None:
    delay, devices = options.pop("delay", 0.0), options.pop("devices", None)
    if devices is None:
        install(delay)
    else:
        if options.pop("measured", False):
            with_words()
        else:
            real_jacobians(delay)
        jax.config.update("jax_compilation_cache_dir", str(plan.out.parent / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_num_cpu_devices", devices)
        jax.config.update("jax_enable_x64", plan.dtype == "float64")
    coordinator = options.pop("coordinator", None)
    if coordinator:
        lockstep, stale = plan.mesh in TOGETHER, options.get("stale", 60.0)
        process, processes = application.join(
            coordinator, process, processes, local=True, lockstep=lockstep, stale=stale
        )
        options["leave"] = application.leave
    try:
        writer.send(sweep.sweep(plan, process=process, processes=processes, **options).as_dict())
    except ValueError as error:
        writer.send(str(error))
        if application.in_lockstep:
            os._exit(2)  # as the command does
