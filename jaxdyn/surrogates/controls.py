"""Stage 5 of 7: controls of a Schur intervention - what else changes when the non-normal part goes (1.5, 1.8).

Three act on N alone, so that the spectrum stays to the last bit of the form: its entries permuted, a Gaussian of its
norm, N without its leading directions. The others tell the two things apart that deleting N does at once, flatter
singular values and other singular vectors: N1 of the normal end, the moduli of the eigenvalues on the matrix's own
singular vectors, the symmetric part, and the polar factor, which is normal with the singular values kept.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Complex, Float, Inexact, Int, Key

from jaxdyn import spectra
from jaxdyn.errors import InputError
from jaxdyn.measures import nulls
from jaxdyn.measures.arrays import frobenius
from jaxdyn.measures.nonnormality import leading

from .split import SchurSplit, above_blocks, assemble

HIGHEST = lax.Precision.HIGHEST


def permuted_above(split: SchurSplit, keys: Key[Array, " B"]) -> Inexact[Array, "*batch n n"]:
    """Return the entries of N in random places above the blocks: norm and spectrum stay.

    Parameters
    ----------
    split : of matrices (..., n, n).
    keys : (B,), one key a matrix, B the product of the leading dimensions.

    Returns
    -------
    (..., n, n), Q (B + D + N') Q^H.
    """
    moved = _each(_permute, split.above, above_blocks(split.normal), keys)
    return _with_above(split, moved)


def gaussian_above(split: SchurSplit, keys: Key[Array, " B"]) -> Inexact[Array, "*batch n n"]:
    """Return a Gaussian of the norm of N in its place; arguments as `permuted_above`."""
    drawn = _each(_gaussian, split.above, above_blocks(split.normal), keys)
    return _with_above(split, drawn)


def without_leading_above(split: SchurSplit, *, top: int | None = None) -> Inexact[Array, "*batch n n"]:
    """Return N without its `top` leading singular directions, what falls outside its place dropped, at its norm.

    Parameters
    ----------
    split : of matrices (..., n, n); concrete, since the decomposition of N is spread over the host's cores.
    top : k, default ceil(n/10). The difference N - U_k S_k V_k^H is not strictly upper; its part above the blocks is
        kept, so that the spectrum stays. Its largest singular value is therefore smaller, not the (k+1)-th one.

    Raises
    ------
    InputError : `top` outside 1..n.
    """
    n = split.above.shape[-1]
    k = leading(n) if top is None else top
    if not 1 <= k <= n:
        msg = f"top: got {k}; allowed 1 to {n}, the number of directions"
        raise InputError(msg)
    left, values, right_h = spectra.svd(split.above)
    removed = jnp.matmul(left[..., :k] * values[..., None, :k], right_h[..., :k, :], precision=HIGHEST)
    rest = jnp.where(above_blocks(split.normal), split.above - removed, 0)
    return _with_above(split, rest * _ratio(split.above, rest)[..., None, None])


def n1_of_normal(
    eigenvalues: Complex[Array, "*batch n"], trace: Float[Array, "*batch"], seed: int, ids: Int[Array, "*batch"]
) -> Float[Array, "*batch n n"]:
    """N1 of the normal end: tI + U S V^T with S = abs(lambda - t) in place of the singular values of M - tI.

    Parameters
    ----------
    eigenvalues : (..., n), lambda of M.
    trace : (...), t = tr M / n.
    seed, ids : as in `nulls.n1_matrices`: an integer a matrix.
    """
    values = -jnp.sort(-jnp.abs(eigenvalues - trace[..., None]), axis=-1)
    return nulls.n1_matrices(jax.random.key(seed), values, trace, ids, draws=1, full=True).matrix[..., 0, :, :]


def own_vectors(
    eigenvalues: Complex[Array, "*batch n"], left: Inexact[Array, "*batch n n"], right_h: Inexact[Array, "*batch n n"]
) -> Inexact[Array, "*batch n n"]:
    """Return U abs(Lambda) V^H: the moduli of the eigenvalues, largest first, on the matrix's own singular vectors."""
    values = -jnp.sort(-jnp.abs(eigenvalues), axis=-1)
    return jnp.matmul(left * values[..., None, :], right_h, precision=HIGHEST)


def symmetrised(matrix: Float[Array, "*batch n n"]) -> Float[Array, "*batch n n"]:
    """Return (M + M^T) / 2: normal, real spectrum, but neither the eigenvalues nor the singular values of M."""
    return (matrix + jnp.swapaxes(matrix, -1, -2)) / 2


def polar(
    singular_values: Float[Array, "*batch n"], right_h: Inexact[Array, "*batch n n"]
) -> Inexact[Array, "*batch n n"]:
    """Return V S V^H, the positive factor of M = (U V^H)(V S V^H): normal, with the singular values of M."""
    right = jnp.conj(jnp.swapaxes(right_h, -1, -2))
    return jnp.matmul(right * singular_values[..., None, :], right_h, precision=HIGHEST)


def _with_above(split, above):
    return assemble(split.normal + split.inside + above, split.vectors)


def _permute(N, place, key):
    order = jnp.argsort(jnp.where(place.reshape(-1), jax.random.uniform(key, (N.size,)), jnp.inf))
    places = jnp.argsort(~place.reshape(-1), stable=True)
    return jnp.zeros(N.size, N.dtype).at[places].set(N.reshape(-1)[order]).reshape(N.shape)


def _gaussian(N, place, key):
    drawn = jnp.where(place, jax.random.normal(key, N.shape, N.dtype), 0)
    return drawn * _ratio(N, drawn)


def _ratio(N, other):
    size = frobenius(other)
    return jnp.where(size > 0, frobenius(N) / jnp.where(size > 0, size, 1), 0).astype(other.dtype)


def _each(function, *arrays):
    """Apply a function of single matrices to a batch, one after another: LAPACK takes no batch on the host."""
    shape = arrays[0].shape
    count = math.prod(shape[:-2])
    flat = tuple(one if one.ndim == 1 else one.reshape(count, *shape[-2:]) for one in arrays)
    return lax.map(lambda leaves: function(*leaves), flat).reshape(shape)


def matrix_keys(places: Int[Array, "*batch"], seed) -> Key[Array, " B"]:
    """One key a matrix, from the seed and its place."""
    return jax.vmap(lambda place: jax.random.fold_in(jax.random.key(seed), place))(places.reshape(-1))
