"""What a compiled program does, read from its HLO text with the trip counts of its loops: operations, bytes, exchanges.

`Compiled.cost_analysis()` counts the body of a loop once. Here every body is multiplied by its trip count: the one that
stands in the loop's condition, or the one that the caller gives for a loop whose length depends on data. A loop without
either is an error, not an estimate. `flops_once` has every body once, as the compiler counts, so that the two can be
compared: they agree where the reading is right.

Operations follow XLA's own rules: 2 for a multiplication and addition of a product or convolution (positions that fall
on padding or on the holes of a dilated operand do not count), 1 for an element of an arithmetic operation, of a
comparison and of a reduction, none for roots, exponentials and data movement. Bytes are those of the chip's main
memory: what an operation reads and writes there, of a slice what is sliced, nothing for arrays in faster memory.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np

COLLECTIVES = (
    "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "ragged-all-to-all",
    "collective-broadcast",
)  # fmt: skip
_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "iota", "copy-done", "while",
    "conditional", "call", "partition-id", "replica-id", "async-done", "async-update", "opt-barrier", "domain",
}  # fmt: skip
_ARITHMETIC = {
    "add", "subtract", "multiply", "divide", "maximum", "minimum", "remainder", "and", "or", "xor", "not", "compare",
    "select", "abs", "negate", "sign", "floor", "ceil", "round-nearest-afz", "round-nearest-even", "clamp",
    "shift-left", "shift-right-logical", "shift-right-arithmetic", "convert", "is-finite", "complex", "real", "imag",
    "popcnt", "count-leading-zeros",
}  # fmt: skip
_BYTES = {"pred": 1, "s4": 0.5, "u4": 0.5, "bf16": 2, "c64": 8, "c128": 16, "token": 0}
_SHAPE = re.compile(r"(pred|token|bf16|[suf]\d+|c\d+)\[([\d,<=]*)\](\{[^}]*\})?")
_LINE = re.compile(r"^\s+(ROOT )?%([\w.\-]+) = (.*)$")
_HEAD = re.compile(r"^(ENTRY )?%([\w.\-]+) \(.*\{$")
_CALLED = re.compile(r"(?:calls|to_apply)=%([\w.\-]+)")


@dataclass(frozen=True)
class Shape:
    """One array: element type, sizes, and whether it lies in the main memory."""

    dtype: str
    sizes: tuple[int, ...]
    main: bool

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.sizes)

    @property
    def bytes(self) -> float:
        """Their size, without the padding of a layout."""
        width = _BYTES.get(self.dtype)
        return self.elements * (int(re.sub(r"\D.*", "", self.dtype[1:])) / 8 if width is None else width)


@dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    name: str
    shapes: tuple[Shape, ...]
    opcode: str
    operands: tuple[str, ...]
    inside: str
    attributes: str
    root: bool

    @property
    def scope(self) -> str:
        """Where in the traced program it comes from."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found[1] if found else ""


@dataclass(frozen=True)
class Exchange:
    """A collective: what it is, from where, bytes of its result on a chip, and how often it runs.

    `channel` is its number where it lies in a fusion: the TPU's compiler spreads one over several fusions, to run it
    beside products.
    """

    kind: str
    scope: str
    bytes: float
    times: float
    channel: str = ""


@dataclass(frozen=True)
class Loop:
    """A loop: from where, and its trip count as the condition has it, or None."""

    scope: str
    trips: int | None


@dataclass(frozen=True)
class Counts:
    """Totals of a computation.

    Attributes
    ----------
    flops, flops_once : operations, with trip counts and with every body once.
    products : those of them that are products of matrices.
    bytes : read and written in the main memory.
    operations : how many instructions run, one after another.
    cycles : the compiler's own estimates, where it gives any (TPU), which count the start of each operation too.
    exchanges : the collectives.
    """

    flops: float = 0
    flops_once: float = 0
    products: float = 0
    bytes: float = 0
    operations: float = 0
    cycles: float = 0
    exchanges: tuple[Exchange, ...] = ()

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            *(getattr(self, name) + getattr(other, name) for name in
              ("flops", "flops_once", "products", "bytes", "operations", "cycles", "exchanges"))
        )  # fmt: skip

    def times(self, trips: float) -> "Counts":
        """All of it `trips` times; `flops_once` as it is."""
        return replace(
            self,
            flops=self.flops * trips,
            products=self.products * trips,
            bytes=self.bytes * trips,
            operations=self.operations * trips,
            cycles=self.cycles * trips,
            exchanges=tuple(replace(one, times=one.times * trips) for one in self.exchanges),
        )


@dataclass
class Program:
    """A parsed module; `counts` is all that one asks of it."""

    computations: dict[str, dict[str, Instruction]]
    entry: str
    loops: list[Loop] = field(default_factory=list)

    def counts(self, trips: Callable[[str], float | None]) -> Counts:
        """Add up the program.

        Parameters
        ----------
        trips : the trip count of a loop whose condition has none, by its scope; None where it is not known.

        Raises
        ------
        ValueError : a loop without a trip count.
        """

        @cache
        def of(name: str) -> Counts:
            total = Counts()
            for one in self.computations[name].values():
                total = total + self._instruction(name, one, of, trips)
            seen, once = set(), []
            for one in total.exchanges:
                if not one.channel or one.channel not in seen:
                    once.append(one)
                seen.add(one.channel)
            return replace(total, exchanges=tuple(once))

        return of(self.entry)

    def instruction_counts(self, where: str, one: Instruction, trips: Callable[[str], float | None]) -> Counts:
        """Add up one instruction of a computation, as `counts` does."""
        alone = {one.name: one} | {name: self.computations[where][name] for name in one.operands}
        alone = {name: part if part is one else replace(part, opcode="parameter") for name, part in alone.items()}
        return Program({**self.computations, "alone": alone}, "alone").counts(trips)

    def _instruction(self, where, one, of, trips) -> Counts:
        if one.opcode == "while":
            condition, body = (_named(one.attributes, part) for part in ("condition", "body"))
            known = self.trip_count(condition)
            count = trips(one.scope) if known is None else known
            if count is None:
                message = f"{one.name}: no trip count for the loop {one.scope!r}"
                raise ValueError(message)
            return of(body).times(count) + of(condition).times(count)
        if one.opcode == "conditional":
            names = re.findall(r"(?:true|false)_computation=%([\w.\-]+)", one.attributes)
            several = re.search(r"branch_computations=\{([^}]*)\}", one.attributes)
            names += re.findall(r"%([\w.\-]+)", several[1]) if several else []
            return max((of(name) for name in names), key=lambda counts: counts.flops)
        called = _CALLED.search(one.attributes)
        if one.opcode == "call" and called:
            return of(called[1])
        exchanges = self._exchanges(one, fused=False)
        if one.opcode in ("fusion", "async-start") and called:
            exchanges += self._inside(called[1], fused=one.opcode == "fusion")
        flops, products = self.flops(where, one)
        moved = self._bytes(where, one)
        runs = float(one.opcode not in _FREE)
        estimate = re.search(r'"estimated_cycles":"(\d+)"', one.attributes)
        cycles = float(estimate[1]) if estimate else 0.0
        return Counts(flops, flops, products, moved, runs, cycles, exchanges)

    def _exchanges(self, one: Instruction, *, fused: bool) -> tuple[Exchange, ...]:
        if one.opcode.removesuffix("-start") not in COLLECTIVES:
            return ()
        size = sum(shape.bytes for shape in one.shapes) / (2 if one.opcode.endswith("-start") else 1)
        channel = re.search(r"channel_id=(\d+)", one.attributes)
        assert channel or not fused
        number = channel[1] if channel and fused else ""
        return (Exchange(one.opcode.removesuffix("-start"), one.scope, size, 1, number),)

    def _inside(self, name: str, *, fused: bool) -> tuple[Exchange, ...]:
        """Collectives in a fused computation, and in those fused into it."""
        found: tuple[Exchange, ...] = ()
        for one in self.computations[name].values():
            found += self._exchanges(one, fused=fused)
            deeper = _CALLED.search(one.attributes)
            if one.opcode == "fusion" and deeper:
                found += self._inside(deeper[1], fused=fused)
        return found

    def trip_count(self, condition: str) -> int | None:
        """Return what the counter is compared with, where that is a constant and nothing else is asked."""
        instructions = self.computations[condition]
        (root,) = [one for one in instructions.values() if one.root]
        if root.opcode == "fusion":
            inner = _CALLED.search(root.attributes)
            assert inner
            (compare,) = [one for one in self.computations[inner[1]].values() if one.root]
            if compare.opcode != "compare" or "direction=LT" not in compare.attributes:
                return None
            bounds = [instructions[name] for name in root.operands if instructions[name].opcode == "constant"]
        elif root.opcode == "compare" and "direction=LT" in root.attributes:
            bounds = [instructions[root.operands[1]]]
        else:
            return None
        return int(bounds[0].inside) if len(bounds) == 1 and bounds[0].opcode == "constant" else None

    def flops(self, where: str, one: Instruction) -> tuple[float, float]:
        """Operations of one instruction, and those in products, XLA's rules; bodies of loops not included."""
        known, elements = self.computations[where], sum(shape.elements for shape in one.shapes)
        if one.opcode == "fusion":
            called = _CALLED.search(one.attributes)
            assert called
            inner = [self.flops(called[1], part) for part in self.computations[called[1]].values()]
            return sum(pair[0] for pair in inner), sum(pair[1] for pair in inner)
        if one.opcode == "dot":
            contracted = [int(k) for k in re.search(r"lhs_contracting_dims=\{([\d,]*)\}", one.attributes)[1].split(",")]  # pyright: ignore[reportOptionalSubscript]
            left = known[one.operands[0]].shapes[0]
            found = 2.0 * elements * math.prod(left.sizes[k] for k in contracted)
            return found, found
        if one.opcode == "convolution":
            found = _convolution(one, *(known[name].shapes[0] for name in one.operands))
            return found, found
        if one.opcode in ("reduce", "reduce-window", "sort", "scatter"):
            read = sum(shape.elements for name in one.operands for shape in known[name].shapes[:1])
            return float(read), 0.0
        return (float(elements), 0.0) if one.opcode in _ARITHMETIC else (0.0, 0.0)

    def _bytes(self, where: str, one: Instruction) -> float:
        """Bytes that it reads and writes in the main memory."""
        if one.opcode in _FREE:
            return 0.0
        known = self.computations[where]
        read = {name: known[name].shapes for name in dict.fromkeys(one.operands) if name in known}
        written: tuple[Shape, ...] = one.shapes
        if one.opcode == "dynamic-slice":
            read = {one.operands[0]: _like(one.shapes, read[one.operands[0]])}
        elif one.opcode == "dynamic-update-slice":
            written = _like(read.pop(one.operands[1]), one.shapes)
            read = {}
            return 2 * _size(written)
        elif one.opcode == "fusion":
            called = _CALLED.search(one.attributes)
            assert called
            read, written = self._fused(self.computations[called[1]], one, read)
        elif one.opcode.endswith("-start"):
            written = written[:1]
        return sum(map(_size, read.values())) + _size(written)

    def _fused(self, inner, one, read):
        """What a fusion reads of its operands, slices where only slices are used, and writes."""
        users: dict[str, list[Instruction]] = {}
        for part in inner.values():
            for name in part.operands:
                users.setdefault(name, []).append(part)
        found = {}
        for part in inner.values():
            if part.opcode != "parameter":
                continue
            operand = one.operands[int(part.inside)]
            if operand not in read:
                continue
            uses = _uses(users, part.name)
            whole = [use for use, name in uses if not _sliced(use, name)]
            if whole or not uses:
                found[part.name] = read[operand]
            else:
                slices = [use.shapes for use, _ in uses if use.opcode == "dynamic-slice"]
                found[part.name] = tuple(shape for shapes in slices for shape in _like(shapes, read[operand]))
        written = []
        (root,) = [part for part in inner.values() if part.root]
        results = [inner[name] for name in root.operands] if root.opcode == "tuple" else [root]
        for result, shape in zip(results, one.shapes, strict=False):
            result = _through(inner, result)
            if result.opcode == "dynamic-update-slice":
                written += _like(inner[result.operands[1]].shapes, (shape,))
            else:
                written.append(shape)
        return found, tuple(written)


def parse(text: str) -> Program:
    """Read the text of one module, as ``Compiled.as_text()`` gives it."""
    computations: dict[str, dict[str, Instruction]] = {}
    entry, current = "", None
    for line in text.splitlines():
        head = _HEAD.match(line)
        if head:
            current = computations.setdefault(head[2], {})
            entry = head[2] if head[1] else entry
        elif current is not None and (found := _LINE.match(line)):
            one = _instruction(found[2], re.sub(r"/\*.*?\*/", "", found[3]), root=bool(found[1]))
            current[one.name] = one
    program = Program(computations, entry)
    for instructions in computations.values():
        for one in instructions.values():
            if one.opcode == "while":
                condition = re.search(r"condition=%([\w.\-]+)", one.attributes)
                assert condition
                program.loops.append(Loop(one.scope, program.trip_count(condition[1])))
    return program


def _instruction(name: str, rest: str, *, root: bool) -> Instruction:
    end = _matching(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    kind, rest = rest[:end], rest[end:].lstrip()
    opening = rest.index("(")
    closing = _matching(rest, opening)
    inside = rest[opening + 1 : closing]
    shapes = tuple(
        Shape(
            found[1],
            tuple(int(size.lstrip("<=")) for size in found[2].split(",") if size),
            not re.search(r"S\([1-9]\d*\)", found[3] or ""),
        )
        for found in _SHAPE.finditer(kind)
    )
    operands = tuple(re.findall(r"%([\w.\-]+)", inside))
    return Instruction(name, shapes, rest[:opening], operands, inside, rest[closing + 1 :], root)


def _matching(text: str, start: int) -> int:
    depth = 0
    for place in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if depth == 0:
            return place
    message = f"no closing parenthesis in {text[start : start + 80]!r}"
    raise ValueError(message)


def _convolution(one: Instruction, left: Shape, right: Shape) -> float:
    """Multiplications and additions of a convolution, positions on padding and holes left out."""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", one.attributes)
    assert labels
    kernel, out = labels[2], labels[3]
    spatial = sorted(label for label in kernel if label.isdigit())
    window = dict(re.findall(r"(\w+)=([\dx_\-]+)", (re.search(r"window=\{([^}]*)\}", one.attributes) or ["", ""])[1]))

    def values(name: str, default: str) -> list[str]:
        return window[name].split("x") if name in window else [default] * len(spatial)

    valid = 1.0
    defaults = {"stride": "1", "pad": "0_0", "lhs_dilate": "1", "rhs_dilate": "1"}
    settings = zip(spatial, *(values(*pair) for pair in defaults.items()), strict=True)
    for label, stride, pad, base, holes in settings:
        size = left.sizes[labels[1].index(label)]
        at = np.arange(one.shapes[0].sizes[out.index(label)])[:, None] * int(stride) - int(pad.split("_")[0])
        at = at + np.arange(right.sizes[kernel.index(label)])[None, :] * int(holes)
        valid *= int(np.sum((at >= 0) & (at % int(base) == 0) & (at < (size - 1) * int(base) + 1)))
    batch, features = (one.shapes[0].sizes[out.index(label)] for label in "bf")
    groups = re.search(r"batch_group_count=(\d+)", one.attributes)
    return 2.0 * valid * batch * features * right.sizes[kernel.index("i")] / (int(groups[1]) if groups else 1)


def _through(inner: dict[str, Instruction], one: Instruction) -> Instruction:
    """Follow bitcasts to what they name."""
    while one.opcode == "bitcast" and one.operands[0] in inner:
        one = inner[one.operands[0]]
    return one


def _uses(users: dict[str, list[Instruction]], name: str) -> list[tuple[Instruction, str]]:
    """Who uses a value, under which name; through bitcasts."""
    found = []
    for use in users.get(name, []):
        found += _uses(users, use.name) if use.opcode == "bitcast" else [(use, name)]
    return found


def _sliced(use: Instruction, name: str) -> bool:
    """Whether only a part of the value is touched."""
    return use.opcode in ("dynamic-slice", "dynamic-update-slice") and use.operands[0] == name


def _size(shapes: tuple[Shape, ...]) -> float:
    return sum(shape.bytes for shape in shapes if shape.main)


def _like(shapes: tuple[Shape, ...], place: tuple[Shape, ...]) -> tuple[Shape, ...]:
    """These shapes, in the memory where others lie."""
    return tuple(replace(shape, main=place[0].main) for shape in shapes)


def _named(attributes: str, part: str) -> str:
    """Return the computation that an instruction's attributes name for this part."""
    found = re.search(rf"{part}=%([\w.\-]+)", attributes)
    assert found is not None, (part, attributes)
    return found[1]
