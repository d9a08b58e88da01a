"""The whole probe: residual streams into the store unit by unit, then every layer and control under the tests.

The store is `DIR/semanticity.zarr`. What costs is running the model, so the unit of work is a few stimuli, whose
representations are stored; a killed run goes on with `resume`. The tests follow from what is stored and come last, as
the group `semanticity`. Controls: "random", the same architecture at random initialisation; "rotated", the same
representations in a random orthogonal basis before they are standardised coordinate by coordinate.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from jaxdyn import provenance
from jaxdyn.activations import Prompts, capture, pad, tokenise
from jaxdyn.errors import InputError
from jaxdyn.models.model import Model
from jaxdyn.store import Coordinate, Schema, Store, Variable, open_tree, start

from .dataset import assemble
from .probe import ITEMS, TRIALS, Design, design, measure
from .stimuli import Stimuli

STORE, GROUP = "semanticity.zarr", "semanticity"
CONTROLS = ("random", "rotated")
TRAINED = "trained"


@dataclass(frozen=True)
class ProbeSettings:
    """What to probe.

    Attributes
    ----------
    layers : block numbers, the state at whose entry is probed, the number of blocks for the state after the last;
        empty means all of these.
    controls : any of "random", "rotated".
    items : numbers of items of the curves, 2 among them.
    trials : tuples sampled for each number of items above 2.
    seed : of tuples, bootstrap, rotation and random initialisation.
    unit : stimuli a unit of work.
    """

    layers: tuple[int, ...] = ()
    controls: tuple[str, ...] = CONTROLS
    items: tuple[int, ...] = ITEMS
    trials: int = TRIALS
    seed: int = 0
    unit: int = 32

    def __post_init__(self) -> None:
        """Refuse what cannot be run, naming the argument."""
        if unknown := [name for name in self.controls if name not in CONTROLS]:
            msg = f"controls: got {unknown[0]!r}; allowed {', '.join(CONTROLS)}, or none"
            raise InputError(msg)
        if self.unit < 1:
            msg = f"unit: got {self.unit}; allowed 1 or more"
            raise InputError(msg)

    def sites(self, blocks: int) -> tuple[int, ...]:
        """Return the sites to probe, all where none were named."""
        if unknown := [layer for layer in self.layers if not 0 <= layer <= blocks]:
            msg = f"layers: got {unknown[0]}; allowed 0 to {blocks}: the entry of a block, {blocks} after the last"
            raise InputError(msg)
        return tuple(sorted(set(self.layers))) or tuple(range(blocks + 1))


def probe(
    model: Model,
    stimuli: Stimuli,
    settings: ProbeSettings | None = None,
    *,
    out: str | Path,
    resume: bool = False,
    origin: Mapping[str, str] | None = None,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> xr.Dataset:
    """Put every layer of a model to the two tests and store what comes out.

    Parameters
    ----------
    model : with a tokenizer.
    stimuli : texts with a metric; the last token of each stands for it.
    settings : default: all layers and controls.
    out : folder of `semanticity.zarr`.
    resume : go on with the store there, which must be of the same settings.
    origin : kept with the provenance: `command`.
    progress : called with (stage, done, total).

    Returns
    -------
    The group `semanticity`, in memory; variables as `dataset.assemble` names them.

    Raises
    ------
    InputError : layers the model lacks, texts longer than its context. StoreError : a store that is in the way.

    Notes
    -----
    Cost: a forward pass a stimulus and model, and about a second a layer and control. The store keeps
    (1 + random) x layers x stimuli x width numbers in float32.
    """
    settings = settings or ProbeSettings()
    sites = settings.sites(model.architecture.layers)
    plan = design(stimuli, items=settings.items, trials=settings.trials, seed=settings.seed)
    prompts = tokenise(model, stimuli.texts)
    store = _open(model, stimuli, settings, sites, plan, prompts, Path(out), resume=resume, origin=origin)
    if not store.complete:
        _capture(model, settings, sites, prompts, store, progress)
        residual = store.read_all(["residual"])["residual"]
        store.finish({GROUP: assemble(_measure(residual, settings, plan, progress), plan, sites)})
    return open_tree(store.path)[GROUP].to_dataset().load()


def _open(model, stimuli, settings, sites, plan, prompts, out, *, resume, origin):
    weights = _weights(settings)
    count, unit = len(stimuli.texts), min(settings.unit, len(stimuli.texts))
    fixed = {
        **{name: list(v) if isinstance(v, tuple) else v for name, v in asdict(settings).items()},
        "layers": list(sites),
        "items": list(plan.items),
        "stimuli": stimuli.name,
        "metric": stimuli.metric,
        "texts_hash": hashlib.sha256("\0".join(stimuli.texts).encode()).hexdigest(),
        "distance_sum": float(stimuli.distance.sum()),
        "model_hash": model.weights_hash,
        "dtype": np.dtype(model.dtype).name,
        "padded_tokens": int(prompts.token_ids.shape[1]),
        "unit": unit,
        **provenance.bits(),
    }
    schema = Schema(
        sizes={"weights": len(weights), "layer": len(sites), "sample": count, "width": model.architecture.width},
        units={"sample": unit},
        variables=(
            Variable(
                "residual",
                ("weights", "layer", "sample", "width"),
                "float32",
                {"long_name": "residual stream at the last token", "units": "1"},
            ),
        ),
        coordinates=(
            Coordinate("weights", ("weights",), weights),
            Coordinate("layer", ("layer",), np.array(sites)),
            Coordinate("text", ("sample",), stimuli.texts),
            Coordinate("tested", ("sample",), np.isin(np.arange(count), plan.test)),
        ),
        attrs={
            "model": model.source,
            "model_revision": model.revision or "",
            "stimuli": stimuli.name,
            "metric": stimuli.metric,
            "bos": "yes" if prompts.bos else "no",
            "seed": settings.seed,
        },
    )
    told = provenance.provenance(model_source=model.source, model_hash=model.weights_hash, **(origin or {}))
    return start(out / STORE, schema, fixed, provenance=told, resume=resume)


def _weights(settings: ProbeSettings) -> list[str]:
    return [TRAINED, *(["random"] if "random" in settings.controls else [])]


def _capture(
    model: Model,
    settings: ProbeSettings,
    sites: Sequence[int],
    prompts: Prompts,
    store: Store,
    progress: Callable[[str, int, int], None],
) -> None:
    """Run the models over the stimuli that are not stored yet."""
    models = [model] + ([model.initialised(settings.seed)] if "random" in settings.controls else [])
    done = store.done_units()
    for unit in range(store.unit_count):
        if unit not in done:
            part = store.unit_slice(unit)
            ids, lengths = prompts.token_ids[part], prompts.lengths[part]
            rows = pad(
                [row[:n] for row, n in zip(ids, lengths, strict=True)],
                bos=prompts.bos,
                length=prompts.token_ids.shape[1],
            )
            found = []
            for one in models:
                acts = capture(one, rows)
                entry = np.concatenate([np.asarray(acts.inputs), np.asarray(acts.final)[None]])
                found.append(entry[list(sites)])
            store.write_unit(unit, {"residual": np.stack(found).astype(np.float32)})
        progress("stimuli", unit + 1, store.unit_count)


def _measure(
    residual: np.ndarray, settings: ProbeSettings, plan: Design, progress: Callable[[str, int, int], None]
) -> dict[str, list[dict[str, np.ndarray]]]:
    """Results by control and layer."""
    width, layers = residual.shape[-1], residual.shape[1]
    states = {name: residual[i] for i, name in enumerate(_weights(settings))}
    if "rotated" in settings.controls:
        normal = np.random.default_rng(settings.seed).standard_normal((width, width))
        q, r = np.linalg.qr(normal)
        states["rotated"] = np.einsum("lsd,de->lse", states[TRAINED], q * np.sign(np.diag(r)))
    found: dict[str, list[dict[str, np.ndarray]]] = {}
    for at, (name, values) in enumerate(states.items()):
        found[name] = []
        for layer in range(layers):
            found[name].append(measure(values[layer], plan))
            progress("layers x controls", at * layers + layer + 1, len(states) * layers)
    return found
