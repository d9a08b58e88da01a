"""Several processes of one sweep, with stub units: shared out, killed, hung, started anew; how they are started."""

import dataclasses
import json
import os
import random
import signal
import socket
import time
from pathlib import Path

import pytest

from jaxdyn.errors import InputError
from jaxdyn.store import done_units
from jaxdyn.sweep import processes
from jaxdyn.sweep.log import read_metrics
from jaxdyn.sweep.plan import Plan
from tests.stores import assert_same_bits
from tests.sweep import stub
from tests.sweep.stub import Child

STORES = ["one/in-context/results.zarr", "two/in-context/results.zarr"]
KILLS = int(os.environ.get("JAXDYN_TEST_KILLS", "3"))
"""Random kills of `test_killed_at_random_moments...`; 20 were made once before a release."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """What one process makes of the plan."""
    plan = stub.make_plan(tmp_path_factory.mktemp("whole"))
    child = Child(plan)
    assert child.result()["own_units"] == 12
    assert child.wait() == 0
    return plan


def fresh(plan: Plan, folder: Path) -> Plan:
    return dataclasses.replace(plan, out=folder / "out")


def assert_same(one: Plan, other: Plan) -> None:
    for store in STORES:
        assert_same_bits(one.out / store, other.out / store)


def units_done(plan: Plan) -> int:
    return sum(len(done_units(plan.out / store)) for store in STORES if (plan.out / store).exists())


def wait_for(condition, seconds: float = stub.PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


@pytest.mark.parametrize("count", [2, 4])
def test_processes_share_the_units_and_give_the_same_stores(whole: Plan, tmp_path: Path, count: int) -> None:
    plan = fresh(whole, tmp_path)
    children = [Child(plan, number, count, delay=0.05) for number in range(count)]
    told = [child.result() for child in children]
    assert [child.wait() for child in children] == [0] * count
    assert sum(one["own_units"] for one in told) == 12
    assert all(one["matrices"] == 44 for one in told), "everyone stays until the whole is complete"
    lines = read_metrics(plan.out)
    assert len({(line["model"], line["unit"]) for line in lines}) == len(lines) == 12, "none twice"
    assert_same(whole, plan)


def test_processes_joined_in_the_runtime_of_jax_give_the_same_stores(whole: Plan, tmp_path: Path) -> None:
    """A coordinator on this machine and gloo between the devices; the first to join is the last to go."""
    plan = fresh(whole, tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    children = [Child(plan, number, 2, coordinator=coordinator, delay=0.05) for number in range(2)]
    told = [child.result() for child in children]
    assert [child.wait() for child in children] == [0, 0]
    assert sum(one["own_units"] for one in told) == 12
    assert_same(whole, plan)


def test_the_others_do_the_work_of_a_process_that_is_killed(whole: Plan, tmp_path: Path) -> None:
    plan = fresh(whole, tmp_path)
    victim, other = (Child(plan, number, 2, delay=0.15) for number in range(2))
    wait_for(lambda: units_done(plan) >= 2)
    victim.kill()
    told = other.result()
    assert (victim.wait(), other.wait()) == (-signal.SIGKILL, 0)
    assert told["units"] == 12
    assert told["own_units"] > 6, "its own six, and what the other left"
    assert_same(whole, plan)
    assert [file.stem[:5] for file in (plan.out / "processes").glob("*.json")] == ["00000"], "what the dead one left"
    assert Child(plan).result()["own_units"] == 0
    assert not list((plan.out / "processes").iterdir())


def test_a_process_that_hangs_is_given_up_and_does_no_harm_when_it_wakes(whole: Plan, tmp_path: Path) -> None:
    plan = fresh(whole, tmp_path)
    hung, other = (Child(plan, number, 2, delay=0.1, stale=1.0) for number in range(2))
    wait_for(lambda: units_done(plan) >= 2)
    assert hung.process.pid is not None
    os.kill(hung.process.pid, signal.SIGSTOP)
    try:
        told = other.result()
    finally:
        os.kill(hung.process.pid, signal.SIGCONT)
    assert isinstance(told, dict), told
    assert told["own_units"] > 6
    assert hung.result()["units"] == 12, "it finds everything done"
    assert (hung.wait(), other.wait()) == (0, 0)
    assert_same(whole, plan)


def test_a_straggler_keeps_its_unit_and_loses_the_rest(whole: Plan, tmp_path: Path) -> None:
    plan = fresh(whole, tmp_path)
    slow, fast = Child(plan, 0, 2, delay=0.8), Child(plan, 1, 2, delay=0.01)
    told = slow.result(), fast.result()
    assert (slow.wait(), fast.wait()) == (0, 0)
    assert told[0]["own_units"] + told[1]["own_units"] == 12
    assert told[1]["own_units"] >= 9
    assert_same(whole, plan)


def test_killed_at_random_moments_and_resumed_with_any_number_of_processes(whole: Plan, tmp_path: Path) -> None:
    """`JAXDYN_TEST_KILLS=20 pytest tests/sweep/test_processes.py -k random` kills twenty times."""
    clock, kills, held, rounds = random.Random(20260514), 0, [], 0
    plan = fresh(whole, tmp_path)
    while kills < KILLS:
        rounds += 1
        count, before = clock.choice([1, 2, 3]), units_done(plan)
        children = [Child(plan, number, count, delay=0.05) for number in range(count)]
        if rounds % 3:  # else the kill may fall on the start, or while the sweep is made
            wait_for_units(plan, before + 1)
        for child in clock.sample(children, count):
            time.sleep(clock.uniform(0, 0.2))
            child.kill()
        kills += [child.wait() for child in children].count(-signal.SIGKILL)
        held.append(units_done(plan))
        if held[-1] == 12:  # it was finished before: compare, and begin once more
            assert_finishes(plan, whole)
            plan = fresh(whole, tmp_path / str(rounds))
    assert_finishes(plan, whole)
    assert any(0 < units < 12 for units in held), f"no kill fell between two units: {held}"


def wait_for_units(plan: Plan, count: int) -> None:
    wait_for(lambda: units_done(plan) >= count)


def assert_finishes(plan: Plan, whole: Plan) -> None:
    """One process goes on to the end, and nothing is lost or double."""
    child = Child(plan)
    told = child.result()
    assert child.wait() == 0
    assert (told["units"], told["matrices"]) == (12, 44)
    assert_same(whole, plan)


def test_launchers_are_found_by_what_they_set() -> None:
    slurm = {
        "SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "n[1-2]", "SLURM_NTASKS": "4", "SLURM_PROCID": "1",
        "SLURM_LOCALID": "0",
    }  # fmt: skip
    assert processes.launcher(slurm) == "SLURM"
    assert processes.launcher({**slurm, "SLURM_NTASKS": "1"}) is None, "a job of one task is alone"
    assert processes.launcher({key: slurm[key] for key in ("SLURM_JOB_ID", "SLURM_NTASKS")}) is None
    assert processes.launcher({"OMPI_MCA_orte_hnp_uri": "1;tcp://h:1", "OMPI_COMM_WORLD_SIZE": "2"}) == "Open MPI"
    pod = {"TPU_WORKER_ID": "0", "TPU_WORKER_HOSTNAMES": "a,b"}
    assert processes.launcher(pod) == "a TPU slice"
    assert processes.launcher({**pod, "TPU_WORKER_HOSTNAMES": "localhost"}) is None
    assert processes.launcher({}) is None


def test_the_variables_are_those_that_jax_detects_by(monkeypatch: pytest.MonkeyPatch) -> None:
    from jax._src.clusters.ompi_cluster import OmpiCluster
    from jax._src.clusters.slurm_cluster import SlurmCluster

    for name, cluster in (("SLURM", SlurmCluster), ("Open MPI", OmpiCluster)):
        for variable in processes.LAUNCHERS[name]:
            monkeypatch.setenv(variable, "2")
        assert cluster.is_env_present()
        assert cluster.get_process_count() == 2
        assert processes.launcher() == name
        for variable in processes.LAUNCHERS[name]:
            monkeypatch.delenv(variable)
        assert not cluster.is_env_present()


def test_cores_are_given_out_by_the_number_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[set[int]] = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {4, 5, 6, 7})
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, chosen: given.append(chosen))
    for variable, value in (("JAXDYN_LOCAL_PROCESS", "1"), ("SLURM_LOCALID", "0")):
        with monkeypatch.context() as patch:
            patch.setenv(variable, value)
            processes.limit_cores(2)
    processes.limit_cores(4)
    assert given == [{6, 7}, {4, 5}]
    with pytest.raises(InputError, match="threads: got 5; this process may use 4 cores"):
        processes.limit_cores(5)


def test_the_gpus_of_a_machine_are_dealt_out_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    cards = ["0000:01:00.0", "0000:02:00.0", "0000:03:00.0", "0000:04:00.0", "0000:05:00.0"]

    def given(count: int) -> list[str]:
        return [processes.devices_of(k, count, cards)["CUDA_VISIBLE_DEVICES"] for k in range(count)]

    assert given(5) == ["0", "1", "2", "3", "4"]
    assert given(2) == ["0,2,4", "1,3"]
    assert given(1) == ["0,1,2,3,4"]
    with pytest.raises(InputError, match="processes: got 6, this machine has 5 GPUs; allowed one process a GPU"):
        processes.devices_of(0, 6, cards)
    assert processes.devices_of(0, 2, []) == {}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert processes.devices_of(0, 2, cards) == {}, "the caller has chosen"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert processes.devices_of(0, 2, cards) == {}


def test_several_processes_are_refused_on_a_host_of_tpu_chips_as_jax_counts_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A bus with two chips, a network card of the same maker, and another's card."""
    from jax._src import hardware_utils

    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    assert hardware_utils._GOOGLE_PCI_VENDOR_ID == processes.TPU_VENDOR
    assert hardware_utils._TPU_PCI_DEVICE_IDS.keys() == processes.TPU_DEVICES
    for place, vendor, device in (("04.0", "0x1ae0", "0x0063"), ("05.0", "0x1ae0", "0x0063"),
                                  ("06.0", "0x1ae0", "0x0042"), ("07.0", "0x8086", "0x0063")):  # fmt: skip
        (tmp_path / "host" / place).mkdir(parents=True)
        (tmp_path / "host" / place / "vendor").write_text(f"{vendor}\n")
        (tmp_path / "host" / place / "device").write_text(f"{device}\n")
    (tmp_path / "host" / "08.0").mkdir()
    assert processes.tpu_chips(tmp_path / "host") == 2
    with pytest.raises(InputError, match="processes: got 2 on a host of TPU chips; allowed 1"):
        processes.devices_of(0, 2, [], tmp_path / "host")
    assert processes.devices_of(0, 1, [], tmp_path / "host") == {}
    assert processes.devices_of(1, 2, [], tmp_path / "nothing") == {}


def test_a_terminated_command_ends_those_it_has_started_and_the_store_resumes(whole: Plan, tmp_path: Path) -> None:
    """SIGTERM, as a scheduler sends it before it kills: `start_here` in a process of its own, with stub units."""
    plan = fresh(whole, tmp_path)
    starter = stub.Starter(plan, 2)
    wait_for(lambda: units_done(plan) >= 1)
    children = [json.loads(file.read_text())["pid"] for file in (plan.out / "processes").glob("*.json")]
    assert len(children) == 2
    starter.terminate()
    assert starter.wait() == 128 + signal.SIGTERM
    for pid in children:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert 0 < units_done(plan) < 12
    assert_finishes(plan, whole)


def test_an_address_is_host_and_port() -> None:
    assert processes.check_address("node-1:1234") == "node-1:1234"
    with pytest.raises(InputError, match="coordinator: got 'node-1'; allowed HOST:PORT"):
        processes.check_address("node-1")
