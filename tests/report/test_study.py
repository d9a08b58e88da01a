"""The study's page: the claims come first, numbers are the stored ones, it draws in a browser, words in captions."""

import json
import re

import numpy as np
import pytest
import xarray as xr

from jaxdyn.errors import InputError
from jaxdyn.report import study, trajectory
from jaxdyn.report.chart import as_plain
from jaxdyn.report.figures import draw_one
from jaxdyn.report.specification import specification_chart
from jaxdyn.store.dataset import write_dataset
from jaxdyn.study.conventions import every_convention
from jaxdyn.study.run import judged
from jaxdyn.study.survival import survival
from tests.report import browser
from tests.report.test_browser import visit
from tests.report.test_figures import NEVER, texts

ABOUT = {
    "model": "/some/where/small",
    "operator": "in-context",
    "texts": 9,
    "seed": 3,
    "bos": "True",
    "max_tokens": "7",
}


def claims():
    """Every claim not run but the first two: one explained, one far above, with a tag in its reason."""
    found = judged({})
    rows = {"number": (0.5, 0.9), "null": (0.49, 0.2), "excess": (0.01, 0.7), "excess_low": (0.0, 0.6)}
    for name, values in (rows | {"excess_high": (0.02, 0.8)}).items():
        found[name][:2] = list(values)
    for name in ("rung", "verdict", "because"):
        found[name] = found[name].astype(object)  # room for longer words
    found["rung"][:2] = ["N1", "N4"]
    found["verdict"][:2] = ["explained by N1", "above every null"]
    found["because"][1] = "<b>&"
    found["by_rung"][0, :2] = [0.3, 0.01]
    return found.assign_attrs(ABOUT)


def conventions():
    """One claim in two definitions; the second is above every null with the mean Jacobian."""
    every = every_convention(("in-context", "isolated"))
    rng = np.random.default_rng(0)
    excess = rng.normal(size=(len(every), 2)) * 0.01
    excess[3, 0] = np.nan
    verdict = [["explained by N1", "above every null" if one.average == "mean" else "undecided"] for one in every]
    axes = ("operator", "target", "metric", "average", "corpus")
    data = {"excess": excess, "excess_low": excess - 0.01, "excess_high": excess + 0.02, "verdict": verdict}
    labels = {axis: ("convention", [getattr(one, axis) for one in every]) for axis in axes}
    labels |= {"convention": [str(one) for one in every], "claim": ["alignment", "alignment, trace"]}
    labels |= {"of_claim": ("claim", ["alignment"] * 2), "margin": ("claim", [0.05] * 2)}
    found = xr.Dataset({name: (("convention", "claim"), value) for name, value in data.items()}, labels, ABOUT)
    return found.merge(survival(found, "in-context"))


def ladder():
    """Profiles of nine blocks: one leaves N1 in four layers, the other in none."""
    out = np.ones(9)
    out[[0, 4, 5, 6]] = 0.01
    profile = np.linspace(0.1, 0.4, 9)
    data = {"profile": [profile, profile], "profile_n1": [profile - 0.05, profile], "profile_p": [out, np.ones(9)]}
    trends = {"trend": ("series", [0.93, -0.1]), "trend_p": ("series", [0.078, 0.7])}
    arrays = {name: (("series", "layer"), np.array(value)) for name, value in data.items()}
    return xr.Dataset(arrays | trends, {"series": ["henrici", "alignment"]}, ABOUT)


def test_what_a_profile_says_stands_inside_its_axes():
    chart = study.profile_chart(ladder())
    assert [panel.note.split(";")[0] for panel in chart.panels] == [
        "leaves N1 in layers 0, 4 to 6",
        "leaves N1 in no layer",
    ]
    figure = draw_one(chart)
    figure.canvas.draw()
    for ax, panel in zip(figure.axes, chart.panels, strict=True):
        (note,) = [text for text in ax.texts if text.get_text().startswith("leaves N1")]
        assert note.get_text().replace("\n", "; ") == panel.note
        inside, around = note.get_window_extent(), ax.get_window_extent()
        assert around.x0 <= inside.x0 < inside.x1 <= around.x1


def over_training():
    one = claims()

    def at(run, step):
        return one.assign(number=one["number"] + 0.1 * run + step, loss=8.0 - step)

    runs = [[at(run, step) for step in (0, 1, 4)] for run in (0, 1)]
    dims = ("run", "step")
    data = {
        name: ((*dims, *runs[0][0][name].dims), np.array([[each[name].values for each in row] for row in runs]))
        for name in ("number", "by_rung", "loss")
    }
    labels = {"run": ["a", "b"], "step": [0, 1, 4], "claim": one["claim"].values, "rung_of": one["rung_of"].values}
    return xr.Dataset(data, labels, one.attrs)


def test_the_table_shows_what_is_stored_and_the_interval_in_margins():
    chart = study.claims_chart(claims())
    head, first, second, *rest = chart.table
    assert head[0] == "claim"
    assert first[2:] == ("0.500", "0.490 (N1)", "+0.010 [+0.000, +0.020]", "explained by N1")
    assert second[-1] == "above every null: <b>&"
    assert all(row[-1] == "not run" and row[2] == "" for row in rest)
    one = chart.panels[0].series[0]
    assert one.high is not None
    np.testing.assert_allclose(one.y[:2], [0.01 / 0.05, 0.7 / 0.02])
    np.testing.assert_allclose(one.high[:2], [0.02 / 0.05, 0.8 / 0.02])
    assert np.isnan(one.y[2:]).all()
    assert "small;" in chart.caption
    assert "some/where" not in chart.caption


def test_rungs_keep_the_order_of_the_ladder_and_leave_out_what_was_not_drawn():
    chart = study.rungs_chart(claims())
    assert [panel.title for panel in chart.panels] == ["depth gradient"]
    panel = chart.panels[0]
    assert panel.names == ("N0", "N1")
    np.testing.assert_allclose(panel.series[-1].y, [0.3, 0.01])
    np.testing.assert_allclose(panel.series[0].high, 0.05)


def test_the_curve_is_sorted_and_its_dots_are_the_choices():
    found = conventions()
    chart = specification_chart(found)
    for column, panel in enumerate(chart.panels):
        own = found["excess"].values[:, column]
        places = {float(x): float(y) for one in panel.series[1:] for x, y in zip(one.x, one.y, strict=True)}
        drawn = np.array([places[x] for x in sorted(places)])
        np.testing.assert_array_equal(drawn, np.sort(own[np.isfinite(own)]))
        at = np.argsort(own)[: len(drawn)]
        assert panel.grid is not None
        row = panel.names.index("isolated")
        np.testing.assert_array_equal(panel.grid[row], found["operator"].values[at] == "isolated")
        assert panel.grid.sum(axis=0).tolist() == [4.0] * len(drawn)  # one dot for each of four choices; one corpus
    assert [one.label for one in chart.panels[1].series] == ["margin", "above every null", "undecided"]


def test_the_table_of_survival_counts_conventions():
    chart = study.survival_chart(conventions())
    cells = dict(zip(chart.table[0], chart.table[1], strict=True))
    assert cells["average first"] == "1 of 1"
    assert cells["definition of the number"] == "0 of 1"
    assert cells["everything at once"] == "15 of 31, 8 opposed"
    assert cells["corpus"] == "-"


def test_over_training_the_null_is_number_less_excess_and_bars_are_the_range_of_runs():
    numbers, excess = trajectory.trajectory_charts(over_training())
    panel = numbers.panels[0]
    null, measured = panel.series
    np.testing.assert_allclose(measured.y, [0.55, 1.55, 4.55])
    np.testing.assert_allclose(measured.high - measured.low, 0.1)
    np.testing.assert_allclose(null.y, measured.y - 0.01)
    assert panel.names == ("0", "1", "4")
    np.testing.assert_allclose(numbers.panels[-1].series[0].y, [8, 7, 4])
    np.testing.assert_allclose(excess.panels[0].series[1].y, 0.01)


@pytest.mark.parametrize("number", range(5))
def test_captions_say_what_was_measured_and_nothing_forbidden(number):
    of_claims, of_ways = [study.claims_chart, study.rungs_chart], [specification_chart, study.survival_chart]
    charts = [make(claims()) for make in of_claims] + [make(conventions()) for make in of_ways]
    chart = [*charts, trajectory.trajectory_charts(over_training())[0]][number]
    json.dumps(as_plain(chart), allow_nan=False)
    for words in ("In-context Jacobian", "9 texts", "BOS: True"):
        assert words in chart.caption
    for figure_words in (" ".join(texts(draw_one(chart))), chart.caption, chart.lead):
        assert not re.search(NEVER, figure_words)


def test_a_folder_without_a_study_is_refused(tmp_path):
    with pytest.raises(InputError, match="jaxdyn study"):
        study.write_study(tmp_path)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    (folder / "study").mkdir()
    told = {"command": "jaxdyn x"}
    for name, found in (("claims", claims()), ("conventions", conventions()), ("ladder", ladder())):
        write_dataset(folder / "study" / f"{name}.zarr", name, found, {"stage": name}, provenance=told)
    write_dataset(folder / "trajectory.zarr", "trajectory", over_training(), {}, provenance={})
    written = study.write_study(folder, ("png",))
    assert {path.name for path in written} >= {"report.html", "claims.png", "specification.png", "trajectory.png"}
    return folder / "report.html"


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    started = browser.start(tmp_path_factory.mktemp("profile"), tmp_path_factory.mktemp("downloads"))
    yield started
    started.quit()


@pytest.mark.parametrize("width", [390, 1440])
def test_the_page_draws_in_a_browser_the_claims_first(driver, page, width):
    complaints, asked = visit(driver, page, width=width)
    assert complaints == []
    assert asked == []
    sections = driver.execute_script("return [...document.querySelectorAll('section')].map(s => s.id)")
    assert sections == ["claims", "study_rungs", "specification", "survival", "study_profiles", "trajectory",
                        "trajectory_excess"]  # fmt: skip
    notes = driver.execute_script(
        "return [...document.querySelectorAll('#study_profiles .note')].map(n => n.textContent)"
    )
    assert notes[:2] == ["leaves N1 in layers 0, 4 to 6", "Spearman with depth +0.93, p 0.078 against walks"]
    assert len(notes) == 4
    low, high = driver.execute_script(
        "const s = document.querySelector('#study_profiles svg.plot');"
        "const of = (what, side) => [...s.querySelectorAll(what)].map(n => n.getBoundingClientRect()[side]);"
        "return [Math.max(...of('.note', 'bottom')), Math.min(...of('path', 'top'))]"
    )
    assert low <= high, "above the lines"
    rows = driver.execute_script("return [...document.querySelectorAll('#claims tbody tr')].map(r => r.innerText)")
    assert "explained by N1" in rows[0]
    assert "<b>&" in rows[1]
    dots = driver.execute_script("return document.querySelectorAll('#specification circle.choice').length")
    assert dots == 4 * (15 + 16)
    wide = driver.execute_script("return [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert wide[0] == wide[1] == width
    svg = "#specification svg.plot"
    driver.execute_script(
        f"const s = document.querySelector('{svg}'), b = s.getBoundingClientRect();"
        "s.dispatchEvent(new PointerEvent('pointermove', {clientX: b.left + b.width - 12, clientY: b.top + 40}))"
    )
    tip = driver.execute_script("return document.getElementById('tip').innerText")
    assert "alignment: " in tip
    assert "explained by a null: +" in tip
