"""Stage 5 of 7: the functional test - does the model, run on from a block, tell a surrogate from its Jacobian (1.8).

At the base point a surrogate changes nothing. So the state x of the last token is displaced to x + delta, and
y = F(x) + M delta is put in place of the block's output, for M in {J, surrogates, I, 0, random of the norm of J}. The
model runs on, and the next-token distribution is compared with that of the true run, F(x + delta). Where J itself does
not beat I, the block is not linear enough there and nothing is claimed about any M.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import lax
from jaxtyping import Array, Float

from jaxdyn.activations import Activations, context_at
from jaxdyn.errors import InputError
from jaxdyn.jacobians import check_layer, jacobian
from jaxdyn.jacobians.request import Operator
from jaxdyn.measures.arrays import frobenius
from jaxdyn.models import Model, decoder
from jaxdyn.models.stream import Stream
from jaxdyn.nulls.draw import places_of
from jaxdyn.surrogates import SURROGATES, prepare, surrogate
from jaxdyn.surrogates.by_name import Name
from jaxdyn.surrogates.controls import matrix_keys

from .continuation import advance_contexts, advance_rows, rows_at, run_on
from .natural import Kind, displacements, relative_norm
from .score import beats, divergences, normalised, radius_of

HIGHEST = lax.Precision.HIGHEST
BASE = ("J", "I", "0", "random")
"""Operators that are always there: the Jacobian, the skip alone, nothing, and Gaussian entries of the norm of J."""


@dataclass(frozen=True)
class FunctionalSettings:
    """What `functional_test` does.

    Attributes
    ----------
    layers : blocks to test; empty means all.
    names : surrogates of J beside the four of `BASE`, real ones of `surrogates.SURROGATES`; "schur" with `alpha`.
    radii : norm(delta) / norm(x), each displacement is scaled to each of them.
    kind, count : displacements, as in `displacements`.
    operator : of the Jacobian.
    alpha : what is left of N in "schur".
    keep_norm : as in `surrogate`.
    seed : of displacements and random surrogates.
    """

    layers: tuple[int, ...] = ()
    names: tuple[Name, ...] = ("normal", "n-gaussian", "n1", "own-vectors", "polar", "symmetrised")
    radii: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 0.6, 1.0)
    kind: Kind = "same-position"
    count: int = 4
    operator: Operator = "in-context"
    alpha: float = 0.5
    keep_norm: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be run, naming the argument."""
        real = [name for name in SURROGATES if name != "actual" and not name.startswith("complex")]
        if unknown := [name for name in self.names if name not in real]:
            msg = f"names: got {unknown[0]!r}; allowed {', '.join(real)}: a state is real, and J is there already"
            raise InputError(msg)
        if not self.radii or min(self.radii) <= 0 or len(set(self.radii)) < len(self.radii):
            msg = f"radii: got {self.radii}; allowed different numbers above 0, norm(delta) / norm(x)"
            raise InputError(msg)


def functional_test(
    model: Model,
    activations: Activations,
    settings: FunctionalSettings | None = None,
    *,
    replicates: np.ndarray | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> xr.Dataset:
    """Run the functional test.

    Parameters
    ----------
    model, activations : the model and its residual stream at the samples (last tokens, or any positions).
    settings : default: all blocks, six surrogates, six radii, four displacements a sample.
    replicates : (S,), the article of each sample; default each prompt is its own.
    progress : called with (blocks done, blocks).

    Returns
    -------
    Dataset over layer, operator ("J", "I", "0", "random", surrogates), radius, sample, displacement: `kl`, nats, KL of
    the true displaced run to the run on from F(x) + M delta; `natural`, norm(delta) / norm(x) before scaling;
    `mean_kl` (layer, operator, radius), over samples and displacements; `score`, (KL_M - KL_J) / (KL_I - KL_J), NaN
    where `claim` (layer, radius) is false; `log_ratio` with `_low` and `_high`, mean log(KL_J / KL_I);
    `radius_of_J` (layer), the largest radius up to which J beats I at every radius, NaN for none. Attribute `failed`:
    divergences that are NaN although there was a displacement, left out of the means.

    Raises
    ------
    InputError : as `displacements` and `jacobian`.

    Notes
    -----
    Cost a block: the Jacobians and their surrogates, and one token's pass through the rest of the model for each of
    S count radii (operators + 1) rows. A donor of shared keys and values gives those of the undisturbed state.
    """
    settings = settings or FunctionalSettings()
    arch = model.architecture
    layers = tuple(check_layer(layer, arch) for layer in settings.layers) or tuple(range(arch.layers))
    operators = [*BASE, *settings.names]
    radii, labels = np.array(settings.radii), activations.prompt if replicates is None else np.asarray(replicates)
    natural = displacements(model, activations, kind=settings.kind, count=settings.count, seed=settings.seed)
    found = []
    for number, layer in enumerate(layers):
        found.append(_layer(model, activations, settings, layer, natural[layer], radii))
        progress(number + 1, len(layers))
    kl = np.stack(found)
    return _dataset(kl, natural[list(layers)], activations, layers, operators, radii, labels, settings)


def _layer(model, activations, settings, layer, natural, radii) -> np.ndarray:
    """Divergences (operator, radius, sample, displacement) at one block."""
    arch = model.architecture
    prompts = activations.prompts
    samples, count = natural.shape[:2]
    shape = (samples, count, len(radii))
    x = activations.inputs[layer]
    output = activations.inputs[layer + 1] if layer + 1 < arch.layers else activations.final
    size = np.linalg.norm(np.asarray(x), axis=-1)[:, None, None] * radii
    length = np.linalg.norm(natural, axis=-1, keepdims=True)
    unit = np.divide(natural, length, out=np.full_like(natural, np.nan), where=length > 0)
    present = np.isfinite(unit).all(axis=-1)
    delta = jnp.asarray(np.where(present[..., None], unit, 0)[:, :, None] * size[..., None], x.dtype)
    matrices = operator_matrices(jacobian(model, activations, layer=layer, operator=settings.operator), settings)
    moved = jnp.einsum("msij,sdrj->sdrmi", matrices, delta, precision=HIGHEST) + output[:, None, None, None]
    # One row a sample, displacement and radius for the true run, then one more for each operator.
    lengths = jnp.asarray(prompts.lengths)
    contexts = context_at(arch, model.params, jnp.asarray(prompts.token_ids), lengths, layer)
    weights = decoder.layer_weights(model.params, layer)
    prompt, position = (
        jnp.asarray(np.broadcast_to(one[:, None, None], shape).reshape(-1))
        for one in (activations.prompt, activations.position)
    )
    rows = rows_at(contexts, prompt, position)
    displaced = Stream((x[:, None, None] + delta).reshape(-1, 1, arch.width), rows.layer_inputs, rows.keys, rows.values)
    true = advance_rows(arch, weights, contexts, displaced, prompt, position)
    after = advance_contexts(arch, weights, contexts, lengths)
    rows = rows_at(after, prompt, position)
    each = jnp.concatenate([true.x.reshape(*shape, 1, arch.width), moved], axis=-2)
    wide = each.shape[-2]
    started = jax.tree.map(partial(jnp.repeat, repeats=wide, axis=0), rows)
    started = Stream(each.reshape(-1, 1, arch.width), started.layer_inputs, started.keys, started.values)
    first = jnp.arange(len(prompt)) * wide  # of each group the true run, which hands on keys and values of its own
    started = replace(
        started,
        keys=_put(started.keys, first, true.keys),
        values=_put(started.values, first, true.values),
    )
    final = run_on(
        model, after, started, jnp.repeat(prompt, wide), jnp.repeat(position, wide), lengths, layer=layer + 1
    )
    final = final.reshape(-1, wide, arch.width)
    kl = np.asarray(divergences(model, final[:, 0], final[:, 1:])).reshape(*shape, wide - 1)
    return np.where(present[..., None, None], kl, np.nan).transpose(3, 2, 0, 1)


def _put(leaf: Array | None, places: Array, new: Array | None) -> Array | None:
    return None if leaf is None or new is None else leaf.at[places].set(new)


def operator_matrices(J: Float[Array, "S n n"], settings: FunctionalSettings) -> Float[Array, "M S n n"]:
    """Return J, I, 0, a Gaussian of the norm of J, and the surrogates, in the order of the dataset's operators."""
    eye = jnp.broadcast_to(jnp.eye(J.shape[-1], dtype=J.dtype), J.shape)
    keys = matrix_keys(places_of(J), settings.seed)
    noise = jax.vmap(lambda key: jax.random.normal(key, J.shape[-2:], J.dtype))(keys)
    noise = noise * (frobenius(J) / frobenius(noise))[:, None, None]
    found = [J, eye, jnp.zeros_like(J), noise]
    if settings.names:
        prepared = prepare(J)
        for name in settings.names:
            alpha = settings.alpha if name == "schur" else None
            found.append(surrogate(prepared, name, alpha=alpha, keep_norm=settings.keep_norm, seed=settings.seed))
    return jnp.stack(found)


def _dataset(kl, natural, activations, layers, operators, radii, labels, settings) -> xr.Dataset:
    relative = relative_norm(natural, np.asarray(activations.inputs)[list(layers)])
    mean = np.nanmean(kl, axis=(-2, -1))
    J, identity = operators.index("J"), operators.index("I")
    claims, ratios, score, reach = [], [], [], []
    for at in range(len(layers)):
        claim, ratio = beats(kl[at, J], kl[at, identity], labels)
        claims.append(claim)
        ratios.append(ratio)
        score.append(normalised(mean[at], mean[at, J], mean[at, identity], claim))
        reach.append(radius_of(claim, radii))
    ratio = np.stack(ratios)
    whole = ("layer", "operator", "radius")
    return xr.Dataset(
        {
            "kl": ((*whole, "sample", "displacement"), kl, {"units": "nat"}),
            "natural": (("layer", "sample", "displacement"), relative),
            "mean_kl": (whole, mean, {"units": "nat"}),
            "score": (whole, np.stack(score)),
            "claim": (("layer", "radius"), np.stack(claims)),
            "log_ratio": (("layer", "radius"), ratio[..., 0]),
            "log_ratio_low": (("layer", "radius"), ratio[..., 1]),
            "log_ratio_high": (("layer", "radius"), ratio[..., 2]),
            "radius_of_J": ("layer", np.array(reach)),
        },
        coords={"layer": list(layers), "operator": operators, "radius": radii, "article": ("sample", labels)},
        attrs={
            key: list(value) if isinstance(value, tuple) else int(value) if isinstance(value, bool) else value
            for key, value in asdict(settings).items()
        }
        | {"failed": int(np.sum(np.isnan(kl) & np.isfinite(relative)[:, None, None]))},
    )
