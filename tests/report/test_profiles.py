"""What figures and tables show of a measure, against the same numbers worked out by hand."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from jaxdyn import store
from jaxdyn.errors import InputError
from jaxdyn.report.profiles import done_samples, profile
from tests.report import synthetic


def _root(values, article, nulls=None):
    """A root dataset with one part, one measure of shape (layer, sample), and optionally its nulls."""
    values = np.asarray(values, dtype=float)[None]
    dims = ("part", "layer", "sample")
    variables: dict[str, tuple] = {"m": (dims, values, {"units": "rad"})}
    for kind, array in (nulls or {}).items():
        variables[f"m_{kind}"] = ((*dims, "rung"), np.asarray(array, dtype=float)[None])
    coordinates = {"part": ["block"], "layer": range(values.shape[1]), "article": ("sample", article)}
    return xr.Dataset(variables, {**coordinates, "rung": ["N0", "N1"]})


def test_interval_of_independent_articles_is_the_usual_t_interval(rng):
    values = rng.standard_normal((3, 10))
    shown = profile(_root(values, np.arange(10)), "m", "block")
    half = stats.t.ppf(0.975, 9) * values.std(axis=1, ddof=1) / np.sqrt(10)
    np.testing.assert_allclose(shown.mean, values.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(shown.high - shown.mean, half, rtol=1e-12)
    np.testing.assert_allclose(shown.mean - shown.low, half, rtol=1e-12)
    assert shown.units == "rad"


def test_copies_within_an_article_do_not_narrow_the_interval(rng):
    values = rng.standard_normal((2, 6))
    once = profile(_root(values, np.arange(6)), "m", "block")
    copied = profile(_root(np.repeat(values, 5, axis=1), np.repeat(np.arange(6), 5)), "m", "block")
    np.testing.assert_allclose(copied.high, once.high, rtol=1e-12)
    naive = profile(_root(np.repeat(values, 5, axis=1), np.arange(30)), "m", "block")
    assert (naive.high - naive.mean < 0.6 * (once.high - once.mean)).all()


def test_failed_samples_are_left_out_and_counted():
    shown = profile(_root([[1.0, np.nan, 3.0], [np.nan] * 3, [np.nan, 2.0, np.nan]], [0, 1, 2]), "m", "block")
    np.testing.assert_array_equal(shown.count, [2, 0, 1])
    np.testing.assert_array_equal(shown.mean, [2.0, np.nan, 2.0])
    half = stats.t.ppf(0.975, 1) * np.sqrt(2) / np.sqrt(2)
    np.testing.assert_allclose(shown.high, [2 + half, np.nan, np.nan])


def test_nulls_are_averaged_by_rung_and_a_rung_not_computed_is_absent():
    values = [[1.0, 3.0]]
    null = np.stack([[[5.0, 7.0]], [[np.nan, np.nan]]], axis=-1)
    nulls = {"null": null, "null_sd": 0 * null + 0.5, "excess": np.asarray(values)[..., None] - null}
    shown = profile(_root(values, [0, 1], nulls), "m", "block")
    assert list(shown.nulls) == ["N0"]
    assert shown.nulls["N0"].mean == 6.0
    assert shown.nulls["N0"].sd == 0.5
    assert shown.nulls["N0"].excess == -4.0


def test_only_done_samples_count(unfinished, tmp_path):
    assert done_samples(store.open_tree(unfinished)).sizes["sample"] == 8
    empty = synthetic.write(tmp_path / "results.zarr", samples=2, unit_size=2, layers=1, units_done=0)
    with pytest.raises(InputError, match="no finished sample yet"):
        done_samples(store.open_tree(empty))
