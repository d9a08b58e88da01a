"""D6, D7 of a model: phase portraits, rotation counts, and which units turn more or less than their own random walk.

A count is taken of the mean trajectory of a unit, and of every sample's trajectory and then averaged. Both are tested
two-sided against the walk null of the same increments (`rotation_nulls`), with two corrections for the number of units:
Benjamini and Hochberg, who bound the share of false discoveries, and max-T, which bounds the chance of a single one
and uses how the units depend on one another. The first cannot resolve p below 2 / (draws + 1); the second finds
single units.
"""

import numpy as np
import xarray as xr

from .exact import ExactSum, exact_mean
from .rotation import phase_portrait, rotation_count
from .rotation_nulls import NULLS, benjamini_hochberg, found_by_chance, max_t, null_counts, p_values
from .stages import Inputs, labelled

LEVEL = 0.05
BUDGET = 4e9
"""Most arctangents of the null of single samples; beyond, fewer samples are tested."""

TESTED = ("trained", "random")
KINDS = ("mean", "sample")
"""Of the mean trajectory; of single samples, averaged."""

AVERAGE = ("measured", "null", "null_sd", "p")

COUNTS = ("found_bh", "more_bh", "less_bh", "chance_bh", "found_max_t", "more_max_t", "less_max_t", "uncorrected")


def stage(inputs: Inputs) -> xr.Dataset:
    """Count and test."""
    rows, states, settings = inputs.rows("shuffled"), inputs.states, inputs.settings
    tested = [row for row in rows if row in TESTED]
    count: dict[str, dict[str, np.ndarray]] = {kind: {} for kind in KINDS}
    portrait: dict[str, dict[str, np.ndarray]] = {"x": {}, "y": {}}
    nulls: dict[str, dict[str, np.ndarray]] = {}
    summary: dict[str, dict[str, np.ndarray]] = {}
    average: dict[str, dict[str, np.ndarray]] = {}
    steps, step = len(rows) + len(tested) * 4, 0

    def keep(name: str, row: str, values: np.ndarray) -> None:
        nulls.setdefault(name, {})[row] = values

    for row in rows:
        mean, count["sample"][row] = _read(states, row)
        portrait["x"][row], portrait["y"][row] = phase_portrait(mean)
        count["mean"][row] = rotation_count(mean)
        step += 1
        inputs.tick("rotation", step, steps)
        if row in tested:
            for null in NULLS:
                drawn = null_counts(mean, null, settings.draws, settings.seed)
                keep(f"mean_{null}", row, drawn.mean(axis=0))
                keep(f"mean_{null}_sd", row, drawn.std(axis=0))
                if null != "shuffle":
                    verdict = against_null(count["mean"][row], drawn)
                    for name in ("p", "p_max_t", "bh"):
                        keep(f"mean_{null}_{name}", row, verdict[name])
                    summary.setdefault(f"mean_{null}", {})[row] = verdict["counts"]
                    average.setdefault(f"mean_{null}", {})[row] = verdict["average"]
                step += 1
                inputs.tick("rotation", step, steps)
            some = _some(states, row, settings.sample_draws)
            own = exact_mean(rotation_count(some), 0)
            drawn = null_counts(some, "walk", settings.sample_draws, settings.seed)
            verdict = against_null(own, drawn)
            for name, values in (("", drawn.mean(axis=0)), ("_sd", drawn.std(axis=0))):
                keep(f"sample_walk{name}", row, values)
            for name in ("p", "p_max_t", "bh"):
                keep(f"sample_walk_{name}", row, verdict[name])
            summary.setdefault("sample_walk", {})[row] = verdict["counts"]
            average.setdefault("sample_walk", {})[row] = verdict["average"]
            step += 1
            inputs.tick("rotation", step, steps)
    unit = ("control", "coordinate")
    data = {
        f"count_{kind}": labelled(
            f"rotation count R of the {words}", unit, inputs.by_control(count[kind]), "D7", "turn"
        )
        for kind, words in (("mean", "mean trajectory"), ("sample", "samples, averaged"))
    }
    data |= {name: labelled(_words(name), unit, inputs.by_control(by_row), "D7") for name, by_row in nulls.items()}
    for name, by_row in portrait.items():
        words = f"phase portrait of the mean trajectory, {'position' if name == 'x' else 'speed'} from the start"
        data[f"portrait_{name}"] = labelled(
            words, ("control", "coordinate", "point"), inputs.by_control(by_row), "D6", "activation"
        )
    tests = list(summary)
    table = np.stack([inputs.by_control(summary[name]) for name in tests])
    data["units"] = labelled("units by outcome of a test", ("rotation_test", "control", "outcome"), table, "D7")
    table = np.stack([inputs.by_control(average[name]) for name in tests])
    words = "R averaged over units, against the same average of null draws"
    data["average"] = labelled(words, ("rotation_test", "control", "statistic"), table, "D7")
    names = {"rotation_test": tests, "outcome": list(COUNTS), "statistic": list(AVERAGE)}
    return xr.Dataset(data, names).assign_attrs(
        sign="counter-clockwise is positive, position to the right, speed upwards; a sine of f cycles has R = -f",
        level=LEVEL,
        draws=settings.draws,
        sample_draws=settings.sample_draws,
        samples_tested=len(_chosen(states, settings.sample_draws)),
    )


def against_null(measured: np.ndarray, null: np.ndarray, level: float = LEVEL) -> dict[str, np.ndarray]:
    """Test every unit against its own null, two-sided.

    Parameters
    ----------
    measured : (D,), counts.
    null : (B, D), counts of null draws.
    level : false discovery rate, and family-wise error of max-T.

    Returns
    -------
    p, p_max_t (D,); bh (D,): 1 rejected with more turns (R further below the null's mean), -1 with fewer, 0 not;
    average: of R over units, against the same average of each draw, as `AVERAGE` names them; counts: as `COUNTS` names
    them; chance_bh is how many Benjamini and Hochberg find in the null itself.
    """
    p, corrected = p_values(measured, null), max_t(measured, null)
    more = measured < null.mean(axis=0)  # R is negative: more turns, further down
    bh = benjamini_hochberg(p, rate=level)
    single = np.nan_to_num(corrected, nan=1.0) <= level
    found = {"found_bh": bh, "more_bh": bh & more, "less_bh": bh & ~more, "found_max_t": single,
             "more_max_t": single & more, "less_max_t": single & ~more,
             "uncorrected": np.nan_to_num(p, nan=1.0) <= level}  # fmt: skip
    counts = {name: float(which.sum()) for name, which in found.items()}
    counts["chance_bh"] = found_by_chance(null, rate=level)
    average, averages = exact_mean(measured, 0), exact_mean(null, 1)
    overall = p_values(average[None], averages[:, None])[0]
    return {
        "average": np.array([average, averages.mean(), averages.std(), overall]),
        "p": p,
        "p_max_t": corrected,
        "bh": np.where(bh, np.where(more, 1.0, -1.0), 0.0),
        "counts": np.array([counts[name] for name in COUNTS]),
    }


def _read(states, row: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean trajectory (D, P) and the mean over samples of each one's count (D,)."""
    bound = None
    for chunk in states.chunks(row):
        here = np.max(np.abs(chunk), axis=0)
        bound = here if bound is None else np.maximum(bound, here)
    assert bound is not None
    total = ExactSum(bound, states.samples)
    turns = ExactSum(np.full(bound.shape[1], float(len(bound))), states.samples)
    for chunk in states.chunks(row):
        total.add(chunk)
        turns.add(rotation_count(np.moveaxis(chunk, 1, 2)))
    return (total.total() / states.samples).T, turns.total() / states.samples


def _chosen(states, draws: int) -> np.ndarray:
    """Samples whose null is drawn: all, or evenly spaced ones within the budget."""
    most = max(8, int(BUDGET / (draws * states.width * states.points)))
    return np.unique(np.linspace(0, states.samples - 1, min(most, states.samples)).astype(int))


def _some(states, row: str, draws: int) -> np.ndarray:
    """Trajectories (S', D, P) of the chosen samples."""
    wanted, found, start = _chosen(states, draws), [], 0
    for chunk in states.chunks(row):
        here = wanted[(wanted >= start) & (wanted < start + len(chunk))] - start
        found.append(np.moveaxis(chunk[here], 1, 2))
        start += len(chunk)
    return np.concatenate(found)


def _words(name: str) -> str:
    kind, null, *what = name.split("_", 2)
    words = {"": "mean of the null", "sd": "sd of the null", "p": "two-sided p", "p_max_t": "p corrected by max-T",
             "bh": "rejected by Benjamini and Hochberg: 1 more turns, -1 fewer"}  # fmt: skip
    return f"{words[what[0] if what else '']}, {null} null, {'mean trajectory' if kind == 'mean' else 'samples'}"
