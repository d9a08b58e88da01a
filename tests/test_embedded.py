"""The model that comes with the package: it loads, scores what its folder says, generates, and is analysed bare."""

import csv
import json
import socket
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers
import xarray

import jaxdyn
from jaxdyn import Model, application, cli, embedded
from jaxdyn.pipeline.texts import read_texts
from jaxdyn.training import corpus, evaluate
from jaxdyn.training.evaluation import pieces

EVALUATION = json.loads((embedded.FOLDER / "evaluation.json").read_text())
RECORD = json.loads((embedded.FOLDER / "training.json").read_text())
STORIES = "tinystories_1000.json[:100]"
PROMPT_LOSS = 5.727829203741187
"""Nats a token of the twelve prompts: what these weights give (float32, each prompt after the special token)."""


@pytest.fixture(scope="module")
def model() -> Model:
    return jaxdyn.load()


def loss(model: Model, documents: list[str]) -> float:
    ids = [np.asarray(one[1:], np.int32) for one in model.encode(documents)]
    return evaluate(model.architecture, model.params, pieces(ids, context=model.architecture.context)).per_token


def test_it_is_the_model_of_its_readme(model: Model) -> None:
    arch = model.architecture
    assert (arch.family, arch.layers, arch.heads, arch.kv_heads, arch.tied_head) == ("llama", 8, 4, 2, True)
    assert model.source == embedded.NAME
    count = sum(leaf.size for leaf in jax.tree.leaves(model.params))
    assert count == EVALUATION["parameters"]
    assert 1.5e6 < count < 3e6
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(model.params))
    assert jaxdyn.load(embedded.FOLDER).weights_hash == model.weights_hash


def test_its_tokenizer_is_the_one_that_transformers_would_choose(model: Model) -> None:
    chosen: Any = transformers.AutoTokenizer.from_pretrained(str(embedded.FOLDER), local_files_only=True)
    tokenizer: Any = model.tokenizer
    assert tokenizer is not None
    assert type(tokenizer) is type(chosen)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (chosen.bos_token_id, chosen.eos_token_id)
    assert tokenizer.get_vocab() == chosen.get_vocab()
    texts = [*read_texts(embedded.PROMPTS), "  naïve\t日本 <|endoftext|> 0.5\n"]
    assert model.encode(texts) == [chosen.encode(text) for text in texts]
    ids = [[number] for number in range(model.architecture.vocab)]
    assert tokenizer.batch_decode(ids) == chosen.batch_decode(ids)


def test_what_it_adds_to_the_wheel_is_below_8_mb() -> None:
    files = [path for path in embedded.FOLDER.iterdir() if path.is_file() and path.suffix != ".pyc"]
    assert {path.name for path in files} == {
        "__init__.py", "README.md", "config.json", "curve.csv", "evaluation.json", "generation_config.json",
        "model.safetensors", "prompts.json", "tokenizer.json", "tokenizer_config.json", "training.json",
    }  # fmt: skip
    assert sum(path.stat().st_size for path in files) < 8e6


def test_the_held_out_texts_were_not_trained_on() -> None:
    assert set(EVALUATION["held_out"]) == set(RECORD["held_out"]) == {STORIES, "wikitext2-test.txt"}
    assert set(RECORD["texts"]) == {
        "tinystories_1000.json[100:]", "wikitext_1000.json", "wikitext2-valid.txt", "tinyshakespeare.txt",
    }  # fmt: skip


def test_the_curve_is_that_of_the_run() -> None:
    with (embedded.FOLDER / "curve.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(len(rows)))
    assert len(rows) == RECORD["settings"]["steps"] + 1
    last = rows[-1]
    for name, scores in EVALUATION["held_out"].items():  # the curve takes a sample of the pieces, before rounding
        assert float(last[name]) == pytest.approx(scores["nats_per_token"], rel=0.1)
        assert float(last[name]) < float(rows[0][name]) - 3


def test_the_prompts_score_as_recorded(model: Model) -> None:
    prompts = read_texts(embedded.PROMPTS)
    assert len(prompts) == len(set(prompts)) == 12
    assert loss(model, prompts) == pytest.approx(PROMPT_LOSS, rel=1e-5)


def test_the_held_out_loss_is_reproduced(model: Model, shared: Path) -> None:
    text = corpus.read_text(str(shared / "data" / STORIES))
    assert text.sha256 == RECORD["held_out"][STORIES]
    assert loss(model, list(text.documents)) == pytest.approx(
        EVALUATION["held_out"][STORIES]["nats_per_token"], rel=1e-5
    )


def test_it_generates_the_same_text_each_time(model: Model) -> None:
    prompt = "Once upon a time"
    texts = [model.generate(prompt, 40, temperature=0.7, top_k=40, seed=seed) for seed in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]
    assert all(text.startswith(prompt) for text in texts)
    words = texts[0].split()
    assert len(words) > 10


def test_a_bare_analyze_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        msg = f"the network was asked for: {arguments[1:]}"
        raise AssertionError(msg)

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(application, "keep_compiled", lambda: None)

    def analyze(out: Path, *options: str) -> xarray.Dataset:
        quick = ["--layers", "0,7", "--parts", "block", "--draws", "0", "--quiet", "--out", str(out)]
        monkeypatch.setattr(sys, "argv", ["jaxdyn", "analyze", *quick, *options])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert stop.value.code == 0
        return jaxdyn.open_results(out / "results.zarr")

    dataset = analyze(tmp_path / "bare")
    assert json.loads(dataset.attrs["provenance"])["model_source"] == embedded.NAME
    assert dataset.sizes["sample"] == 12
    assert dataset["henrici"].notnull().all()
    assert "kreiss_scaled" not in dataset  # off unless asked for or a model is given, since the bare run is to be quick
    assert "kreiss_scaled" in analyze(tmp_path / "kreiss", "--kreiss", "--samples", "1")
