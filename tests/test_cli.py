"""The command line as a user meets it: what it writes and prints, what it says to bad input, what survives a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import yaml
from typer.testing import CliRunner

import jaxdyn
from jaxdyn import cli
from jaxdyn.pipeline.estimate import Rates
from jaxdyn.store import describe
from tests.models.tiny import tiny_llama
from tests.stores import assert_same_bits

LIGHT = ["--draws", "0", "--no-kreiss", "--parts", "block,update"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model as a Hugging Face folder, with a word-level tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("tiny")
    hf, _ = tiny_llama(hidden_size=16, num_attention_heads=2, num_key_value_heads=1, intermediate_size=24)
    hf.float().save_pretrained(path)
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"w{i}": i for i in range(3, 61)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    wrapped.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """One compilation cache for all subprocesses, and no network."""
    cache = str(tmp_path_factory.mktemp("cache"))
    return {**os.environ, "XDG_CACHE_HOME": cache, "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "default"}


def jaxdyn_command(*arguments: object, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    command = [sys.executable, "-c", "from jaxdyn.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_analyze_prints_a_table_and_writes_store_figures_and_config(
    folder: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    out = tmp_path / "run"
    done = jaxdyn_command(
        "analyze", folder, "--text", "w3 w4 w5 w6", "--text", "w7 w8 w9", "--no-kreiss", "--out", out,
        environment=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Henrici" in done.stdout
    assert "2 samples" in done.stdout
    assert "left" in done.stderr
    assert {path.name for path in out.iterdir()} >= {
        "results.zarr", "config.yaml", "depth_profiles.png", "eigenvalues.png", "bottleneck.png", "budget.svg",
        "directions.png", "energy.png", "card.png", "report.html",
    }  # fmt: skip
    page = (out / "report.html").read_text()
    assert f"jaxdyn analyze {folder} --text 'w3 w4 w5 w6'" in page
    assert "--text (sha256 " in page
    ds = jaxdyn.open_results(out / "results.zarr")
    assert ds["henrici"].dtype == np.float32
    assert ds["done"].all()
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert config["operator"] == "in-context"
    assert config["model_hash"] == ds.attrs["model_hash"]
    again = jaxdyn_command("analyze", folder, "--text", "w3", "--out", out, *LIGHT, environment=environment)
    assert again.returncode == 2
    assert "--resume" in again.stderr
    assert len(again.stderr.strip().splitlines()) == 1


def test_json_and_quiet(folder: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    out = tmp_path / "run"
    options = ["--text", "w3 w4 w5", "--out", out, "--quiet", "--dtype", "float64", *LIGHT]
    done = jaxdyn_command("analyze", folder, *options, "--json", environment=environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    report = json.loads(done.stdout)
    assert report["samples"] == 1
    assert report["failed"] == {}
    assert Path(report["store"]).is_dir()
    assert Path(report["report"]).is_file()
    assert jaxdyn.open_results(out / "results.zarr")["henrici"].dtype == np.float64
    quiet = jaxdyn_command("analyze", folder, *options, "--resume", environment=environment)
    assert quiet.returncode == 0, quiet.stderr
    assert quiet.stdout == ""


def killed(command: list[str], ready: Callable[[], bool], environment: dict[str, str]) -> None:
    """Start the command, and kill it as soon as `ready`."""
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None and not ready():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_a_run_killed_twice_leaves_readable_stores_and_resumes(
    folder: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    """Once in the run of the model, once in that of a random initialisation."""
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(f"w{3 + i % 50} w{4 + i % 50} w5" for i in range(48)))
    options = ["analyze", str(folder), "--texts", str(texts), "--unit", "4", "--quiet", "--compare-init", *LIGHT]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    done = jaxdyn_command(*options, "--out", whole, environment=environment)
    assert done.returncode == 0, done.stderr
    command = [sys.executable, "-c", "from jaxdyn.cli import main; main()", *options, "--out", str(cut)]

    def finished(name: str) -> int:
        return describe(cut / name).samples_done if (cut / name).is_dir() else 0

    killed(command, lambda: finished("results.zarr") >= 8, environment)
    assert 8 <= finished("results.zarr") < 48
    killed([*command, "--resume"], lambda: finished("init.zarr/seed-1") >= 8, environment)
    assert 8 <= finished("init.zarr/seed-1") < 48
    assert describe(cut / "init.zarr" / "seed-0").complete
    resumed = jaxdyn_command(*options, "--out", cut, "--resume", "--json", environment=environment)
    assert resumed.returncode == 0, resumed.stderr
    assert_same_bits(whole / "results.zarr", cut / "results.zarr")
    for seed in range(5):
        assert_same_bits(whole / "init.zarr" / f"seed-{seed}", cut / "init.zarr" / f"seed-{seed}")
    told = json.loads(resumed.stdout)
    assert told["initial"]["seeds"] == told["table"]["seeds"] == [0, 1, 2, 3, 4]
    assert told["initial"]["failed"] == {}
    assert len(told["table"]["parts"]["block"]["henrici_normalized"]["initial"]["excess"]) == 3
    assert "N5 (random initialisation" in (cut / "report.html").read_text()


def test_ctrl_c_says_how_to_go_on(folder: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(f"w{3 + i % 50} w4 w5" for i in range(400)))
    out = tmp_path / "run"
    options = ["analyze", str(folder), "--texts", str(texts), "--unit", "4", "--quiet", *LIGHT, "--out", str(out)]
    command = [sys.executable, "-c", "from jaxdyn.cli import main; main()", *options]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        if (out / "results.zarr").is_dir() and jaxdyn.open_results(out / "results.zarr")["done"].values.any():
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "--resume" in errors
    assert "Traceback" not in errors
    done = jaxdyn.open_results(out / "results.zarr")["done"]
    assert done.values.any()
    assert not done.values.all()


def invoke(*arguments: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Run the command in this process; exit code and what it wrote to standard error."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["jaxdyn", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
    return int(stop.value.code or 0), capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "text: give prompts with --text"),
        (["--text", ""], "texts[0]: got ''"),
        (["--text", "w3 " * 80], "allowed at most 64"),
        (["--text", "w3", "--layers", "9"], "layers: got 9; allowed 0 to 2"),
        (["--text", "w3", "--layers", "x"], "layers: got 'x'"),
        (["--text", "w3", "--tokens", "first"], "tokens: got 'first'"),
        (["--text", "w3", "--operator", "cross"], "operator: got 'cross'"),
        (["--text", "w3", "--dtype", "float16"], "dtype: got 'float16'"),
        (["--text", "w3", "--weights-dtype", "int8"], "weights-dtype: got 'int8'"),
        (["--text", "w3", "--samples", "two"], "samples"),
        (["--text", "w3", "--samples", "2"], "samples: got 2; allowed 1 to 1"),
        (["--texts", "absent.txt"], "no file at absent.txt"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    code, errors = invoke("analyze", folder, "--out", tmp_path / "run", "--quiet", *options, capsys=capsys)
    assert code == 2
    first, *more = errors.strip().splitlines()
    assert message in first
    assert more == (["see docs/jacobians.md"] if message.startswith("operator") else [])
    assert "Traceback" not in errors


def test_broken_models_are_one_line_and_exit_code_two(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(name: str) -> Path:
        copy = tmp_path / name
        copy.mkdir()
        for file in folder.iterdir():
            (copy / file.name).write_bytes(file.read_bytes())
        return copy

    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    truncated = broken("truncated")
    content = (truncated / "model.safetensors").read_bytes()
    (truncated / "model.safetensors").write_bytes(content[: len(content) // 2])
    nan = broken("nan")
    tensors["model.norm.weight"] = np.full_like(tensors["model.norm.weight"], np.nan)
    safetensors.numpy.save_file(tensors, nan / "model.safetensors")
    shape = broken("shape")
    tensors["model.norm.weight"] = np.ones(5, np.float32)
    safetensors.numpy.save_file(tensors, shape / "model.safetensors")
    config = broken("config")
    described = json.loads((config / "config.json").read_text()) | {"num_hidden_layers": 4}
    (config / "config.json").write_text(json.dumps(described))
    expected = {truncated: "model.safetensors", nan: "NaN", shape: "model.norm.weight", config: "layers.3"}
    for place, word in expected.items():
        code, errors = invoke("analyze", place, "--text", "w3", "--out", tmp_path / "run", "--quiet", capsys=capsys)
        assert code == 2, place
        assert word in errors, errors
        assert "Traceback" not in errors


def test_debug_shows_the_traceback(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, errors = invoke("analyze", folder, "--text", "w3", "--layers", "9", "--debug", "--quiet", capsys=capsys)
    assert code == 2
    assert "Traceback" in errors


def test_an_unwritable_place_is_one_line_and_exit_code_two(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    code, errors = invoke(
        "analyze", folder, "--text", "w3", "--quiet", "--out", tmp_path / "file" / "run", *LIGHT, capsys=capsys
    )
    assert code == 2, errors
    assert "file" in errors
    assert "Traceback" not in errors


def test_convert_keeps_a_copy_that_analyze_takes(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], environment: dict[str, str]
) -> None:
    copy = tmp_path / "copy"
    done = jaxdyn_command("convert", folder, copy, "--json", environment=environment)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    source = jaxdyn.load(folder)
    expected = {"directory": str(copy), "source": str(folder), "revision": None, "dtype": "float32"}
    assert said == {**expected, "weights_hash": source.weights_hash}
    out = tmp_path / "run"
    done = jaxdyn_command(
        "analyze", copy, "--text", "w3 w4 w5", "--quiet", *LIGHT, "--out", out, environment=environment
    )
    assert done.returncode == 0, done.stderr
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert (config["model"], config["model_hash"], config["mesh"]) == (str(folder), source.weights_hash, None)
    code, errors = invoke("convert", folder, copy, capsys=capsys)
    assert (code, len(errors.strip().splitlines())) == (2, 1)
    assert "exists and is not an empty folder; choose another" in errors


def test_models_lists_families_and_describes_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runner = CliRunner()
    shown = runner.invoke(cli.app, ["models"])
    assert shown.exit_code == 0, shown.output
    assert "LlamaForCausalLM" in shown.stdout
    assert "1e-10 in float64" in shown.stdout.replace("\n", " ")
    assert set(json.loads(runner.invoke(cli.app, ["models", "--json"]).stdout)["families"]) >= {"gpt2", "llama"}
    shown = runner.invoke(cli.app, ["models", str(folder)])
    assert shown.exit_code == 0, shown.output
    assert "within a factor of 3" in shown.stdout
    found = json.loads(runner.invoke(cli.app, ["models", str(folder), "--json", "--samples", "5"]).stdout)
    assert found["parameters"] == sum(
        leaf.size for leaf in safetensors.numpy.load_file(folder / "model.safetensors").values()
    )
    assert (found["analysis"]["prompts"], found["analysis"]["length"]) == (5, 64)


MODELS_OPTIONS = {
    "--samples": "7", "--length": "9", "--tokens": "all", "--layers": "1", "--parts": "block", "--draws": "0",
    "--weights-dtype": "bfloat16", "--dtype": "float64", "--unit": "3", "--no-kreiss": None,
}  # fmt: skip


@pytest.mark.parametrize("option", MODELS_OPTIONS)
def test_each_option_of_models_changes_the_estimate(folder: Path, monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    rates = Rates(schur_seconds=0.02, flops=1e11, cores=4, device="a device")
    monkeypatch.setattr("jaxdyn.pipeline.estimate.measure_rates", lambda _: rates)
    value = MODELS_OPTIONS[option]
    words = [option] if value is None else [option, value]
    plain, changed = (
        json.loads(CliRunner().invoke(cli.app, ["models", str(folder), "--json", *more]).stdout)["analysis"]
        for more in ([], words)
    )
    numbers = ("bytes", "seconds", "samples", "matrices")
    assert [plain[name] for name in numbers] != [changed[name] for name in numbers]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--samples", "3"], "samples: got 3 without a MODEL, which it is about"),
        (["--revision", "main"], "revision: got 'main' without a MODEL"),
        (["FOLDER", "--samples", "0"], "samples: got 0; allowed 1 or more"),
        (["FOLDER", "--layers", "9"], "layers: got 9; allowed 0 to 2"),
        (["FOLDER", "--tokens", "first"], "tokens: got 'first'"),
        (["FOLDER", "--dtype", "float16"], "dtype: got 'float16'"),
        (["FOLDER", "--weights-dtype", "int8"], "weights-dtype: got 'int8'"),
        (["FOLDER", "--draws", "3"], "draws: got 3"),
        (["FOLDER", "--revision", "main"], "revision: got 'main', but"),
        (["./absent"], "there is no such folder"),
    ],
)
def test_bad_input_of_models(
    folder: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    code, errors = invoke("models", *[str(folder) if one == "FOLDER" else one for one in options], capsys=capsys)
    assert code == 2
    assert message in errors
    assert len(errors.strip().splitlines()) == 1


def test_doctor_and_version() -> None:
    runner = CliRunner()
    facts = json.loads(runner.invoke(cli.app, ["doctor", "--json"]).stdout)
    assert facts["versions"]["jax"]
    assert {choice["operation"] for choice in facts["kernels"]} >= {"schur", "eig", "eigvals", "resolvent_norm"}
    cpu = [c for c in facts["kernels"] if c["platform"] == "cpu" and c["operation"] == "schur"]
    assert cpu[0]["implementation"] == "lapack"
    shown = runner.invoke(cli.app, ["doctor"])
    assert shown.exit_code == 0
    assert "lapack" in shown.stdout
    assert runner.invoke(cli.app, ["--version"]).stdout.startswith("jaxdyn ")
