"""What a step is asked for, and what it returns."""

from dataclasses import dataclass, field

import jax
from jaxtyping import Array, Complex, Float, Int

from jaxdyn.errors import InputError
from jaxdyn.jacobians import Request
from jaxdyn.jacobians.request import METHODS, Method, check
from jaxdyn.pipeline.settings import PARTS


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
    singular_implementation : of the singular values, one of ``jaxdyn_kernels.implementations("singular_values")``; by
        default what suits the mesh's devices.
    """

    request: Request = field(default_factory=Request)
    parts: tuple[str, ...] = ("block",)
    method: Method = "closed-form"
    chunk: int = 64
    unit: int = 1
    singular: bool = True
    keep_matrices: bool = False
    implementation: str = "xla"
    singular_implementation: str | None = None

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
