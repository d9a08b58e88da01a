"""Every flag of `jaxdyn study` and what it reaches."""

import json
from dataclasses import fields

import pytest
from typer.testing import CliRunner

import jaxdyn
from jaxdyn.cli import app
from jaxdyn.errors import InputError
from jaxdyn.study import StudySettings
from jaxdyn.study.settings import STAGES


class Reached(Exception):
    """The study would begin here."""


def reach(monkeypatch, *given: str) -> tuple:
    seen = {}

    def begins(model, texts, settings, **more):
        seen.update(model=model, texts=texts, settings=settings, **more)
        raise Reached

    monkeypatch.setattr("jaxdyn.study.run.study", begins)
    result = CliRunner().invoke(app, ["study", *given, "--quiet"])
    if not isinstance(result.exception, Reached):
        assert result.exception is not None
        raise result.exception
    return seen["model"], seen["texts"], seen["settings"], seen


def test_without_a_flag_it_is_the_default_study_of_the_embedded_model(monkeypatch, tmp_path):
    model, texts, settings, seen = reach(monkeypatch, "--out", str(tmp_path))
    assert settings == StudySettings()
    assert (model.source, model.dtype, len(texts), seen["resume"]) == ("jaxdyn-embedded", "float32", 12, False)


def test_every_flag_reaches_the_study(monkeypatch, tmp_path):
    corpus = tmp_path / "other.json"
    corpus.write_text(json.dumps([f"A text of number {number}." for number in range(9)]))
    given = ["--operator", "ov", "--operators", "ov,isolated", "--stages", "ladder,topology", "--rungs", "N1,N5"]
    given += ["--draws", "3", "--init-seeds", "6", "--sites", "all,each", "--no-order-sweep", "--max-tokens", "17"]
    given += ["--seed", "4", "--samples", "5", "--dtype", "float64", "--corpus", str(corpus), "--untrained", "2"]
    model, texts, settings, seen = reach(monkeypatch, *given, "--out", str(tmp_path / "out"), "--resume")
    wanted = StudySettings(
        operator="ov", operators=("ov", "isolated"), stages=("ladder", "topology"), rungs=("N1", "N5"), draws=3,
        init_seeds=6, sites=("all", "each"), order_sweep=False, max_tokens=17, seed=4,
    )  # fmt: skip
    assert settings == wanted
    assert (model.dtype, len(texts), len(seen["corpora"]["other"])) == ("float64", 5, 5)
    assert model.weights_hash != jaxdyn.load().weights_hash
    assert (seen["out"], seen["resume"]) == (tmp_path / "out", True)
    left = {
        one.name for one in fields(StudySettings) if getattr(wanted, one.name) == getattr(StudySettings(), one.name)
    }
    assert left == {"weight_draws", "interventions", "displacements", "topology_nulls", "topology_draws", "refits"}


def test_what_is_refused(monkeypatch, tmp_path):
    for wrong, message in (
        ("--sites=early", "sites"),
        ("--stages=ladders", "stages"),
        ("--init-seeds=2", "init_seeds"),
    ):
        with pytest.raises(InputError, match=message):
            reach(monkeypatch, wrong, "--out", str(tmp_path))
    assert "measures" in STAGES
