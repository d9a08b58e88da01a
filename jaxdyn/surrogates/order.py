"""Stage 5 of 7: a Schur form with its eigenvalues in another order (LAPACK trexc), on the host only.

Every order of the eigenvalues has a Schur form of its own, with another Q, another B and another N: what "the
non-normal part" of a matrix is depends on it. So an order is fixed, and swept.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Inexact, Int

from jaxdyn.errors import InputError

By = Literal["modulus", "real", "argument", "random", "given"]
ORDERS: tuple[By, ...] = ("modulus", "real", "argument", "random", "given")


def reorder(
    T: Inexact[Array, "*batch n n"],
    Q: Inexact[Array, "*batch n n"],
    by: By = "modulus",
    *,
    descending: bool = True,
    seed: int = 0,
    places: Int[Array, "*batch"] | None = None,
) -> tuple[Inexact[Array, "*batch n n"], Inexact[Array, "*batch n n"]]:
    """Put the eigenvalues of Schur forms in an order; A = Q T Q^H stays.

    Parameters
    ----------
    T, Q : (..., n, n), real with standard 2 x 2 blocks or complex, float32 or float64 parts. Concrete arrays: this
        runs on the host, one matrix after another, not under jit.
    by : "modulus" abs(lambda), "real" Re lambda, "argument" abs(arg lambda), "random", or "given", which leaves the
        form as it is. A conjugate pair of a real form moves as one.
    descending : largest first; not for "random" and "given".
    seed : of "random"; every matrix has its own permutation.
    places : (...), from which that comes, with the seed; default the places in the array.

    Returns
    -------
    T, Q, in the order up to what rounding moves eigenvalues by. A matrix with a NaN comes back as NaN, and so does
    one in which two blocks are too close for LAPACK to swap. Cost: up to n^2 / 2 swaps of order n each.

    Raises
    ------
    InputError : an unknown order.

    References
    ----------
    1.5, 1.8. Z. Bai and J. W. Demmel, "On swapping diagonal blocks in real Schur form", 1993.
    """
    if by not in ORDERS:
        msg = f"by: got {by!r}; allowed {', '.join(map(repr, ORDERS))}"
        raise InputError(msg)
    if by == "given":
        return T, Q
    forms, vectors = np.array(T), np.array(Q)
    lead, n = forms.shape[:-2], forms.shape[-1]
    flat_T, flat_Q = forms.reshape(-1, n, n), vectors.reshape(-1, n, n)
    numbers = range(len(flat_T)) if places is None else np.asarray(places).reshape(-1).tolist()
    for at, number in enumerate(numbers):
        rng = np.random.default_rng([seed, number])
        flat_T[at], flat_Q[at] = _sorted(flat_T[at], flat_Q[at], by, descending, rng)
    host = jax.local_devices(backend="cpu")[0]
    with jax.default_device(host):
        return jnp.asarray(flat_T.reshape(*lead, n, n)), jnp.asarray(flat_Q.reshape(*lead, n, n))


def _sorted(T, Q, by, descending, rng):
    """Selection sort: at each step the block that comes next is moved up to its place."""
    lapack: Any = scipy.linalg.get_lapack_funcs("trexc", (T,))
    if not np.all(np.isfinite(T)):
        return np.full_like(T, np.nan), np.full_like(Q, np.nan)
    n, place = len(T), 0
    T, Q = np.asfortranarray(T), np.asfortranarray(Q)
    while place < n:
        starts, key = _blocks(T, place, by)
        chosen = int(rng.integers(len(starts))) if by == "random" else int(np.argmax(key if descending else -key))
        start = int(starts[chosen])
        if start != place:
            T, Q, info = lapack(T, Q, start + 1, place + 1)
            if info != 0:
                return np.full_like(T, np.nan), np.full_like(Q, np.nan)
        place += 2 if not np.iscomplexobj(T) and place + 1 < n and T[place + 1, place] != 0 else 1
    return T, Q


def _blocks(T, place, by):
    """First rows of the blocks from `place` on, and the key of each; the first of equal keys is taken."""
    diagonal = np.diagonal(T)
    if np.iscomplexobj(T):
        values, starts = diagonal[place:], np.arange(place, len(T))
    else:
        below, above = np.diagonal(T, -1), np.diagonal(T, 1)
        paired = below != 0
        starts = np.flatnonzero(np.r_[True, ~paired])
        starts = starts[starts >= place]
        height = np.r_[np.where(paired, np.sqrt(np.abs(below)) * np.sqrt(np.abs(above)), 0), 0]
        values = diagonal[starts] + 1j * height[starts]
    key = {"modulus": np.abs, "real": np.real, "argument": lambda z: np.abs(np.angle(z)), "random": np.real}[by](values)
    return starts, key
