"""The second process that draws half of the figures."""

import jaxdyn_kernels as jk
import pytest

from jaxdyn.report import figures, painter, source


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr(jk, "cores", lambda: 2)


@pytest.mark.usefixtures("two_cores")
def test_half_of_the_figures_come_from_the_other_process_and_are_the_same(results, tmp_path, monkeypatch):
    sources = source.open_sources([results])
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    alone.mkdir()
    shared.mkdir()
    expected = figures.save_all(sources, alone, formats=("png",))
    drawn_here = []
    draw_one = figures.draw_one
    monkeypatch.setattr(figures, "draw_one", lambda *given: drawn_here.append(given) or draw_one(*given))
    with painter.Painter() as helper:
        written = figures.save_all(sources, shared, formats=("png",), painter=helper)
    assert [path.name for path in written] == [path.name for path in expected]
    assert len(drawn_here) == len(expected[:-1:2])
    for ours, theirs in zip(written, expected, strict=True):
        assert ours.read_bytes() == theirs.read_bytes(), ours.name


@pytest.mark.usefixtures("two_cores")
def test_a_process_that_dies_costs_no_figure(results, tmp_path):
    sources = source.open_sources([results])
    helper = painter.Painter()
    assert helper._process is not None
    helper._process.kill()
    with helper:
        written = figures.save_all(sources, tmp_path, formats=("svg",), painter=helper)
    assert len(written) == len(figures.names(figures.charts(sources))) + 1
    assert all(path.stat().st_size for path in written)


@pytest.mark.usefixtures("two_cores")
def test_it_ends_when_nothing_is_asked():
    with painter.Painter() as helper:
        process = helper._process
    assert process is not None
    assert process.returncode == 0


def test_one_core_draws_alone(monkeypatch, tmp_path):
    monkeypatch.setattr(jk, "cores", lambda: 1)
    with painter.Painter() as helper:
        assert helper._process is None
        assert not helper.draw([tmp_path], tmp_path, ["png"], ["energy"])
