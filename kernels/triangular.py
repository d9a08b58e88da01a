"""Quasi-triangular matrices: where the 2 x 2 blocks are, their eigenvalues, and the unitary form without blocks.

A real Schur form in standard form has blocks [[a, b], [c, a]] with b c < 0 on its diagonal. The unitary matrix
G = [[alpha, i beta], [i beta, alpha]], alpha = sign(b) sqrt(abs(b) / (abs(b) + abs(c))), beta = sqrt(abs(c) / (abs(b)
+ abs(c))), makes such a block triangular: G^H B G = [[a + i w, b + c], [0, a - i w]], w = sqrt(-b c). The blocks do not
overlap, so all of them are rotated at once.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Complex, Float, Inexact


class Blocks(NamedTuple):
    """The diagonal blocks of one quasi-triangular matrix, index by index of the diagonal."""

    first: Bool[Array, " n"]
    """Upper row of a 2 x 2 block."""
    second: Bool[Array, " n"]
    """Lower row of a 2 x 2 block."""
    b: Float[Array, " n"]
    """Upper right entry of the block, at both of its indices; 0 outside blocks."""
    c: Float[Array, " n"]
    """Lower left entry of the block, at both of its indices; 0 outside blocks."""
    values: Complex[Array, " n"]
    """Eigenvalues in the order of the diagonal, a + i w before a - i w."""

    @property
    def alpha(self) -> Float[Array, " n"]:
        """Diagonal of G."""
        inside = self.first | self.second
        share = jnp.where(inside, jnp.abs(self.b), 1) / jnp.where(inside, jnp.abs(self.b) + jnp.abs(self.c), 1)
        return jnp.where(inside, jnp.sign(self.b) * jnp.sqrt(share), 1)

    @property
    def beta(self) -> Float[Array, " n"]:
        """Imaginary part of G beside its diagonal."""
        inside = self.first | self.second
        share = jnp.where(inside, jnp.abs(self.c), 1) / jnp.where(inside, jnp.abs(self.b) + jnp.abs(self.c), 1)
        return jnp.where(inside, jnp.sqrt(share), 0)


def blocks(T: Inexact[Array, "n n"]) -> Blocks:
    """Diagonal blocks of a triangular (complex) or standard quasi-triangular (real) matrix."""
    diagonal = jnp.diagonal(T)
    none = jnp.zeros(T.shape[-1], bool)
    if jnp.iscomplexobj(T):
        zero = jnp.zeros_like(diagonal.real)
        return Blocks(none, none, zero, zero, diagonal)
    if T.shape[-1] < 2:
        zero = jnp.zeros_like(diagonal)
        return Blocks(none, none, zero, zero, jax.lax.complex(diagonal, zero))
    below, above = jnp.diagonal(T, -1), jnp.diagonal(T, 1)
    paired = below != 0
    first, second = jnp.append(paired, False), jnp.append(jnp.zeros(1, bool), paired)
    below, above = jnp.where(paired, below, 0), jnp.where(paired, above, 0)
    c, b = (jnp.append(x, 0) + jnp.append(jnp.zeros(1, x.dtype), x) for x in (below, above))
    # A product of roots, not a root of the product, which could overflow or vanish; no root of zero, for derivatives.
    inside = first | second
    w = jnp.where(inside, jnp.sqrt(jnp.where(inside, jnp.abs(b), 1)) * jnp.sqrt(jnp.where(inside, jnp.abs(c), 1)), 0)
    values = jax.lax.complex(diagonal, jnp.where(second, -w, w))
    return Blocks(first, second, b, c, values)


def complex_triangular(T: Inexact[Array, "n n"]) -> Complex[Array, "n n"]:
    """G^H T G: the triangular matrix that is unitarily similar to a quasi-triangular one; complex T as it is.

    Its singular values, norms and resolvent norms are those of T. Cost: 12 n^2 operations.
    """
    if jnp.iscomplexobj(T):
        return T
    d = blocks(T)
    return jnp.triu(to_complex_basis(d, T), 1) + jnp.diag(d.values)


def to_complex_basis(d: Blocks, X: Inexact[Array, "n n"]) -> Complex[Array, "n n"]:
    """G^H X G for any X."""
    columns = X * d.alpha + 1j * d.beta * partner(d, X)
    return columns * d.alpha[:, None] - 1j * d.beta[:, None] * _partner_row(d, columns)


def from_complex_basis(d: Blocks, X: Complex[Array, "n n"]) -> Complex[Array, "n n"]:
    """G X G^H, the inverse of `to_complex_basis`."""
    columns = X * d.alpha - 1j * d.beta * partner(d, X)
    return columns * d.alpha[:, None] + 1j * d.beta[:, None] * _partner_row(d, columns)


def partner(d: Blocks, X: Inexact[Array, "m n"]) -> Inexact[Array, "m n"]:
    """Column j replaced by the other column of its 2 x 2 block; columns outside blocks are not to be used."""
    return jnp.where(d.first, jnp.roll(X, -1, axis=-1), jnp.roll(X, 1, axis=-1))


def _partner_row(d: Blocks, X: Inexact[Array, "n m"]) -> Inexact[Array, "n m"]:
    return jnp.where(d.first[:, None], jnp.roll(X, -1, axis=0), jnp.roll(X, 1, axis=0))


def unpack(d: Blocks, X: Inexact[Array, "... n"]) -> Complex[Array, "... n"]:
    """Complex columns of a packed real matrix: a pair holds real and imaginary part of its first, then the conjugate.

    A complex matrix is returned as it is.
    """
    if jnp.iscomplexobj(X):
        return X
    before, after = jnp.roll(X, 1, axis=-1), jnp.roll(X, -1, axis=-1)
    real = jnp.where(d.second, before, X)
    imaginary = jnp.where(d.first, after, jnp.where(d.second, -X, 0))
    return jax.lax.complex(real, imaginary)
