"""A study of the small real model: stages, resuming, refusing, the command."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import jaxdyn
from jaxdyn.cli import app
from jaxdyn.errors import InputError
from jaxdyn.store import StoreError
from jaxdyn.study import StudySettings, read_study, study
from jaxdyn.study.settings import claims

QUICK = {"operators": ("in-context",), "rungs": ("N1", "N2"), "draws": 2, "max_tokens": 24}


@pytest.fixture(scope="module")
def small(shared):
    return jaxdyn.load(shared / "models" / "stories260k")


@pytest.fixture(scope="module")
def texts(shared):
    return json.loads((shared / "data" / "tinystories_1000.json").read_text())[:4]


@pytest.fixture(scope="module")
def done(small, texts, tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    first = study(small, texts, StudySettings(stages=("ladder",), **QUICK), out=out)
    return out, first


def test_every_claim_has_a_row_with_the_text_that_was_in_force(done):
    out, found = done
    assert list(found["claim"].values) == [one["name"] for one in claims()]
    assert json.loads(found.attrs["claims"]) == claims()
    gradient = found.sel(claim="depth gradient")
    assert float(gradient["excess"]) == pytest.approx(float(gradient["number"] - gradient["null"]), abs=1e-9)
    assert float(gradient["excess_low"]) < float(gradient["excess"]) < float(gradient["excess_high"])
    assert set(read_study(out)) == {"ladder", "claims"}


def test_the_numbers_are_those_of_the_jacobians(done, small, texts):
    from jaxdyn.measures import henrici_normalized

    out, _ = done
    acts = jaxdyn.capture(small, jaxdyn.activations.tokenise(small, texts, max_tokens=24))
    ladder = read_study(out)["ladder"]
    for layer in (0, 4):
        T = jaxdyn.decompose(jaxdyn.jacobian(small, acts, layer=layer)).T
        expected = float(np.mean(henrici_normalized(T)))
        assert float(ladder["profile"].sel(series="henrici")[layer]) == pytest.approx(expected, abs=1e-5)


def test_a_study_goes_on_where_it_stopped_and_another_is_refused(done, small, texts):
    out, first = done
    marker = out / "study" / "ladder.zarr" / "zarr.json"
    before = marker.stat().st_mtime_ns
    with pytest.raises(StoreError, match="--resume"):
        study(small, texts, StudySettings(stages=("ladder",), **QUICK), out=out)
    with pytest.raises(StoreError, match="draws"):
        study(small, texts, StudySettings(stages=("ladder",), **QUICK | {"draws": 3}), out=out, resume=True)
    again = study(small, texts, StudySettings(stages=("ladder", "conventions"), **QUICK), out=out, resume=True)
    assert marker.stat().st_mtime_ns == before
    assert np.array_equal(first["number"], again["number"], equal_nan=True)
    conventions = read_study(out)["conventions"]
    assert conventions.sizes["convention"] == 8
    own = conventions.sel(convention="in-context, J, raw, samples", claim="depth gradient")
    assert float(own["number"]) == pytest.approx(float(first["number"].sel(claim="depth gradient")), abs=1e-9)


def test_operator_and_seed_change_what_they_are_for(small, texts, tmp_path):
    quick = {"stages": ("ladder",), "rungs": ("N1",), "draws": 2, "max_tokens": 24}
    found = {}
    for name, more in (("plain", {}), ("seed", {"seed": 1}), ("operator", {"operator": "isolated"})):
        settings = StudySettings(**quick, operators=("in-context", "isolated"), **more)
        found[name] = study(small, texts, settings, out=tmp_path / name).sel(claim="depth gradient")
    assert float(found["seed"]["number"]) == float(found["plain"]["number"])
    assert float(found["seed"]["null"]) != float(found["plain"]["null"])
    assert abs(float(found["operator"]["number"] - found["plain"]["number"])) > 1e-3


def test_another_corpus_doubles_the_conventions_and_has_numbers_of_its_own(small, texts, shared, tmp_path):
    more = json.loads((shared / "data" / "wikitext_1000.json").read_text())[:4]
    settings = StudySettings(stages=("conventions",), **QUICK)
    study(small, texts, settings, out=tmp_path, corpora={"wiki": more})
    found = read_study(tmp_path)["conventions"]
    own, other = "in-context, J, raw, samples", "in-context, J, raw, samples, wiki"
    assert found.sizes["convention"] == 16
    number = found["number"].sel(claim="depth gradient")
    assert abs(float(number.sel(convention=own) - number.sel(convention=other))) > 1e-4
    assert int(found["same"].sel(judged="alignment", changed="definition")) <= 2
    assert found["claim"].values.tolist()[-2:] == ["alignment, pairs", "alignment, trace"]
    with pytest.raises(StoreError, match="corpora"):
        study(small, texts, settings, out=tmp_path, corpora={"wiki": more[::-1]}, resume=True)


def test_only_what_the_claim_needs_is_intervened_on(small, texts, tmp_path):
    quick = {"stages": ("surrogates",), **QUICK}
    study(small, texts, StudySettings(**quick, interventions="claim"), out=tmp_path / "claim")
    found = read_study(tmp_path / "claim")
    assert found["surrogates"]["surrogate"].values.tolist() == ["actual", "normal", "n1-of-normal"]
    assert found["surrogates"]["site"].values.tolist() == ["all"]
    assert "order_effective_rank" not in found["surrogates"]
    assert str(found["claims"]["verdict"].sel(claim="Schur intervention").values) != "not run"


def test_sites_and_the_order_sweep_change_what_is_stored(small, texts, tmp_path):
    quick = {"stages": ("surrogates",), **QUICK}
    study(small, texts, StudySettings(**quick, sites=("all", "late"), order_sweep=False), out=tmp_path)
    found = read_study(tmp_path)["surrogates"]
    assert found["site"].values.tolist() == ["all", "late"]
    assert "order_effective_rank" not in found
    effect = found["effect"].sel(surrogate="normal")
    assert float(abs(effect.sel(site="all") - effect.sel(site="late")).max()) > 1e-3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"stages": ("ladders",)}, "stages"),
        ({"init_seeds": 2}, "init_seeds"),
        ({"interventions": "none"}, "interventions"),
        ({"sites": ("early",)}, "sites"),
        ({"topology_nulls": ("rotate",)}, "topology_nulls"),
        ({"operator": "ov"}, "operator"),
    ],
)
def test_settings_refuse_what_cannot_be_run(given, message):
    with pytest.raises(InputError, match=message):
        StudySettings(**QUICK | given)


def test_too_few_texts_are_refused(small, texts, tmp_path):
    with pytest.raises(InputError, match="4 texts"):
        study(small, texts[:3], StudySettings(**QUICK), out=tmp_path)


def test_the_command_prints_the_claims(done, shared, tmp_path):
    out, _ = done
    texts = tmp_path / "texts.json"
    texts.write_text(json.dumps(json.loads((shared / "data" / "tinystories_1000.json").read_text())[:4]))
    given = ["study", str(shared / "models" / "stories260k"), "--texts", str(texts), "--out", str(out), "--resume"]
    given += ["--stages", "ladder", "--operators", "in-context", "--rungs", "N1,N2", "--draws", "2"]
    result = CliRunner().invoke(app, [*given, "--max-tokens", "24", "--json"])
    assert result.exit_code == 0, result.output
    rows = {row["claim"]: row for row in json.loads(result.stdout)["claims"]}
    assert rows["coupling"]["verdict"] == "not run"
    assert rows["depth gradient"]["number"] is not None
    assert (out / "report.html").exists()
    assert (out / "claims.png").exists()
    given[given.index("--out") + 1] = str(tmp_path / "untrained")
    given.remove("--resume")
    wrong = CliRunner().invoke(app, [*given, "--corpus", str(texts), "--corpus", str(texts)])
    assert "two files of one name" in str(wrong.exception)
    other = CliRunner().invoke(app, [*given, "--untrained", "3", "--max-tokens", "24", "--formats", "png", "--json"])
    assert other.exit_code == 0, other.output
    assert not (tmp_path / "untrained" / "claims.svg").exists()
    untrained = {row["claim"]: row for row in json.loads(other.stdout)["claims"]}
    assert abs(untrained["depth gradient"]["number"] - rows["depth gradient"]["number"]) > 1e-3
