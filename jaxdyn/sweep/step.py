"""The work of a sweep on many chips as one program: forward to a layer, Jacobians, Schur form, measures, sums.

One call takes prompts and one layer. Each device runs its share of the prompts to the layer, makes the Jacobians of its
samples, decomposes whole matrices and measures them. The program is written for one device and mapped over the mesh by
`jax.shard_map`, so what crosses between devices is what is written here and nothing else:

- layout "one" and "data": nothing. The sums over samples that the averaged Jacobian needs are kept a *unit* of samples
  at a time and never added over devices: they are merged from the store in a fixed order, so that the result does not
  depend on how many devices there were.
- "fsdp": the table of embeddings and the weights of one layer at a time are gathered (scopes ``gather_embedding``,
  ``gather_layer``), in the type in which they are stored.
- "tensor": partial sums of embeddings, of the two sublayers' outputs and of the two Jacobians (``sum_embedding``,
  ``sum_attention``, ``sum_mlp``, ``sum_mlp_jacobian``, ``columns_attention_jacobian``), and one exchange that turns
  columns of all matrices into whole matrices of some (``whole_matrices``).

Jacobians come out split as the layout says because they are made so; automatic differentiation under automatic
partitioning loses the split (JAX issue 25844).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxdyn_kernels.schur.api import certified_schur
from jaxtyping import Array, Float, Int

from jaxdyn.errors import InputError
from jaxdyn.jacobians import sample_jacobians
from jaxdyn.models import decoder, parameters
from jaxdyn.models.architecture import Architecture
from jaxdyn.sharding import Layout, automatic

from .portrait import measure_sample, unit_sums
from .split_model import SplitModel, devices_along, read_by_step, split_model
from .step_types import StepResult, StepSettings

__all__ = ["Step", "StepResult", "StepSettings", "make_step", "read_by_step"]


@dataclass(frozen=True)
class Step:
    """A step for one architecture and mesh: call it, or compile it ahead of time through `jitted` and `arguments`.

    Attributes
    ----------
    arch, mesh, layout, settings : what it was made for.
    jitted : ``jitted(params, ids, lengths, position, half, layer)`` -> `StepResult`, compiled once for all layers.
    jitted_jacobians : ``jitted_jacobians(params, ids, lengths, position, layer)`` -> (S, K, D, D), the Jacobians alone,
        split as the layout says of "sample", "jacobian_row" and "jacobian_column".
    parameter_shardings : path -> where that parameter lies.
    """

    arch: Architecture
    mesh: Mesh
    layout: Layout
    settings: StepSettings
    jitted: Callable[..., StepResult]
    jitted_jacobians: Callable[..., Array]
    parameter_shardings: dict[str, NamedSharding]

    def __call__(
        self,
        params: decoder.Params,
        ids: Int[np.ndarray, "B T"],
        lengths: Int[np.ndarray, " B"],
        position: Int[np.ndarray, "B P"],
        half: Int[np.ndarray, "B P"],
        layer: int,
    ) -> StepResult:
        """Run it.

        Parameters
        ----------
        params : the model's parameters; placed as `place` does, or anywhere (then they are moved at every call).
        ids : (B, T) token ids, padded on the right.
        lengths : (B,) real tokens of each prompt.
        position : (B, P) positions of the samples in each prompt; sample i is ``(i // P, position.flat[i])``.
        half : (B, P), 0 or 1: the half whose sum a sample enters; -1 for what pads a unit, which enters none.
        layer : the block, 0-based.

        Raises
        ------
        InputError : a layer the model does not have, or numbers of prompts and samples that the mesh does not divide.
        """
        return self.jitted(*self._given(params, layer, position, ids, lengths, position, half))

    def jacobians(
        self,
        params: decoder.Params,
        ids: Int[np.ndarray, "B T"],
        lengths: Int[np.ndarray, " B"],
        position: Int[np.ndarray, "B P"],
        layer: int,
    ) -> Float[Array, "S K D D"]:
        """Make the Jacobians alone, split over the mesh: arguments as for a call, without `half`."""
        return self.jitted_jacobians(*self._given(params, layer, position, ids, lengths, position))

    def _given(self, params, layer, position, *arrays):
        if not 0 <= layer < self.arch.layers:
            msg = f"layer: got {layer}; allowed 0 to {self.arch.layers - 1}, counted from 0"
            raise InputError(msg)
        self.check(*np.shape(position))
        return (read_by_step(params), *(jnp.asarray(one, jnp.int32) for one in arrays), jnp.int32(layer))

    def check(self, prompts: int, positions: int) -> None:
        """Refuse a batch that does not divide into equal shares of whole units."""
        over_prompts, over_matrices = (
            devices_along(self.mesh, axes) for axes in (self.layout.sample, self.layout.matrix)
        )
        samples = prompts * positions
        if prompts % over_prompts:
            msg = f"ids: got {prompts} prompts; allowed a multiple of {over_prompts}, the devices they are split over"
            raise InputError(msg)
        if samples % (over_matrices * self.settings.unit):
            msg = (
                f"position: got {samples} samples ({prompts} prompts x {positions}); allowed a multiple of "
                f"{over_matrices * self.settings.unit}: {over_matrices} devices x {self.settings.unit} samples a unit"
            )
            raise InputError(msg)

    def place(self, params: decoder.Params) -> dict:
        """Put the parameters that a step reads where it reads them."""
        flat = parameters.flatten(read_by_step(params))
        return parameters.nest(
            {path: jax.device_put(leaf, self.parameter_shardings[path]) for path, leaf in flat.items()}
        )

    def arguments(self, prompts: int, tokens: int, positions: int, *, dtype: Any) -> tuple[Any, ...]:
        """Return shapes in place of the arguments, for ``step.jitted.lower(*step.arguments(...))``.

        Parameters
        ----------
        prompts, tokens, positions : B, T and P, over all devices.
        dtype : of the parameters.
        """
        self.check(prompts, positions)
        shapes = parameters.shapes(self.arch)
        weights = {
            path: jax.ShapeDtypeStruct(shapes[path], dtype, sharding=sharding)
            for path, sharding in self.parameter_shardings.items()
        }
        split, whole = (NamedSharding(automatic(self.mesh), spec) for spec in (self._over_prompts, PartitionSpec()))
        sizes = ((prompts, tokens), (prompts,), (prompts, positions), (prompts, positions))
        arrays = (jax.ShapeDtypeStruct(size, jnp.int32, sharding=split) for size in sizes)
        return (parameters.nest(weights), *arrays, jax.ShapeDtypeStruct((), jnp.int32, sharding=whole))

    @property
    def _over_prompts(self) -> PartitionSpec:
        return self.layout.spec("sample")


def make_step(arch: Architecture, mesh: Mesh, layout: Layout | str, settings: StepSettings | None = None) -> Step:
    """Make the step of one architecture on one mesh.

    Parameters
    ----------
    arch : the model's description.
    mesh : its devices, from `jaxdyn.sharding.mesh_for`.
    layout : a name of `jaxdyn.sharding.LAYOUTS`, or a `Layout`: of these, samples and width over one axis, or heads,
        hidden units, vocabulary and columns over one, or nothing but samples.
    settings : what to compute; default the block alone, in context.

    Returns
    -------
    Step
        Cost of a call: a forward pass of the prompts to the layer, then for a sample and kind the Jacobian (2 D^2 F +
        2 D^3 flops), its Schur form (about 25 D^3) and, where wanted, three sets of singular values; each divided by
        the devices. Memory beyond the parameters: the matrices of a device's samples, some 12 D^2 numbers while one is
        measured, and in "fsdp" one layer of gathered weights.

    Raises
    ------
    InputError : an unknown layout, a mesh without its axes, a layout of no kind above, or sizes that do not divide.
    """
    settings = StepSettings() if settings is None else settings
    local = _Local(split_model(arch, mesh, layout), settings)
    model, layout = local.model, local.model.layout
    sample, whole = layout.spec("sample"), PartitionSpec()
    columns = layout.spec("sample", None, "jacobian_row", "jacobian_column")

    def mapped(function, given, out):
        return jax.jit(
            jax.shard_map(
                function,
                mesh=automatic(mesh),
                in_specs=(parameters.nest(model.specs), *given, whole),
                out_specs=out,
                check_vma=False,  # a loop whose length differs from device to device has no type for it
            )
        )

    run = mapped(local.run, (sample,) * 4, layout.spec("matrix"))
    return Step(arch, mesh, layout, settings, run, mapped(local.jacobians, (sample,) * 3, columns), model.placed)


@dataclass(frozen=True)
class _Local:
    """The program of one device."""

    model: SplitModel
    settings: StepSettings

    def jacobians(self, params, ids, lengths, position, layer) -> Float[Array, "S K D C"]:
        """This device's columns of its samples' Jacobians; all columns but in "tensor"."""
        flat, model = parameters.flatten(params), self.model
        with jax.named_scope("forward"):
            stream = model.begin(flat, ids)

            def advance(index, stream):
                return decoder.advance(model.arch, model.layer(flat, index), stream, lengths, split=model.split)[1]

            stream = lax.fori_loop(0, layer, advance, stream)
        with jax.named_scope("jacobian"):
            found = sample_jacobians(
                model.arch,
                self.settings.request,
                model.layer(flat, layer),
                stream,
                jnp.repeat(jnp.arange(ids.shape[0]), position.shape[1]),
                position.reshape(-1),
                keep=self.settings.kinds,
                method=self.settings.method,
                chunk=self.settings.chunk,
                split=model.split,
            )
            return jnp.stack([getattr(found, kind) for kind in self.settings.kinds], axis=1)

    def run(self, params, ids, lengths, position, half, layer) -> StepResult:
        """All of it."""
        columns = self.jacobians(params, ids, lengths, position, layer)
        matrices, half = self.model.to_whole(columns), self.model.own(half.reshape(-1))
        with jax.named_scope("schur"):
            form = certified_schur(matrices, implementation=self.settings.implementation)
        with jax.named_scope("measures"):
            platform = self.model.mesh.devices.flat[0].platform
            measured = lax.map(partial(measure_sample, self.settings, platform), (matrices, form))
        with jax.named_scope("unit_sums"):
            sums, count = unit_sums(matrices, half, self.settings.unit)
        return StepResult(
            **measured,
            residual=form.residual,
            orthogonality=form.orthogonality,
            status=form.status,
            jacobian_sum=sums,
            count=count,
            matrices=matrices if self.settings.keep_matrices else None,
        )
