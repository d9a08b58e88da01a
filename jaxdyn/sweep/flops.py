"""Operations of a traced program, each loop's body as often as it runs.

XLA's own `cost_analysis` counts a loop's body once, and a transformer is loops; the trace knows their lengths.
"""

import math
from collections.abc import Callable
from typing import Any

import jax


def count_flops(function: Callable[..., Any], *arguments: Any) -> float:
    """Count the operations of matrix products, 2 m n k each, in a call with arguments of these shapes.

    Parameters
    ----------
    function : what is traced; nothing runs.
    arguments : arrays or `jax.ShapeDtypeStruct`; static arguments are bound before.

    Returns
    -------
    Operations. A `scan` counts its length, the branches of a condition count as the dearest of them; a `while` whose
    trips are not known counts once.
    """
    return _of(jax.make_jaxpr(function)(*arguments).jaxpr)


def _of(jaxpr: Any) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        name, parameters = equation.primitive.name, equation.params
        if name == "dot_general":
            (contracted, _), _ = parameters["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(shape[axis] for axis in contracted)
        elif name == "cond":
            total += max(_of(branch.jaxpr) for branch in parameters["branches"])
        else:
            times = parameters["length"] if name == "scan" else 1
            total += times * sum(_of(inner) for inner in _inner(parameters))
    return total


def _inner(parameters: dict[str, Any]) -> list[Any]:
    """The programs that an operation calls."""
    found = []
    for value in parameters.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            jaxpr = getattr(one, "jaxpr", one)
            if hasattr(jaxpr, "eqns"):
                found.append(jaxpr)
    return found
