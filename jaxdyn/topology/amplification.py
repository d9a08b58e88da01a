"""How much a coordinate, or a community of coordinates, amplifies: gains of the averaged Jacobian (T6)."""

import numpy as np
from jaxtyping import Float, Int

from jaxdyn.errors import InputError

AMPLIFICATIONS = ("gain", "row_gain", "update_gain", "update_row_gain", "self_gain", "export", "import")
"""Gains of a node, the primary one first; `amplifications` says what each is."""


def amplifications(jacobian: Float[np.ndarray, "D D"]) -> Float[np.ndarray, "7 D"]:
    """All gains of every coordinate, in the order of `AMPLIFICATIONS`.

    Parameters
    ----------
    jacobian : J (output, input), the mean Jacobian of a block.

    Returns
    -------
    (7, D), float64, output norm over input norm in the residual stream's own units. With A = J - I:
    `gain` norm(J e_i), of a unit perturbation of coordinate i; `row_gain` norm(e_i^T J), what reaches coordinate i;
    `update_gain`, `update_row_gain` the same of A; `self_gain` abs(A_ii); `export`, `import` column and row norm of A
    without its diagonal. So update_gain^2 = self_gain^2 + export^2.

    Raises
    ------
    InputError : a matrix that is not square or not finite.
    """
    J = np.asarray(jacobian, np.float64)
    if J.ndim != 2 or J.shape[0] != J.shape[1] or not np.isfinite(J).all():
        msg = f"jacobian: got shape {J.shape}{'' if np.isfinite(J).all() else ' with NaN'}; allowed (D, D), finite"
        raise InputError(msg, page="docs/topology.md")
    A = J - np.eye(len(J))
    own = np.abs(np.diag(A))
    np.fill_diagonal(A, 0.0)
    leaving, arriving = np.linalg.norm(A, axis=0), np.linalg.norm(A, axis=1)
    columns, rows = np.linalg.norm(J, axis=0), np.linalg.norm(J, axis=1)
    return np.stack([columns, rows, np.hypot(own, leaving), np.hypot(own, arriving), own, leaving, arriving])


def community_amplifications(
    gains: Float[np.ndarray, "7 D"], labels: Int[np.ndarray, " D"]
) -> Float[np.ndarray, "7 C"]:
    """Gain of each community, the root mean square of its members' gains.

    For `gain` that is norm(J P_c)_F / sqrt(n_c), with P_c the projection on the community's n_c coordinates, since the
    columns of J P_c are those of its members.
    """
    sizes = np.bincount(labels)
    return np.sqrt(np.stack([np.bincount(labels, row) for row in np.square(gains)]) / sizes)


def block_gains(matrix: Float[np.ndarray, "D D"], labels: Int[np.ndarray, " D"]) -> Float[np.ndarray, "C C"]:
    """Community block matrix B_ab = norm(P_a M P_b)_F / sqrt(n_b), to community a from community b.

    The root mean square, over unit inputs to coordinates of b, of the output norm in a: the squares of a column add up
    to the square of the community's gain. Divide by sqrt(n_a) to compare communities of different sizes.
    """
    sizes = np.bincount(labels)
    member = np.zeros((len(labels), len(sizes)))
    member[np.arange(len(labels)), labels] = 1.0
    return np.sqrt(member.T @ np.square(np.asarray(matrix, np.float64)) @ member / sizes)
