"""Stage 5 of 7: a Schur form taken apart, T = B + D + N, and put together with less of N (1.5).

B is normal and has all eigenvalues; D is what is left inside the 2 x 2 blocks; N lies strictly above the blocks. A
standard block [[a, b], [c, a]] with bc < 0 becomes [[a, w], [-w, a]] in B, w = sqrt(-bc) with the sign of b. The family
Q (B + D + alpha N) Q^T keeps the eigenvalues for every alpha and gives M back at alpha = 1; its fully normal end is
Q B Q^T. A complex form has D = 0 and B diagonal.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Inexact

from jaxdyn.measures.arrays import paired

HIGHEST = lax.Precision.HIGHEST


class SchurSplit(NamedTuple):
    """M = Q (B + D + N) Q^H; a pytree.

    Attributes
    ----------
    normal : (..., n, n), B.
    inside : (..., n, n), D; zero for a complex form.
    above : (..., n, n), N.
    vectors : (..., n, n), Q.
    """

    normal: Inexact[Array, "*batch n n"]
    inside: Inexact[Array, "*batch n n"]
    above: Inexact[Array, "*batch n n"]
    vectors: Inexact[Array, "*batch n n"]


def schur_split(T: Inexact[Array, "*batch n n"], Q: Inexact[Array, "*batch n n"]) -> SchurSplit:
    """Take a Schur form apart.

    Parameters
    ----------
    T : (..., n, n), real quasi-triangular with standard 2 x 2 blocks, or complex triangular.
    Q : (..., n, n), its vectors.

    Returns
    -------
    SchurSplit; NaN where T has one. B + D + N is T to the last bit outside the blocks, to one rounding inside.

    References
    ----------
    1.5.
    """
    n = T.shape[-1]
    if jnp.iscomplexobj(T):
        normal = T * jnp.eye(n, dtype=T.dtype)
        return SchurSplit(normal, jnp.zeros_like(T), jnp.triu(T, 1), Q)
    at = jnp.arange(n - 1)
    b, c = jnp.diagonal(T, 1, axis1=-2, axis2=-1), jnp.diagonal(T, -1, axis1=-2, axis2=-1)
    block = c != 0
    w = jnp.where(block, jnp.sqrt(jnp.abs(b)) * jnp.sqrt(jnp.abs(c)) * jnp.sign(b), 0)
    normal = (T * jnp.eye(n, dtype=T.dtype)).at[..., at, at + 1].set(w).at[..., at + 1, at].set(-w)
    inside = jnp.zeros_like(T).at[..., at, at + 1].set(jnp.where(block, b - w, 0))
    inside = inside.at[..., at + 1, at].set(jnp.where(block, c + w, 0))
    return SchurSplit(normal, inside, jnp.where(above_blocks(T), T, 0), Q)


def above_blocks(T: Inexact[Array, "*batch n n"]) -> Array:
    """Where N lives: strictly above the diagonal and in no 2 x 2 block, (..., n, n) of bool."""
    n = T.shape[-1]
    upper = jnp.broadcast_to(jnp.triu(jnp.ones((n, n), bool), 1), T.shape)
    if jnp.iscomplexobj(T):
        return upper
    at = jnp.arange(n - 1)
    return upper.at[..., at, at + 1].set(jnp.diagonal(T, -1, axis1=-2, axis2=-1) == 0)


def intervene(split: SchurSplit, alpha: float | Float[Array, ""]) -> Inexact[Array, "*batch n n"]:
    """Return M(alpha) = Q (B + D + alpha N) Q^H: the eigenvalues of M for every alpha, M itself at alpha = 1.

    Parameters
    ----------
    split : from `schur_split`.
    alpha : what is left of N, dimensionless.

    Returns
    -------
    (..., n, n), complex for a complex form (of a real M too). Which part of M an alpha between 0 and 1 leaves depends
    on the order of the eigenvalues in the form, as B and N themselves do: fix it with `reorder`.
    """
    return assemble(split.normal + split.inside + alpha * split.above, split.vectors)


def normal_end(split: SchurSplit) -> Inexact[Array, "*batch n n"]:
    """Return Q B Q^H: normal, with the eigenvalues of M; its singular values are their moduli."""
    return assemble(split.normal, split.vectors)


def assemble(T: Inexact[Array, "*batch n n"], Q: Inexact[Array, "*batch n n"]) -> Inexact[Array, "*batch n n"]:
    """Q T Q^H."""
    return jnp.matmul(jnp.matmul(Q, T, precision=HIGHEST), jnp.conj(jnp.swapaxes(Q, -1, -2)), precision=HIGHEST)


def complex_form(
    T: Float[Array, "*batch n n"], Q: Float[Array, "*batch n n"]
) -> tuple[Inexact[Array, "*batch n n"], Inexact[Array, "*batch n n"]]:
    """Turn a real Schur form into a complex one of the same eigenvalue order, without another decomposition.

    Each standard block [[a, b], [c, a]] has the unit eigenvector v proportional to (b, i mu), mu = sqrt(-bc), of
    a + i mu. The unitary G of these 2 x 2 bases makes G^H T G triangular, all blocks at once.

    Parameters
    ----------
    T, Q : (..., n, n), real Schur form with standard blocks.

    Returns
    -------
    T, Q : (..., n, n) complex; T upper triangular with exact zeros, the eigenvalue of positive imaginary part first.
    Cost: three products.
    """
    n = T.shape[-1]
    at = jnp.arange(n - 1)
    b, c = jnp.diagonal(T, 1, axis1=-2, axis2=-1), jnp.diagonal(T, -1, axis1=-2, axis2=-1)
    block = c != 0
    # |v2 / v1| = sqrt(-c / b); v = (cos, i sign(b) sin) is the eigenvector of a + i mu.
    angle = jnp.arctan2(jnp.sqrt(jnp.abs(c)), jnp.sqrt(jnp.abs(b)))
    cosine, sine = jnp.where(block, jnp.cos(angle), 1), jnp.where(block, jnp.sin(angle) * jnp.sign(b), 0)
    first = jnp.concatenate([block, jnp.zeros_like(block[..., :1])], axis=-1)
    wide = jnp.concatenate([cosine, jnp.ones_like(cosine[..., :1])], axis=-1)
    own = jnp.where(first, wide, jnp.where(paired(T), jnp.roll(wide, 1, axis=-1), 1))
    G = own[..., None] * jnp.eye(n, dtype=T.dtype) + 0j
    G = G.at[..., at + 1, at].set(1j * sine).at[..., at, at + 1].set(1j * sine)
    H = jnp.conj(jnp.swapaxes(G, -1, -2))
    turned = jnp.matmul(jnp.matmul(H, T + 0j, precision=HIGHEST), G, precision=HIGHEST)
    return jnp.triu(turned), jnp.matmul(Q + 0j, G, precision=HIGHEST)
