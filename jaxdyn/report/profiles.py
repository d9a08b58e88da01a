"""Stage 7 of 7: what figures and tables show of a measure, one number a layer: mean, interval, nulls, excess.

Only averages over the samples of stored numbers; no measure and no null is computed here.
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from scipy import stats

from jaxdyn.errors import InputError

TITLES = {
    "henrici_normalized": "Henrici departure, normalised",
    "complex_fraction": "complex eigenvalues, share",
    "mean_rotation_angle": "mean |arg λ|",
    "self_alignment": "self-alignment",
    "symmetry_gap": "symmetry gap",
    "effective_rank": "effective rank",
    "spectral_radius": "spectral radius",
    "numerical_abscissa": "numerical abscissa",
    "participation_ratio": "participation ratio",
    "stable_rank": "stable rank",
    "spectral_norm": "spectral norm",
    "antisymmetric_share": "antisymmetric share",
    "imaginary_energy": "imaginary energy",
    "eigenvector_condition": "eigenvalue condition, median",
    "kreiss_scaled": "Kreiss constant, iterated block",
}
"""Short names for panels and columns; other measures show their own name."""

PART_TITLES = {"block": "block J", "update": "update J - I", "attention": "attention J", "mlp": "MLP J"}
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Null:
    """A null by layer, averaged over samples: its mean, its spread over draws, and the measure less its mean."""

    mean: Float[np.ndarray, " L"]
    sd: Float[np.ndarray, " L"]
    excess: Float[np.ndarray, " L"]


@dataclass(frozen=True)
class Profile:
    """One measure of one part by layer.

    Attributes
    ----------
    layer : (L,), block numbers.
    mean : (L,), mean over the samples that have a value.
    low, high : (L,), 95 % interval of the mean, articles as replicates; NaN with fewer than two.
    count : (L,), samples that have a value.
    nulls : by rung; a rung that was not computed is absent.
    """

    measure: str
    part: str
    units: str
    layer: Int[np.ndarray, " L"]
    mean: Float[np.ndarray, " L"]
    low: Float[np.ndarray, " L"]
    high: Float[np.ndarray, " L"]
    count: Int[np.ndarray, " L"]
    nulls: dict[str, Null]

    @property
    def title(self) -> str:
        """Short name for a panel or a column."""
        return TITLES.get(self.measure, self.measure)


def done_samples(tree: xr.DataTree) -> xr.Dataset:
    """Return the root with the samples that are written; refuses a store in which none is."""
    root = tree.to_dataset()
    done = np.asarray(root["done"].values)
    if not done.any():
        msg = "the store holds no finished sample yet; finish the run (--resume) before asking for its report"
        raise InputError(msg)
    return root.isel(sample=np.flatnonzero(done))


def available_parts(root: xr.Dataset, parts: tuple[str, ...]) -> list[str]:
    """Return those parts that the store has, in the order asked."""
    return [part for part in parts if part in root["part"].values.tolist()]


def profile(root: xr.Dataset, measure: str, part: str) -> Profile:
    """Summarise one measure by layer over the samples of `root` (see `done_samples`)."""
    selected = root.sel(part=part)
    values = _by_layer(selected[measure])
    mean, low, high = _interval(values, np.asarray(root["article"].values))
    nulls = {}
    for rung in root["rung"].values.tolist() if f"{measure}_null" in root else []:
        mean_null, excess = (
            _mean(_by_layer(selected[f"{measure}_{kind}"].sel(rung=rung))) for kind in ("null", "excess")
        )
        drawn = f"{measure}_null_sd" in root  # a closed form alone has no spread
        sd = _mean(_by_layer(selected[f"{measure}_null_sd"].sel(rung=rung))) if drawn else np.zeros_like(mean_null)
        null = Null(mean_null, sd, excess)
        if np.isfinite(null.mean).any():
            nulls[rung] = null
    return Profile(
        measure=measure,
        part=part,
        units=str(root[measure].attrs.get("units", "1")),
        layer=np.asarray(root["layer"].values),
        mean=mean,
        low=low,
        high=high,
        count=np.isfinite(values).sum(axis=1),
        nulls=nulls,
    )


def _by_layer(array):
    return np.asarray(array.transpose("layer", "sample").values, dtype=np.float64)


def _mean(values):
    """Mean over the last axis of the finite values; NaN, without a warning, where there is none."""
    finite = np.isfinite(values)
    total, count = np.where(finite, values, 0.0).sum(axis=-1), finite.sum(axis=-1)
    return np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)


def _interval(values, article):
    """Mean over samples and its t interval from the article-clustered standard error.

    var(mean) = A/(A-1) sum_a (sum_{i in a} (x_i - mean))^2 / N^2, the usual one where each article gives one sample.
    """
    mean = _mean(values)
    finite = np.isfinite(values)
    residual = np.where(finite, values - mean[:, None], 0.0)
    member = article[None, :] == np.unique(article)[:, None]
    clusters = (member[:, None, :] & finite).any(axis=-1).sum(axis=0)
    squares = ((residual @ member.T) ** 2).sum(axis=1)
    enough = np.where(clusters > 1, clusters, 2)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, enough - 1) * np.sqrt(squares * enough / (enough - 1))
    half = np.where(clusters > 1, half / np.maximum(finite.sum(axis=1), 1), np.nan)
    return mean, mean - half, mean + half
