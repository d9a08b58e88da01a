"""The command as a user meets it, on a tiny model with its real numbers: processes, dry run, report, store."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

import jaxdyn
from jaxdyn.sweep.log import read_metrics
from tests.stores import assert_same_bits

STORE = "tiny/in-context/results.zarr"
ALL_PROCESSES = os.environ.get("JAXDYN_TEST_PROCESSES") == "1"
needs_time = pytest.mark.skipif(
    not ALL_PROCESSES, reason="compiles once more in every process; JAXDYN_TEST_PROCESSES=1 runs it"
)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """One compilation cache for all, and no network."""
    cache = str(tmp_path_factory.mktemp("cache"))
    return {**os.environ, "XDG_CACHE_HOME": cache, "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "default"}


@pytest.fixture(scope="module")
def plan(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan of the tiny model, all positions of five texts, in one thread."""
    place = tmp_path_factory.mktemp("plan")
    texts = [" ".join(f"w{3 + (7 * k + 3 * j) % 50}" for j in range(20 + k)) for k in range(5)]
    (place / "texts.json").write_text(json.dumps(texts))
    told = {
        "models": {"model": str(folder), "name": "tiny"}, "texts": "texts.json", "parts": ["block", "update"],
        "tokens": "all", "draws": 0, "unit": 12, "threads": 1, "out": "out",
        "outputs": ["eigenvalues", "singular-values", "averages"],
    }  # fmt: skip
    (place / "PLAN.yaml").write_text(yaml.safe_dump(told))
    return place / "PLAN.yaml"


def command(*arguments: object, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-c", "from jaxdyn.cli import main; main()", "sweep", *map(str, arguments)]
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=900, check=False)


@pytest.fixture(scope="module")
def whole(plan: Path, environment: dict[str, str]) -> Path:
    """What one process makes of it."""
    done = command(plan, "--json", environment=environment)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["units"], told["samples"], told["matrices"], told["failed"]) == (10, 110, 220, {})
    return plan.parent / "out"


def test_a_dry_run_says_what_the_run_then_writes(whole: Path, plan: Path, environment: dict[str, str]) -> None:
    done = command(plan, "--dry-run", "--json", environment=environment)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["units"], told["samples"], told["matrices"]) == (10, 110, 220)
    assert len(read_metrics(whole)) == told["units"]
    files = [file for file in (whole / STORE).rglob("*") if file.is_file()]
    assert told["bytes"]["total"] == pytest.approx(sum(file.stat().st_size for file in files), rel=0.08)
    assert told["bytes"]["files"] == pytest.approx(len(files), rel=0.05)
    assert told["memory"]["total"] < told["memory"]["limit"]


def test_what_is_stored_is_what_analyze_measures(whole: Path, plan: Path, folder: Path) -> None:
    model, texts = jaxdyn.load(folder), json.loads((plan.parent / "texts.json").read_text())
    expected = jaxdyn.analyze(model, texts, parts=["block", "update"], tokens="all", draws=0, kreiss=False)
    found = jaxdyn.open_results(whole / STORE).load()
    assert {*expected.data_vars} == {*found.data_vars}
    for name in ("henrici", "effective_rank", "singular_values", "spectral_radius", "token", "position"):
        np.testing.assert_allclose(found[name].values, expected[name].values, rtol=2e-4, atol=1e-5, err_msg=name)
    tree = jaxdyn.open_tree(whole / STORE)
    assert {"mean", "cumulative", "decoded", "relative", "units"} <= set(tree.children)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--processes", 2),
        pytest.param(("--processes", 4), marks=needs_time),
        pytest.param(("--processes", 2, "--distributed"), marks=needs_time),
    ],
    ids=lambda given: "-".join(map(str, given)),
)
def test_several_processes_give_the_same_bits(
    whole: Path, plan: Path, environment: dict[str, str], tmp_path: Path, arguments: tuple[object, ...]
) -> None:
    done = command(plan, "--out", tmp_path, "--quiet", *arguments, environment=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    lines = read_metrics(tmp_path)
    assert len({line["unit"] for line in lines}) == 10
    assert_same_bits(whole / STORE, tmp_path / STORE)


def test_the_report_reads_a_sweep(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from typer.testing import CliRunner

    from jaxdyn import cli

    done = CliRunner().invoke(cli.app, ["report", str(whole / "tiny" / "in-context"), "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "110 of 110 samples done, complete" in done.output
    assert "jaxdyn sweep" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["PLAN.yaml", "--processes", "0"], "processes: got 0; allowed 1 or more"),
        (["PLAN.yaml", "--processes", "2", "--process-id", "0", "--num-processes", "2"], "give the first to have"),
        (["PLAN.yaml", "--process-id", "0"], "--process-id and --num-processes come together"),
        (["PLAN.yaml", "--process-id", "2", "--num-processes", "2"], "process-id: got 2 of 2; allowed 0 to 1"),
        (["PLAN.yaml", "--coordinator", "here:1"], "--coordinator needs both"),
        (["PLAN.yaml", "other.yaml"], "plan: got 2 arguments; give one PLAN.yaml"),
        (["nothing.yaml"], "plan: cannot read"),
        (["a", "b", "--merge"], "out: got none; --merge writes"),
    ],
)
def test_options_that_contradict_are_one_line(
    plan: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from jaxdyn import cli

    monkeypatch.chdir(plan.parent)
    found = CliRunner().invoke(cli.app, ["sweep", *arguments])
    assert isinstance(found.exception, ValueError)
    assert message in str(found.exception)
