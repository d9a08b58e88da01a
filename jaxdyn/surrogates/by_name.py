"""Stage 5 of 7: one Schur form a matrix, and every surrogate of it by name.

`prepare` decomposes blocks J once, as J or as A = J - I, and orders their eigenvalues; `surrogate` makes from that any
intervention or control, always as a block: a surrogate A' of A comes back as I + A'. The Schur interventions of J and
of A are the same matrices, since T - I has the same N; the controls that use singular values or moduli differ.
"""

from dataclasses import dataclass, replace
from typing import Literal, get_args, no_type_check

import jax
import jax.numpy as jnp
from jaxdyn_kernels.over_cores import over_cores
from jaxtyping import Array, Float, Inexact, Int

from jaxdyn import spectra
from jaxdyn.errors import InputError
from jaxdyn.measures import nulls
from jaxdyn.measures.arrays import deviator, frobenius, mean_trace
from jaxdyn.nulls.draw import places_of
from jaxdyn.spectra import Spectrum

from . import controls
from .order import By, reorder
from .split import SchurSplit, complex_form, intervene, normal_end, schur_split

On = Literal["J", "A"]
Name = Literal[
    "actual",
    "schur",
    "normal",
    "complex-schur",
    "complex-normal",
    "n-permuted",
    "n-gaussian",
    "n-without-leading",
    "n1",
    "n1-of-normal",
    "own-vectors",
    "symmetrised",
    "polar",
]

SURROGATES: dict[Name, str] = {
    "actual": "J as it is",
    "schur": "Q (B + D + alpha N) Q^T, real Schur form",
    "normal": "Q B Q^T, the fully normal end of the real form",
    "complex-schur": "Q (Lambda + alpha N) Q^H, complex Schur form",
    "complex-normal": "Q Lambda Q^H, the normal end of the complex form",
    "n-permuted": "the entries of N in random places",
    "n-gaussian": "a Gaussian of the norm of N in its place",
    "n-without-leading": "N without its leading tenth of directions, at its norm",
    "n1": "tI + U S V^T: trace and singular values, random vectors",
    "n1-of-normal": "tI + U abs(Lambda - t) V^T: those of the normal end, random vectors",
    "own-vectors": "U abs(Lambda) V^T with its own singular vectors",
    "symmetrised": "(M + M^T) / 2",
    "polar": "V S V^T, the positive polar factor",
}
"""Every surrogate, with what it is of M = J or M = A = J - I."""

assert tuple(SURROGATES) == get_args(Name)


@no_type_check  # JAX rebuilds it around placeholders, which are no arrays
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Prepared:
    """Blocks and the one decomposition that all their surrogates come from.

    Attributes
    ----------
    blocks : (..., n, n), J.
    spectrum : of M = J or J - I, with singular vectors, its Schur form in the chosen order (`T`, `Q`; the eigenvalues
        stay in the order of the decomposition).
    split : B, D and N of that form.
    shift : 0 for M = J, 1 for M = A.
    places : (...), a number a matrix, from which its random surrogates come.
    """

    blocks: Float[Array, "*batch n n"]
    spectrum: Spectrum
    split: SchurSplit
    shift: Float[Array, ""]
    places: Int[Array, "*batch"]


def prepare(
    blocks: Float[Array, "*batch n n"],
    *,
    on: On = "J",
    order: By = "modulus",
    descending: bool = True,
    order_seed: int = 0,
    places: Int[Array, "*batch"] | None = None,
) -> Prepared:
    """Decompose blocks once and order their eigenvalues; concrete arrays only.

    Parameters
    ----------
    blocks : (..., n, n), Jacobians J of blocks.
    on : "J", or "A" for the update J - I.
    order, descending, order_seed : as in `reorder`: the eigenvalues of M, of J or of A.
    places : (...), default those in the array. Part of an array, given with its places in the whole, has the surrogates
        that it has there.

    Returns
    -------
    Prepared. A block that does not decompose has NaN surrogates.

    Raises
    ------
    InputError : an unknown `on` or order.

    Notes
    -----
    Cost: a Schur form, a singular value decomposition and the swaps of `reorder` a matrix; 8 n^2 numbers of memory.
    """
    if on not in get_args(On):
        msg = f"on: got {on!r}; allowed 'J' (the block) and 'A' (the update J - I)"
        raise InputError(msg)
    shift = jnp.asarray(1 if on == "A" else 0, blocks.dtype)
    matrices = blocks - shift * jnp.eye(blocks.shape[-1], dtype=blocks.dtype)
    spectrum = spectra.decompose(matrices, singular_vectors=True)
    places = places_of(blocks) if places is None else places
    T, Q = reorder(spectrum.T, spectrum.Q, order, descending=descending, seed=order_seed, places=places)
    return Prepared(blocks, replace(spectrum, T=T, Q=Q), _split(T, Q), shift, places)


def reordered(prepared: Prepared, order: By, *, descending: bool = True, order_seed: int = 0) -> Prepared:
    """Put the eigenvalues of a preparation in another order, without another decomposition; arguments as `prepare`."""
    form, places = prepared.spectrum, prepared.places
    T, Q = reorder(form.T, form.Q, order, descending=descending, seed=order_seed, places=places)
    return replace(prepared, spectrum=replace(prepared.spectrum, T=T, Q=Q), split=_split(T, Q))


def surrogate(
    prepared: Prepared,
    name: Name,
    *,
    alpha: float | None = None,
    top: int | None = None,
    keep_norm: bool = False,
    seed: int = 0,
) -> Inexact[Array, "*batch n n"]:
    """Make one surrogate of every block.

    Parameters
    ----------
    prepared : from `prepare`.
    name : one of `SURROGATES`.
    alpha : what is left of N, for "schur" and "complex-schur" only; there it is needed.
    top : directions of N to leave out, for "n-without-leading" only; default ceil(n/10).
    keep_norm : scale M' to norm(M')_F = norm(M)_F. Ranks of products of surrogates J do not see a scale, those of
        I + A', of mixtures with actual layers and the functional test do.
    seed : of the random ones; each matrix has its own draw, by its place (`Prepared.places`).

    Returns
    -------
    (..., n, n), blocks J'; complex for the complex forms.

    Raises
    ------
    InputError : an unknown name, an option that the surrogate does not have, or alpha missing.

    References
    ----------
    1.5, 1.8.
    """
    if name not in SURROGATES:
        msg = f"name: got {name!r}; allowed {', '.join(SURROGATES)}"
        raise InputError(msg)
    if (alpha is None) == name.endswith("schur") or (top is not None and name != "n-without-leading"):
        msg = f"alpha, top: got {alpha}, {top} for {name!r}; alpha is for 'schur' and 'complex-schur', which need one, "
        msg += "top for 'n-without-leading'"
        raise InputError(msg)
    if name == "actual":
        return prepared.blocks
    given = None
    if name == "n-without-leading":
        given = controls.without_leading_above(prepared.split, top=top)
    elif name == "n1":
        given = spectra.singular_values(deviator(prepared.blocks))
    scale = jnp.asarray(alpha or 0.0, prepared.blocks.dtype)
    parts = prepared.spectrum, prepared.split, prepared.places, given
    common = prepared.shift, scale, seed
    return over_cores(_make, prepared.blocks, *parts, common=common, name=name, keep=keep_norm)


def _make(blocks, spectrum, split, ids, given, shift, alpha, seed, *, name, keep):
    """`given`: what has to be decomposed once more, outside the program, where LAPACK is spread over the cores."""
    n, dtype = blocks.shape[-1], blocks.dtype
    M = blocks - shift * jnp.eye(n, dtype=dtype)
    keys = controls.matrix_keys(ids, seed)
    match name:
        case "schur":
            made = intervene(split, alpha)
        case "normal":
            made = normal_end(split)
        case "complex-schur":
            made = intervene(schur_split(*complex_form(spectrum.T, spectrum.Q)), alpha)
        case "complex-normal":
            made = normal_end(schur_split(*complex_form(spectrum.T, spectrum.Q)))
        case "n-permuted":
            made = controls.permuted_above(split, keys)
        case "n-gaussian":
            made = controls.gaussian_above(split, keys)
        case "n-without-leading":
            made = given
        case "n1":
            made = nulls.n1_matrices(jax.random.key(seed), given, mean_trace(M), ids, draws=1, full=True).matrix
            made = made[..., 0, :, :]
        case "n1-of-normal":
            made = controls.n1_of_normal(spectrum.eigenvalues, mean_trace(M), seed, ids)
        case "own-vectors":
            made = controls.own_vectors(spectrum.eigenvalues, spectrum.U, spectrum.Vh)
        case "symmetrised":
            made = controls.symmetrised(M)
        case _:
            made = controls.polar(spectrum.singular_values, spectrum.Vh)
    if keep:
        made = made * (frobenius(M) / frobenius(made))[..., None, None].astype(dtype)
    failed = jnp.isnan(spectrum.residual)[..., None, None]
    return jnp.where(failed, jnp.nan, made + shift * jnp.eye(n, dtype=dtype))


_split = jax.jit(schur_split)
