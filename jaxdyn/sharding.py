"""Where each parameter lies on a mesh of devices: logical axes of the parameters -> axes of the mesh.

Every parameter axis has a logical name; a rule gives the mesh axis over which that name is split. The default splits
what a tensor-parallel transformer splits: vocabulary, attention heads and the MLP's hidden units, so that a block needs
one sum over the devices after attention and one after the MLP.
"""

from collections.abc import Mapping

from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxdyn.errors import InputError
from jaxdyn.models.architecture import Architecture

Rules = Mapping[str, str | None]

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
    "mlp/gate": ("ff", "width"),
    "mlp/up": ("ff", "width"),
    "mlp/down": ("width", "ff"),
}


def check_mesh(mesh: Mesh, rules: Rules | None) -> None:
    """Refuse rules with unknown logical axes, or that name axes the mesh does not have."""
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
    arch: Architecture, shapes: Mapping[str, tuple[int, ...]], mesh: Mesh, rules: Rules | None = None
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
        Logical axis -> mesh axis, or None for ``DEFAULT_RULES``; a logical axis that is left out is not split.

    Returns
    -------
    dict
        One ``NamedSharding`` a path. An axis that the mesh axis does not divide evenly (in whole heads, for heads), and
        a mesh axis that already splits another axis of the same parameter, leave that axis whole: the values are the
        same, the memory is not. Vectors are kept whole on every device.
    """
    check_mesh(mesh, rules)
    chosen = DEFAULT_RULES if rules is None else rules
    automatic = Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * mesh.devices.ndim)
    found = {}
    for path, shape in shapes.items():
        spec: list[str | None] = []
        for name, size in zip(_logical(path, len(shape)), shape, strict=True):
            axis = chosen.get(name) if name else None
            count = _units(arch, name, size)
            fits = (
                axis is not None and axis not in spec and count % mesh.shape[axis] == 0 and size % mesh.shape[axis] == 0
            )
            spec.append(axis if fits else None)
        found[path] = NamedSharding(automatic, PartitionSpec(*spec))
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
