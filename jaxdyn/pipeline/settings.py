"""Everything that decides what a run computes, checked once before anything is loaded."""

from dataclasses import asdict, dataclass

from jaxdyn.errors import InputError
from jaxdyn.jacobians.request import DERIVATIVES, Derivative, Operator, Request, check
from jaxdyn.models.architecture import Architecture

PARTS = ("block", "update", "attention", "mlp")
"""Parts in the order of the store. Block and update come from one Jacobian and one Schur form."""

ANALYZE_OPERATORS = ("in-context", "isolated", "ov")

OUTPUTS = ("eigenvalues", "singular-values", "averages", "schur", "jacobians")
"""What may be stored beside the scalars: spectra, the averaged Jacobian (by a sum a unit), Schur forms, Jacobians."""


@dataclass(frozen=True)
class Settings:
    """What to measure.

    Attributes
    ----------
    operator, derivative : which Jacobian; see `jaxdyn.jacobians.Request`.
    tokens : token rule, "last", "all" or "last:N".
    layers : block numbers, ascending; empty means all.
    parts : any of "block", "update", "attention", "mlp".
    max_tokens : keep at most this many tokens of each text; None refuses texts longer than the context.
    draws : seeded draws of null N1 for each matrix, at least 8, or 0 to leave N1 out.
    kreiss : whether to compute the Kreiss constant, the dearest measure for wide models.
    seed : of every random number in the run.
    unit : samples a unit of work: what a killed run loses at most, and what fixes the bits of the averaged Jacobian.
    pseudospectra : layers whose averaged block Jacobian gets a resolvent-norm grid.
    truncate : rank kept at each step of the cumulative product; None keeps all.
    outputs : what is stored beside the scalars, any of `OUTPUTS`.
    """

    operator: Operator = "in-context"
    derivative: Derivative = "exact"
    tokens: str = "last"
    layers: tuple[int, ...] = ()
    parts: tuple[str, ...] = PARTS
    max_tokens: int | None = None
    draws: int = 8
    kreiss: bool = True
    seed: int = 0
    unit: int = 8
    pseudospectra: tuple[int, ...] = ()
    truncate: int | None = None
    outputs: tuple[str, ...] = ("eigenvalues", "singular-values", "averages")

    def __post_init__(self) -> None:
        """Refuse what cannot be run, naming the argument."""
        check("operator", self.operator, ANALYZE_OPERATORS)
        check("derivative", self.derivative, DERIVATIVES)
        if not self.parts:
            msg = f"parts: got none; allowed any of {', '.join(PARTS)}"
            raise InputError(msg)
        for part in self.parts:
            check("parts", part, PARTS)
        for output in self.outputs:
            check("outputs", output, OUTPUTS)
        if self.pseudospectra and "averages" not in self.outputs:
            msg = (
                "pseudospectra: got layers, but outputs has no averages, whose grids they are; add averages to outputs"
            )
            raise InputError(msg)
        if self.draws != 0 and self.draws < 8:
            msg = f"draws: got {self.draws}; allowed 0 (no N1) or at least 8, or its spread says nothing"
            raise InputError(msg)
        for name, value in (("unit", self.unit), ("truncate", self.truncate)):
            if value is not None and value < 1:
                msg = f"{name}: got {value}; allowed 1 or more"
                raise InputError(msg)

    @property
    def request(self) -> Request:
        """Operator and derivative."""
        return Request(self.operator, self.derivative)

    @property
    def matrices(self) -> tuple[str, ...]:
        """The Jacobians that the parts need: update is read off block."""
        wanted = {"block" if part == "update" else part for part in self.parts}
        return tuple(name for name in ("block", "attention", "mlp") if name in wanted)

    def resolved_layers(self, arch: Architecture) -> tuple[int, ...]:
        """Layers to analyse, all where none were named; refuses layers the model does not have."""
        for name, chosen in (("layers", self.layers), ("pseudospectra", self.pseudospectra)):
            unknown = [layer for layer in chosen if not 0 <= layer < arch.layers]
            if unknown:
                allowed = f"allowed 0 to {arch.layers - 1}: the model has {arch.layers} blocks, counted from 0"
                msg = f"{name}: got {unknown[0]}; {allowed}"
                raise InputError(msg)
        layers = tuple(sorted(set(self.layers))) or tuple(range(arch.layers))
        outside = sorted(set(self.pseudospectra) - set(layers))
        if outside:
            msg = f"pseudospectra: got layer {outside[0]}; allowed the analysed layers {list(layers)}; add it to layers"
            raise InputError(msg)
        return layers

    def as_dict(self) -> dict:
        """Plain values, for the store and config.yaml."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def parse_layers(text: str, argument: str = "layers") -> tuple[int, ...]:
    """Read "0,3-5" as (0, 3, 4, 5)."""
    layers: list[int] = []
    for piece in text.split(","):
        first, dash, last = piece.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()) or (dash and int(last) < int(first)):
            msg = f"{argument}: got {text!r}; allowed block numbers and ranges such as 0,3-5"
            raise InputError(msg)
        layers.extend(range(int(first), int(last or first) + 1))
    return tuple(sorted(set(layers)))
