"""Teleport as a stage of the run, its options, its figures and its lines of the table."""

import dataclasses
import sys

import numpy as np
import pytest
import xarray as xr

from jaxdyn import cli
from jaxdyn.activations import capture, tokenise
from jaxdyn.dynamics import DynamicsSettings, analyse
from jaxdyn.dynamics.run import in_order
from jaxdyn.dynamics.teleport import of_activations, teleport
from jaxdyn.report import dynamics_table, figures
from jaxdyn.report import teleport as charts
from jaxdyn.report.chart import Chart, as_plain
from jaxdyn.report.dynamics import Dynamics
from tests.dynamics.test_teleport import SETTINGS, captured, found

TEXTS = [first + "tail" + second for first in "afz" for second in "bcdex"]


class Letters:
    """A tokenizer of single characters, without BOS."""

    bos_token_id = None

    def encode(self, text: str, **_: object) -> list[int]:
        return [ord(letter) % 61 for letter in text]


def dynamics(ds: xr.Dataset) -> Dynamics:
    """The report's view of a store that holds teleport alone."""
    root = xr.Dataset(coords={"control": ["trained", "random"]}, attrs={"model": "tiny", "samples": 9, "bos": "no"})
    return Dynamics("tiny", root, {"teleport": ds})


def made(make, one: Dynamics) -> Chart:
    chart = make(one)
    assert chart is not None
    return chart


def test_the_stage_teleports_the_stored_samples(tmp_path):
    model = dataclasses.replace(captured()[0], tokenizer=Letters())
    settings = DynamicsSettings(stages=("teleport",), controls=("random",), teleport=SETTINGS, seed=3)
    group = analyse(model, TEXTS, settings, out=tmp_path)["teleport"].to_dataset()
    prompts, _ = in_order(tokenise(model, TEXTS))
    other = model.initialised(3)
    wanted = teleport(
        of_activations(model, capture(model, prompts)),
        dataclasses.replace(SETTINGS, seed=3),
        initial=[of_activations(other, capture(other, prompts))],
    )
    assert group["teleport_control"].values.tolist()[-1] == "random-init"
    for name, values in wanted.items():
        np.testing.assert_allclose(group[name], values, rtol=1e-8, atol=1e-10, err_msg=str(name))
    again = analyse(model, TEXTS[::-1], settings, out=tmp_path / "again")["teleport"].to_dataset()
    xr.testing.assert_identical(group, again)  # whatever the order of the texts
    alone = dataclasses.replace(settings, controls=())
    without = analyse(model, TEXTS, alone, out=tmp_path / "alone")["teleport"].to_dataset()
    assert "random-init" not in without["teleport_control"].values


def test_the_figures_show_the_stored_numbers():
    ds = found()
    one = dynamics(ds)
    flow, course, ends, reach, rates = (
        made(make, one)
        for make in (charts.flow_chart, charts.return_chart, charts.contraction_chart, charts.radius_chart,
                     charts.rates_chart)
    )  # fmt: skip
    assert [len(chart.panels) for chart in (flow, course, ends, reach, rates)] == [8, 8, 3, 2, 1]

    for panel, off in ((flow.panels[4], False), (flow.panels[6], True)):  # to the last block, from block 0
        at = ds.isel(start=0, context=0).sel(horizon="last block")
        factor = float(panel.note.removeprefix("arrows times "))
        for name, role in (("arrow", "measured"), ("linear", "jacobian")):
            (series,) = (one for one in panel.series if one.role == role)
            own = float(at["natural_end_x"] - at["natural_x"]) if off else 0.0
            wanted = at[f"{name}_x"].values - at["grid_x"].values - own
            np.testing.assert_allclose((series.to_x - series.x) / factor, wanted, rtol=0.05)
            np.testing.assert_array_equal(series.x, at["grid_x"])
        plain = as_plain(flow)["panels"][flow.panels.index(panel)]["series"]
        assert [sorted(set(one) & {"toX", "toY"}) for one in plain] == [[], ["toX", "toY"], ["toX", "toY"], []]

    grid = ds["contraction"].sel(teleport_control="grid").isel(start=1).mean("context")
    (panel,) = (panel for panel in course.panels if panel.key == "contraction_1")
    (line,) = (series for series in panel.series if series.role == "measured")
    np.testing.assert_allclose(line.y, grid[1:])
    np.testing.assert_array_equal(line.x, [1, 2])
    assert {series.role for series in panel.series} == {role for role, _ in charts.MARKS.values()} | {"N0", "jacobian"}
    last = ds["contraction"].isel(stop=-1).mean("context")
    for series in ends.panels[1].series:
        if series.role == "displaced":
            np.testing.assert_allclose(series.y, last.sel(teleport_control="random-displacement"))

    error = ds["sweep_linear_error_update"].isel(start=0, stop=-1).mean("context")
    (line,) = (series for series in reach.panels[0].series if series.role == "jacobian")
    np.testing.assert_allclose(line.y, error)
    np.testing.assert_allclose(10**line.x, SETTINGS.radii)
    (line,) = (series for series in rates.panels[0].series if series.role == "measured")
    np.testing.assert_allclose(line.y, ds["stretching_rate"].mean("context"))
    for chart in (flow, course, ends, reach, rates):
        words = f"{chart.title} {chart.lead} {chart.caption}".lower()
        assert not any(word in words for word in ("attractor", "stable", "chaotic"))
        assert "null" in words or "controls" in words or "random" in words
    assert set(figures.draw_all([flow, course, reach])) == {flow.name, course.name, reach.name}


def test_a_run_without_controls_or_with_one_radius_still_has_its_figures():
    short = dataclasses.replace(SETTINGS, controls=(), radii=(1.0,), layers=(1,))
    one = dynamics(teleport(of_activations(*captured()), short))
    assert charts.radius_chart(one) is None
    for make in (charts.flow_chart, charts.return_chart, charts.contraction_chart, charts.rates_chart):
        assert made(make, one).panels
    assert dynamics_table.rows(one)
    assert charts.flow_chart(dataclasses.replace(one, groups={})) is None


def test_the_table_has_the_controls_beside_the_grid():
    ds = found()
    rows = {row.quantity: row for row in dynamics_table.rows(dynamics(ds))}
    row = rows["D10 distance / norm(h) at the end, from block 1"]
    last = ds["contraction_relative"].isel(stop=-1, start=1).mean("context")
    assert row.measured == pytest.approx(float(last.sel(teleport_control="grid")))
    assert dict(row.controls) == {"random": pytest.approx(float(last.sel(teleport_control="random-init")))}
    assert f"directions {float(last.sel(teleport_control='random-displacement')):.3f}" in row.null
    assert any("reach of J" in quantity for quantity in rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--grid", "1"), "grid: got 1"),
        (("--contexts", "0"), "contexts: got 0"),
        (("--teleport-layers", "x"), "layers: got 'x'"),
        (("--radii", "1,a"), "radii: got '1,a'"),
        (("--off-plane", "zero"), "off_plane: got 'zero'"),
        (("--scaling", "half"), "scaling: got 'half'"),
    ],
)
def test_options_that_cannot_be_run_are_refused_before_anything_is_loaded(
    arguments, message, monkeypatch, capsys, tmp_path
):
    monkeypatch.setattr(sys, "argv", ["jaxdyn", "dynamics", *arguments, "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
