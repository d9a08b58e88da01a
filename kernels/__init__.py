"""jaxdyn_kernels: batched decompositions of nonsymmetric matrices in JAX, each with its own certificate.

The public names are below; nothing is imported before the first of them is used, so importing this folder costs
nothing and brings in no JAX, also under the name ``kernels`` (other libraries probe for a package of that name when
the root of the repository is on ``sys.path``).
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .certificate import orthogonality, schur_residual
    from .dispatch import describe, implementations
    from .eig.api import EigResult, eig, eigvals
    from .eig.from_schur import eigenvalues_from_schur, eigenvectors_from_schur
    from .hessenberg.api import HessenbergResult, hessenberg
    from .refine.api import RefineResult, refine
    from .reorder.api import ReorderResult, reorder
    from .resolvent.api import resolvent_norm
    from .schur.api import SchurResult, schur
    from .singular.api import singular_values
    from .status import Status
    from .threads import cores, single_threaded_blas, spread

__all__ = [
    "EigResult",
    "HessenbergResult",
    "RefineResult",
    "ReorderResult",
    "SchurResult",
    "Status",
    "cores",
    "describe",
    "eig",
    "eigenvalues_from_schur",
    "eigenvectors_from_schur",
    "eigvals",
    "hessenberg",
    "implementations",
    "orthogonality",
    "refine",
    "reorder",
    "resolvent_norm",
    "schur",
    "schur_residual",
    "single_threaded_blas",
    "singular_values",
    "spread",
]

_WHERE = {
    "EigResult": "eig.api",
    "HessenbergResult": "hessenberg.api",
    "RefineResult": "refine.api",
    "ReorderResult": "reorder.api",
    "SchurResult": "schur.api",
    "Status": "status",
    "cores": "threads",
    "describe": "dispatch",
    "eig": "eig.api",
    "eigenvalues_from_schur": "eig.from_schur",
    "eigenvectors_from_schur": "eig.from_schur",
    "eigvals": "eig.api",
    "hessenberg": "hessenberg.api",
    "implementations": "dispatch",
    "orthogonality": "certificate",
    "refine": "refine.api",
    "reorder": "reorder.api",
    "resolvent_norm": "resolvent.api",
    "schur": "schur.api",
    "schur_residual": "certificate",
    "single_threaded_blas": "threads",
    "singular_values": "singular.api",
    "spread": "threads",
}


def __getattr__(name: str) -> object:
    """Import a public name on first use."""
    if name not in _WHERE:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    value = getattr(importlib.import_module(f".{_WHERE[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)


class _Package(ModuleType):
    """Type of this package: importing the folder ``schur`` or ``eig`` must not hide the function of that name."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _WHERE and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
