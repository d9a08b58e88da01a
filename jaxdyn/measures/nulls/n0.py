"""Stage 5 of 7: rung N0, the closed form of every measure for c I + s G, G a Ginibre matrix (1.3, 1.7).

The null keeps the dimension, the shift c and the norm of the deviation: s = norm(M - cI)_F / sqrt n. A block, attention
or MLP Jacobian J = I + A has c = 1 (times the ratio of the norms in the relative metric), the update A has c = 0; both
have the deviation A. A number that N0 explains says how large A is, nothing more.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import entr
from jaxtyping import Array, Float

from jaxdyn.errors import InputError
from jaxdyn.measures.nonnormality import leading

from . import ginibre


def closed_form(
    shift: Float[Array, "*batch"], deviation_norm: Float[Array, "*batch"], width: int, *, top: int | None = None
) -> dict[str, Float[Array, "*batch"]]:
    """N0 of every measure that `portrait.measure_all` returns, by the same names.

    Parameters
    ----------
    shift : (...), c: 1 for block, attention and mlp, 0 for update.
    deviation_norm : (...), norm(M - cI)_F, that is norm(A)_F for block and update alike.
    width : n, at least 2.
    top : the k of self_alignment; default ceil(n/10).

    Returns
    -------
    Name -> (...), in the unit of the measure. NaN for the measures of `UNAVAILABLE`, and where a norm is zero (a matrix
    cI has no random part to compare with) or NaN.

    Raises
    ------
    InputError : width below 2.

    References
    ----------
    1.3 and 1.7 N0. Limits of large n, with the first finite-n term where it is known. Against Monte Carlo at n = 64 the
    null is right within .5 % for most; edges converge as n^(-2/3): spectral norm and numerical abscissa come out 1.5 to
    4 % lower than their null, stable rank 3 to 6 % higher, spectral radius up to 6 % off, median condition 3 % higher.
    """
    if width < 2:
        msg = f"width: got {width}; allowed: at least 2"
        raise InputError(msg)
    shift, deviation_norm = jnp.broadcast_arrays(shift, deviation_norm)
    k = leading(width) if top is None else top
    null = {name: jnp.full_like(deviation_norm, value(width, k)) for name, value in _CONSTANT.items()}
    null |= {name: value(shift, deviation_norm, width) for name, value in _DEPENDENT.items()}
    null |= {name: jnp.full_like(deviation_norm, jnp.nan) for name in UNAVAILABLE}
    missing = jnp.isnan(shift) | ~(deviation_norm > 0)
    return {name: jnp.where(missing, jnp.nan, value) for name, value in null.items()}


UNAVAILABLE = {
    "eigenvector_condition_max": (
        "no closed form: the maximum of n heavy-tailed numbers converges too slowly in n (25 % off at n = 128)"
    ),
    "kreiss_scaled": (
        "no closed form: dividing by the spectral radius puts the edge of the spectrum on the unit circle, where the "
        "Kreiss constant of a random matrix diverges with n; use N1"
    ),
}
"""Measures without N0, and why."""


def participation_ratio_null(
    shift: Float[Array, "*batch"], deviation_norm: Float[Array, "*batch"], width: int
) -> Float[Array, "*batch"]:
    """Participation ratio of the squared singular values of cI + sG.

    PR = n (c^2 + s^2)^2 / (c^4 + (4 + 2/n) c^2 s^2 + (2 + 1/n) s^4)

    Parameters
    ----------
    shift, deviation_norm, width : as in `closed_form`.

    Returns
    -------
    (...), exact to order 1/n: n for s = 0, n/2 for c = 0.
    """
    c, s = shift, _scale(deviation_norm, width)
    largest = jnp.maximum(jnp.abs(c), s)
    c2, s2 = (c / largest) ** 2, (s / largest) ** 2
    return width * (c2 + s2) ** 2 / (c2**2 + (4 + 2 / width) * c2 * s2 + (2 + 1 / width) * s2**2)


def _scale(deviation_norm, width):
    return deviation_norm / width**0.5


def _norm(shift, deviation_norm, width):
    """norm(M)_F of the null."""
    return jnp.hypot(shift * width**0.5, deviation_norm)


def _spectral_norm(shift, deviation_norm, width):
    return ginibre.spectral_edge(shift, _scale(deviation_norm, width))


def _effective_rank(shift, deviation_norm, width):
    """Scaled to mean square 1, the entropy is log n - E[sigma^2 log sigma^2]: n e^(-1/2) for c = 0."""
    return width * jnp.exp(ginibre.expectation(lambda sigma: entr(sigma**2), shift, _scale(deviation_norm, width)))


def _complex_fraction(width: int) -> float:
    """1 - E[number of real eigenvalues]/n, to order n^-5 of Edelman, Kostlan and Shub; 1 - sqrt(2/(pi n)) at first."""
    series = 1 - 3 / (8 * width) - 3 / (128 * width**2) + 27 / (1024 * width**3) + 499 / (32768 * width**4)
    return 1 - (0.5 + float(np.sqrt(2 * width / np.pi)) * series) / width


_CONSTANT: dict[str, Callable[[int, int], float]] = {
    "complex_fraction": lambda n, k: _complex_fraction(n),
    "complex_undecided": lambda n, k: 0.0,
    "mean_rotation_angle": lambda n, k: float(np.pi) / 2,  # exact: G and -G are equally likely
    "imaginary_energy": lambda n, k: 0.5 - 1 / n,  # tr G^2 has mean 1, sum |lambda|^2 has mean n/2
    "antisymmetric_share": lambda n, k: n / (2 * (n + 1)),  # exact: dimensions n(n-1)/2 of n^2 - 1
    "self_alignment": lambda n, k: k / n,
    "eigenvector_condition": lambda n, k: ginibre.condition_quantile(n, 0.5),
    "eigenvector_condition_q90": lambda n, k: ginibre.condition_quantile(n, 0.9),
}
"""Measures whose null depends on n (and k) alone."""

_DEPENDENT: dict[str, Callable] = {
    "henrici": lambda c, a, n: a / 2**0.5,
    "henrici_normalized": lambda c, a, n: a / 2**0.5 / _norm(c, a, n),
    "symmetry_gap": lambda c, a, n: (2 * (1 - 1 / n)) ** 0.5 * a / _norm(c, a, n),
    "spectral_radius": lambda c, a, n: jnp.abs(c) + _scale(a, n),
    "spectral_norm": _spectral_norm,
    "numerical_abscissa": lambda c, a, n: c + 2**0.5 * _scale(a, n),
    "effective_rank": _effective_rank,
    "participation_ratio": participation_ratio_null,
    "stable_rank": lambda c, a, n: (_norm(c, a, n) / _spectral_norm(c, a, n)) ** 2,
}
"""Measures whose null depends on the shift c and on a = norm(M - cI)_F."""
