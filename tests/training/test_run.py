"""A whole run: the folder it leaves, what transformers makes of it, what survives a kill, what is refused."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import jaxdyn
from jaxdyn import InputError, application, cli
from jaxdyn.training import Outcome, TrainSettings, model_at, train
from jaxdyn.training.checkpoints import log_spaced
from tests.models.tiny import in_own_dtype

TINY = TrainSettings(
    width=16, layers=2, heads=2, kv_heads=1, ff_dim=24, vocab=320, context=16,
    steps=12, batch=4, learning_rate=1e-2, warmup=2, validate_every=6, save_every=5,
)  # fmt: skip


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty short documents with words to merge, ASCII and not."""
    rng = np.random.default_rng(0)
    words = "the cat dog sat ran over under mat hill river stone 12 7 naïve “oh” and then".split()
    path = tmp_path_factory.mktemp("texts") / "texts.json"
    path.write_text(json.dumps([" ".join(rng.choice(words, 30)) + "." for _ in range(60)]))
    return path


@pytest.fixture(scope="module")
def finished(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    out = tmp_path_factory.mktemp("run") / "out"
    return out, train([f"{texts}[10:]"], TINY, out=out, held_out=[f"{texts}[:10]"])


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "curve.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_it_learns_and_writes_the_curve(finished: tuple[Path, Outcome]) -> None:
    out, outcome = finished
    rows = rows_of(out)
    assert [int(row["step"]) for row in rows] == list(range(13))
    assert [int(row["tokens"]) for row in rows] == [step * 64 for step in range(13)]
    losses = [float(row["train_loss"]) for row in rows[1:]]
    assert abs(losses[0] - np.log(outcome_vocab(out))) < 0.1  # the first guess is uniform
    assert losses[-1] < losses[0] - 0.3
    validated = {int(row["step"]) for row in rows if row["texts.json[:10]"]}
    assert validated == {0, 6, 12}
    assert set(outcome.held_out) == {"texts.json[:10]"}
    assert outcome.tokens_per_second is not None
    assert outcome.tokens_per_second > 0


def outcome_vocab(out: Path) -> int:
    return json.loads((out / "model" / "config.json").read_text())["vocab_size"]


def test_the_held_out_loss_is_that_of_the_exported_model(texts: Path, finished: tuple[Path, Outcome]) -> None:
    """Recomputed document by document from `Model.logits`, without the code that evaluates."""
    out, outcome = finished
    model = jaxdyn.load(out / "model")
    nats = tokens = 0
    documents = json.loads(texts.read_text())[:10]
    for ids in model.encode(documents):
        body = ids[1:]
        for at in range(0, len(body), 15):
            piece = [ids[0], *body[at : at + 15]]
            scores = jax.nn.log_softmax(np.asarray(model.logits([piece[:-1]]), np.float64)[0])
            nats -= float(scores[np.arange(len(piece) - 1), piece[1:]].sum())
            tokens += len(piece) - 1
    found = outcome.held_out["texts.json[:10]"]
    assert found["tokens"] == tokens
    assert found["bytes"] == sum(len(document.encode()) for document in documents)
    assert found["nats_per_token"] == pytest.approx(nats / tokens, rel=1e-6)
    assert found["nats_per_byte"] == pytest.approx(nats / found["bytes"], rel=1e-6)
    assert found == json.loads((out / "evaluation.json").read_text())["held_out"]["texts.json[:10]"]


def test_transformers_loads_the_folder_to_the_same_logits_and_tokens(finished: tuple[Path, Outcome]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = finished[1].folder
    hf = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model, model64 = jaxdyn.load(folder), jaxdyn.load(folder, dtype="float64")
    text = "the naïve cat ran 12 “oh”"
    ids = AutoTokenizer.from_pretrained(folder)(text)["input_ids"]
    assert ids == model.encode([text])[0]
    assert model.tokenizer is not None
    assert ids[0] == model.tokenizer.bos_token_id == hf.generation_config.eos_token_id
    assert model.decode(ids) == text
    assert model.adds_bos
    ids = ids[:16]
    with torch.no_grad():
        single = hf(torch.as_tensor([ids])).logits.numpy()
        double = in_own_dtype(hf)(torch.as_tensor([ids])).logits.numpy()
    assert np.abs(single - model.logits([ids])).max() < 2e-5 * np.abs(single).max()
    assert np.abs(double - model64.logits([ids])).max() < 1e-10 * np.abs(double).max()


def test_checkpoints_are_log_spaced_and_hold_the_models_on_the_way(finished: tuple[Path, Outcome]) -> None:
    out, _ = finished
    assert log_spaced(12) == [0, 1, 2, 4, 8, 12]
    assert log_spaced(8) == [0, 1, 2, 4, 8]
    assert log_spaced(1) == [0, 1]
    assert sorted(int(path.name) for path in (out / "checkpoints").iterdir()) == [0, 1, 2, 4, 8, 12]
    last, exported = model_at(out, 12), jaxdyn.load(out / "model")
    assert last.weights_hash == exported.weights_hash
    start = model_at(out, 0)
    assert np.array_equal(
        start.params["blocks"]["mlp"]["up"], exported.initialised(TINY.seed).params["blocks"]["mlp"]["up"]
    )
    assert start.encode(["the cat"]) == exported.encode(["the cat"])
    with pytest.raises(InputError, match=r"step: got 3; allowed 0, 1, 2, 4, 8, 12"):
        model_at(out, 3)
    with pytest.raises(InputError, match=r"give the folder of a training run"):
        model_at(out / "model", 0)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_save_dtype_and_dtype_change_the_result(
    texts: Path, finished: tuple[Path, Outcome], tmp_path: Path, dtype: str
) -> None:
    settings = replace(TINY, save_dtype=dtype, dtype="bfloat16" if dtype == "bfloat16" else "float32")
    outcome = train([f"{texts}[10:]"], settings, out=tmp_path / "out", held_out=[f"{texts}[:10]"])
    saved = jaxdyn.load(outcome.folder).params["blocks"]["mlp"]["up"]
    whole = jaxdyn.load(finished[1].folder).params["blocks"]["mlp"]["up"]
    assert np.array_equal(saved, saved.astype(dtype).astype("float32"))
    assert not np.array_equal(saved, whole)
    if dtype == "float16":  # the same run, rounded
        assert np.array_equal(saved, whole.astype(dtype).astype("float32"))
        assert rows_of(tmp_path / "out") == rows_of(finished[0])
    else:
        assert rows_of(tmp_path / "out") != rows_of(finished[0])


def test_without_held_out_files_the_end_of_the_text_is(texts: Path, tmp_path: Path) -> None:
    outcome = train([str(texts)], replace(TINY, steps=3), out=tmp_path / "out")
    assert set(outcome.held_out) == {"last 5 %"}
    model = jaxdyn.load(outcome.folder)
    total = sum(len(ids) - 1 for ids in model.encode(json.loads(texts.read_text())))
    assert outcome.held_out["last 5 %"]["tokens"] == pytest.approx(0.05 * total, abs=1)


OPTIONS = (
    "--width 16 --layers 2 --heads 2 --kv-heads 1 --ff-dim 24 --vocab 320 --context 16 --batch 4 --learning-rate 1e-2 "
    "--steps 200 --warmup 2 --validate-every 50 --save-every 20"
).split()


def test_a_killed_run_resumes_to_the_same_bits(texts: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", "from jaxdyn.cli import main; main()", "train", f"{texts}[10:]", *OPTIONS]
    command += ["--held-out", f"{texts}[:10]"]

    def finish(out: Path, *options: str) -> str:
        done = subprocess.run(
            [*command, "--out", str(out), *options], env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    report = json.loads(finish(tmp_path / "whole", "--quiet", "--json"))
    assert report["steps"] == 200
    cut = tmp_path / "cut"
    process = subprocess.Popen([*command, "--out", str(cut), "--quiet"], env=environment)
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        if (cut / "curve.csv").is_file() and len((cut / "curve.csv").read_text().splitlines()) > 60:
            break
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    reached = len((cut / "curve.csv").read_text().splitlines()) - 2
    assert 50 < reached < 200
    assert not (cut / "evaluation.json").exists()
    newest = max(int(path.name) for path in (cut / "checkpoints").iterdir() if path.name.isdigit())
    assert 40 <= newest <= reached
    said = finish(cut, "--resume")
    assert "tokens/s" in said
    assert "nats a token" in said
    for name in ("curve.csv", "evaluation.json", "model/model.safetensors", "model/tokenizer.json", "training.json"):
        assert (cut / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert sorted(path.name for path in (cut / "checkpoints").iterdir()) == sorted(map(str, log_spaced(200)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, r"already holds a run; go on with it \(--resume\)"),
        ({"resume": True, "settings": {"learning_rate": 2e-2}}, r"settings.learning_rate was 0.01, now 0.02"),
        ({"resume": True, "held_out": []}, r"held_out.texts.json\[:10\] was"),
    ],
)
def test_a_run_is_never_mixed_with_another(
    texts: Path, finished: tuple[Path, Outcome], change: dict, message: str
) -> None:
    out, _ = finished
    settings = replace(TINY, **change.get("settings", {}))
    before = (out / "curve.csv").read_bytes()
    with pytest.raises(InputError, match=message):
        train(
            [f"{texts}[10:]"],
            settings,
            out=out,
            held_out=change.get("held_out", [f"{texts}[:10]"]),
            resume=change.get("resume", False),
        )
    assert (out / "curve.csv").read_bytes() == before


def test_a_finished_run_resumed_is_the_same_run(texts: Path, finished: tuple[Path, Outcome]) -> None:
    out, outcome = finished
    again = train([f"{texts}[10:]"], TINY, out=out, held_out=[f"{texts}[:10]"], resume=True)
    assert again.held_out == outcome.held_out
    assert again.tokens_per_second is None
    assert len(rows_of(out)) == 13


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--width", "17"], "width: got 17 with 2 heads"),
        (["--kv-heads", "3"], "kv-heads: got 3; allowed divisors of heads, 2"),
        (["--layers", "0"], "layers: got 0; allowed 1 or above"),
        (["--vocab", "256"], "vocab: got 256; allowed 257 or above"),
        (["--warmup", "200"], "warmup: got 200; allowed 0 to 199"),
        (["--learning-rate", "0"], "learning-rate: got 0.0; allowed a finite number above 0"),
        (["--weight-decay", "-1"], "weight-decay: got -1.0; allowed a finite number 0 or above"),
        (["--clip", "nan"], "clip: got nan"),
        (["--dtype", "float16"], "dtype: got 'float16'; allowed float32, bfloat16"),
        (["--save-dtype", "int8"], "save-dtype: got 'int8'"),
        (["--seed", "-1"], "seed: got -1"),
        (["--context", "4000"], "tokens to train on; allowed 8000 or more"),
        (["--held-out", "absent.txt"], "cannot read absent.txt"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        arguments = ["jaxdyn", "train", str(texts), *OPTIONS, "--out", str(tmp_path / "out"), *options]
        patch.setattr(sys, "argv", arguments)
        patch.setattr(application, "keep_compiled", lambda: None)
        with pytest.raises(SystemExit) as stop:
            cli.main()
    errors = capsys.readouterr().err
    assert stop.value.code == 2
    assert message in errors
    assert len(errors.strip().splitlines()) == 1


def test_texts_and_folders_that_cannot_be_used(texts: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="texts: got none"):
        train([], TINY, out=tmp_path / "a")
    with pytest.raises(InputError, match=r"held-out: texts.json is among the texts"):
        train([str(texts)], TINY, out=tmp_path / "a", held_out=[str(texts)])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other files"):
        train([str(texts)], TINY, out=tmp_path / "full")
    with pytest.raises(InputError, match="cannot write to"):
        train([str(texts)], TINY, out=tmp_path / "full" / "thesis.txt" / "run")
    assert not (tmp_path / "a").exists()


def test_a_loss_that_is_not_finite_stops_the_run(texts: Path, tmp_path: Path) -> None:
    settings = replace(TINY, learning_rate=1e30, warmup=0, clip=1e30)
    with pytest.raises(InputError, match="learning-rate: the loss is not finite at step"):
        train([str(texts)], settings, out=tmp_path / "out")


def test_the_command_has_every_setting() -> None:
    """Each field is an option with the same default, so that no setting is out of reach."""
    import inspect
    from dataclasses import fields

    from jaxdyn.cli_train import train as command

    options = inspect.signature(command).parameters
    for field in fields(TrainSettings):
        assert options[field.name].default == field.default, field.name
    assert CliRunner().invoke(cli.app, ["train", "--help"]).exit_code == 0
