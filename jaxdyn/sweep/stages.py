"""The Jacobians of units whose weights lie on many devices: one program from block to block, one that makes Jacobians.

It is the first half of the step (`step.py`), kept apart by layer so that a sweep carries whole prompts from block to
block once. Every device gets whole matrices, those of one unit of samples: its process measures them on the host as it
does those of a single device. What crosses between devices is what the step exchanges (`split_model.py`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from jaxdyn.jacobians import Request, sample_jacobians
from jaxdyn.models import decoder, parameters
from jaxdyn.models.architecture import Architecture
from jaxdyn.models.model import Model
from jaxdyn.models.stream import Stream
from jaxdyn.pipeline.samples import Samples
from jaxdyn.pipeline.unit import stream_norms
from jaxdyn.sharding import automatic

from .split_model import SplitModel, devices_along, read_by_step, split_model

Found = list[tuple[int, Array, Array]]
"""For each device of this process the layer and its unit's Jacobians (P, S, n, n) and norms (P, 2, S)."""


@dataclass(frozen=True)
class Stages:
    """The programs of one architecture on one mesh, compiled once for all layers and units.

    Attributes
    ----------
    model : how the model lies on the mesh.
    begin : ``begin(params, ids)`` -> the stream at the first block.
    advance : ``advance(params, stream, lengths, layer)`` -> the stream at the next one.
    jacobians : ``jacobians(params, stream, row, position, layer)`` -> matrices (S, K, D, D) and norms (S, K, 2), whole
        matrices split over all devices.
    """

    model: SplitModel
    begin: Any
    advance: Any
    jacobians: Any

    @property
    def units(self) -> int:
        """Units that are computed together: one a device."""
        return int(self.model.mesh.devices.size)

    @property
    def local(self) -> list[int]:
        """Numbers of the devices of this process, in the order of the mesh: those of its units in a round."""
        own = jax.process_index()
        return [k for k, device in enumerate(self.model.mesh.devices.flat) if device.process_index == own]


@lru_cache(maxsize=4)
def make_stages(arch: Architecture, mesh: Mesh, layout: str, request: Request, kinds: tuple[str, ...]) -> Stages:
    """Make the programs.

    Parameters
    ----------
    arch, mesh, layout : as for `jaxdyn.sweep.step.make_step`.
    request, kinds : operator and derivative, and which of "block", "attention", "mlp".

    Raises
    ------
    InputError : what `make_step` refuses.
    """
    model = split_model(arch, mesh, layout)
    prompts, matrix, whole = model.layout.spec("sample"), model.layout.spec("matrix"), PartitionSpec()
    heads = model.layout.spec("sample", None, None, "kv_heads")
    donors: Any = heads if arch.donors else None
    beside: Any = prompts if arch.per_layer_width else None
    stream: Any = Stream(prompts, beside, donors, donors)  # pyright: ignore[reportArgumentType]
    params = parameters.nest(model.specs)

    def begin(params, ids):
        return model.begin(parameters.flatten(params), ids)

    def advance(params, stream, lengths, layer):
        weights = model.layer(parameters.flatten(params), layer)
        return decoder.advance(model.arch, weights, stream, lengths, split=model.split)[1]

    def jacobians(params, stream, row, position, layer):
        weights = model.layer(parameters.flatten(params), layer)
        found = sample_jacobians(model.arch, request, weights, stream, row, position, keep=kinds, split=model.split)
        columns = jnp.stack([getattr(found, kind) for kind in kinds], axis=1)
        norms = jnp.moveaxis(stream_norms(model.arch, found, kinds), -1, 0)
        return model.to_whole(columns), model.own(norms)

    def mapped(function, given, out):
        specs = (params, *given)
        return jax.jit(jax.shard_map(function, mesh=automatic(mesh), in_specs=specs, out_specs=out, check_vma=False))

    return Stages(
        model,
        mapped(begin, (prompts,), stream),
        mapped(advance, (stream, prompts, whole), stream),
        mapped(jacobians, (stream, prompts, prompts, whole), (matrix, matrix)),
    )


def round_jacobians(
    stages: Stages, model: Model, samples: Samples, layers: Sequence[int], units: Sequence[int]
) -> Iterator[Found]:
    """Make the Jacobians of one round of units, one a device, layer by layer.

    Parameters
    ----------
    stages : from `make_stages`.
    model : with its parameters placed as `stages.model.placed` says.
    samples, layers : of the run.
    units : one a device of the mesh, in its order; every process gives the same ones.

    Yields
    ------
    `Found`: of this process's devices, in the order of `stages.local`. When it comes the Jacobians are made, and the
    next block has been started.
    """
    params = read_by_step(model.params)
    ids, lengths, row, position = (_placed(stages, array) for array in _arrays(stages, samples, units))
    stream = stages.begin(params, ids)
    for layer in range(layers[-1] + 1):
        number, before = np.int32(layer), stream
        found = stages.jacobians(params, before, row, position, number) if layer in layers else None
        jax.block_until_ready(found)  # programs with exchanges run in one order everywhere
        if layer < layers[-1]:
            stream = stages.advance(params, before, lengths, number)
        if found is not None:
            parts = zip(*map(_local, found), strict=True)
            yield [(layer, jnp.swapaxes(one, 0, 1), jnp.moveaxis(norms, 0, -1)) for one, norms in parts]


def _arrays(stages: Stages, samples: Samples, units: Sequence[int]) -> tuple[np.ndarray, ...]:
    """Token ids, lengths, and the rows and positions of the samples, of all units; rows count within a group."""
    group = len(units) // devices_along(stages.model.mesh, stages.model.layout.sample)
    parts: list[tuple[np.ndarray, ...]] = []
    for number, unit in enumerate(units):
        ids, row, position, members = samples.padded(unit)
        parts.append((ids, samples.row_lengths(row, members), row + number % group * len(ids), position))
    return tuple(np.concatenate(one).astype(np.int32) for one in zip(*parts, strict=True))


def _placed(stages: Stages, array: np.ndarray) -> Array:
    """Split an array over the devices that share out prompts; every process has all of it, and gives its part."""
    sharding = NamedSharding(automatic(stages.model.mesh), stages.model.layout.spec("sample"))
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def _local(array: Array) -> list[Array]:
    """The parts of an array that this process's devices have, in the order of the mesh."""
    shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return [shard.data for shard in shards]
