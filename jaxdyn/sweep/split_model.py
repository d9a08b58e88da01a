"""A model on one device of a mesh: what the device has of it, and what it exchanges to run it.

The functions here are those of one device, to be called inside `jax.shard_map`: `arch` is its piece of the model, and
parameters are its pieces of the arrays. What crosses between devices is written in them, in a scope of its own each.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from jaxdyn.errors import InputError
from jaxdyn.models import decoder, parameters
from jaxdyn.models.architecture import Architecture
from jaxdyn.models.split import Split, once, piece_of
from jaxdyn.models.stream import Stream
from jaxdyn.sharding import LAYOUTS, Layout, check_mesh, layout_named, names_of, shardings

READ = ("embed", "blocks")
"""The parameters that a step reads: not the last norm, nor the unembedding."""


@dataclass(frozen=True)
class SplitModel:
    """A model over a mesh, as one device sees it.

    Attributes
    ----------
    whole, arch : the model's description, and that of a device's piece of its heads and hidden units.
    mesh, layout : the devices, and how arrays lie on them.
    split : how the pieces are put together.
    placed : path -> where that parameter lies, of those in `READ`.
    """

    whole: Architecture
    arch: Architecture
    mesh: Mesh
    layout: Layout
    split: Split
    placed: dict[str, NamedSharding]

    @property
    def specs(self) -> dict[str, PartitionSpec]:
        """How each parameter is split."""
        return {path: one.spec for path, one in self.placed.items()}

    def begin(self, flat: dict[str, Array], ids: Int[Array, "B T"]) -> Stream:
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

    def layer(self, flat: dict[str, Array], index: Int[Array, ""]) -> dict[str, Any]:
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

    def to_whole(self, columns: Float[Array, "S K D C"]) -> Float[Array, "s K D D"]:
        """Turn this device's columns of its group's matrices into whole matrices of its own samples."""
        if self.split.axis is None:
            return columns
        with jax.named_scope("whole_matrices"):
            return lax.all_to_all(columns, self.split.axis, split_axis=0, concat_axis=3, tiled=True)

    def own(self, samples: Array) -> Array:
        """Take this device's share of its group's samples, those whose whole matrices it has."""
        if self.split.axis is None:
            return samples
        share = samples.shape[0] // lax.axis_size(self.split.axis)
        return lax.dynamic_slice_in_dim(samples, lax.axis_index(self.split.axis) * share, share)


def split_model(arch: Architecture, mesh: Mesh, layout: Layout | str) -> SplitModel:
    """Lay a model out on a mesh.

    Raises
    ------
    InputError : an unknown layout, one that no step runs in, a mesh without its axes, or sizes that do not divide.
    """
    layout = layout_named(layout) if isinstance(layout, str) else layout
    check_mesh(mesh, layout)
    shapes = {path: shape for path, shape in parameters.shapes(arch).items() if path.split("/")[0] in READ}
    split = Split(_tensor_axis(layout))
    pieces = devices_along(mesh, split.axis)
    made = SplitModel(arch, piece_of(arch, pieces), mesh, layout, split, shardings(arch, shapes, mesh, layout))
    if pieces > 1:
        _check_pieces(arch, pieces, made.specs)
    return made


def read_by_step(params: decoder.Params) -> dict:
    """Return the parameters that a step reads."""
    return {name: params[name] for name in READ}


def devices_along(mesh: Mesh, axes: Any) -> int:
    """Count the devices along one or several axes of a mesh."""
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
