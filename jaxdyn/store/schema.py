"""Stage 6 of 7: what a results store holds, declared before the first number is written.

A `Schema` names every array of the store: its dimensions, dtype, attributes and group. Dimensions along which the work
is split (`sample`, `unit`, ...) have a fixed unit size; an array that has such a dimension is *per-unit* and is chunked
so that two units never share a file. The unit sizes are chosen once, at creation, and stored: a resumed run repeats the
same units, hence the same bits.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from jaxdyn.errors import InputError

MAX_CHUNK_BYTES = 64 * 2**20
"""A chunk is read and written whole: above this size the leading dimensions get one chunk an index."""

FILLS = {"f": np.nan, "c": complex(np.nan, np.nan), "i": -1, "b": False}
"""What an unwritten element reads as, by dtype kind; other kinds need an explicit fill."""


@dataclass(frozen=True)
class Variable:
    """One per-unit array.

    Attributes
    ----------
    name : the array's name inside its group.
    dims : dimension names, one of them a unit dimension of the schema.
    dtype : numpy dtype name ("float32", "complex64", "int8", ...), not text.
    attrs : JSON values, by convention `long_name`, `units`, `formula` (an id of the methods, such as "E4").
    group : the group's name; "" is the root, which `xarray.open_dataset` shows.
    fill : what an unwritten element reads as; None means `FILLS` of the dtype's kind.
    split : dimensions that are written one index at a time: each index has a chunk of its own.
    """

    name: str
    dims: tuple[str, ...]
    dtype: str
    attrs: Mapping[str, object] = field(default_factory=dict)
    group: str = ""
    fill: object = None
    split: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """`group/name`, or `name` in the root: how `Store.write` and `Store.read` call this array."""
        return f"{self.group}/{self.name}" if self.group else self.name


@dataclass(frozen=True)
class Coordinate:
    """An array known in full before the run: layer numbers, prompts, articles, positions, token ids.

    Attributes
    ----------
    name : equal to its dimension for an index coordinate (`part`, `layer`), else any name (`prompt` on `sample`).
    dims : dimension names.
    values : the whole array; text is stored as variable-length strings.
    attrs, group : as in `Variable`.
    """

    name: str
    dims: tuple[str, ...]
    values: Sequence | np.ndarray
    attrs: Mapping[str, object] = field(default_factory=dict)
    group: str = ""

    @property
    def key(self) -> str:
        """`group/name`, or `name` in the root."""
        return f"{self.group}/{self.name}" if self.group else self.name


@dataclass(frozen=True)
class Schema:
    """All that a store will hold per unit, and its coordinates.

    Attributes
    ----------
    sizes : length of every dimension. One name has one length in all groups (a tree whose groups reuse a name at
        another length does not open).
    units : unit size of each dimension along which the work is split; "sample" must be among them. Every such dimension
        must give the same number of units, ceil(size / unit size).
    variables : the per-unit arrays.
    coordinates : the arrays known now.
    attrs : JSON scalars that describe the whole result (operator, derivative, metric, ...).
    group_attrs : attributes of groups, by group name.

    Raises
    ------
    InputError : for a dimension without size, disagreeing unit counts, a per-unit variable without a unit dimension,
        two arrays of one name (`done` is the store's own), or a coordinate of the wrong shape.
    """

    sizes: Mapping[str, int]
    units: Mapping[str, int]
    variables: tuple[Variable, ...]
    coordinates: tuple[Coordinate, ...] = ()
    attrs: Mapping[str, object] = field(default_factory=dict)
    group_attrs: Mapping[str, Mapping[str, object]] = field(default_factory=dict)

    def __post_init__(self):
        _check_units(self.sizes, self.units)
        keys = [item.key for item in (*self.variables, *self.coordinates)] + ["done"]
        if twice := sorted({key for key in keys if keys.count(key) > 1}):
            msg = f"schema: these names are declared twice: {', '.join(twice)}; give each array one name"
            raise InputError(msg)
        for item in (*self.variables, *self.coordinates):
            if missing := [dim for dim in item.dims if dim not in self.sizes]:
                msg = f"schema: {item.key} has dimensions without a size: {', '.join(missing)}; add them to sizes"
                raise InputError(msg)
        for variable in self.variables:
            fill_of(variable.dtype, variable.fill)
            if sum(dim in self.units for dim in variable.dims) != 1:
                msg = (
                    f"schema: {variable.key} has dims {variable.dims}, which must hold exactly one of the unit "
                    f"dimensions {sorted(self.units)}; arrays that belong to no unit are given to Store.finish"
                )
                raise InputError(msg)
        for coordinate in self.coordinates:
            expected = tuple(self.sizes[dim] for dim in coordinate.dims)
            if np.shape(coordinate.values) != expected:
                msg = f"schema: coordinate {coordinate.key} has shape {np.shape(coordinate.values)}, not {expected}"
                raise InputError(msg)

    @property
    def unit_count(self) -> int:
        """Number of units of work, ceil(samples / unit size)."""
        return math.ceil(self.sizes["sample"] / self.units["sample"])


def chunk_shape(shape: Sequence[int], dims: Sequence[str], units: Mapping[str, int], itemsize: int) -> tuple[int, ...]:
    """Chunks of one unit along a unit dimension and whole along the others, leading ones split while above 64 MiB."""
    chunk = [min(units[dim], size) if dim in units else size for size, dim in zip(shape, dims, strict=True)]
    for axis, dim in enumerate(dims):
        if dim not in units and itemsize * math.prod(chunk) > MAX_CHUNK_BYTES:
            chunk[axis] = 1
    return tuple(max(1, length) for length in chunk)


def fill_of(dtype: str, fill: object = None) -> object:
    """Return the given fill, else the default of the dtype's kind (`FILLS`)."""
    if fill is not None:
        return fill
    kind = np.dtype(dtype).kind
    if kind not in FILLS:
        msg = f"schema: dtype {dtype} has no default fill; give fill=, or use one of the kinds {sorted(FILLS)}"
        raise InputError(msg)
    return FILLS[kind]


def _check_units(sizes, units):
    if "sample" not in units or "sample" not in sizes:
        msg = f"schema: sizes and units must name 'sample'; got sizes {sorted(sizes)} and units {sorted(units)}"
        raise InputError(msg)
    if bad := {dim: size for dim, size in units.items() if dim not in sizes or size < 1}:
        msg = f"schema: every unit dimension needs a size and a unit size of at least 1; got {bad}"
        raise InputError(msg)
    counts = {dim: math.ceil(sizes[dim] / size) for dim, size in units.items()}
    if len(set(counts.values())) > 1:
        msg = f"schema: unit dimensions must give the same number of units; got {counts}; choose matching unit sizes"
        raise InputError(msg)
