"""The presets whose devices hold one model: the store is that of one device, whatever stops the processes meanwhile.

Jacobians, their sums and the exchanges between processes are real. What is measured of the Jacobians is a stub where
processes are killed and started often, and real where a whole store is compared.
"""

import dataclasses
import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import jaxdyn
from jaxdyn.models import orbax_copy
from jaxdyn.store import done_units
from jaxdyn.sweep.log import read_metrics
from jaxdyn.sweep.plan import ModelEntry, Plan, Texts
from jaxdyn.training.settings import TrainSettings
from tests.stores import assert_same_bits
from tests.sweep.conftest import write_model
from tests.sweep.stub import WORDS, Child

STORE = "tiny/in-context/results.zarr"
SPLIT = TrainSettings(width=8, layers=3, heads=2, kv_heads=2, ff_dim=12, context=16, steps=1, warmup=0)
"""Sizes that two devices divide."""
UNITS = 5
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Two positions of five prompts in units of two, in float64, of the first block and the last."""
    place = tmp_path_factory.mktemp("plans")
    write_model(SPLIT, 64, place / "model")
    (place / "texts.json").write_text(json.dumps([" ".join(WORDS[k : 2 * k + 3]) for k in range(5)]))
    return Plan(
        (ModelEntry("tiny", str(place / "model")),), Texts(str(place / "texts.json")), place / "one", layers=(0, 2),
        parts=("block", "mlp"), tokens="last:2", dtype="float64", draws=0, unit=2, mesh="one",
        outputs=("averages", "jacobians"),
    )  # fmt: skip


def start(plan: Plan, count: int, **options: Any) -> list[Child]:
    """Begin processes that have joined, if there are several."""
    if count > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            options["coordinator"] = f"127.0.0.1:{free.getsockname()[1]}"
    return [Child(plan, number, count, **{"devices": 1, **options}) for number in range(count)]


def sweep(plan: Plan, count: int, **options: Any) -> list[Any]:
    children = start(plan, count, **options)
    told = [child.result() for child in children]
    assert [child.wait() for child in children] == [0] * count, told
    return told


@pytest.fixture(scope="module")
def one(plan: Plan) -> Path:
    """What one device makes of it."""
    assert sweep(plan, 1)[0]["own_units"] == UNITS
    return plan.out


@pytest.fixture(scope="module")
def fsdp(plan: Plan) -> Plan:
    """What two processes of a device each make of it, together."""
    plan = dataclasses.replace(plan, mesh="fsdp", out=plan.out.parent / "fsdp")
    told = sweep(plan, 2)
    assert [one["own_units"] for one in told] == [3, 2], "a unit a device, in order"
    return plan


def assert_same_numbers(one: Path, other: Path) -> None:
    """Every number to 1e-12, coordinates and labels exactly; the Jacobians are there and differ from each other."""
    first, second = (jaxdyn.open_tree(place / STORE).load() for place in (one, other))
    assert first.groups == second.groups
    for group in first.groups:
        for name, value in first[group].to_dataset().variables.items():
            got, want = second[group].to_dataset()[name].values, value.values
            if want.dtype.kind in "fc":
                np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12, err_msg=f"{group}/{name}")
            elif name != "address":
                assert np.array_equal(got, want), (group, name)
    jacobians = first["matrices"]["jacobian"].values
    assert len(np.unique(np.round(np.linalg.norm(jacobians, axis=(-2, -1)), 9))) == 2 * 2 * 10
    np.testing.assert_allclose(np.linalg.norm(jacobians, axis=(-2, -1)), first["henrici"].values, rtol=1e-12)


def test_weights_split_over_processes_give_the_numbers_of_one_device(one: Path, fsdp: Plan) -> None:
    assert_same_numbers(one, fsdp.out)
    assert {line["unit"]: line["process"] for line in read_metrics(fsdp.out)} == {0: 0, 1: 1, 2: 0, 3: 1, 4: 0}
    assert not list((fsdp.out / "claims").iterdir())


def assert_all_devices(place: Path, devices: int) -> None:
    """Process 0 has told of so many devices, each at a unit of its own."""
    log = (place / "logs" / "process-00000.log").read_text()
    assert f"on {devices} devices, {devices} units at once" in log


def test_several_devices_of_one_process_are_all_used(one: Path, plan: Plan, tmp_path: Path) -> None:
    plan = dataclasses.replace(plan, mesh="data", out=tmp_path)
    (told,) = sweep(plan, 1, devices=2)
    assert told["own_units"] == UNITS
    assert_all_devices(tmp_path, 2)
    assert json.loads((tmp_path / "sweep.json").read_text())["mesh"] is None
    assert_same_bits(one / STORE, tmp_path / STORE)


@pytest.fixture(scope="module")
def measured(plan: Plan) -> Plan:
    """What one device makes of the block alone, with the real measures of samples and averages."""
    outputs = ("eigenvalues", "singular-values", "averages")
    plan = dataclasses.replace(plan, parts=("block",), outputs=outputs, out=plan.out.parent / "measured")
    sweep(plan, 1, measured=True)
    return plan


@pytest.mark.parametrize(("mesh", "devices"), [("fsdp", 1), ("tensor", 2)])
def test_measures_of_a_model_split_over_processes_are_those_of_one(
    measured: Plan, mesh: str, devices: int, tmp_path: Path
) -> None:
    """To rounding: the weights come in pieces, whose products are added in another order; so the Jacobians differ.

    (With "data" each device has all weights and runs the program of one: bit for bit, above and in test_real.py.)
    """
    model = 2 if mesh == "tensor" else None
    plan = dataclasses.replace(measured, mesh=mesh, out=tmp_path, model_devices=model)
    told = sweep(plan, 2, devices=devices, measured=True)
    assert sum(one["own_units"] for one in told) == UNITS
    assert_all_devices(tmp_path, 2 * devices)
    axes = {"data": 2, "model": 2} if mesh == "tensor" else {"data": 2}
    made = json.loads((tmp_path / "sweep.json").read_text())["mesh"]
    assert made == {"preset": mesh, "axes": axes, "processes": 2}
    first, second = (jaxdyn.open_tree(place / STORE).load() for place in (measured.out, tmp_path))
    assert first.groups == second.groups
    assert {"/", "/mean", "/decoded", "/units"} <= {*first.groups}
    assert {"henrici", "self_alignment", "effective_rank", "eigenvalues", "singular_values"} <= {*first.variables}
    for group in first.groups:
        assert_same_measures(first[group].to_dataset(), second[group].to_dataset())


def assert_same_measures(first: Any, second: Any) -> None:
    """Labels exactly, numbers to 1e-12 of the largest; a condition number moves by its square."""
    for name, value in first.variables.items():
        got, want = second[name].values, value.values
        if want.dtype.kind not in "fc":
            assert name == "address" or np.array_equal(got, want), name
            continue
        size = np.nanmax(np.abs(want), initial=1)
        if name in ("residual", "orthogonality"):  # ratios of rounding errors: no two programs agree on them
            assert np.all(got < 10), name
            continue
        scale = size**2 if "condition" in str(name) else size
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-12 * scale, err_msg=str(name))


def test_one_process_killed_ends_the_other_and_the_same_command_gives_the_same_bits(fsdp: Plan, tmp_path: Path) -> None:
    plan = dataclasses.replace(fsdp, out=tmp_path)
    victim, other = reversed(start(plan, 2, delay=0.3, stale=5.0))
    wait_for(lambda: (tmp_path / STORE).exists() and len(done_units(tmp_path / STORE)) >= 2)
    victim.kill()
    told = other.result()
    assert "another process of this sweep has ended" in told or told == "gone", told
    assert other.wait() != 0
    assert 0 < len(before := done_units(tmp_path / STORE)) < UNITS
    sweep(plan, 2)
    assert_same_bits(fsdp.out / STORE, tmp_path / STORE)
    assert len(read_metrics(tmp_path)) <= UNITS + 2, f"{before} were not stored again"


def test_another_mesh_and_processes_that_have_not_joined_are_refused(fsdp: Plan, plan: Plan) -> None:
    (told,) = sweep(fsdp, 1)
    assert "was made with fsdp over data 2 devices in 2 processes, on which its bits depend" in told
    assert "now it is with fsdp over data 1 devices in 1 processes; start it as it was" in told
    (told,) = sweep(dataclasses.replace(plan, out=fsdp.out), 1)
    assert "now it is with one or data" in told
    child = Child(fsdp, 0, 2, devices=1)
    assert "mesh: got fsdp with 2 processes that have not joined in jax's runtime" in child.result()


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="needs /proc/self/io, which counts what is read: Linux")
def test_a_process_reads_its_part_of_a_copy_and_checks_as_much(copy: tuple[Path, float]) -> None:
    """Of two processes each reads half of the bytes for its parameters, and half for their hashes."""
    folder, wanted = copy
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    line = [sys.executable, "-m", "tests.sweep.read_part", str(folder), "fsdp"]
    running = [
        subprocess.Popen([*line, str(k), "2", address], stdout=subprocess.PIPE, text=True, cwd=ROOT) for k in range(2)
    ]
    told = [json.loads(one.communicate(timeout=120)[0].splitlines()[-1]) for one in running]
    for one in told:
        assert 0.49 < one["own"] < 0.51
        assert one["read"] < 0.55
        assert one["hashed"] < 0.6
        assert one["total"] == pytest.approx(wanted, rel=1e-4)
    assert sum(one["hashed"] for one in told) > 1, "every file is checked by one of them"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A copy of a model of 6 MB, and the sum of its parameters."""
    place = tmp_path_factory.mktemp("copy")
    sizes = {"width": 128, "layers": 4, "heads": 4, "kv_heads": 4, "ff_dim": 512, "context": 16}
    write_model(TrainSettings(**sizes, steps=1, warmup=0), 4096, place / "model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(orbax_copy, "CHUNK", (2**14, 2**22))  # pieces that are small for a small model
        patch.setattr(orbax_copy, "FILE", (2**18, 2**28))
        whole = jaxdyn.convert(place / "model", place / "copy")
    total = sum(np.asarray(leaf).sum(dtype=np.float64) for leaf in jax.tree.leaves(jaxdyn.load(whole).params))
    return whole, float(total)


def wait_for(condition: Any, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)
