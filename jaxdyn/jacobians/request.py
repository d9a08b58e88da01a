"""What to differentiate: operator, part and derivative, checked once and hashable, so that jit compiles once each."""

from dataclasses import dataclass
from typing import Literal, get_args

from jaxdyn.errors import InputError

Operator = Literal["in-context", "isolated", "ov", "cross"]
Part = Literal["block", "update", "attention", "attention-update", "mlp", "mlp-update"]
Derivative = Literal["exact", "frozen"]
Method = Literal["closed-form", "autodiff"]

OPERATORS: tuple[Operator, ...] = get_args(Operator)
PARTS: tuple[Part, ...] = get_args(Part)
DERIVATIVES: tuple[Derivative, ...] = get_args(Derivative)
METHODS: tuple[Method, ...] = get_args(Method)


@dataclass(frozen=True)
class Request:
    """One kind of Jacobian.

    Attributes
    ----------
    operator : "in-context", d x_{l+1}[t] / d x_l[t] with the other positions' block inputs held; "isolated", the block
        fed the one token alone; "ov", in context with the attention pattern held, so that a token acts on itself
        through its value path at the observed self weight; "cross", d x_{l+1}[t] / d x_l[s] for s < t.
    derivative : "exact", or "frozen": norm scale, attention pattern and gate held at their values, which makes the map
        affine (linear without biases) and reproduces the output exactly.
    """

    operator: Operator = "in-context"
    derivative: Derivative = "exact"

    def __post_init__(self) -> None:
        """Refuse unknown names."""
        check("operator", self.operator, OPERATORS)
        check("derivative", self.derivative, DERIVATIVES)


def check(argument: str, got: str, allowed: tuple[str, ...]) -> None:
    """Raise `InputError` unless `got` is one of the allowed names."""
    if got not in allowed:
        msg = f"{argument}: got {got!r}; allowed {', '.join(map(repr, allowed))}"
        raise InputError(msg, page="docs/jacobians.md" if argument in ("operator", "derivative") else None)


def check_part(part: str, operator: str) -> None:
    """Refuse unknown parts, and parts that the operator does not have."""
    check("part", part, PARTS)
    if operator == "cross" and part.startswith("mlp"):
        msg = (
            f"part: got {part!r} with operator 'cross'; allowed 'block', 'update', 'attention', 'attention-update': "
            "the MLP acts within a position, its cross Jacobian is zero"
        )
        raise InputError(msg)
