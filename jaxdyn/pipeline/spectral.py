"""From one sample's Jacobians to its numbers: decompose once, read every part and metric off the same decomposition.

The parts and metrics of a Jacobian M are *views* a M - b I of it: "block" is (1, 0), "update" (1, 1), and the relative
metric scales by a = norm(input)/norm(output). They share the Schur form (scaled and shifted), the condition numbers and
the singular vectors of M - tI; only their singular values are their own. Null draws go through the same code.

`measure_sample` is one program without batch axes: LAPACK runs on the host, where the cores are spread over samples by
threads (`host.py`), because batched LAPACK calls inside one program can wait for each other (see jaxdyn_kernels.threads).
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxdyn import propagate, spectra
from jaxdyn.measures import MEASURES, measure_all, nulls, participation_ratio
from jaxdyn.measures.arrays import frobenius, mean_trace

from . import products
from .settings import Settings

METRICS = ("raw", "relative")
NAMES = tuple(measure.name for measure in MEASURES)


class View(NamedTuple):
    """One part in one metric: the Jacobian number `index` of a sample, less `shift` times the identity."""

    metric: str
    index: int
    shift: int


class Plan(NamedTuple):
    """The static description of `measure_sample`: one plan, one program.

    Attributes
    ----------
    views : metric by metric, part by part.
    draws, kreiss, seed, truncate : as in `Settings`.
    block : index of the block's Jacobian, or None where no running product is kept.
    """

    views: tuple[View, ...]
    draws: int
    kreiss: bool
    seed: int
    truncate: int | None
    block: int | None


class Inputs(NamedTuple):
    """What one sample brings to a layer.

    Attributes
    ----------
    matrices : (P, n, n), its Jacobians by kind.
    norms : (P, 2), norm of the residual stream where each enters and leaves.
    ids : (P,), an integer a matrix, unique in the run: its null draws depend on nothing else.
    product, null_products : running products up to the layer before; None without products. The latter's leaves have a
        leading axis of draws.
    """

    matrices: Float[Array, "P n n"]
    norms: Float[Array, "P 2"]
    ids: Int[Array, " P"]
    product: propagate.Product | None
    null_products: propagate.Product | None


def make_plan(settings: Settings, *, product: bool) -> Plan:
    """Return the plan of a run."""
    kinds = settings.matrices
    views = tuple(
        View(metric, kinds.index("block" if part == "update" else part), int(part == "update"))
        for metric in METRICS
        for part in settings.parts
    )
    block = kinds.index("block") if product else None
    return Plan(views, settings.draws, settings.kreiss, settings.seed, settings.truncate, block)


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
    factors = [_svd(matrix - t * eye) for matrix, t in zip(inputs.matrices, trace, strict=True)]
    pieces = [
        Pieces(matrix, _decompose(matrix), left, right_h)
        for matrix, (left, _, right_h) in zip(inputs.matrices, factors, strict=True)
    ]
    found = _all_views(pieces, ratio, plan)
    deviation = jnp.stack([values for _, values, _ in factors])
    product, cumulative = None, {}
    if plan.block is not None:
        block = inputs.matrices[plan.block]
        product, cumulative = products.advance(
            inputs.product, block, truncate=plan.truncate, rates=products.rate_method(n)
        )
        cumulative["single_participation_ratio"] = participation_ratio(pieces[plan.block].spectrum.singular_values)
        cumulative["single_update_norm"] = frobenius(block - eye)

    drawn, null_products = {}, None
    if plan.draws:
        one = partial(_one_draw, trace=trace, deviation=deviation, ratio=ratio, ids=inputs.ids, plan=plan)
        drawn, null_cumulative, null_products = lax.map(one, (jnp.arange(plan.draws), inputs.null_products))
        found["eigenvalues_null"] = drawn["eigenvalues"][0]
        for name, draws in null_cumulative.items():
            mean, sd = nulls.summarise(draws)
            cumulative |= {f"{name}_null": mean, f"{name}_null_sd": sd, f"{name}_excess": cumulative[name] - mean}
    arrays = {**found, **_nulls(found, drawn, inputs.matrices, ratio, plan)}
    where = jnp.asarray([view.index for view in plan.views if view.metric == "raw"])
    arrays |= {"input_norm": inputs.norms[where, 0], "output_norm": inputs.norms[where, 1]}
    return arrays, cumulative, product, null_products


class Pieces(NamedTuple):
    """What all views of one matrix share: its spectrum, and the singular vectors of M - tI."""

    matrix: Float[Array, "n n"]
    spectrum: spectra.Spectrum
    left: Float[Array, "n n"]
    right_h: Float[Array, "n n"]


def _decompose(matrix: Array) -> spectra.Spectrum:
    return spectra.decompose(matrix, vectors=True)


def _one_draw(draw, *, trace, deviation, ratio, ids, plan):
    """One N1 draw of every matrix through the same measurement; and the null product with the block's draw."""
    number, product = draw
    key = jax.random.key(plan.seed)
    drawn = nulls.n1_matrices(
        key, deviation, trace, ids, draws=1, first_draw=number, full=plan.block is not None
    )
    pieces = [
        Pieces(matrix, _decompose(matrix), left, right_h)
        for matrix, left, right_h in zip(*(leaf[:, 0] for leaf in drawn), strict=True)
    ]
    found = _all_views(pieces, ratio, plan)
    kept = {key: value for key, value in found.items() if key.split("/")[-1] in NAMES or key == "eigenvalues"}
    if plan.block is None:
        return kept, {}, None
    product, cumulative = products.advance(product, pieces[plan.block].matrix, truncate=plan.truncate, rates=None)
    return kept, cumulative, product


def _all_views(pieces: list[Pieces], ratio: Array, plan: Plan) -> dict[str, Array]:
    """Measures of all views by store key, stacked over the parts."""
    rows: dict[str, list[dict[str, Array]]] = {metric: [] for metric in METRICS}
    for view in plan.views:
        rows[view.metric].append(_one_view(pieces[view.index], ratio[view.index], view, plan))
    return {
        _key(metric, name): jnp.stack([row[name] for row in found])
        for metric, found in rows.items()
        for name in found[0]
    }


def _one_view(piece: Pieces, ratio: Array, view: View, plan: Plan) -> dict[str, Array]:
    relative = view.metric == "relative"
    scale = ratio if relative else jnp.ones_like(ratio)
    spectrum, n = piece.spectrum, piece.matrix.shape[-1]
    eye = jnp.eye(n, dtype=piece.matrix.dtype)
    matrix = scale * piece.matrix - view.shift * eye
    eigenvalues = scale * spectrum.eigenvalues - view.shift
    singular_values = _singular_values(matrix) if view.shift else scale * spectrum.singular_values
    eps = float(jnp.finfo(matrix.dtype).eps)
    out = measure_all(
        matrix,
        scale * spectrum.T - view.shift * eye,
        eigenvalues,
        singular_values=singular_values,
        left=piece.left,
        right_h=piece.right_h,
        condition=spectrum.condition,
        backward_error=scale * spectrum.residual * n * eps * frobenius(piece.matrix),
        kreiss=plan.kreiss and not relative,
    )
    if relative:
        return out
    return out | {
        "eigenvalues": eigenvalues,
        "singular_values": singular_values,
        "residual": spectrum.residual,
        "orthogonality": spectrum.orthogonality,
        "status": spectrum.status.astype(jnp.int8),
        "frobenius_norm": frobenius(matrix),
        "update_norm": frobenius(piece.matrix - eye),
    }


def _nulls(found, drawn, matrices, ratio, plan):
    """N0 and N1 of every measure along the last axis: mean, sd, and the measure's excess over the mean."""
    out = {}
    closed = {metric: [_closed_form(matrices, ratio, v) for v in plan.views if v.metric == metric] for metric in METRICS}
    for metric in METRICS:
        for name in NAMES:
            key = _key(metric, name)
            if key not in found:
                continue
            n0 = jnp.stack([row[name] for row in closed[metric]]).astype(found[key].dtype)
            mean = sd = jnp.full_like(n0, jnp.nan)
            if plan.draws:
                mean, sd = nulls.summarise(jnp.moveaxis(drawn[key], 0, -1))
            out[f"{key}_null"] = jnp.stack([n0, mean], axis=-1)
            out[f"{key}_null_sd"] = jnp.stack([jnp.where(jnp.isnan(n0), jnp.nan, 0), sd], axis=-1)
            out[f"{key}_excess"] = found[key][..., None] - out[f"{key}_null"]
    return out


def _closed_form(matrices, ratio, view):
    """N0 of one view: c I plus a Ginibre matrix of the norm of the view less c I, c = a for a block, 0 for an update."""
    matrix, scale = matrices[view.index], ratio[view.index] if view.metric == "relative" else jnp.ones_like(ratio[0])
    eye = jnp.eye(matrix.shape[-1], dtype=matrix.dtype)
    shift = jnp.zeros_like(scale) if view.shift else scale
    deviation = scale * matrix - eye if view.shift else scale * (matrix - eye)
    return nulls.closed_form(shift, frobenius(deviation), matrix.shape[-1])


def _key(metric: str, name: str) -> str:
    return name if metric == "raw" else f"{metric}/{name}"


def _svd(matrix: Array) -> tuple[Array, Array, Array]:
    """SVD, NaN for a matrix that is not finite: LAPACK must not see one."""
    finite = jnp.all(jnp.isfinite(matrix))
    u, s, vh = jnp.linalg.svd(jnp.where(finite, matrix, 0))
    return tuple(jnp.where(finite, leaf, jnp.nan) for leaf in (u, s, vh))  # pyright: ignore[reportReturnType]


def _singular_values(matrix: Array) -> Array:
    finite = jnp.all(jnp.isfinite(matrix))
    return jnp.where(finite, jnp.linalg.svd(jnp.where(finite, matrix, 0), compute_uv=False), jnp.nan)
