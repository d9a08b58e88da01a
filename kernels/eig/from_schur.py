"""Eigenvalues, eigenvectors and condition numbers from a Schur form: no second decomposition.

Right vectors of A = Q T Q^H are Q x with x an eigenvector of T. Left vectors are those of T^H: reversing the order of
rows and columns makes the transpose upper triangular again, so one routine (back_substitution.py) serves both. In the
Schur basis a left and a right vector of the same eigenvalue overlap in its own diagonal block only, so that the
condition number comes from one or two products and not from a sum that cancels.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Complex, Float, Inexact

from ..dispatch import square_matrices
from ..product import matmul
from ..scaling import to_order_one
from ..triangular import blocks, unpack
from .back_substitution import triangular_eigenvectors

# Up to this size the steps of the loop over rows cost more than the rows themselves.
_TOGETHER = 128


def eigenvalues_from_schur(T: ArrayLike) -> Complex[Array, "*batch n"]:
    """Eigenvalues of a Schur form: its diagonal, and a +- i sqrt(-b c) for each real 2 x 2 block.

    Parameters
    ----------
    T : real or complex [..., n, n]
        Upper triangular, or real quasi-triangular with standard blocks, as `schur` returns it.

    Returns
    -------
    complex [..., n]
        In the order of the diagonal, the eigenvalue with positive imaginary part of a pair first; exact conjugates.
        NaN where T holds NaN. Cost: order n.
    """
    T = jnp.asarray(square_matrices("eigenvalues_from_schur", "T", T))
    return _values(T)


def eigenvectors_from_schur(
    T: ArrayLike, Q: ArrayLike
) -> tuple[Complex[Array, "*batch n n"], Complex[Array, "*batch n n"], Float[Array, "*batch n"]]:
    """Right and left eigenvectors with the condition numbers of the eigenvalues.

    A x_k = lambda_k x_k, y_k^H A = lambda_k y_k^H, condition_k = 1 / abs(y_k^H x_k), for A = Q T Q^H.

    Parameters
    ----------
    T, Q : real or complex [..., n, n]
        A Schur form as `schur` returns it.

    Returns
    -------
    right, left : complex [..., n, n]
        Unit vectors (2-norm) in columns, in the order of `eigenvalues_from_schur`; the entry of largest modulus is
        real and positive.
    condition : real [..., n]
        1 for a normal matrix; infinity or about 1/eps and more for a defective eigenvalue, whose vectors coincide
        with another's. NaN where T or Q holds NaN.

    Notes
    -----
    Cost: 8 n^3 operations in products for real T (four times that for complex T) and n sequential steps; no n^3
    memory. Backward stable for each vector alone. Golub and Van Loan, Matrix Computations, 4th edition, sections
    7.2.2 and 7.6.4; safeguards as in LAPACK's trevc.
    """
    T = jnp.asarray(square_matrices("eigenvectors_from_schur", "T", T))
    Q = jnp.asarray(square_matrices("eigenvectors_from_schur", "Q", Q))
    if T.shape != Q.shape or T.dtype != Q.dtype:
        message = (
            f"eigenvectors_from_schur: T is {T.dtype}{T.shape} and Q is {Q.dtype}{Q.shape}; they have to agree: "
            "pass the two of one Schur form"
        )
        raise ValueError(message)
    return _vectors(T, Q)


def right_eigenvectors_from_schur(T: Inexact[Array, "*batch n n"], Q: Inexact[Array, "*batch n n"]):
    """Compute the right ones alone, at half the cost."""
    return _over_batch(_right, T, Q)


@jax.jit
def _values(T: Inexact[Array, "*batch n n"]) -> Complex[Array, "*batch n"]:
    return _over_batch(lambda T: blocks(T).values, T)


@jax.jit
def _vectors(T: Inexact[Array, "*batch n n"], Q: Inexact[Array, "*batch n n"]):
    return _over_batch(_both, T, Q)


def _both(T: Inexact[Array, "n n"], Q: Inexact[Array, "n n"]):
    """Right and left unit vectors and condition numbers of one matrix."""
    d = blocks(T)
    small, _ = to_order_one(T)
    # Both at once, or a loop of two where the rows are long: either way the routine is compiled once.
    both = jax.vmap(triangular_eigenvectors) if len(T) <= _TOGETHER else partial(jax.lax.map, triangular_eigenvectors)
    X, reversed_ = both(jnp.stack([small, small[::-1, ::-1].T]))
    # A pair of left vectors comes out with its two packed columns exchanged, which only turns their phase.
    Y = jnp.conj(reversed_)[::-1, ::-1]
    x, y = unpack(d, X), unpack(d, Y)
    overlap = jnp.abs(jnp.sum(jnp.conj(y) * x, axis=0))
    norms = jnp.sqrt(jnp.sum(_square(x), axis=0)) * jnp.sqrt(jnp.sum(_square(y), axis=0))
    # Rounding can put the product of the norms a hair below the overlap of equal vectors.
    condition = jnp.maximum(norms / overlap, 1)
    return _unit(unpack(d, matmul(Q, X))), _unit(unpack(d, matmul(Q, Y))), condition


def _right(T: Inexact[Array, "n n"], Q: Inexact[Array, "n n"]) -> Complex[Array, "n n"]:
    """Right unit vectors of one matrix."""
    return _unit(unpack(blocks(T), matmul(Q, triangular_eigenvectors(to_order_one(T)[0]))))


def _unit(V: Complex[Array, "n k"]) -> Complex[Array, "n k"]:
    """Scale columns to 2-norm one, and turn them so that the entry of largest modulus is real and positive."""
    if V.shape[0] == 0:
        return V
    V = V / jnp.sqrt(jnp.sum(_square(V), axis=0))
    largest = jnp.take_along_axis(V, jnp.argmax(_square(V), axis=0)[None], axis=0)
    return V * (jnp.conj(largest) / jnp.abs(largest))


def _square(V: Complex[Array, "*shape"]) -> Float[Array, "*shape"]:
    return jnp.square(V.real) + jnp.square(V.imag)


def _over_batch(function, *arrays):
    """Map a function of single matrices over all leading axes."""
    for _ in range(arrays[0].ndim - 2):
        function = jax.vmap(function)
    return function(*arrays)
