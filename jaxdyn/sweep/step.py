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
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxdyn_kernels.eig.from_schur import eigenvalues_from_schur, eigenvectors_from_schur
from jaxdyn_kernels.schur.api import SchurResult, certified_schur
from jaxdyn_kernels.status import Status
from jaxtyping import Array, Complex, Float, Int

from jaxdyn import spectra
from jaxdyn.errors import InputError
from jaxdyn.jacobians import Request, sample_jacobians
from jaxdyn.jacobians.request import METHODS, Method, check
from jaxdyn.measures import measure_eigen
from jaxdyn.measures.arrays import frobenius
from jaxdyn.models import decoder, parameters
from jaxdyn.models.architecture import Architecture
from jaxdyn.models.split import Split, once, piece_of
from jaxdyn.pipeline.settings import PARTS
from jaxdyn.pipeline.spectral import measure_view, pieces_of
from jaxdyn.sharding import LAYOUTS, Layout, automatic, check_mesh, layout_named, names_of, shardings

READ = ("embed", "blocks")
"""The parameters that a step reads: not the last norm, nor the unembedding."""


@dataclass(frozen=True)
class StepSettings:
    """What a step computes.

    Attributes
    ----------
    request : operator and derivative; not "cross".
    parts : any of "block", "update", "attention", "mlp"; block and update share a Jacobian and its Schur form.
    method, chunk : as for `jaxdyn.jacobian`.
    unit : samples that are added up together, a divisor of the samples of a device.
    singular : whether to take singular values, and the measures that need them.
    keep_matrices : whether to return the Jacobians themselves.
    implementation : of the Schur form, one of ``jaxdyn_kernels.implementations("schur")``.
    """

    request: Request = field(default_factory=Request)
    parts: tuple[str, ...] = ("block",)
    method: Method = "closed-form"
    chunk: int = 64
    unit: int = 1
    singular: bool = True
    keep_matrices: bool = False
    implementation: str = "xla"

    def __post_init__(self) -> None:
        """Refuse what a step cannot do."""
        check("operator", self.request.operator, ("in-context", "isolated", "ov"))
        check("method", self.method, METHODS)
        if not self.parts:
            msg = f"parts: got none; allowed any of {', '.join(PARTS)}"
            raise InputError(msg)
        for part in self.parts:
            check("parts", part, PARTS)
        for name, value in (("unit", self.unit), ("chunk", self.chunk)):
            if value < 1:
                msg = f"{name}: got {value}; allowed 1 or more"
                raise InputError(msg)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The Jacobians that the parts need: update is read off block."""
        wanted = {"block" if part == "update" else part for part in self.parts}
        return tuple(name for name in ("block", "attention", "mlp") if name in wanted)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class StepResult:
    """What a step returns for S samples, P parts, K kinds of Jacobian and U units.

    Attributes
    ----------
    measures : name -> (S, P), those of `jaxdyn.measures.measure_all` without kreiss_scaled; without singular values
        those of `measure_eigen`.
    eigenvalues : complex (S, P, D).
    singular_values : (S, P, D), or None.
    residual, orthogonality : (S, K), of the Schur forms.
    status : int32 (S, K), a `jaxdyn_kernels.Status`.
    jacobian_sum : (U, 2, K, D, D), sums over the samples of each half in a unit, failed ones left out.
    count : int32 (U, 2), how many.
    matrices : (S, K, D, D), or None.
    """

    measures: dict[str, Float[Array, "S P"]]
    eigenvalues: Complex[Array, "S P D"]
    singular_values: Float[Array, "S P D"] | None
    residual: Float[Array, "S K"]
    orthogonality: Float[Array, "S K"]
    status: Int[Array, "S K"]
    jacobian_sum: Float[Array, "U 2 K D D"]
    count: Int[Array, "U 2"]
    matrices: Float[Array, "S K D D"] | None


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
        over_prompts, over_matrices = (_devices(self.mesh, axes) for axes in (self.layout.sample, self.layout.matrix))
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
    layout = layout_named(layout) if isinstance(layout, str) else layout
    check_mesh(mesh, layout)
    shapes = {path: shape for path, shape in parameters.shapes(arch).items() if path.split("/")[0] in READ}
    placed = shardings(arch, shapes, mesh, layout)
    split = Split(_tensor_axis(layout))
    pieces = _devices(mesh, split.axis)
    local = _Local(piece_of(arch, pieces), layout, settings, split, {path: one.spec for path, one in placed.items()})
    if pieces > 1:
        _check_pieces(arch, pieces, local.specs)
    sample, whole = layout.spec("sample"), PartitionSpec()
    columns = layout.spec("sample", None, "jacobian_row", "jacobian_column")

    def mapped(function, given, out):
        return jax.jit(
            jax.shard_map(
                function,
                mesh=automatic(mesh),
                in_specs=(parameters.nest(local.specs), *given, whole),
                out_specs=out,
                check_vma=False,  # a loop whose length differs from device to device has no type for it
            )
        )

    run = mapped(local.run, (sample,) * 4, layout.spec("matrix"))
    return Step(arch, mesh, layout, settings, run, mapped(local.jacobians, (sample,) * 3, columns), placed)


def read_by_step(params: decoder.Params) -> dict:
    """Return the parameters that a step reads."""
    return {name: params[name] for name in READ}


@dataclass(frozen=True)
class _Local:
    """The program of one device: `arch` and the parameters are its piece of the model."""

    arch: Architecture
    layout: Layout
    settings: StepSettings
    split: Split
    specs: dict[str, PartitionSpec]

    def jacobians(self, params, ids, lengths, position, layer) -> Float[Array, "S K D C"]:
        """This device's columns of its samples' Jacobians; all columns but in "tensor"."""
        flat = parameters.flatten(params)
        with jax.named_scope("forward"):
            stream = self._begin(flat, ids)

            def advance(index, stream):
                return decoder.advance(self.arch, self._layer(flat, index), stream, lengths, split=self.split)[1]

            stream = lax.fori_loop(0, layer, advance, stream)
        with jax.named_scope("jacobian"):
            found = sample_jacobians(
                self.arch,
                self.settings.request,
                self._layer(flat, layer),
                stream,
                jnp.repeat(jnp.arange(ids.shape[0]), position.shape[1]),
                position.reshape(-1),
                keep=self.settings.kinds,
                method=self.settings.method,
                chunk=self.settings.chunk,
                split=self.split,
            )
            return jnp.stack([getattr(found, kind) for kind in self.settings.kinds], axis=1)

    def run(self, params, ids, lengths, position, half, layer) -> StepResult:
        """All of it."""
        columns = self.jacobians(params, ids, lengths, position, layer)
        matrices, half = self._whole(columns, half.reshape(-1))
        with jax.named_scope("schur"):
            form = certified_schur(matrices, implementation=self.settings.implementation)
        with jax.named_scope("measures"):
            measured = lax.map(self._measure, (matrices, form))
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

    def _begin(self, flat, ids):
        """Embed the prompts: the table is whole, gathered, or split over the vocabulary."""
        embed = {path: leaf for path, leaf in flat.items() if path.startswith("embed/")}
        if self.split.axis is not None and self.specs["embed/tokens"][0] == self.split.axis:
            embed, ids = self._looked_up(embed, ids)
        else:
            with jax.named_scope("gather_embedding"):
                embed = {path: self._gathered(leaf, self.specs[path]) for path, leaf in embed.items()}
        return decoder.begin(self.arch, parameters.nest(embed), ids)

    def _looked_up(self, embed, ids):
        """Replace the tables by the rows that these tokens read, one row a token, and the ids by their numbers."""
        table, flat = embed["embed/tokens"], ids.reshape(-1)
        row = flat - lax.axis_index(self.split.axis) * table.shape[0]
        here = (row >= 0) & (row < table.shape[0])
        rows = jnp.where(here[:, None], table[jnp.clip(row, 0, table.shape[0] - 1)], 0)
        found = embed | {"embed/tokens": self.split.total(rows, "embedding")}
        if "embed/per_layer" in embed:
            found["embed/per_layer"] = embed["embed/per_layer"][flat]
        return found, jnp.arange(flat.size).reshape(ids.shape)

    def _layer(self, flat, index):
        """One layer's weights: this device's heads and hidden units, or all of them, gathered where they are split."""
        one = {}
        with jax.named_scope("gather_layer"):
            for path, leaf in flat.items():
                if path.startswith("blocks/"):
                    own = lax.dynamic_index_in_dim(leaf, index, keepdims=False)
                    one[path.removeprefix("blocks/")] = self._gathered(own, PartitionSpec(*self.specs[path][1:]))
        dtype = jnp.promote_types(jnp.float32, flat["embed/tokens"].dtype)
        one = {path: leaf.astype(dtype) for path, leaf in one.items()}
        for path in ("attention/o_bias", "mlp/down_bias"):
            if path in one:
                one[path] = once(one[path], self.split)
        return parameters.nest(one) | {"index": jnp.asarray(index, jnp.int32)}

    def _gathered(self, leaf, spec):
        """Gather the axes of a parameter that are split, but for those that this device works on alone."""
        for dimension, axes in enumerate(spec):
            if axes is not None and axes != self.split.axis:
                leaf = lax.all_gather(leaf, axes, axis=dimension, tiled=True)
        return leaf

    def _whole(self, columns, half):
        """Turn this device's columns of its group's matrices (S, K, D, C) into whole matrices of its own samples."""
        if self.split.axis is None:
            return columns, half
        with jax.named_scope("whole_matrices"):
            whole = lax.all_to_all(columns, self.split.axis, split_axis=0, concat_axis=3, tiled=True)
        share = whole.shape[0]
        return whole, lax.dynamic_slice_in_dim(half, lax.axis_index(self.split.axis) * share, share)

    def _measure(self, sample: tuple[Array, SchurResult]) -> dict[str, Any]:
        """Measure one sample's parts, (P, ...) each."""
        matrices, form = sample
        kinds = self.settings.kinds
        index = jnp.asarray([kinds.index("block" if part == "update" else part) for part in self.settings.parts])
        shift = jnp.asarray([part == "update" for part in self.settings.parts], matrices.dtype)
        if self.settings.singular:
            # "cpu": one matrix after another, which is right here on every platform.
            spectrum = spectra.complete(matrices, form, vectors=True, singular_vectors=False, device="cpu")
            spectrum = replace(spectrum, right=None, left=None)
            pieces, _ = lax.map(lambda pair: pieces_of(*pair), (matrices, spectrum))
            found = lax.map(partial(measure_view, pieces), (index, jnp.ones_like(shift), shift))
            for evidence in ("residual", "orthogonality", "status", "frobenius_norm", "update_norm"):
                found.pop(evidence)
        else:
            condition = lax.map(_condition, form)
            found = lax.map(partial(_eigen_view, matrices, form, condition), (index, shift))
        values, singular = found.pop("eigenvalues"), found.pop("singular_values", None)
        return {"measures": found, "eigenvalues": values, "singular_values": singular}


def unit_sums(
    matrices: Float[Array, "S K D D"], half: Int[Array, " S"], unit: int
) -> tuple[Float[Array, "U 2 K D D"], Int[Array, "U 2"]]:
    """Sum the Jacobians of each half within units of `unit` samples, failed samples left out; and count them."""
    good = jnp.all(jnp.isfinite(matrices), axis=(1, 2, 3))
    weight = (half[:, None] == jnp.arange(2)) & good[:, None]
    clean = jnp.where(good[:, None, None, None], matrices, 0)
    grouped = clean.reshape(-1, unit, *matrices.shape[1:])
    weights = weight.reshape(-1, unit, 2)
    sums = jnp.einsum("ush,uskij->uhkij", weights.astype(matrices.dtype), grouped, precision=lax.Precision.HIGHEST)
    return sums, jnp.sum(weights, axis=1, dtype=jnp.int32)


def _condition(form: SchurResult) -> Float[Array, " D"]:
    """Condition numbers of one matrix's eigenvalues, NaN where its Schur form failed."""
    ok, eye = form.status == Status.OK, jnp.eye(form.T.shape[-1], dtype=form.T.dtype)
    _, _, condition = eigenvectors_from_schur(jnp.where(ok, form.T, eye), jnp.where(ok, form.Q, eye))
    return jnp.where(ok, condition, jnp.nan)


def _eigen_view(matrices, forms, conditions, view):
    """Measures of one part that need no singular values: of the matrix number `index` less `shift` identities."""
    index, shift = view
    matrix, condition = matrices[index], conditions[index]
    form = jax.tree.map(lambda leaf: leaf[index], forms)
    n = matrix.shape[-1]
    eye, eps = shift * jnp.eye(n, dtype=matrix.dtype), float(jnp.finfo(matrix.dtype).eps)
    values = eigenvalues_from_schur(form.T) - shift
    error = form.residual * n * eps * frobenius(matrix)
    found = measure_eigen(matrix - eye, form.T - eye, values, condition=condition, backward_error=error)
    return found | {"eigenvalues": values}


def _devices(mesh: Mesh, axes: Any) -> int:
    return int(np.prod([mesh.shape[axis] for axis in names_of(axes)], dtype=int))


def _tensor_axis(layout: Layout) -> str | None:
    """Return the mesh axis over which a layer's own parts are split, checked to be one for all of them."""
    parts = ("heads", "kv_heads", "ff", "jacobian_column")
    axes = {getattr(layout, name) for name in parts}
    (axis, *others) = axes
    matrix = (*names_of(layout.sample), *names_of(axis))
    if others or not (axis is None or isinstance(axis, str)) or names_of(layout.matrix) != matrix:
        msg = (
            "layout: got one whose heads, kv_heads, ff and jacobian_column are not split alike over one mesh axis, or "
            f"whose matrix is not split over sample and that axis; a step allows {', '.join(map(repr, LAYOUTS))} and "
            "layouts like these with other names of mesh axes"
        )
        raise InputError(msg)
    if layout.jacobian_row is not None or layout.layers is not None:
        msg = "layout: got one that splits jacobian_row or layers; a step allows None for both"
        raise InputError(msg)
    return axis


def _check_pieces(arch: Architecture, pieces: int, specs: dict[str, PartitionSpec]) -> None:
    """See that every leaf of the piece has the size that its architecture says."""
    wanted = parameters.shapes(piece_of(arch, pieces))
    whole = parameters.shapes(arch)
    for path, spec in specs.items():
        if path.startswith("blocks/"):
            split = tuple(size // (pieces if axes else 1) for size, axes in zip(whole[path], spec, strict=True))
            assert split == wanted[path], f"{path}: {split} where a piece has {wanted[path]}"
