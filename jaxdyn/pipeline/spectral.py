"""From one sample's Jacobians to its numbers: decompose once, read every part and metric off the same decomposition.

The parts and metrics of a Jacobian M are *views* a M - b I of it: "block" is (1, 0), "update" (1, 1), and the relative
metric scales by a = norm(input)/norm(output). They share the Schur form (scaled and shifted), the condition numbers,
the numerical abscissa and the singular vectors of M - tI; only an update's singular values are its own. A view without
a shift is not measured again in the relative metric: its gains are scaled, its other measures are the same numbers.

The measured matrices are round 0 and their null draws the rounds after it, all by one program: null and measurement go
through the same instructions. The views of a matrix are rounds of a loop, so that the program stays small. It has no
batch axes: LAPACK runs on the host, where threads spread the cores over samples and rounds (`host.py`), because batched
LAPACK calls in one program can wait for each other for ever (see jaxdyn_kernels.threads).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxdyn import propagate, spectra
from jaxdyn.measures import MEASURES, kreiss_scaled, measure_all, nonnormality, nulls, participation_ratio
from jaxdyn.measures.arrays import frobenius, mean_trace

from . import products
from .settings import Settings

UNITS = {measure.name: measure.unit for measure in MEASURES}


class View(NamedTuple):
    """One part in one metric: the Jacobian number `index` of a sample, scaled or not, less `shift` identities."""

    part: int
    relative: bool
    index: int
    shift: int


class Plan(NamedTuple):
    """The static description of `measure_sample`: one plan, one program.

    Attributes
    ----------
    views : the raw ones, part by part, then the relative ones that are not multiples of the raw.
    draws, kreiss, truncate : as in `Settings`.
    block : index of the block's Jacobian, or None where no running product is kept.
    schur : whether the Schur forms themselves are returned.
    """

    views: tuple[View, ...]
    draws: int
    kreiss: bool
    truncate: int | None
    block: int | None
    schur: bool = False

    @property
    def parts(self) -> int:
        """Number of parts: as many views are raw."""
        return sum(not view.relative for view in self.views)


class Inputs(NamedTuple):
    """What one sample brings to a layer and a round.

    Attributes
    ----------
    matrices : (P, n, n), its Jacobians by kind.
    norms : (P, 2), norm of the residual stream where each enters and leaves.
    ids : (P,), an integer a matrix, unique in the run: its null draws depend on it and the seed, and nothing else.
    seed : of the null draws.
    round : 0 for the matrices themselves, k > 0 for their draw k - 1.
    deviation : (P, n), singular values of M - tI, for a draw; round 0 returns them.
    product : this round's running product up to the layer before; None without products.
    """

    matrices: Float[Array, "P n n"]
    norms: Float[Array, "P 2"]
    ids: Int[Array, " P"]
    seed: Int[Array, ""]
    round: Int[Array, ""]
    deviation: Float[Array, "P n"]
    product: propagate.Product | None


class Measured(NamedTuple):
    """What a round returns; numpy arrays once `host.map_tasks` has run it.

    Attributes
    ----------
    views : by name, (views, ...): the measures of every view, and the evidence of its decomposition.
    closed : by name, (views,): their N0.
    cumulative : measures of the running product, by name; empty without products.
    product : the product including this layer.
    single : (P,), participation ratios of the round's matrices.
    deviation : (P, n), of round 0: singular values of M - tI, which the draws need.
    schur : T and Q, (P, n, n) each, where the plan keeps them.
    """

    views: dict[str, Any]
    closed: dict[str, Any]
    cumulative: dict[str, Any]
    product: propagate.Product | None
    single: Float[Array, " P"]
    deviation: Float[Array, "P n"]
    schur: tuple[Array, Array] | None = None


def make_plan(settings: Settings, *, product: bool) -> Plan:
    """Return the plan of a run."""
    kinds = settings.matrices
    raw = [
        View(position, False, kinds.index("block" if part == "update" else part), int(part == "update"))
        for position, part in enumerate(settings.parts)
    ]
    views = (*raw, *(view._replace(relative=True) for view in raw if view.shift))
    block = kinds.index("block") if product else None
    return Plan(views, settings.draws, settings.kreiss, settings.truncate, block, "schur" in settings.outputs)


def measure_round(inputs: Inputs, *, plan: Plan) -> Measured:
    """Measure one sample's Jacobians at one layer, or one draw of their null N1, and move its running product on."""
    ratio = inputs.norms[:, 0] / inputs.norms[:, 1]
    matrices = _matrices(inputs, plan)
    pieces, deviation = lax.map(_take_apart, matrices)
    found = lax.map(lambda view: measure_view(pieces, view), _view_table(plan, ratio))
    if plan.kreiss:  # of the raw metric alone: it is dear, and does not change with the scale of a block
        raw = jax.tree.map(lambda leaf: leaf[: plan.parts], _view_table(plan, ratio))
        found["kreiss_scaled"] = lax.map(lambda view: _kreiss(pieces, view), raw)
    single = participation_ratio(pieces.spectrum.singular_values)
    product, cumulative = inputs.product, {}
    if plan.block is not None and product is not None:
        product, cumulative = products.advance(product, matrices[plan.block], truncate=plan.truncate)
    closed = lax.map(lambda view: _closed_form(inputs.matrices, view), _view_table(plan, ratio))
    schur = (pieces.spectrum.T, pieces.spectrum.Q) if plan.schur else None
    return Measured(found, closed, cumulative, product, single, deviation, schur)


def _matrices(inputs: Inputs, plan: Plan) -> Float[Array, "P n n"]:
    """Return the matrices themselves or their draw; the block's has both Haar factors where products are kept."""
    if not plan.draws:
        return inputs.matrices
    kinds = range(len(inputs.matrices))
    both = [kind for kind in kinds if kind == plan.block]
    one = [kind for kind in kinds if kind != plan.block]

    def drawn() -> Array:
        key, trace = jax.random.key(inputs.seed), mean_trace(inputs.matrices)
        null = inputs.matrices
        for chosen, full in ((both, True), (one, False)):
            if chosen:
                where = jnp.asarray(chosen)
                draws = nulls.n1_matrices(
                    key,
                    inputs.deviation[where],
                    trace[where],
                    inputs.ids[where],
                    draws=1,
                    first_draw=inputs.round - 1,
                    full=full,
                )
                null = null.at[where].set(draws.matrix[:, 0])
        return null

    return lax.cond(inputs.round == 0, lambda: inputs.matrices, drawn)


class Pieces(NamedTuple):
    """What all views of one matrix share: spectrum, numerical abscissa, and the singular vectors of M - tI.

    Where the vectors are not made, `alignment` is what would be made of them, and they are None.
    """

    matrix: Float[Array, "*P n n"]
    spectrum: spectra.Spectrum
    abscissa: Float[Array, "*P"]
    left: Float[Array, "*P n n"] | None
    right_h: Float[Array, "*P n n"] | None
    alignment: Float[Array, "*P"] | None = None


def _take_apart(matrix: Array) -> tuple[Pieces, Array]:
    """Decompose one matrix; also the singular values of M - tI."""
    return pieces_of(matrix, spectra.decompose(matrix, vectors=True, implementation="lapack"))


def pieces_of(matrix: Float[Array, "n n"], spectrum: spectra.Spectrum) -> tuple[Pieces, Float[Array, " n"]]:
    """Return what all views of one matrix share, given its spectrum with condition numbers; and `deviation`."""
    left, deviation, right_h = _svd(matrix - mean_trace(matrix) * jnp.eye(matrix.shape[-1], dtype=matrix.dtype))
    abscissa = nonnormality.numerical_abscissa(matrix, norm=spectrum.singular_values[0])
    return Pieces(matrix, spectrum, abscissa, left, right_h), deviation


def _view_table(plan: Plan, ratio: Array) -> tuple[Array, Array, Array]:
    """Index, scale a and shift b of every view, as data."""
    index = jnp.asarray([view.index for view in plan.views])
    relative = jnp.asarray([view.relative for view in plan.views])
    shift = jnp.asarray([view.shift for view in plan.views], ratio.dtype)
    return index, jnp.where(relative, ratio[index], 1), shift


def _kreiss(pieces: Pieces, view: tuple[Array, Array, Array]) -> Array:
    """Kreiss constant of one view over its spectral radius."""
    index, scale, shift = view
    spectrum = jax.tree.map(lambda leaf: leaf[index], pieces.spectrum)
    schur = scale * spectrum.T - shift * jnp.eye(spectrum.T.shape[-1], dtype=spectrum.T.dtype)
    return kreiss_scaled(schur, scale * spectrum.eigenvalues - shift, spectrum.condition)


def measure_view(
    pieces: Pieces, view: tuple[Array, Array, Array], own: Callable[[Array], Array] | None = None
) -> dict[str, Array]:
    """Measures of one view a M - b I, with the evidence of its decomposition; `own` makes an update's singular values.

    `own` takes (n, n) to (n,), descending, NaN for a matrix that is not finite; default XLA's.
    """
    own = _singular_values if own is None else own
    index, scale, shift = view
    piece = jax.tree.map(lambda leaf: leaf[index], pieces)
    spectrum, n = piece.spectrum, piece.matrix.shape[-1]
    eye = jnp.eye(n, dtype=piece.matrix.dtype)
    matrix, eigenvalues = scale * piece.matrix - shift * eye, scale * spectrum.eigenvalues - shift
    # A scaled matrix has scaled singular values: only the shifted views, the updates, need their own.
    singular_values = lax.cond(shift == 0, lambda: scale * spectrum.singular_values, lambda: own(matrix))
    eps = float(jnp.finfo(matrix.dtype).eps)
    out = measure_all(
        matrix,
        scale * spectrum.T - shift * eye,
        eigenvalues,
        singular_values=singular_values,
        left=piece.left,
        right_h=piece.right_h,
        alignment=piece.alignment,
        condition=spectrum.condition,
        backward_error=scale * spectrum.residual * n * eps * frobenius(piece.matrix),
        abscissa=scale * piece.abscissa - shift,
        kreiss=False,
    )
    return out | {
        "eigenvalues": eigenvalues,
        "singular_values": singular_values,
        "residual": spectrum.residual,
        "orthogonality": spectrum.orthogonality,
        "status": spectrum.status.astype(jnp.int8),
        "frobenius_norm": frobenius(matrix),
        "update_norm": frobenius(piece.matrix - eye),
    }


def _closed_form(matrices: Array, view: tuple[Array, Array, Array]) -> dict[str, Array]:
    """N0 of one view: c I plus a Ginibre matrix of the norm of the rest, c = a for a block and 0 for an update."""
    index, scale, shift = view
    eye = jnp.eye(matrices.shape[-1], dtype=matrices.dtype)
    centre = jnp.where(shift == 0, scale, 0)
    deviation = frobenius(scale * matrices[index] - (shift + centre) * eye)
    return nulls.closed_form(centre, deviation, matrices.shape[-1])


def _singular_values(matrix: Array) -> Array:
    """Return the singular values, NaN for a matrix that is not finite: LAPACK must not see one."""
    finite = jnp.all(jnp.isfinite(matrix))
    return jnp.where(finite, jnp.linalg.svd(jnp.where(finite, matrix, 0), compute_uv=False), jnp.nan)


def _svd(matrix: Array) -> tuple[Array, Array, Array]:
    """SVD, NaN for a matrix that is not finite: LAPACK must not see one."""
    finite = jnp.all(jnp.isfinite(matrix))
    u, s, vh = jnp.linalg.svd(jnp.where(finite, matrix, 0))
    return tuple(jnp.where(finite, leaf, jnp.nan) for leaf in (u, s, vh))  # pyright: ignore[reportReturnType]
