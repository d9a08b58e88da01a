"""The table by layer and the JSON of --json hold the store's numbers, in the room a terminal has."""

import json

import numpy as np
import pytest
from rich.console import Console

from jaxdyn import store
from jaxdyn.report import tables
from tests.report import synthetic


def printed(tree, width=100, **options):
    """The table as a terminal of this width shows it."""
    console = Console(width=width, record=True, file=open("/dev/null", "w"), color_system=None)
    with console.file:
        console.print(tables.by_layer(tree, **options))
        return console.export_text()


def test_table_fits_and_shows_mean_null_and_excess(tree):
    text = printed(tree)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    root = tree.to_dataset()
    assert [line.split()[0] for line in lines if line.split()[:1] and line.split()[0].isdigit()] == [*"012345"] * 2
    for part, first in (("block", 2), ("update", 10)):
        for layer in range(6):
            cells = lines[first + layer].split()
            assert cells[0] == str(layer)
            for column, measure in enumerate(tables.COLUMNS):
                at = root.sel(part=part, layer=layer)
                mean, null, excess = (float(cell.rstrip("*")) for cell in cells[1 + 3 * column : 4 + 3 * column])
                one = at[measure].mean()
                n1 = at[f"{measure}_null"].sel(rung="N1").mean()
                assert mean == pytest.approx(float(one), rel=6e-3, abs=6e-4)
                assert null == pytest.approx(float(n1), rel=6e-3, abs=6e-4)
                assert excess == pytest.approx(float(one - n1), rel=6e-3, abs=6e-4)
                star = abs(float(one - n1)) > 2 * float(at[f"{measure}_null_sd"].sel(rung="N1").mean())
                assert cells[3 + 3 * column].endswith("*") == star
    assert "*" in lines[7]
    assert "In-context Jacobian" in text


def test_measures_that_do_not_fit_go_to_further_tables(tree):
    text = printed(tree, measures=(*tables.COLUMNS, "symmetry_gap", "spectral_radius", "absent"))
    assert max(map(len, text.splitlines())) <= 100
    assert text.count("block J") == 2
    assert text.count("spectral radius") == 2
    assert "absent" not in text


def test_without_n1_the_table_says_so(unfinished):
    text = " ".join(printed(store.open_tree(unfinished)).split())
    assert "Each cell: mean. N1 was not computed" in text
    assert "The run is not finished: 8 of 16 samples." in text


def test_json_holds_every_measure_and_null(tree):
    table = json.loads(json.dumps(tables.as_dict(tree), allow_nan=False))
    assert table["layer"] == list(range(6))
    assert set(table["parts"]) == {"block", "update"}
    assert set(table["parts"]["update"]) == set(synthetic.MEASURES)
    root = tree.to_dataset().sel(part="update")
    entry = table["parts"]["update"]["effective_rank"]
    np.testing.assert_allclose(entry["mean"], root["effective_rank"].mean("sample").values, rtol=1e-6)
    n1 = root["effective_rank_null"].sel(rung="N1").mean("sample").values
    np.testing.assert_allclose(entry["nulls"]["N1"]["mean"], n1, rtol=1e-6)
    np.testing.assert_allclose(np.subtract(entry["mean"], n1), entry["nulls"]["N1"]["excess"], atol=1e-5)
    assert entry["count"] == [16] * 6
    assert "In-context Jacobian" in table["caption"]


def test_json_of_a_single_sample_has_none_for_what_is_not_there(tmp_path):
    path = synthetic.write(tmp_path / "results.zarr", samples=1, unit_size=1, layers=1, draws=0)
    entry = tables.as_dict(store.open_tree(path))["parts"]["block"]["self_alignment"]
    assert entry["low"] == [None]
    assert list(entry["nulls"]) == ["N0"]
    json.dumps(entry, allow_nan=False)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.7612, ".761"), (-0.0214, "-.021"), (-0.0001, ".000"), (0.9996, "1.00"), (1.094, "1.09"), (45.21, "45.2"),
     (145.4, "145"), (9.996, "10.0"), (-12.34, "-12.3"), (12345.6, "12346"), (1.2e6, "1e+06"), (np.nan, "-"),
     (np.inf, "-")],
)  # fmt: skip
def test_numbers_are_short(value, text):
    assert tables._short(value) == text
    if np.isfinite(value) and value > 0:
        assert tables._short(value, sign=True) == f"+{text}"
