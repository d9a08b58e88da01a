"""The whole model: states of one half of the articles, mean Jacobians of the other, layer by layer (T1 to T8).

Texts are run in batches and their states kept (blocks x samples x width); Jacobians are made a batch at a time and only
their sum is kept, so that no (samples, D, D) array exists beyond one batch.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float
from numpy.typing import ArrayLike

from jaxdyn import provenance
from jaxdyn.activations import Activations, capture
from jaxdyn.errors import InputError
from jaxdyn.jacobians import check_layer, jacobian
from jaxdyn.models.model import Model
from jaxdyn.store import StoreError
from jaxdyn.store.dataset import read_dataset, write_dataset

from .dataset import join_layers
from .kept import kept_layer
from .layer import layer_topology
from .settings import PAGE, TopologySettings
from .weights import weight_norms

STORE, GROUP, LAYERS = "topology.zarr", "topology", "topology.layers"

ENERGY = {"long_name": "norm(mean A)^2 / mean norm(A)^2, A = J - I; biased upwards by 1/N", "units": "1"}

Progress = Callable[[str, int, int], None]


def topology(
    model: Model,
    texts: Sequence[str],
    settings: TopologySettings | None = None,
    *,
    articles: ArrayLike | None = None,
    initial: Sequence[Model] = (),
    both_halves: bool = False,
    out: str | Path | None = None,
    keep: str | Path | None = None,
    origin: Mapping[str, str] | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> xr.Dataset:
    """Study the topology of every layer of a model.

    Parameters
    ----------
    model : with a tokenizer.
    texts : prompts; those of even articles give the graph, those of odd ones the Jacobian.
    settings : default: all layers, all nulls.
    articles : a label for each text, in any order; texts of one article stay in one half and are not taken as
        independent. None: each text is its own article.
    initial : the same architecture at random initialisations, for the null `initial`: 5 or more.
    both_halves : take the Jacobians of the graph's own half too, for `coupling_same_half`; doubles their cost.
    out : folder, for `topology.zarr` in it; see `write_topology`.
    keep : folder where each layer stays once it is done; a killed run that is repeated goes on after them. Default with
        `out`: `out/topology.layers`, removed when all is written.
    origin : kept with the store's provenance: `command`.
    progress : called with (stage, done, total); a stage is one layer's Jacobians or one of its nulls.

    Returns
    -------
    xarray.Dataset, `dataset.of_layer` with a dimension `layer`; its attributes say model, operator, samples, halves.

    Raises
    ------
    InputError : fewer than two articles, layers the model lacks, what `capture` and `layer_topology` refuse.
    StoreError : something is in the way in `out`, or layers of another run in `keep`; found before anything is
        computed.

    Notes
    -----
    Cost: a forward pass a text; a Jacobian a sample of the odd half and layer; `layer_topology` a layer. Memory:
    2 L S D numbers for the states, 16 Jacobians (`batch`).
    """
    settings = settings or TopologySettings()
    layers = _layers(model, settings)
    if out is not None and (Path(out) / STORE).exists():
        _refuse_existing(Path(out) / STORE)
    labels, half = split(len(texts), articles)
    first, second = (run_half(model, texts, labels, half == side, settings) for side in (0, 1))
    random = [(one, *(run_half(one, texts, labels, half == side, settings) for side in (0, 1))) for one in initial]
    held = _held(out, keep)
    fixed = _fixed(model, texts, labels, settings, initial, both_halves=both_halves)

    def one_layer(layer: int) -> xr.Dataset:
        J, energy = mean_jacobian(model, second, layer, settings, progress)
        own = mean_jacobian(model, first, layer, settings, progress, "own half")[0] if both_halves else None
        drawn = [
            (a.states(layer), mean_jacobian(one, b, layer, settings, progress, f"initialisation {number}")[0])
            for number, (one, a, b) in enumerate(random)
        ]

        def told(stage: str, done: int, total: int) -> None:
            progress(f"layer {layer}: {stage}", done, total)

        found = layer_topology(
            first.states(layer), J, settings, articles=first.articles, initial=drawn, same_half=own, progress=told,
            covariates=weight_norms(model, layer) | {"massive": first.massive(layer).astype(float)},
        )  # fmt: skip
        return found.assign(surviving_energy=((), energy, ENERGY))

    made = [
        one_layer(layer)
        if held is None
        else kept_layer(held, layer, fixed | {"layer": layer}, partial(one_layer, layer))
        for layer in layers
    ]
    joined = join_layers(made, layers).assign_attrs(_about(model, texts, labels, settings, first, second, len(random)))
    if out is not None:
        write_topology(joined, out, origin=origin)
        if keep is None:
            shutil.rmtree(Path(out) / LAYERS)
    return joined


def write_topology(found: xr.Dataset, out: str | Path, *, origin: Mapping[str, str] | None = None) -> Path:
    """Write a dataset of `topology` as the group `topology` of `out/topology.zarr`; return the store's path.

    Raises
    ------
    StoreError : a store is there already, or the disk refuses.
    """
    fixed = {"kind": GROUP, "settings": json.loads(found.attrs.get("settings", "{}")), **provenance.bits()}
    told = provenance.provenance(**(origin or {}))
    return write_dataset(Path(out) / STORE, GROUP, found, fixed, provenance=told)


def read_topology(out: str | Path) -> xr.Dataset:
    """Read the group `topology` of `out/topology.zarr`."""
    return read_dataset(Path(out) / STORE, GROUP)


def split(count: int, articles: ArrayLike | None) -> tuple[np.ndarray, np.ndarray]:
    """Number the articles in the order in which they come, and put them into halves in turn.

    Returns
    -------
    (article, half), each (count,); half 0 makes the graph, half 1 the Jacobian.
    """
    given = np.arange(count) if articles is None else np.asarray(articles)
    if len(given) != count:
        msg = f"articles: got {len(given)} labels; allowed one for each of the {count} texts"
        raise InputError(msg, page=PAGE)
    _, at, place = np.unique(given, return_index=True, return_inverse=True)
    if len(at) < 2:
        msg = f"articles: got {len(at)}; allowed 2 or more, one half for the graph and one for the Jacobian"
        raise InputError(msg, page=PAGE)
    number = np.argsort(np.argsort(at))[place]
    return number, number % 2


@dataclass(frozen=True)
class Half:
    """One half of the prompts, run: its activations in batches, and the article of each sample of the graph's rule.

    Attributes
    ----------
    batches : activations by the token rule of the graph.
    jacobian_batches : likewise by that of the Jacobians.
    articles : (S,).
    """

    batches: list[Activations]
    jacobian_batches: list[Activations]
    articles: np.ndarray

    def states(self, layer: int) -> Float[np.ndarray, "S D"]:
        """Residual stream at the block's entry."""
        return np.concatenate([np.asarray(one.inputs[layer]) for one in self.batches])

    def massive(self, layer: int) -> np.ndarray:
        """Which coordinates are massive in some sample, (D,)."""
        return np.any([np.asarray(one.massive[layer]) for one in self.batches], axis=0)

    @property
    def jacobian_samples(self) -> int:
        """Samples of the mean Jacobian."""
        return sum(len(one.prompt) for one in self.jacobian_batches)


def run_half(model: Model, texts: Sequence[str], articles: np.ndarray, chosen: np.ndarray, settings) -> Half:
    """Run the chosen texts in batches."""
    rows, texts = np.flatnonzero(chosen), list(texts)
    batches, other, labels = [], [], []
    for at in range(0, len(rows), settings.batch):
        part = rows[at : at + settings.batch]
        some = [texts[int(i)] for i in part]
        batches.append(capture(model, some, tokens=settings.tokens, max_tokens=settings.max_tokens))
        same = settings.tokens == settings.jacobian_tokens
        rule, most = settings.jacobian_tokens, settings.max_tokens
        other.append(batches[-1] if same else capture(model, some, tokens=rule, max_tokens=most))
        labels.append(articles[part][batches[-1].prompt])
    return Half(batches, other, np.concatenate(labels))


def mean_jacobian(
    model: Model, half: Half, layer: int, settings: TopologySettings, progress: Progress, words: str = "mean Jacobian"
) -> tuple[Float[np.ndarray, "D D"], float]:
    """Mean Jacobian of a block over a half's samples, in float64, batch by batch in their order; failed samples out.

    Returns
    -------
    (J, energy), energy norm(mean A)_F^2 / mean norm(A)_F^2 of A = J - I: the share that survives averaging.
    """
    width = model.architecture.width
    operator: Any = settings.operator  # names that the settings have checked
    part: Any = settings.part
    total, squares, count, done = np.zeros((width, width)), 0.0, 0, 0
    for batch in half.jacobian_batches:
        for at in range(0, len(batch.prompt), settings.batch):
            some = batch.select(slice(at, at + settings.batch))
            J = jacobian(model, some, layer=layer, operator=operator, part=part)
            each = np.asarray(J, np.float64)
            good = np.isfinite(each).all(axis=(1, 2))
            total += each[good].sum(axis=0)
            squares += float(np.square(each[good] - np.eye(width)).sum())
            count, done = count + int(good.sum()), done + len(each)
            progress(f"layer {layer}: {words}", done, half.jacobian_samples)
    if not count:
        msg = f"texts: no sample of layer {layer} has a finite Jacobian; shorten the texts or look at the activations"
        raise InputError(msg, page=PAGE)
    mean = total / count
    kept = float(np.square(mean - np.eye(width)).sum())
    return mean, kept * count / squares if squares else float("nan")


def _layers(model: Model, settings: TopologySettings) -> tuple[int, ...]:
    every = settings.layers or tuple(range(model.architecture.layers))
    if settings.k >= model.architecture.width:
        msg = f"k: got {settings.k}; allowed 1 to {model.architecture.width - 1}, the number of other coordinates"
        raise InputError(msg, page=PAGE)
    return tuple(sorted({check_layer(layer, model.architecture) for layer in every}))


def _held(out: str | Path | None, keep: str | Path | None) -> Path | None:
    """Where finished layers stay until all are."""
    return Path(keep) if keep is not None else Path(out) / LAYERS if out is not None else None


def _fixed(model, texts, labels, settings, initial, *, both_halves) -> dict[str, Any]:
    """What must be equal for a layer that is there to be taken."""
    return {
        "settings": json.loads(_settings(settings)),
        "model": model.weights_hash,
        "texts": _hash(texts),
        "articles": np.asarray(labels).tolist(),
        "initial": [one.weights_hash for one in initial],
        "both_halves": both_halves,
        **provenance.bits(),
    }


def _hash(texts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def _settings(settings: TopologySettings) -> str:
    told = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(settings).items()}
    return json.dumps(told, sort_keys=True)


def _refuse_existing(path: Path) -> None:
    msg = f"out: {path} is there already; choose another folder, or move it away"
    raise StoreError(msg)


def _about(model, texts, labels, settings, first, second, initial) -> dict[str, str | int]:
    """Attributes: what was measured on what."""
    return {
        "model": model.source,
        "model_hash": model.weights_hash,
        "texts_hash": _hash(texts),
        "operator": settings.operator,
        "part": settings.part,
        "derivative": "exact",
        "metric": "raw",
        "tokens": settings.tokens,
        "jacobian_tokens": settings.jacobian_tokens,
        "bos": "yes" if first.batches[0].prompts.bos else "no",
        "samples_graph": len(first.articles),
        "samples_jacobian": second.jacobian_samples,
        "articles_graph": len(np.unique(labels[labels % 2 == 0])),
        "articles_jacobian": len(np.unique(labels[labels % 2 == 1])),
        "initial_seeds": initial,
        "seed": settings.seed,
        "settings": _settings(settings),
    }
