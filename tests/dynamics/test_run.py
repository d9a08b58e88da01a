"""The run: what is stored, resuming inside units and stages, the order of the texts, models with one point a block."""

import dataclasses
import tracemalloc

import numpy as np
import pytest

from jaxdyn import InputError, capture, open_tree
from jaxdyn.dynamics import DynamicsSettings, analyse, rotation_count, run, stages
from jaxdyn.dynamics.state import points, trajectory
from jaxdyn.store import StoreError
from tests.dynamics import cases

QUICK = DynamicsSettings(stages=("density", "continuity", "information", "rotation", "path", "dimension"),
                         draws=99, sample_draws=19, bins=4, unit=8)  # fmt: skip


@pytest.fixture(scope="module")
def model():
    return cases.small_model()


@pytest.fixture(scope="module")
def finished(model, tmp_path_factory):
    """A whole run of the small model, without the autoencoder."""
    place = tmp_path_factory.mktemp("finished")
    return analyse(model, cases.TEXTS, QUICK, out=place), place


def equal(one, other, *but: str) -> None:
    for name in one.children:
        left, right = one[name].to_dataset(), other[name].to_dataset()
        assert set(left.data_vars) == set(right.data_vars)
        for key in left.data_vars:
            if key not in but:
                np.testing.assert_array_equal(left[key], right[key], err_msg=f"{name}/{key}")


def test_the_state_is_the_stream_where_sublayers_read_it(model, finished) -> None:
    tree, _ = finished
    acts = capture(model, cases.TEXTS)
    state = tree["state"].sel(weights="trained")
    for row, prompt in enumerate(tree["prompt"].values):
        np.testing.assert_allclose(state[::2, row], acts.inputs[:, prompt], rtol=2e-5, atol=1e-6)
        np.testing.assert_allclose(state[1::2, row], acts.middle[:, prompt], rtol=2e-5, atol=1e-6)
    assert tree["site"].values.tolist() == ["attention", "mlp"] * 3
    assert tree["block"].values.tolist() == [0, 0, 1, 1, 2, 2]
    assert sorted(tree["prompt"].values.tolist()) == list(range(20))
    random = capture(model.initialised(0), cases.TEXTS)
    first = tree["state"].sel(weights="random")[0]
    np.testing.assert_allclose(first, np.asarray(random.inputs)[0][tree["prompt"].values], rtol=2e-5, atol=1e-6)


def test_every_stage_is_a_labelled_group(finished) -> None:
    tree, _ = finished
    assert set(tree.children) == set(QUICK.stages)
    assert tree.attrs["complete"]
    for name in tree.children:
        group = tree[name].to_dataset()
        assert group.attrs["title"]
        for key, values in group.data_vars.items():
            assert values.attrs["long_name"], key
            assert np.isfinite(values.sel(control="trained") if "control" in values.dims else values).any(), key
    mean = tree["state"].sel(weights="trained").mean("sample").values.T
    np.testing.assert_allclose(tree["rotation"]["count_mean"].sel(control="trained"), rotation_count(mean), atol=1e-5)
    each = rotation_count(np.moveaxis(tree["state"].sel(weights="trained").values, 0, -1).astype(float))
    np.testing.assert_allclose(tree["rotation"]["count_sample"].sel(control="trained"), each.mean(axis=0), atol=1e-9)


def test_the_order_of_the_texts_changes_no_bit(model, finished, tmp_path) -> None:
    tree, _ = finished
    order = np.random.default_rng(0).permutation(len(cases.TEXTS))
    again = analyse(model, [cases.TEXTS[i] for i in order], QUICK, out=tmp_path)
    equal(tree, again)
    np.testing.assert_array_equal(tree["state"], again["state"])
    np.testing.assert_array_equal(tree["prompt"], order[again["prompt"].values])


@pytest.mark.parametrize("killed_in", ["texts", "rotation"])
def test_a_killed_run_goes_on_to_the_same_bits(model, finished, tmp_path, killed_in: str) -> None:
    tree, _ = finished

    class Killed(Exception):
        pass

    seen: list[str] = []

    def kill(what: str, done: int, total: int) -> None:
        if (what, done) == (killed_in, 2):
            raise Killed

    with pytest.raises(Killed):
        analyse(model, cases.TEXTS, QUICK, out=tmp_path, progress=kill)
    assert not open_tree(tmp_path / run.STORE).attrs["complete"]
    with pytest.raises(StoreError, match="--resume"):
        analyse(model, cases.TEXTS, QUICK, out=tmp_path)
    again = analyse(model, cases.TEXTS, QUICK, out=tmp_path, resume=True, progress=lambda what, *_: seen.append(what))
    equal(tree, again)
    assert again.attrs["complete"]
    assert ("texts" in seen) == (killed_in == "texts")
    assert ("density" in seen) == (killed_in == "texts")


def test_a_later_run_adds_stages_and_other_settings_are_refused(model, finished, tmp_path) -> None:
    tree, _ = finished
    one = dataclasses.replace(QUICK, stages=("path",))
    analyse(model, cases.TEXTS, one, out=tmp_path)
    two = dataclasses.replace(QUICK, stages=("path", "density"))
    again = analyse(model, cases.TEXTS, two, out=tmp_path, resume=True)
    assert set(again.children) == {"path", "density"}
    np.testing.assert_array_equal(again["density"]["kurtosis"], tree["density"]["kurtosis"])
    with pytest.raises(StoreError, match=r"draws \(got 199, stored 99\)"):
        analyse(model, cases.TEXTS, dataclasses.replace(one, draws=199), out=tmp_path, resume=True)
    with pytest.raises(StoreError, match="tokens_hash"):
        analyse(model, [*cases.TEXTS[1:], "another"], one, out=tmp_path, resume=True)


def test_a_parallel_residual_has_one_point_a_block(tmp_path) -> None:
    model = cases.small_model(parallel_residual=True)
    along = points(model.architecture)
    assert along.site == ("both",) * 3
    acts = capture(model, cases.TEXTS[:8])
    assert not np.allclose(acts.inputs, acts.middle)  # the middle is not what the MLP reads
    np.testing.assert_array_equal(trajectory(acts, model.architecture), np.moveaxis(np.asarray(acts.inputs), 0, 1))
    settings = dataclasses.replace(QUICK, stages=("continuity", "rotation"))
    tree = analyse(model, cases.TEXTS[:8], settings, out=tmp_path)
    assert tree.sizes["point"] == 3
    assert tree["continuity"]["crosses"].values.tolist() == ["block", "block"]
    assert "one a block" in tree.attrs["points"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model, out: analyse(model, cases.TEXTS[:7], QUICK, out=out), "samples: got 7; allowed 8 or more"),
        (lambda *_: DynamicsSettings(controls=("walk",)), "controls: got 'walk'; allowed random, rotated"),
        (lambda *_: DynamicsSettings(draws=9), "draws: got 9; allowed 99 or more"),
        (lambda *_: DynamicsSettings(sample_draws=9), "sample-draws: got 9; allowed 19"),
        (lambda *_: DynamicsSettings(neighbours=8), "neighbours: got 8; allowed 1 to 7"),
        (lambda *_: DynamicsSettings(unit=0), "unit: got 0; allowed 1"),
        (lambda *_: stages.chosen(("turns",)), "stages: got 'turns'; allowed density, continuity"),
        (lambda *_: points(cases.small_model(layers=1).architecture), "model: got 1 block; allowed 2 or more"),
    ],
)
def test_what_cannot_be_run_is_refused(model, tmp_path, call, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(model, tmp_path)


def test_memory_does_not_grow_with_the_texts(tmp_path) -> None:
    """Four times the texts, 2 MB more states: the peak of what reads them a unit at a time stays where it is."""
    rng, peaks = np.random.default_rng(0), []
    settings = DynamicsSettings(controls=("rotated", "skip"), unit=16, draws=99, sample_draws=19)
    for samples in (80, 320):
        given = cases.inputs(tmp_path / str(samples), rng.standard_normal((1, samples, 4, 256)), settings)
        tracemalloc.start()
        for stage in ("density", "continuity", "path"):
            cases.run_stage(stage, given)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 3e5, peaks  # what grows is a few numbers a text and point
