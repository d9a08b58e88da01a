"""Stage 7 of 7: what figures and tables show of a measure, one number a layer: mean, interval, nulls, excess.

Only averages over the samples of stored numbers; no measure and no null is computed here.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from scipy.special import stdtrit

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
LARGE = {"eig", "sv", "row", "column"}
"""Dimensions of arrays that are read in pieces."""


@dataclass(frozen=True)
class Null:
    """A null by layer, averaged over samples.

    Attributes
    ----------
    mean, sd : (L,), its mean and its standard deviation over draws, the latter of one matrix.
    excess : (L,), the measure less the null's mean.
    low, high : (L,), 95 % interval of the excess, articles as replicates; NaN with fewer than two.
    floor : (L,), sampling floor (N6): half the difference of the excess between two halves of the articles; NaN where
        a half is empty.
    """

    mean: Float[np.ndarray, " L"]
    sd: Float[np.ndarray, " L"]
    excess: Float[np.ndarray, " L"]
    low: Float[np.ndarray, " L"]
    high: Float[np.ndarray, " L"]
    floor: Float[np.ndarray, " L"]

    @property
    def stands_out(self) -> np.ndarray:
        """Whether the excess is beyond the floor and 2 sd of the draws, and its interval leaves out 0; (L,) of bool."""
        beyond = np.abs(self.excess) > np.maximum(np.nan_to_num(self.floor), 2 * np.nan_to_num(self.sd))
        return beyond & ((self.low > 0) | (self.high < 0))


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
    """Return the root with the samples that are written, its numbers in memory; refuses a store in which none is.

    What has a value for every eigenvalue or singular value stays on disk until it is asked for.
    """
    root = tree.to_dataset()
    done = np.asarray(root["done"].values)
    if not done.any():
        msg = "the store holds no finished sample yet; finish the run (--resume) before asking for its report"
        raise InputError(msg, page="docs/report.md")
    rows = np.flatnonzero(done)
    whole = rows[-1] - rows[0] + 1 == len(rows)  # a slice leaves large arrays where they are
    root = root.isel(sample=slice(int(rows[0]), int(rows[-1]) + 1) if whole else rows)
    small = {name: root[name].load() for name in root.data_vars if not LARGE & set(root[name].dims)}
    return root.assign(small)


def available_parts(root: xr.Dataset, parts: tuple[str, ...]) -> list[str]:
    """Return those parts that the store has, in the order asked."""
    return [part for part in parts if part in root["part"].values.tolist()]


def profile(root: xr.Dataset, measure: str, part: str, *, pooled: bool = False) -> Profile:
    """Summarise one measure by layer over the samples of `root`.

    Parameters
    ----------
    root : samples that are done (see `done_samples`), with the coordinate `article`.
    measure, part : which numbers.
    pooled : average over the layers first, sample by sample: one row, of layer -1.
    """
    read = partial(values_of, root, part=part, pooled=pooled)
    values, article = read(measure), np.asarray(root["article"].values)
    mean, low, high = interval(values, article)
    nulls = {}
    for index, rung in enumerate(root["rung"].values.tolist() if f"{measure}_null" in root else []):
        mean_null = finite_mean(read(f"{measure}_null", rung=index))
        each = read(f"{measure}_excess", rung=index)
        drawn = f"{measure}_null_sd" in root  # a closed form alone has no spread
        sd = finite_mean(read(f"{measure}_null_sd", rung=index)) if drawn else np.zeros_like(mean_null)
        null = Null(mean_null, sd, *interval(each, article), split_floor(each, article))
        if np.isfinite(null.mean).any():
            nulls[rung] = null
    return Profile(
        measure=measure,
        part=part,
        units=str(root.variables[measure].attrs.get("units", "1")),
        layer=np.array([-1]) if pooled else np.asarray(root["layer"].values),
        mean=mean,
        low=low,
        high=high,
        count=np.isfinite(values).sum(axis=1),
        nulls=nulls,
    )


def values_of(root: xr.Dataset, name: str, part: str, *, pooled: bool = False, **at: int) -> Float[np.ndarray, "L S"]:
    """Read one variable of one part as (L, S); `at` indexes its other dimensions, `pooled` averages over layers."""
    stored = root.variables[name]  # without its coordinates: a report reads thousands of pieces
    index = {"part": root["part"].values.tolist().index(part), **at}
    values = stored.isel(index).transpose("layer", "sample").values.astype(np.float64)
    return finite_mean(values.T)[None] if pooled else values


def interval(
    values: Float[np.ndarray, "L S"], article: Int[np.ndarray, " S"]
) -> tuple[Float[np.ndarray, " L"], Float[np.ndarray, " L"], Float[np.ndarray, " L"]]:
    """Mean over samples and its t interval from the article-clustered standard error.

    var(mean) = A/(A-1) sum_a (sum_{i in a} (x_i - mean))^2 / N^2, the usual one where each article gives one sample.

    Parameters
    ----------
    values : (L, S), NaN for samples that failed.
    article : (S,), which samples belong together.

    Returns
    -------
    mean, low, high : (L,); low and high are NaN with fewer than two articles.
    """
    mean = finite_mean(values)
    finite = np.isfinite(values)
    residual = np.where(finite, values - mean[:, None], 0.0)
    order = np.argsort(article, kind="stable")
    _, starts = np.unique(article[order], return_index=True)
    clusters = (np.add.reduceat(finite[:, order].astype(int), starts, axis=1) > 0).sum(axis=1)
    squares = (np.add.reduceat(residual[:, order], starts, axis=1) ** 2).sum(axis=1)
    enough = np.where(clusters > 1, clusters, 2)
    half = stdtrit(enough - 1, (1 + CONFIDENCE) / 2) * np.sqrt(squares * enough / (enough - 1))
    half = np.where(clusters > 1, half / np.maximum(finite.sum(axis=1), 1), np.nan)
    return mean, mean - half, mean + half


def split_floor(values: Float[np.ndarray, "L S"], article: Int[np.ndarray, " S"]) -> Float[np.ndarray, " L"]:
    """Half the absolute difference between the means over every other article (N6); NaN where a half is empty."""
    _, number = np.unique(article, return_inverse=True)
    even = number % 2 == 0
    return np.abs(finite_mean(values[:, even]) - finite_mean(values[:, ~even])) / 2


def finite_mean(values: Float[np.ndarray, "*L S"]) -> Float[np.ndarray, "*L"]:
    """Mean over the last axis of the finite values; NaN, without a warning, where there is none."""
    finite = np.isfinite(values)
    total, count = np.where(finite, values, 0.0).sum(axis=-1), finite.sum(axis=-1)
    return np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)
