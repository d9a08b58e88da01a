"""Where each array lies on a mesh of devices: logical axes of weights, samples and Jacobians -> axes of the mesh.

Every axis of every array has a logical name. A `Layout` says which axes of the mesh split which names, once for a whole
program, and is refused where one axis of the mesh would split two axes of one array. `LAYOUTS` has the four that the
sweep's step runs in. Parameters alone may also be placed by plain rules, a mapping from names to mesh axes; the default
splits what a tensor-parallel transformer splits: vocabulary, attention heads and the MLP's hidden units.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxdyn.errors import InputError
from jaxdyn.models.architecture import Architecture

Rules = Mapping[str, str | None]
MeshAxes = str | tuple[str, ...] | None

LOGICAL_AXES = ("layers", "vocab", "width", "heads", "kv_heads", "ff", "rows")
"""Names that rules may use; "rows" is the first axis of every matrix that has no better name."""

DEFAULT_RULES: Rules = {"vocab": "model", "heads": "model", "kv_heads": "model", "ff": "model", "rows": "model"}

_AXES = {
    "embed/tokens": ("vocab", "width"),
    "embed/positions": (None, "width"),
    "head": ("vocab", "width"),
    "attention/q": ("heads", "width"),
    "attention/k": ("kv_heads", "width"),
    "attention/v": ("kv_heads", "width"),
    "attention/o": ("width", "heads"),
    "attention/q_bias": ("heads",),
    "attention/k_bias": ("kv_heads",),
    "attention/v_bias": ("kv_heads",),
    "mlp/gate": ("ff", "width"),
    "mlp/up": ("ff", "width"),
    "mlp/down": ("width", "ff"),
    "mlp/gate_bias": ("ff",),
    "mlp/up_bias": ("ff",),
}

_ARRAYS: dict[str, tuple[str | None, ...]] = {
    "token ids and residual stream": ("sample", None, None),
    "Jacobians": ("sample", "jacobian_row", "jacobian_column"),
    "Jacobians while they are decomposed": ("matrix", None, None),
    **{path: axes if path.startswith(("embed", "head")) else ("layers", *axes) for path, axes in _AXES.items()},
}


def names_of(axes: MeshAxes) -> tuple[str, ...]:
    """Return mesh axes as a tuple of names."""
    if axes is None:
        return ()
    return (axes,) if isinstance(axes, str) else tuple(axes)


@dataclass(frozen=True)
class Layout:
    """Which axes of a mesh split which logical axes; None, the default, leaves an axis whole on every device.

    A value is the name of a mesh axis, or a tuple of names that split the axis together, the first one slowest.

    Attributes
    ----------
    sample : prompts and their samples, while the model runs and the Jacobians are made.
    matrix : samples, while their Jacobians are decomposed and measured: each device has whole matrices.
    jacobian_row, jacobian_column : outputs and inputs of a Jacobian, while it is made.
    layers, vocab, width, heads, kv_heads, ff, rows : axes of the parameters; "width" is that of the weights, the
        residual stream is never split; "rows" is the first axis of a matrix without a better name.

    Raises
    ------
    InputError : one mesh axis for two axes of the same array.
    """

    sample: MeshAxes = None
    matrix: MeshAxes = None
    jacobian_row: MeshAxes = None
    jacobian_column: MeshAxes = None
    layers: MeshAxes = None
    vocab: MeshAxes = None
    width: MeshAxes = None
    heads: MeshAxes = None
    kv_heads: MeshAxes = None
    ff: MeshAxes = None
    rows: MeshAxes = None

    def __post_init__(self) -> None:
        """Refuse collisions in the arrays that a program has."""
        for array, names in _ARRAYS.items():
            self.spec(*names, array=array)
        self.spec("layers", "rows", array="other matrices")

    def spec(self, *names: str | None, array: str = "this array") -> PartitionSpec:
        """Say how an array with these logical axes is split; None for an axis that never is."""
        known = {field.name for field in fields(self)}
        seen: dict[str, str] = {}
        chosen: list[MeshAxes] = []
        for name in names:
            if name is not None and name not in known:
                msg = f"layout: got the logical axis {name!r}; allowed {', '.join(map(repr, sorted(known)))}"
                raise InputError(msg)
            axes: MeshAxes = None if name is None else getattr(self, name)
            for axis in names_of(axes):
                if axis in seen:
                    msg = (
                        f"layout: the mesh axis {axis!r} splits both {seen[axis]!r} and {name!r} of {array}; "
                        "give them different mesh axes, or None"
                    )
                    raise InputError(msg)
                seen[axis] = str(name)
            chosen.append(axes)
        return PartitionSpec(*chosen)

    @property
    def mesh_axes(self) -> tuple[str, ...]:
        """The mesh axes it names, in the order of its fields."""
        named = (axis for field in fields(self) for axis in names_of(getattr(self, field.name)))
        return tuple(dict.fromkeys(named))

    @property
    def parameter_rules(self) -> dict[str, MeshAxes]:
        """Its part that concerns parameters."""
        return {name: getattr(self, name) for name in LOGICAL_AXES}


LAYOUTS: dict[str, Layout] = {
    "one": Layout(),
    "data": Layout(sample="data", matrix="data"),
    "fsdp": Layout(sample="data", matrix="data", width="data", rows="data"),
    "tensor": Layout(
        sample="data",
        matrix=("data", "model"),
        jacobian_column="model",
        vocab="model",
        heads="model",
        kv_heads="model",
        ff="model",
    ),
}
"""By name. "one": one device. "data": samples over devices, weights on each. "fsdp": samples and weights over devices,
the weights gathered a layer at a time. "tensor": heads, hidden units and vocabulary over the axis "model", the columns
of the Jacobians over the same one; samples over "data", whole matrices over both."""


def layout_named(name: str) -> Layout:
    """Return one of ``LAYOUTS``, or say which there are."""
    if name not in LAYOUTS:
        msg = f"layout: got {name!r}; allowed {', '.join(map(repr, LAYOUTS))}"
        raise InputError(msg)
    return LAYOUTS[name]


def mesh_for(layout: str, devices: Sequence[Any] | None = None, *, model: int = 1) -> Mesh:
    """Arrange devices in the mesh of a named layout.

    Parameters
    ----------
    layout : a name of ``LAYOUTS``.
    devices : default all; "one" takes the first.
    model : devices on the axis "model", for "tensor"; the others are on "data".

    Returns
    -------
    Mesh with the axes "data", and "model" for "tensor", both automatic.

    Raises
    ------
    InputError : an unknown name, or a number of devices that `model` does not divide.
    """
    layout_named(layout)
    devices = jax.devices() if devices is None else list(devices)
    if layout == "one":
        devices = devices[:1]
    if layout != "tensor" and model != 1:
        msg = f"model: got {model} with the layout {layout!r}; allowed 1; the layout 'tensor' splits weights so"
        raise InputError(msg)
    if model < 1 or len(devices) % model:
        msg = f"model: got {model}; allowed a divisor of the number of devices, {len(devices)}"
        raise InputError(msg)
    if layout == "tensor":
        return automatic(Mesh(np.array(devices, dtype=object).reshape(-1, model), ("data", "model")))
    return automatic(Mesh(np.array(devices, dtype=object), ("data",)))


def automatic(mesh: Mesh) -> Mesh:
    """Return the mesh with axes that leave communication to the compiler, whatever their type was."""
    return Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * mesh.devices.ndim)


def check_mesh(mesh: Mesh, rules: Rules | Layout | None) -> None:
    """Refuse rules with unknown logical axes, or that name axes the mesh does not have."""
    if isinstance(rules, Layout):
        absent = [axis for axis in rules.mesh_axes if axis not in mesh.axis_names]
        if absent:
            msg = (
                f"mesh: the layout splits over the mesh axis {absent[0]!r}, the mesh has "
                f"{', '.join(map(repr, mesh.axis_names))}; make it with mesh_for"
            )
            raise InputError(msg)
        return
    chosen = DEFAULT_RULES if rules is None else rules
    unknown = sorted(set(chosen) - set(LOGICAL_AXES))
    if unknown:
        msg = f"rules: got the logical axis {unknown[0]!r}; allowed {', '.join(map(repr, LOGICAL_AXES))}"
        raise InputError(msg)
    absent = sorted({axis for axis in chosen.values() if axis is not None} - set(mesh.axis_names))
    if absent:
        named = "mesh: the default rules split over" if rules is None else "rules: the rules name"
        msg = (
            f"{named} the mesh axis {absent[0]!r}, the mesh has {', '.join(map(repr, mesh.axis_names))}; name a "
            "mesh axis so, or give rules={logical axis: mesh axis}"
        )
        raise InputError(msg)


def shardings(
    arch: Architecture, shapes: Mapping[str, tuple[int, ...]], mesh: Mesh, rules: Rules | Layout | None = None
) -> dict[str, NamedSharding]:
    """Say how each parameter is split over a mesh.

    Parameters
    ----------
    arch
        The description; its numbers of heads decide whether heads can be split without cutting one in two.
    shapes
        Shape of every parameter by path, as ``parameters.shapes`` gives them.
    mesh
        The devices. Its axes are taken as automatic (the compiler inserts the communication), whatever their type.
    rules
        Logical axis -> mesh axis, or a `Layout`, or None for ``DEFAULT_RULES``; a logical axis that is left out is not
        split.

    Returns
    -------
    dict
        One ``NamedSharding`` a path. An axis that the mesh axis does not divide evenly (in whole heads, for heads), and
        a mesh axis that already splits another axis of the same parameter, leave that axis whole: the values are the
        same, the memory is not. Biases are split like the rows they belong to; norms are whole on every device.
    """
    check_mesh(mesh, rules)
    chosen = DEFAULT_RULES if rules is None else rules
    if isinstance(chosen, Layout):
        chosen = chosen.parameter_rules
    own = automatic(mesh)
    found = {}
    for path, shape in shapes.items():
        spec: list[MeshAxes] = []
        for name, size in zip(_logical(path, len(shape)), shape, strict=True):
            axes = chosen.get(name) if name else None
            taken = {axis for before in spec for axis in names_of(before)}
            pieces = math.prod(mesh.shape[axis] for axis in names_of(axes))
            divides = _units(arch, name, size) % pieces == 0 and size % pieces == 0
            spec.append(axes if divides and not taken & set(names_of(axes)) else None)
        found[path] = NamedSharding(own, PartitionSpec(*spec))
    return found


def _logical(path: str, rank: int) -> tuple[str | None, ...]:
    """Name the axes of a parameter; block leaves have the layers in front."""
    stacked = path.startswith("blocks/")
    own = rank - stacked
    axes = _AXES.get(path.removeprefix("blocks/"))
    if axes is None or len(axes) != own:
        axes = ("rows", *[None] * (own - 1)) if own > 1 else (None,) * own
    return ("layers", *axes) if stacked else axes


def _units(arch: Architecture, name: str | None, size: int) -> int:
    """Return into how many pieces an axis may be cut at most."""
    return {"heads": arch.heads, "kv_heads": arch.kv_heads}.get(name or "", size)
