"""Stage 5 of 7: every surrogate of a model's blocks at every site, as one labelled table; and the order of eigenvalues.

Deterministic for given seeds. A few samples are taken at a time, and of them one surrogate, so that memory holds the
blocks and `HELD` bytes of them, decomposed, some twenty times over. The numbers of a sample are its own: which others
it was taken with does not matter.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float

from jaxdyn import propagate
from jaxdyn.errors import InputError
from jaxdyn.measures import rank
from jaxdyn.nulls.draw import places_of

from .by_name import SURROGATES, Name, On, Prepared, prepare, reordered, surrogate
from .effects import effect_on_effective_rank, effect_on_participation_ratio, product_ranks
from .order import By
from .sites import layer_sets

HELD = 2**26
"""Bytes of blocks whose surrogates are made at a time; a sample at least."""

ORDER_SWEEP: tuple[tuple[By, bool, int], ...] = (
    ("given", True, 0),
    ("modulus", True, 0),
    ("modulus", False, 0),
    ("real", True, 0),
    ("real", False, 0),
    ("argument", True, 0),
    ("argument", False, 0),
    ("random", True, 0),
    ("random", True, 1),
    ("random", True, 2),
)
"""Orders of the eigenvalues that are swept: what, descending, seed. "given" is the one that the decomposition left."""


@dataclass(frozen=True)
class SurrogateSettings:
    """What `surrogate_study` does.

    Attributes
    ----------
    names : surrogates, any of `SURROGATES` without "actual", which is always there.
    alphas : what is left of N in "schur" and "complex-schur", 0 for the form without N.
    sites : as in `layer_sets`.
    on : "J" or "A".
    order, descending : of the eigenvalues.
    keep_norm : as in `surrogate`.
    draws : Haar rotations of each product.
    seed : of everything random.
    """

    names: tuple[Name, ...] = tuple(name for name in SURROGATES if name not in ("actual", "complex-schur"))
    alphas: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75)
    sites: tuple[str, ...] = ("all", "early", "late")
    on: On = "J"
    order: By = "modulus"
    descending: bool = True
    keep_norm: bool = False
    draws: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be run, naming the argument."""
        if unknown := [name for name in self.names if name not in SURROGATES or name == "actual"]:
            msg = f"names: got {unknown[0]!r}; allowed {', '.join(name for name in SURROGATES if name != 'actual')}"
            raise InputError(msg)
        if self.draws < 1:
            msg = f"draws: got {self.draws}; allowed at least 1 rotation"
            raise InputError(msg)


def surrogate_study(
    blocks: Float[Array, "L S n n"],
    settings: SurrogateSettings | None = None,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> xr.Dataset:
    """Put every surrogate in place of the blocks at every site and measure the product.

    Parameters
    ----------
    blocks : (L, S, n, n), Jacobians of all blocks, first layer first (`jacobians.jacobian_stack`).
    settings : default: everything but partial complex interventions, on J, in all layers and in either half.
    progress : called with (done, total) products.

    Returns
    -------
    Dataset over (surrogate, site, sample), surrogate "actual" first: effective_rank, participation_ratio; the same
    `rotated_...` with their sd over rotations `..._sd`; free_participation_ratio, outlier; log effects relative to
    actual: effect, effect_single, effect_alignment (entropy rank, by rotation) and participation_effect, ..._single,
    ..._alignment (by the free law); norm_ratio, norm(M')/norm(M) averaged over the site's layers, (surrogate, sample).
    Settings in the attributes.

    Raises
    ------
    InputError : blocks without layers and samples.

    Notes
    -----
    Cost: one decomposition a block; (1 + draws) products of L factors for each surrogate and site.
    """
    settings = settings or SurrogateSettings()
    _check(blocks)
    sites, wanted = layer_sets(len(blocks), settings.sites), _wanted(settings)
    of_group, groups = len(wanted) * len(sites), list(_groups(blocks))
    rows: list[dict[str, np.ndarray]] = []
    norms: list[np.ndarray] = []
    for at, (some, places) in enumerate(groups):

        def tick(done: int, before: int = at * of_group) -> None:
            progress(before + done, len(groups) * of_group)

        found = _measure(some, places, settings, wanted, list(sites.values()), tick)
        rows.append(found[0])
        norms.append(found[1])
    variables = {key: np.concatenate([row[key] for row in rows], axis=-1) for key in rows[0]}
    labels = [_label(name, alpha) for name, alpha in wanted]
    return xr.Dataset(
        {
            **{key: (("surrogate", "site", "sample"), value) for key, value in variables.items()},
            "norm_ratio": (("surrogate", "sample"), np.concatenate(norms, axis=-1)),
        },
        coords={
            "surrogate": labels,
            "site": list(sites),
            "alpha": ("surrogate", [np.nan if alpha is None else alpha for _, alpha in wanted]),
            "description": ("surrogate", [SURROGATES[name] for name, _ in wanted]),
        },
        attrs={key: _plain(value) for key, value in asdict(settings).items()}
        | {"layers": len(blocks), "width": blocks.shape[-1]},
    )


def order_study(
    blocks: Float[Array, "L S n n"],
    *,
    alphas: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
    orders: Sequence[tuple[By, bool, int]] = ORDER_SWEEP,
    on: On = "J",
) -> xr.Dataset:
    """Sweep the order of the eigenvalues in partial interventions, in all layers.

    Parameters
    ----------
    blocks : (L, S, n, n).
    alphas : what is left of N.
    orders : (by, descending, seed), as in `reorder`.
    on : "J" or "A"; for "A" the order is that of the eigenvalues of J - I.

    Returns
    -------
    Dataset over (order, alpha, sample): effective_rank of the product of Q (B + D + alpha N) Q^T; over (order, sample)
    normal_effective_rank, of Q B Q^T, and above_share, norm(N) / norm(T) averaged over layers.
    """
    _check(blocks)
    groups = [_orders(some, places, alphas, orders, on) for some, places in _groups(blocks)]
    partial, normal, share = (np.concatenate(part, axis=-1) for part in zip(*groups, strict=True))
    names = [_order_name(*one) for one in orders]
    return xr.Dataset(
        {
            "effective_rank": (("order", "alpha", "sample"), partial),
            "normal_effective_rank": (("order", "sample"), normal),
            "above_share": (("order", "sample"), share),
        },
        coords={"order": names, "alpha": list(alphas)},
        attrs={"on": on, "layers": len(blocks), "width": blocks.shape[-1]},
    )


def _groups(blocks) -> Iterator[tuple[Array, Array]]:
    """Give a few samples at a time: their blocks (L, s, n, n), and the places (L, s) of these among all."""
    places = places_of(blocks)
    count = blocks.shape[1]
    wide = max(1, HELD * count // max(1, blocks.nbytes))
    wide = math.ceil(count / math.ceil(count / wide))  # groups of one size, but for the last: a program serves all
    for start in range(0, count, wide):
        yield blocks[:, start : start + wide], places[:, start : start + wide]


def _measure(blocks, places, settings, wanted, sites, tick) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Give the numbers of some samples: each (surrogate, site, s), and the norm ratios (surrogate, s)."""
    prepared = prepare(blocks, on=settings.on, order=settings.order, descending=settings.descending, places=places)
    turned = {"draws": settings.draws, "seed": settings.seed, "places": places}
    before = product_ranks(blocks, **turned)
    size = jnp.linalg.norm(blocks, axis=(-2, -1))
    rows = [_row(before, before)] * len(sites)
    norms = [np.ones(blocks.shape[1])]
    for name, alpha in wanted[1:]:
        made = surrogate(prepared, name, alpha=alpha, keep_norm=settings.keep_norm, seed=settings.seed)
        norms.append(np.asarray(jnp.mean(jnp.linalg.norm(made, axis=(-2, -1)) / size, axis=0)))
        for chosen in sites:
            factors = jnp.where(jnp.asarray(chosen)[:, None, None, None], made, blocks)
            rows.append(_row(before, product_ranks(factors, **turned)))
            tick(len(rows))
    shape = (len(wanted), len(sites), blocks.shape[1])
    return {key: np.stack([row[key] for row in rows]).reshape(shape) for key in rows[0]}, np.stack(norms)


def _orders(blocks, places, alphas, orders, on) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give the numbers of the order sweep for some samples: (order, alpha, s), (order, s), (order, s)."""
    first = prepare(blocks, on=on, order="given", places=places)
    partial, normal, share = [], [], []
    for by, descending, seed in orders:
        prepared = reordered(first, by, descending=descending, order_seed=seed)
        partial.append([_rank(surrogate(prepared, "schur", alpha=alpha)) for alpha in alphas])
        normal.append(_rank(surrogate(prepared, "normal")))
        share.append(_share(prepared))
    return np.array(partial), np.array(normal), np.array(share)


def _wanted(settings) -> list[tuple[Name, float | None]]:
    wanted: list[tuple[Name, float | None]] = [("actual", None)]
    for name in settings.names:
        wanted += [(name, alpha) for alpha in settings.alphas] if name.endswith("schur") else [(name, None)]
    return wanted


def _label(name: Name, alpha: float | None) -> str:
    return name if alpha is None else f"{name} {alpha:g}"


def _order_name(by: By, descending: bool, seed: int) -> str:
    return {"given": by, "random": f"{by} {seed}"}.get(by, f"{by} {'down' if descending else 'up'}")


def _row(before, after) -> dict[str, np.ndarray]:
    whole, law = effect_on_effective_rank(before, after), effect_on_participation_ratio(before, after)
    found = {
        "effective_rank": after.effective_rank,
        "participation_ratio": after.participation_ratio,
        "rotated_effective_rank": after.rotated_effective_rank.mean(axis=0),
        "rotated_effective_rank_sd": _sd(after.rotated_effective_rank),
        "rotated_participation_ratio": after.rotated_participation_ratio.mean(axis=0),
        "rotated_participation_ratio_sd": _sd(after.rotated_participation_ratio),
        "free_participation_ratio": after.free,
        "outlier": after.outlier,
        "effect": whole.total,
        "effect_single": whole.single,
        "effect_alignment": whole.alignment,
        "participation_effect": law.total,
        "participation_effect_single": law.single,
        "participation_effect_alignment": law.alignment,
    }
    return {name: np.asarray(value) for name, value in found.items()}


def _sd(draws):
    return jnp.std(draws, axis=0, ddof=1) if len(draws) > 1 else jnp.full(draws.shape[1:], jnp.nan)


def _rank(factors) -> np.ndarray:
    return np.asarray(rank.effective_rank(propagate.product_log_singular_values(factors), log=True))


def _share(prepared: Prepared) -> np.ndarray:
    above = jnp.linalg.norm(prepared.split.above, axis=(-2, -1))
    return np.asarray(jnp.mean(above / jnp.linalg.norm(prepared.spectrum.T, axis=(-2, -1)), axis=0))


def _plain(value):
    return list(value) if isinstance(value, tuple) else int(value) if isinstance(value, bool) else value


def _check(blocks):
    if blocks.ndim != 4 or blocks.shape[-1] != blocks.shape[-2] or not blocks.size:
        msg = f"blocks: got an array of shape {blocks.shape}; allowed (layers, samples, n, n), first layer first, "
        msg += "at least one of each"
        raise InputError(msg)
