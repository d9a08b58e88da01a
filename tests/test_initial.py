"""Null N5: the same run at random initialisation, seed by seed; what is stored, resumed and refused."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
from typer.testing import CliRunner

import jaxdyn
from jaxdyn import cli
from jaxdyn.errors import InputError
from jaxdyn.models import random_model
from jaxdyn.pipeline import initial
from jaxdyn.store import StoreError, describe
from jaxdyn.store.initial import seeds_of
from tests.models.tiny import TINY, tiny_llama
from tests.stores import assert_same_bits
from tests.words import TEXTS, WordTokenizer

SETTINGS = {"draws": 0, "kreiss": False, "parts": ("block", "update"), "unit": 4, "seed": 3}


@pytest.fixture(scope="module")
def model() -> jaxdyn.Model:
    found = tiny_llama(hidden_size=16, num_attention_heads=2, num_key_value_heads=1, intermediate_size=24)[1]
    return dataclasses.replace(found, tokenizer=WordTokenizer())


@pytest.fixture(scope="module")
def compared(model: jaxdyn.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("compared")
    jaxdyn.analyze(model, TEXTS, out=out, compare_init=5, **SETTINGS)
    return out


def test_a_seed_is_stored_as_the_run_of_that_random_model(model: jaxdyn.Model, compared: Path, tmp_path: Path) -> None:
    dtype = model.params["embed"]["tokens"].dtype.name
    random = dataclasses.replace(random_model(model.architecture, seed=4, dtype=dtype), tokenizer=WordTokenizer())
    jaxdyn.analyze(random, TEXTS, out=tmp_path, **SETTINGS)
    assert_same_bits(compared / "init.zarr" / "seed-4", tmp_path / "results.zarr")


def test_seeds_differ_and_share_the_tokens_of_the_run(compared: Path) -> None:
    assert seeds_of(compared / "init.zarr") == [3, 4, 5, 6, 7]
    trained = jaxdyn.open_results(compared / "results.zarr")
    seen = [trained["henrici"].values]
    for seed in range(3, 8):
        own = jaxdyn.open_results(compared / "init.zarr" / f"seed-{seed}")
        for name in ("prompt", "position", "token", "part", "layer"):
            np.testing.assert_array_equal(own[name], trained[name])
        assert all(np.abs(own["henrici"].values - other).max() > 1e-6 for other in seen)
        seen.append(own["henrici"].values)
        assert f"random initialisation, seed {seed}" in own.attrs["model"]


def test_a_run_goes_on_inside_the_seeds_and_takes_more(
    model: jaxdyn.Model, compared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, seen = initial.run, []

    def interrupted(*args, **kwargs):
        seen.append(kwargs["name"])
        if len(seen) == 3:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    monkeypatch.setattr(initial, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        jaxdyn.analyze(model, TEXTS, out=tmp_path, compare_init=5, **SETTINGS)
    assert seen == ["seed-3", "seed-4", "seed-5"]
    monkeypatch.setattr(initial, "run", original)
    with pytest.raises(StoreError, match="already holds 5 seeds; resume them"):
        initial.check_init(tmp_path, jaxdyn.Settings(**SETTINGS), 5, resume=False)
    jaxdyn.analyze(model, TEXTS, out=tmp_path, compare_init=6, resume=True, **SETTINGS)
    for seed in range(3, 8):
        assert_same_bits(compared / "init.zarr" / f"seed-{seed}", tmp_path / "init.zarr" / f"seed-{seed}")
    assert describe(tmp_path / "init.zarr" / "seed-8").complete
    with pytest.raises(StoreError, match=r"got the seeds 3 to 7, .* holds 3 to 8; allowed the same, or more"):
        jaxdyn.analyze(model, TEXTS, out=tmp_path, compare_init=5, resume=True, **SETTINGS)


def test_other_settings_do_not_resume(model: jaxdyn.Model, compared: Path) -> None:
    with pytest.raises(StoreError, match="derivative"):
        initial.run_init(
            model.outline(), TEXTS, jaxdyn.Settings(**SETTINGS, derivative="frozen"), 5, out=compared, resume=True,
            progress=initial.Progress(enabled=False),
        )  # fmt: skip


def test_what_makes_no_sense_is_refused_before_anything_runs(model: jaxdyn.Model, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="init-seeds: got 4; allowed 5 or more"):
        jaxdyn.analyze(model, TEXTS, out=tmp_path, compare_init=4, **SETTINGS)
    with pytest.raises(InputError, match="compare_init: got 5 without out"):
        jaxdyn.analyze(model, TEXTS, compare_init=5, **SETTINGS)
    without = CliRunner().invoke(cli.app, ["analyze", "--init-seeds", "7", "--out", str(tmp_path)])
    assert "init-seeds: got 7 without --compare-init" in str(without.exception)
    few = CliRunner().invoke(cli.app, ["analyze", "--compare-init", "--init-seeds", "2", "--out", str(tmp_path)])
    assert "init-seeds: got 2; allowed 5 or more" in str(few.exception)
    (tmp_path / "init.zarr").mkdir()
    (tmp_path / "init.zarr" / "mine.txt").write_text("x")
    with pytest.raises(StoreError, match="is not a group of random initialisations; nothing was touched"):
        jaxdyn.analyze(model, TEXTS, out=tmp_path, compare_init=5, **SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["init.zarr"]


@pytest.mark.parametrize("family", ["gpt2", "gemma4_text"])  # scaled by depth; layers of several sizes
def test_a_family_is_drawn_from_its_outline(family: str) -> None:
    found = dataclasses.replace(TINY[family]()[1], tokenizer=WordTokenizer())
    outline = found.outline()
    assert not any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(outline.params))
    drawn, dtype = outline.initialised(7), found.params["embed"]["tokens"].dtype.name
    assert drawn.weights_hash == random_model(found.architecture, seed=7, dtype=dtype).weights_hash
    shapes = [jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), one.params) for one in (drawn, found)]
    assert shapes[0] == shapes[1]
    assert outline.encode(["some words"]) == found.encode(["some words"])
