"""The claims over training: numbers of each checkpoint, resuming, refusing, the command."""

import json
from functools import partial

import numpy as np
import pytest
from typer.testing import CliRunner

import jaxdyn
from jaxdyn.cli import app
from jaxdyn.errors import InputError
from jaxdyn.store import StoreError
from jaxdyn.study import Checkpoint, StudySettings, read_study, trajectory
from jaxdyn.study.trajectory import FOLDER

SETTINGS = StudySettings(stages=("ladder",), operators=("in-context",), rungs=("N1", "N2"), draws=2, max_tokens=24)


@pytest.fixture(scope="module")
def small(shared):
    return jaxdyn.load(shared / "models" / "stories260k")


@pytest.fixture(scope="module")
def texts(shared):
    return json.loads((shared / "data" / "tinystories_1000.json").read_text())[:4]


def checkpoints(small):
    first = [Checkpoint(f"seed {seed}", 0, partial(small.initialised, seed)) for seed in (0, 1)]
    return [*first, *(Checkpoint(f"seed {seed}", 8, lambda: small) for seed in (0, 1))]


@pytest.fixture(scope="module")
def done(small, texts, tmp_path_factory):
    out = tmp_path_factory.mktemp("trajectory")
    return out, trajectory(checkpoints(small), texts, SETTINGS, out=out)


def test_every_checkpoint_has_the_numbers_of_its_own_study(done):
    out, found = done
    assert found["run"].values.tolist() == ["seed 0", "seed 1"]
    assert found["step"].values.tolist() == [0, 8]
    for run, step in (("seed 0", 0), ("seed 1", 0), ("seed 0", 8)):
        own = read_study(out / FOLDER / run / f"{step:08d}")["claims"]
        np.testing.assert_array_equal(found["number"].sel(run=run, step=step), own["number"])
        np.testing.assert_array_equal(found["by_rung"].sel(run=run, step=step), own["by_rung"])
    number = found["number"].sel(claim="cumulative bottleneck")
    assert float(number.sel(run="seed 0", step=8)) == float(number.sel(run="seed 1", step=8))
    assert float(number.sel(run="seed 0", step=0)) != float(number.sel(run="seed 1", step=0))


def test_the_loss_is_that_of_the_texts_token_by_token(done, small, texts):
    _, found = done
    total, count = 0.0, 0
    for text in texts:
        ids = np.asarray(small.encode([text])[0][:24])
        scores = np.asarray(small.logits(ids[None]), float)[0]
        picked = scores[np.arange(len(ids) - 1), ids[1:]]
        total += float(np.sum(np.log(np.exp(scores[:-1]).sum(-1)) - picked))
        count += len(ids) - 1
    assert float(found["loss"].sel(run="seed 0", step=8)) == pytest.approx(total / count, rel=1e-5)
    assert float(found["loss"].sel(run="seed 0", step=0)) == pytest.approx(np.log(512), rel=0.1)


def test_a_trajectory_goes_on_where_it_stopped_and_another_is_refused(done, small, texts):
    out, found = done
    with pytest.raises(StoreError, match="--resume"):
        trajectory(checkpoints(small), texts, SETTINGS, out=out)

    def never():
        raise AssertionError

    again = [Checkpoint(one.run, one.step, never) for one in checkpoints(small)]
    assert trajectory(again, texts, SETTINGS, out=out, resume=True).identical(found)
    with pytest.raises(StoreError, match="steps"):
        trajectory(
            [*again, *(Checkpoint(f"seed {k}", 9, never) for k in (0, 1))], texts, SETTINGS, out=out, resume=True
        )


def test_holes_in_the_grid_are_refused(small, texts, tmp_path):
    every = checkpoints(small)
    for wrong in (every[:3], every[:2], [*every, every[0]]):
        with pytest.raises(InputError, match="the same for every run"):
            trajectory(wrong, texts, SETTINGS, out=tmp_path)


def test_the_command_reads_training_runs_and_writes_a_report(tmp_path, shared):
    words = tmp_path / "words.txt"
    words.write_text("the cat sat on the mat and the dog ran. " * 60)
    sizes = ["--width", "16", "--layers", "2", "--heads", "2", "--kv-heads", "1", "--ff-dim", "24", "--vocab", "300"]
    rest = ["--context", "16", "--steps", "3", "--batch", "2", "--warmup", "1", "--quiet"]
    run = CliRunner().invoke(app, ["train", str(words), *sizes, *rest, "--out", str(tmp_path / "run")])
    assert run.exit_code == 0, run.output
    texts = tmp_path / "texts.json"
    texts.write_text(json.dumps(["the cat sat", "the dog ran on", "on the mat", "and the dog sat"]))
    given = ["trajectory", str(tmp_path / "run"), "--texts", str(texts), "--out", str(tmp_path / "out"), "--json"]
    given += ["--stages", "ladder", "--rungs", "N1", "--draws", "2", "--formats", "png", "--quiet"]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["step"] == [0, 1, 2, 3]
    assert np.shape(said["claims"]["depth gradient"]["number"]) == (1, 4)
    assert (tmp_path / "out" / "report.html").exists()
    assert (tmp_path / "out" / "trajectory.png").exists()
    plain = [one for one in given if one not in ("--json", "--quiet")]
    shown = CliRunner().invoke(app, [*plain, "--resume"])
    assert shown.exit_code == 0, shown.output
    assert "depth gradient" in shown.stdout
    assert len([line for line in shown.stdout.splitlines() if line.split()[:1] in (["0"], ["1"], ["2"], ["3"])]) == 4
    for wrong, message in (("0,x", "whole numbers"), ("0,7", "allowed 0, 1, 2, 3")):
        refused = CliRunner().invoke(app, [*given, "--steps", wrong, "--out", str(tmp_path / "other")])
        assert refused.exit_code != 0
        assert message in str(refused.exception) + refused.output


def test_revisions_are_loaded_by_name_and_ordered_by_their_number(monkeypatch):
    from jaxdyn import models
    from jaxdyn.cli_trajectory import _of_revisions

    asked = []
    monkeypatch.setattr(models, "load", lambda *given, **named: asked.append((given, named)))
    found = _of_revisions(["someone/model"], "step512, main-v2-step64", "float32")
    assert [(one.run, one.step) for one in found] == [("hub", 512), ("hub", 64)]
    for one in found:
        one.load()
    assert [named["revision"] for _, named in asked] == ["step512", "main-v2-step64"]
    for models_given, revisions, message in ((["a", "b"], "step1", "one hub id"), (["a"], "main", "hold their step")):
        with pytest.raises(InputError, match=message):
            _of_revisions(models_given, revisions, "float32")
