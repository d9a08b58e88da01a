"""A store whose run is killed, hangs, or meets a full disk: nothing is lost, and it completes to the same bytes."""

import fcntl
import multiprocessing
import random
import re
import resource
import signal
import struct
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from jaxdyn import store
from jaxdyn.store import StoreError, arrays
from tests.store_cases import (
    LAYERS,
    PER_UNIT,
    SETTINGS,
    WIDTH,
    all_bytes,
    final_groups,
    finished,
    make_schema,
    unit_data,
)

F_OFD_SETLK = getattr(fcntl, "F_OFD_SETLK", 37)


class Full:
    """An array on a full disk: its writes fail with the words that TensorStore 0.1.86 has for ENOSPC."""

    def __init__(self, array):
        self.domain, self.shape, self.dtype = array.domain, array.shape, array.dtype

    def __getitem__(self, index):
        return self

    def write(self, values):
        return self

    def result(self):
        msg = "RESOURCE_EXHAUSTED: Failed to write 338560 bytes to file 3: No space left on device [os_error_code='28']"
        raise ValueError(msg)


def test_a_full_disk_is_one_line_and_keeps_what_was_written(tmp_path):
    schema = make_schema()
    results = store.create(tmp_path / "results.zarr", schema, SETTINGS)
    results.write_unit(0, unit_data(schema, 0))
    results._arrays["henrici"] = Full(results._arrays["henrici"])
    with pytest.raises(StoreError, match=r"cannot write .*No space left on device; .* make room, .*--resume"):
        results.write_unit(1, unit_data(schema, 1))
    assert results.done_units() == [0]
    resumed = store.open_for_resume(results.path, SETTINGS)
    resumed.write_unit(1, unit_data(schema, 1))
    np.testing.assert_array_equal(
        store.open_results(results.path).henrici.values[:, :, :8],
        np.concatenate([unit_data(schema, unit)["henrici"] for unit in (0, 1)], axis=2),
    )


def write_all(path: Path, limit: int, report) -> None:
    """Run to the end in a process of its own, saying so; with `limit` the kernel refuses every file above this size."""
    schema = make_schema(samples=40, unit=4, width=24)
    results = store.start(path, schema, SETTINGS, resume=True)
    if limit:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    report.send("ready")
    try:
        for unit in sorted(set(range(results.unit_count)) - set(results.done_units())):
            results.write_unit(unit, unit_data(schema, unit))
        results.finish(final_groups(results))
        report.send("finished")
    except StoreError as error:
        report.send(str(error))


class Child:
    """A process that runs `write_all`; `receive` gives its next word, or "" once it is gone."""

    def __init__(self, path: Path, limit: int = 0):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        self._reader, writer = context.Pipe(duplex=False)
        self._process = context.Process(target=write_all, args=(path, limit, writer))
        self._process.start()
        writer.close()

    def receive(self) -> str:
        try:
            return self._reader.recv() if self._reader.poll(60) else "silent for a minute"
        except EOFError:
            return ""

    def kill(self) -> None:
        """End it now if it still runs, as a power cut would end it."""
        self._process.kill()

    def wait(self) -> int | None:
        self._process.join(60)
        self._reader.close()
        return self._process.exitcode


def test_the_kernels_own_refusal_is_reported_and_the_run_resumes(tmp_path):
    path = tmp_path / "results.zarr"
    child = Child(path, limit=4096)
    assert child.receive() == "ready"
    assert re.search(r"cannot write .*: File too large; .* make room", child.receive())
    assert child.wait() == 0
    assert store.describe(path).units_done == 0
    child = Child(path)
    assert [child.receive(), child.receive(), child.wait()] == ["ready", "finished", 0]
    assert store.describe(path).complete


def test_killed_and_resumed_gives_the_bytes_of_a_run_that_was_not(tmp_path):
    uninterrupted, killed = tmp_path / "whole.zarr", tmp_path / "killed.zarr"
    child = Child(uninterrupted)
    assert child.receive() == "ready"
    begin = time.perf_counter()
    assert [child.receive(), child.wait()] == ["finished", 0]
    duration = time.perf_counter() - begin

    clock, exits, held = random.Random(20260514), [], []
    while not (killed.exists() and store.describe(killed).complete):
        child = Child(killed)
        if len(exits) < 7:
            if len(exits) % 3:  # else the kill may fall before the store is there
                assert child.receive() == "ready"
            time.sleep(clock.uniform(0, 0.4) * duration)
            child.kill()
        exits.append(child.wait())
        held.append(_check_partial(killed) if killed.exists() else 0)
    assert exits.count(-signal.SIGKILL) >= 2, "the runs ended before they could be killed: lengthen them"
    assert any(0 < done < 10 for done in held), f"no kill fell between two units: {held}"
    assert all_bytes(killed) == all_bytes(uninterrupted)
    assert not list(killed.rglob("*.partial"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed.zarr", "whole.zarr"]


def _check_partial(path):
    """Open what a kill left, with warnings as errors, and compare its done samples with what was to be written."""
    schema = make_schema(samples=40, unit=4, width=24)
    state, dataset, tree = store.describe(path), store.open_results(path).load(), store.open_tree(path)
    assert state.samples_done == int(dataset.done.sum())
    for unit in np.flatnonzero(dataset.done.values[::4]):
        expected = unit_data(schema, int(unit))
        part = slice(4 * unit, 4 * unit + 4)
        np.testing.assert_array_equal(dataset.eigenvalues.values[:, :, part], expected["eigenvalues"])
        np.testing.assert_array_equal(tree["units"].jacobian_sum.values[unit], expected["units/jacobian_sum"][0])
    return state.units_done


def test_a_kill_while_creating_or_finishing_leaves_traces_that_do_no_harm(tmp_path):
    whole = finished(tmp_path)
    """The traces are made by hand: half-built arrays and temporary files exist for too short a time to hit one."""
    path = whole.path
    (path / "mean" / "half").mkdir()
    (path / "mean" / "half" / "zarr.0123.partial").write_text("{")
    (path / "zarr.json.partial").write_text("{")
    (path / "zarr.4567.partial").write_text("{")
    leftover = path.with_name(f".{path.name}.creating")
    leftover.mkdir()
    assert store.open_tree(path)["mean"].row_sum.shape == (LAYERS, WIDTH)
    resumed = store.open_for_resume(path, SETTINGS)
    resumed.finish(final_groups(resumed))
    assert not list(path.rglob("*.partial"))
    assert store.open_tree(path)["mean"].row_sum.shape == (LAYERS, WIDTH)
    store.create(path.with_name("other.zarr"), make_schema(), SETTINGS)


def test_data_are_durable_before_the_marker_exists(tmp_path):
    schema = make_schema()
    results = store.create(tmp_path / "results.zarr", schema, SETTINGS)
    before, real = set(results.path.rglob("c.*")), results._done
    seen = []

    class Marker:
        """`done`, noting which chunks are there when its write begins."""

        shape = results._done.shape

        def __getitem__(self, index):
            seen.append((index, set(results.path.rglob("c.*")) - before))
            return real[index]

    results.write(2, unit_data(schema, 2))
    results._done = Marker()
    results.commit(2)
    ((index, chunks),) = seen
    assert index == slice(8, 12)
    assert {path.parent.relative_to(results.path).as_posix() for path in chunks} == set(PER_UNIT)
    assert not [path for path in chunks if path.name.endswith(arrays.UNFINISHED)]
    assert real.spec(retain_context=True).to_json()["kvstore"]["file_io_sync"] is True
    assert set(results.path.rglob("c.*")) - before - chunks == {results.path / "done" / "c.2"}


@pytest.mark.skipif(sys.platform != "linux", reason="locks a file as Linux does; run it there")
def test_who_hangs_in_a_write_keeps_nobody_waiting(tmp_path):
    """The other holds the lock that TensorStore takes by default, as a process stopped in its write would."""
    schema = make_schema()
    results = store.create(tmp_path / "results.zarr", schema, SETTINGS)
    files = [results.path / key / f"c.0{'.0' * extra}{arrays.UNFINISHED}" for key in PER_UNIT for extra in range(4)]
    ready, told = multiprocessing.Pipe(duplex=False)
    other = multiprocessing.get_context("spawn").Process(target=hold, args=(files, told), daemon=True)
    other.start()
    assert ready.recv() == len(files)
    writing = threading.Thread(target=results.write_unit, args=(0, unit_data(schema, 0)), daemon=True)
    writing.start()
    writing.join(20)
    assert other.is_alive(), "who hangs still holds the locks"
    other.kill()
    assert not writing.is_alive(), "the unit was written"
    assert results.done_units() == [0]


def hold(files, told):
    """Lock files for good."""
    held = [file.open("wb") for file in files]
    for file in held:
        fcntl.fcntl(file, F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
    told.send(len(held))
    time.sleep(60)


def test_what_a_killed_process_left_goes_when_the_store_is_finished(tmp_path):
    schema = make_schema()
    results = store.create(tmp_path / "results.zarr", schema, SETTINGS)
    left = [results.path / key / f"c.0_1a2b{arrays.UNFINISHED}" for key in ("done", *PER_UNIT)]
    for unit in range(results.unit_count):
        results.write_unit(unit, unit_data(schema, unit))
    for file in left:
        file.write_bytes(b"half")
    results.finish({}, complete=False)
    assert all(file.exists() for file in left), "others may still be writing"
    results.finish(final_groups(results))
    assert not list(results.path.rglob(f"*{arrays.UNFINISHED}"))
