"""From one sample's Jacobians to its numbers: decompose once, read every part and metric off the same decomposition.

The parts and metrics of a Jacobian M are *views* a M - b I of it: "block" is (1, 0), "update" (1, 1), and the relative
metric scales by a = norm(input)/norm(output). They share the Schur form (scaled and shifted), the condition numbers,
the numerical abscissa and the singular vectors of M - tI; only an update's singular values are its own. A view without
a shift is not measured again in the relative metric: its gains are scaled, its other measures are the same numbers.

The measured matrices and their null draws are rounds of one loop, and the views of a matrix rounds of another: null and
measurement go through the same instructions, and the program stays small. It has no batch axes: LAPACK runs on the
host, where threads spread the cores over samples (`host.py`), because batched LAPACK calls in one program can wait for
each other for ever (see jaxdyn_kernels.threads).
"""

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
    """

    views: tuple[View, ...]
    draws: int
    kreiss: bool
    truncate: int | None
    block: int | None

    @property
    def parts(self) -> int:
        """Number of parts: as many views are raw."""
        return sum(not view.relative for view in self.views)


class Inputs(NamedTuple):
    """What one sample brings to a layer.

    Attributes
    ----------
    matrices : (P, n, n), its Jacobians by kind.
    norms : (P, 2), norm of the residual stream where each enters and leaves.
    ids : (P,), an integer a matrix, unique in the run: its null draws depend on it and the seed, and nothing else.
    seed : of the null draws.
    product, null_products : running products up to the layer before; None without products. The latter's leaves have a
        leading axis of draws.
    """

    matrices: Float[Array, "P n n"]
    norms: Float[Array, "P 2"]
    ids: Int[Array, " P"]
    seed: Int[Array, ""]
    product: propagate.Product | None
    null_products: propagate.Product | None


def make_plan(settings: Settings, *, product: bool) -> Plan:
    """Return the plan of a run."""
    kinds = settings.matrices
    raw = [
        View(position, False, kinds.index("block" if part == "update" else part), int(part == "update"))
        for position, part in enumerate(settings.parts)
    ]
    views = (*raw, *(view._replace(relative=True) for view in raw if view.shift))
    block = kinds.index("block") if product else None
    return Plan(views, settings.draws, settings.kreiss, settings.truncate, block)


def measure_sample(inputs: Inputs, *, plan: Plan) -> tuple[dict[str, Array], dict[str, Array], Any, Any]:
    """Measure one sample's Jacobians at one layer, beside N0 and N1, and move its running products on.

    Returns
    -------
    arrays : by store key, (parts, ...): the raw metric by name, the relative one under "relative/".
    cumulative : measures of the running product, by name; empty without products.
    product, null_products : the products including this layer.
    """
    ratio = inputs.norms[:, 0] / inputs.norms[:, 1]
    n = inputs.matrices.shape[-1]
    eye = jnp.eye(n, dtype=inputs.matrices.dtype)
    trace = mean_trace(inputs.matrices)
    deviation = lax.map(lambda pair: _singular_values(pair[0] - pair[1] * eye), (inputs.matrices, trace))

    keep_product = plan.block is not None

    def one_round(state: tuple[Array, propagate.Product | None]):
        """Round 0 measures the matrices themselves, round k > 0 their draw k - 1."""
        number, product = state
        matrices = inputs.matrices
        if plan.draws:
            draw = jnp.maximum(number - 1, 0)
            drawn = nulls.n1_matrices(
                jax.random.key(inputs.seed), deviation, trace, inputs.ids, draws=1, first_draw=draw, full=keep_product
            )
            matrices = jnp.where(number == 0, matrices, drawn.matrix[:, 0])
        pieces = lax.map(_take_apart, matrices)
        found = lax.map(lambda view: _measure_view(pieces, view), _view_table(plan, ratio))
        if plan.kreiss:  # of the raw metric alone: it is dear, and does not change with the scale of a block
            raw = jax.tree.map(lambda leaf: leaf[: plan.parts], _view_table(plan, ratio))
            found["kreiss_scaled"] = lax.map(lambda view: _kreiss(pieces, view), raw)
        single = participation_ratio(pieces.spectrum.singular_values)
        if plan.block is None or product is None:
            return found, {}, product, single
        product, cumulative = products.advance(product, matrices[plan.block], truncate=plan.truncate)
        return found, cumulative, product, single

    states = None
    if keep_product:
        states = jax.tree.map(lambda leaf: leaf[None], inputs.product)
        if plan.draws:
            states = jax.tree.map(lambda own, null: jnp.concatenate([own, null]), states, inputs.null_products)
    found, cumulative, states, single = lax.map(one_round, (jnp.arange(plan.draws + 1), states))
    measured = {name: value[0] for name, value in cumulative.items()}
    product = null_products = None
    if plan.block is not None:
        product = jax.tree.map(lambda leaf: leaf[0], states)
        null_products = jax.tree.map(lambda leaf: leaf[1:], states) if plan.draws else None
        for name, values in cumulative.items() if plan.draws else ():
            mean, sd = nulls.summarise(values[1:])
            measured |= {f"{name}_null": mean, f"{name}_null_sd": sd, f"{name}_excess": values[0] - mean}
        measured["single_participation_ratio"] = single[0, plan.block]
        measured["single_update_norm"] = frobenius(inputs.matrices[plan.block] - eye)
    return _arrays(found, inputs, ratio, plan), measured, product, null_products


class Pieces(NamedTuple):
    """What all views of one matrix share: spectrum, numerical abscissa, and the singular vectors of M - tI."""

    matrix: Float[Array, "*P n n"]
    spectrum: spectra.Spectrum
    abscissa: Float[Array, "*P"]
    left: Float[Array, "*P n n"]
    right_h: Float[Array, "*P n n"]


def _take_apart(matrix: Array) -> Pieces:
    left, _, right_h = _svd(matrix - mean_trace(matrix) * jnp.eye(matrix.shape[-1], dtype=matrix.dtype))
    spectrum = spectra.decompose(matrix, vectors=True, implementation="lapack")
    abscissa = nonnormality.numerical_abscissa(matrix, norm=spectrum.singular_values[0])
    return Pieces(matrix, spectrum, abscissa, left, right_h)


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


def _measure_view(pieces: Pieces, view: tuple[Array, Array, Array]) -> dict[str, Array]:
    """Measures of one view a M - b I, with the evidence of its decomposition."""
    index, scale, shift = view
    piece = jax.tree.map(lambda leaf: leaf[index], pieces)
    spectrum, n = piece.spectrum, piece.matrix.shape[-1]
    eye = jnp.eye(n, dtype=piece.matrix.dtype)
    matrix, eigenvalues = scale * piece.matrix - shift * eye, scale * spectrum.eigenvalues - shift
    # A scaled matrix has scaled singular values: only the shifted views, the updates, need their own.
    singular_values = lax.cond(shift == 0, lambda: scale * spectrum.singular_values, lambda: _singular_values(matrix))
    eps = float(jnp.finfo(matrix.dtype).eps)
    out = measure_all(
        matrix,
        scale * spectrum.T - shift * eye,
        eigenvalues,
        singular_values=singular_values,
        left=piece.left,
        right_h=piece.right_h,
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


def _arrays(found: dict[str, Array], inputs: Inputs, ratio: Array, plan: Plan) -> dict[str, Array]:
    """Name the rounds' arrays (rounds, views, ...) as the store does."""
    closed = lax.map(lambda view: _closed_form(inputs.matrices, view), _view_table(plan, ratio))
    parts, out = plan.parts, {}
    for name, value in found.items():
        if name not in UNITS:
            out[name] = value[0, :parts]
            continue
        arrays = _beside_nulls(name, value, closed[name][: value.shape[1]], plan)
        out |= {key: array[:parts] for key, array in arrays.items()}
        if name in relative_measures(plan):
            out |= {f"relative/{key}": _relative(UNITS[name], array, ratio, plan) for key, array in arrays.items()}
    if plan.draws:
        out["eigenvalues_null"] = found["eigenvalues"][1, :parts]
    where = jnp.asarray([view.index for view in plan.views[:parts]])
    return out | {"input_norm": inputs.norms[where, 0], "output_norm": inputs.norms[where, 1]}


def relative_measures(plan: Plan) -> tuple[str, ...]:
    """Names of the measures that are stored in the relative metric: the gains, and all where there is an update.

    The Kreiss constant is left out: it is dear, and does not change with the scale of a block.
    """
    shifted = any(view.shift for view in plan.views)
    return tuple(name for name, unit in UNITS.items() if (shifted or unit == "gain") and name != "kreiss_scaled")


def _beside_nulls(name: str, value: Array, n0: Array, plan: Plan) -> dict[str, Array]:
    """One measure (views,) with N0 and, where it was drawn, N1 along the last axis, from its rounds (rounds, views)."""
    n0 = n0.astype(value.dtype)
    if not plan.draws:
        return {name: value[0], f"{name}_null": n0[..., None], f"{name}_excess": (value[0] - n0)[..., None]}
    mean, sd = nulls.summarise(jnp.moveaxis(value[1:], 0, -1))
    null = jnp.stack([n0, mean], axis=-1)
    return {
        name: value[0],
        f"{name}_null": null,
        f"{name}_null_sd": jnp.stack([jnp.where(jnp.isnan(n0), jnp.nan, 0), sd], axis=-1),
        f"{name}_excess": value[0, :, None] - null,
    }


def _relative(unit: str, array: Array, ratio: Array, plan: Plan) -> Array:
    """Return the parts of one array (views, ...) in the relative metric, the unshifted ones by their scale."""
    rows, own = [], iter(range(plan.parts, len(plan.views)))
    for view in plan.views[: plan.parts]:
        scaled = array[view.part] * (ratio[view.index] if unit == "gain" else 1)
        rows.append(array[next(own)] if view.shift else scaled)
    return jnp.stack(rows)


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
