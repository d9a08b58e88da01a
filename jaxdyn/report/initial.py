"""Stage 7 of 7: null N5 as figures and tables show it: what the same run gives with random weights, seed by seed.

Each seed's samples are averaged first; the spread is that of the seeds, never of the prompts. With K seeds of mean m
and standard deviation s, one more initialisation is expected within m ± t_(K-1) s sqrt(1 + 1/K) (95 %): the band. The
trained model less m has as its interval both of what it is uncertain by, half widths added in squares: that spread, and
the articles, each less its own mean over the seeds.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.special import stdtrit

from jaxdyn.errors import InputError
from jaxdyn.store import StoreError, describe, open_tree
from jaxdyn.store.initial import INIT, member, seeds_of

from .captions import setting
from .profiles import CONFIDENCE, available_parts, done_samples, finite_mean, interval, values_of

if TYPE_CHECKING:
    from .source import Source

SAME = ("operator", "derivative", "tokens", "texts_hash", "layers", "parts", "dtype", "max_tokens", "draws", "truncate")
"""Settings in which a run and its initialisations must agree."""


@dataclass(frozen=True)
class Initial:
    """The finished seeds beside a store.

    Attributes
    ----------
    seeds : their numbers.
    wanted : how many the run was asked for.
    roots : each seed's samples, those that the run of the trained model has.
    products : each seed's running products; empty where none are kept.
    """

    seeds: tuple[int, ...]
    wanted: int
    roots: tuple[xr.Dataset, ...]
    products: tuple[xr.Dataset, ...] = ()

    def caption(self, mark: str) -> str:
        """Say what N5 is, how many seeds it has and how it is drawn; empty where no seed is finished."""
        if not self.seeds:
            return ""
        unfinished = f" ({self.wanted} were asked for)" if len(self.seeds) < self.wanted else ""
        return (
            f"N5 (random initialisation by the family's rule, same operator, prompts and tokens): {mark}; "
            f"{len(self.seeds)} seeds{unfinished}, each averaged over the samples; the spread is between seeds."
            + (" No band with one seed." if len(self.seeds) == 1 else "")
        )


@dataclass(frozen=True)
class Level:
    """What initialisation gives of one measure, by layer.

    Attributes
    ----------
    mean, sd : (L,), over the seeds; sd is NaN with one.
    low, high : (L,), 95 % interval of one more seed; NaN with one.
    excess : (L,), the trained model less `mean`.
    excess_low, excess_high : (L,), its 95 % interval; NaN with one seed or one article.
    """

    mean: Float[np.ndarray, " L"]
    sd: Float[np.ndarray, " L"]
    low: Float[np.ndarray, " L"]
    high: Float[np.ndarray, " L"]
    excess: Float[np.ndarray, " L"]
    excess_low: Float[np.ndarray, " L"]
    excess_high: Float[np.ndarray, " L"]

    @property
    def stands_out(self) -> np.ndarray:
        """Whether the interval of the excess leaves out 0, (L,) of bool: the trained model is beyond all seeds then."""
        return (self.excess_low > 0) | (self.excess_high < 0)


def open_initial(folder: Path, root: xr.Dataset) -> Initial | None:
    """Open the finished seeds in `folder/init.zarr` beside the store whose finished samples are `root`.

    Raises
    ------
    StoreError : what is there was not made with the settings of the store.
    """
    place = folder / INIT
    wanted = seeds_of(place)
    if not wanted:
        return None
    seeds, roots, products = [], [], []
    for seed in wanted:
        path = place / member(seed)
        if not path.exists() or not describe(path).complete:
            continue
        tree = open_tree(path)
        try:
            own = done_samples(tree)
        except InputError as error:
            msg = f"{path}: {error}"
            raise StoreError(msg) from error
        if different := [name for name in SAME if setting(own, name) != setting(root, name)]:
            msg = (
                f"{path} was made with other settings than the store beside it ({', '.join(different)}); remove "
                f"{place}, or make it again with --compare-init"
            )
            raise StoreError(msg)
        chosen = np.flatnonzero(np.isin(own["sample"].values, root["sample"].values))
        seeds.append(seed)
        roots.append(own.isel(sample=chosen))
        if "cumulative" in tree.children:
            products.append(tree["cumulative"].to_dataset().isel(prompt_sample=chosen))
    return Initial(tuple(seeds), len(wanted), tuple(roots), tuple(products))


def level(init: Initial | None, root: xr.Dataset, name: str, part: str, *, pooled: bool = False, **at) -> Level | None:
    """Return what initialisation gives of one stored variable; None where no seed is finished or has it.

    Parameters
    ----------
    init, root : the seeds, and the trained model's samples.
    name, part : a measure, or with `rung=` one of its excesses.
    pooled : average over the layers first.
    """
    roots = [] if init is None else [one for one in init.roots if name in one and available_parts(one, (part,))]
    if not roots:
        return None
    drawn = np.stack([values_of(one, name, part, pooled=pooled, **at) for one in roots])
    return _level(values_of(root, name, part, pooled=pooled, **at), drawn, np.asarray(root["article"].values))


def product_level(source: "Source", trained: xr.Dataset, measure: str) -> Level | None:
    """Return what initialisation gives of a measure of the running product, by depth; None without seeds."""
    groups = [] if source.init is None else [one for one in source.init.products if measure in one]
    if not groups or trained.sizes["prompt_sample"] != source.root.sizes["sample"]:
        return None
    drawn = np.stack([one[measure].transpose("depth", "prompt_sample").values for one in groups])
    own = trained[measure].transpose("depth", "prompt_sample").values
    return _level(own.astype(np.float64), drawn.astype(np.float64), np.asarray(source.root["article"].values))


def spread(drawn: Float[np.ndarray, "K L"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over K seeds, their standard deviation, and the half width of the 95 % interval of one more; (L,) each."""
    count = len(drawn)
    mean = drawn.mean(axis=0)
    if count < 2:
        return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    sd = drawn.std(axis=0, ddof=1)
    return mean, sd, stdtrit(count - 1, (1 + CONFIDENCE) / 2) * sd * np.sqrt(1 + 1 / count)


def _level(own: Float[np.ndarray, "L S"], drawn: Float[np.ndarray, "K L S"], article: np.ndarray) -> Level:
    """Compare the samples of the trained model with those of the seeds."""
    mean, sd, half = spread(finite_mean(drawn))
    excess = finite_mean(own) - mean
    paired, low, _ = interval(own - finite_mean(np.moveaxis(drawn, 0, -1)), article)
    both = np.hypot(half, paired - low)
    return Level(mean, sd, mean - half, mean + half, excess, excess - both, excess + both)
