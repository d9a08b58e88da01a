"""One unit of work: a fixed number of samples, carried through all layers and measured at each.

The programs are compiled once and serve every layer and unit: a unit always has the same shape, and a short last one
repeats its samples. Whole prompts move from block to block; at each analysed block the samples' Jacobians are taken,
and each sample is measured on the host beside its nulls.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxdyn.jacobians import sample_jacobians
from jaxdyn.models import decoder
from jaxdyn.models.architecture import Architecture
from jaxdyn.models.model import Model

from . import products
from .host import map_tasks
from .layout import has_product, left_out
from .rounds import join
from .samples import Samples
from .settings import Settings
from .spectral import Inputs, make_plan, measure_round

SITES = {"block": ("x", "y"), "attention": ("x", "h"), "mlp": ("h", "y")}
"""Where the residual stream enters and leaves each Jacobian."""

Arrays = dict[str, np.ndarray]


class Measurer:
    """Measures Jacobians layer by layer, carrying the running products of a fixed list of samples.

    Parameters
    ----------
    arch, settings, layers : what is analysed; layers must come in this order.
    members : global number of each sample.
    """

    def __init__(
        self, arch: Architecture, settings: Settings, layers: tuple[int, ...], members: Int[np.ndarray, " S"]
    ) -> None:
        self._arch, self._settings, self._members = arch, settings, members
        self._product = has_product(settings, layers)
        self._plan = make_plan(settings, product=self._product)
        self._products: list[Any] = []
        """By sample and round, (S, draws + 1, ...), after the first layer."""
        self._cumulative: list[Arrays] = []

    def measure(
        self, layer: int, matrices: Float[np.ndarray, "P S n n"], norms: Float[np.ndarray, "P 2 S"], tick: Callable
    ) -> Arrays:
        """Return one layer's arrays by store key, (parts, S, ...); `tick` is called after each sample."""
        kinds, count = len(self._settings.matrices), len(self._members)
        ids: Any = ((self._members * self._arch.layers + layer)[:, None] * kinds + np.arange(kinds)).astype(np.int32)
        seed = np.asarray(self._settings.seed, np.uint32)
        states = self._products or self._fresh(matrices.dtype)

        def task(s: int, number: int, deviation: Any) -> Inputs:
            given: Any = matrices[:, s], norms[:, :, s], ids[s], seed, np.int32(number)
            return Inputs(*given, deviation=deviation, product=states[s][number])

        draws = range(self._settings.draws)
        unknown = np.zeros((kinds, matrices.shape[-1]), matrices.dtype)
        first = [task(s, 0, unknown) for s in range(count)]
        own = map_tasks(measure_round, first, after=lambda _: draws or tick(), plan=self._plan)
        null = [task(s, 1 + k, own[s].deviation) for s in range(count) for k in draws]
        alone = self._plan._replace(schur=False)  # nobody keeps the forms of the draws
        drawn = map_tasks(measure_round, null, after=lambda done: done % len(draws) or tick(), plan=alone)
        by_sample = [drawn[s * len(draws) : (s + 1) * len(draws)] for s in range(count)]
        if self._product:
            self._products = [[one.product for one in (own[s], *by_sample[s])] for s in range(count)]
        joined = [join(own[s], by_sample[s], norms[:, :, s], self._plan) for s in range(count)]
        arrays, cumulative = _stack(joined)
        self._cumulative.append(cumulative)
        if self._plan.schur:
            arrays["matrices/schur_T"], arrays["matrices/schur_Q"] = _stack([one.schur for one in own])
        return {key: np.moveaxis(value, 0, 1) for key, value in arrays.items()}

    def cumulative(self) -> Arrays:
        """Return the measures of the running products (S, depth), and the rates of the last (S, r); or nothing."""
        if not self._products:
            return {}
        last = _stack([sample[0] for sample in self._products])
        return products.with_laws(self._cumulative, self._arch.width) | products.stretching(last)

    def _fresh(self, dtype: np.dtype) -> list[Any]:
        """Products of no factors, by sample and round; None without products."""
        begun = products.begin(self._arch.width, dtype, truncate=self._settings.truncate) if self._product else None
        return [[begun] * (self._settings.draws + 1)] * len(self._members)


def _stack(trees: list[Any]) -> Any:
    """One pytree of arrays with a leading axis, from many."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


class MeasuredUnit:
    """One unit on the host: what its Jacobians become, layer by layer.

    Parameters
    ----------
    arch, settings, samples, layers : of the run.
    unit : its number.
    """

    def __init__(
        self, arch: Architecture, settings: Settings, samples: Samples, layers: tuple[int, ...], unit: int
    ) -> None:
        self._settings, self._layers, self._kept = settings, layers, len(samples.members(unit))
        members = samples.padded(unit)[-1]
        half = samples.prompt[members] % 2
        self._weight = np.stack([(np.arange(len(members)) < self._kept) & (half == h) for h in (0, 1)])
        self._measurer = Measurer(arch, settings, layers, members[: self._kept])

    def measure(self, layer: int, matrices: Array, norms: Array, tick: Callable[[], None]) -> tuple[int, Arrays]:
        """Return the layer's index and its arrays by store key, of Jacobians (P, S, n, n) and norms (P, 2, S)."""
        settings, kept = self._settings, self._kept
        found = np.asarray(matrices)[:, :kept]
        arrays = self._measurer.measure(layer, found, np.asarray(norms)[..., :kept], tick)
        if "averages" in settings.outputs:
            sums, counts = _half_sums(matrices, jnp.asarray(self._weight))
            arrays["units/jacobian_sum"], arrays["units/count"] = np.asarray(sums)[None], np.asarray(counts)[None]
        if "jacobians" in settings.outputs:
            arrays["matrices/jacobian"] = found
        return self._layers.index(layer), {key: arrays[key] for key in arrays.keys() - left_out(settings)}

    def last(self) -> Iterator[tuple[None, Arrays]]:
        """Yield what spans all layers, where there are products."""
        if cumulative := self._measurer.cumulative():
            yield None, {f"cumulative/{name}": value for name, value in cumulative.items()}


def run_unit(
    model: Model, settings: Settings, samples: Samples, layers: tuple[int, ...], unit: int, tick: Callable[[], None]
) -> Iterator[tuple[int | None, Arrays]]:
    """Run one unit where the model is.

    Yields (index of the layer, arrays by store key without the layer's axis), layer by layer, and last, where there are
    products, (None, arrays that span all layers). `tick` is called once a sample and layer.
    """
    for (piece,) in run_units([model], settings, samples, layers, [unit], tick):
        yield piece


def run_units(
    models: Sequence[Model],
    settings: Settings,
    samples: Samples,
    layers: tuple[int, ...],
    units: Sequence[int],
    tick: Callable[[], None],
) -> Iterator[list[tuple[int | None, Arrays]]]:
    """Run several units side by side, each where its copy of the model is: what `run_unit` yields, of each.

    All devices have their work before the host measures the first unit's, and the bits of a unit are those that it has
    alone.
    """
    arch = models[0].architecture
    begun = [unit_jacobians(model, settings, samples, layers, unit) for model, unit in zip(models, units, strict=True)]
    yield from measure_units(arch, settings, samples, layers, units, zip(*begun, strict=True), tick)


def measure_units(
    arch: Architecture,
    settings: Settings,
    samples: Samples,
    layers: tuple[int, ...],
    units: Sequence[int],
    found: Iterable[Sequence[tuple[int, Array, Array]]],
    tick: Callable[[], None],
) -> Iterator[list[tuple[int | None, Arrays]]]:
    """Measure units whose Jacobians come layer by layer, as `unit_jacobians` yields them for each."""
    measured = [MeasuredUnit(arch, settings, samples, layers, unit) for unit in units]
    for pieces in found:
        yield [one.measure(*piece, tick) for one, piece in zip(measured, pieces, strict=True)]
    for last in zip(*(one.last() for one in measured), strict=True):
        yield list(last)


def unit_jacobians(
    model: Model, settings: Settings, samples: Samples, layers: tuple[int, ...], unit: int
) -> Iterator[tuple[int, Array, Array]]:
    """Start the Jacobians of a unit on the device of the model: layer, Jacobians (P, S, n, n), norms (P, 2, S).

    Nothing is waited for: they are in the making when they come, and the next block is started behind them.
    """
    arch, params = model.architecture, model.params
    ids, row, position, members = samples.padded(unit)
    lengths = samples.row_lengths(row, members)
    contexts = _embed(arch, params, jnp.asarray(ids))
    for layer in range(layers[-1] + 1):
        weights, before = decoder.layer_weights(params, layer), contexts
        if layer in layers:
            matrices, norms = _jacobians(
                arch, settings.request, settings.matrices, weights, before, jnp.asarray(row), jnp.asarray(position)
            )
        if layer < layers[-1]:  # started now, it runs beside the measuring of this layer
            contexts = _advance(arch, weights, before, jnp.asarray(lengths))
        if layer in layers:
            yield layer, matrices, norms


@partial(jax.jit, static_argnums=0)
def _embed(arch, params, ids):
    return decoder.begin(arch, params, ids)


@partial(jax.jit, static_argnums=0)
def _advance(arch, weights, contexts, lengths):
    return decoder.advance(arch, weights, contexts, lengths)[1]


@partial(jax.jit, static_argnums=(0, 1, 2))
def _jacobians(arch, request, kinds, weights, contexts, row, position):
    """Jacobians (P, S, n, n) and norms (P, 2, S) of the residual stream where they enter and leave."""
    out = sample_jacobians(arch, request, weights, contexts, row, position, keep=kinds)
    return jnp.stack([getattr(out, kind) for kind in kinds]), stream_norms(arch, out, kinds)


def stream_norms(arch: Architecture, out: Any, kinds: tuple[str, ...]) -> Float[Array, "P 2 S"]:
    """Norms of the residual stream where each kind of Jacobian enters and leaves; `out` has x, h and y (S, D)."""
    states = {"x": out.x, "h": out.h, "y": out.y}
    sites = SITES
    if arch.parallel_residual:  # the MLP reads the block's input, and its part is x + mlp(norm(x))
        states["m"], sites = out.y - (out.h - out.x), SITES | {"mlp": ("x", "m")}
    norm = {site: jnp.linalg.norm(state, axis=-1) for site, state in states.items()}
    return jnp.stack([jnp.stack([norm[site] for site in sites[kind]]) for kind in kinds])


@jax.jit
def _half_sums(matrices, weight):
    """Sum of the Jacobians over the samples of each half, (2, P, n, n), and their number; failed ones left out."""
    good = jnp.all(jnp.isfinite(matrices), axis=(0, 2, 3))
    weight = weight & good
    clean = jnp.where(good[:, None, None], matrices, 0)
    sums = jnp.einsum("hs,psij->hpij", weight.astype(matrices.dtype), clean, precision=jax.lax.Precision.HIGHEST)
    return sums, jnp.sum(weight, axis=1, dtype=jnp.int32)
