"""The store: what it holds, what it refuses, and that a killed run completes to the same bytes."""

import fcntl
import json
import multiprocessing
import random
import re
import resource
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from jaxdyn import provenance, store
from jaxdyn.errors import InputError
from jaxdyn.store import Coordinate, Schema, Store, StoreError, Variable, arrays, files
from jaxdyn.store import schema as schemas

F_OFD_SETLK = getattr(fcntl, "F_OFD_SETLK", 37)

SAMPLES, UNIT, LAYERS, WIDTH = 13, 4, 3, 6
SETTINGS = {"model_hash": "ab" * 32, "layers": [0, 1, 2], "seed": 0, "bits": {"x64": False}}
PER_UNIT = {
    "eigenvalues": (("part", "layer", "sample", "eig"), "complex64"),
    "henrici": (("part", "layer", "sample"), "float32"),
    "status": (("part", "layer", "sample"), "int8"),
    "relative/henrici": (("part", "layer", "sample"), "float32"),
    "cumulative/effective_rank": (("prompt_sample", "depth"), "float64"),
    "units/jacobian_sum": (("unit", "layer", "row", "column"), "float32"),
}


def make_schema(samples: int = SAMPLES, unit: int = UNIT, width: int = WIDTH) -> Schema:
    """A small schema with every kind of array: root and groups, complex, integer, text, per sample and per unit."""
    variables = []
    for key, (dims, dtype) in PER_UNIT.items():
        group, _, name = key.rpartition("/")
        variables.append(Variable(name, dims, dtype, {"long_name": name, "units": "1"}, group))
    sizes = {"part": 2, "layer": LAYERS, "sample": samples, "eig": width, "prompt_sample": samples, "depth": LAYERS}
    return Schema(
        sizes={**sizes, "unit": -(-samples // unit), "row": width, "column": width},
        units={"sample": unit, "prompt_sample": unit, "unit": 1},
        variables=tuple(variables),
        coordinates=(
            Coordinate("part", ("part",), ["block", "update"]),
            Coordinate("layer", ("layer",), np.arange(LAYERS)),
            Coordinate("prompt", ("sample",), [f"é {i}" for i in range(samples)]),
            Coordinate("depth", ("depth",), np.arange(1, LAYERS + 1), group="cumulative"),
        ),
        attrs={"operator": "in-context"},
        group_attrs={"cumulative": {"long_name": "products of blocks"}},
    )


def unit_data(schema: Schema, unit: int, seed: int = 7) -> dict[str, np.ndarray]:
    """The synthetic result of one unit: depends on the unit alone, as a real unit does."""
    rng = np.random.default_rng([seed, unit])
    data = {}
    for key, (dims, dtype) in PER_UNIT.items():
        shape = [_length(schema, dim, unit) for dim in dims]
        values = rng.standard_normal(shape)
        if dtype == "complex64":
            data[key] = (values + 1j * rng.standard_normal(shape)).astype(dtype)
        else:
            data[key] = (10 * values).astype(dtype)
    return data


def final_groups(results: Store) -> dict[str, xr.Dataset]:
    """What finish gets in these tests: a sum merged over units in order, root variables, one in an old group."""
    total = np.zeros((LAYERS, results.read(0, "units/jacobian_sum").shape[-1]), np.float32)
    for unit in range(results.unit_count):
        total += results.read(unit, "units/jacobian_sum")[0].sum(axis=-1, dtype=np.float32)
    layer = {"layer": np.arange(LAYERS)}
    return {
        "mean": xr.Dataset({"row_sum": (("layer", "row"), total, {"units": "1"})}, layer, {"long_name": "means"}),
        "cumulative": xr.Dataset({"mean_effective_rank": ("depth", np.arange(3.0))}, {"depth": [1, 2, 3]}),
        "": xr.Dataset({"kept": ("layer", np.ones(LAYERS)), "label": ("layer", ["a", "b", "c"])}).set_coords("label"),
    }


def _length(schema, dim, unit):
    if dim not in schema.units:
        return schema.sizes[dim]
    size = schema.units[dim]
    return min((unit + 1) * size, schema.sizes[dim]) - unit * size


def all_bytes(path: Path) -> dict[str, bytes]:
    """The bytes of every array of a store, by path."""
    root = zarr.open_group(path, mode="r", use_consolidated=False)
    arrays = {key: item for key, item in root.members(max_depth=None) if isinstance(item, zarr.Array)}
    return {key: _bytes(np.asarray(array[...])) for key, array in arrays.items()}


def _bytes(values):
    return values.tobytes() if values.dtype.kind != "T" else json.dumps(values.tolist()).encode()


@pytest.fixture
def whole(tmp_path):
    """A finished store and its path."""
    schema = make_schema()
    results = store.create(tmp_path / "out" / "results.zarr", schema, SETTINGS, provenance={"jax": "0"})
    for unit in range(results.unit_count):
        results.write_unit(unit, unit_data(schema, unit))
    results.finish(final_groups(results))
    return results


def test_what_is_written_is_what_xarray_reads(whole):
    schema = make_schema()
    dataset, tree = store.open_results(whole.path), store.open_tree(whole.path)
    assert dataset.eigenvalues.dims == ("part", "layer", "sample", "eig")
    assert dataset.eigenvalues.dtype == np.complex64
    assert dataset.henrici.attrs == {"long_name": "henrici", "units": "1"}
    assert dataset.attrs["operator"] == "in-context"
    assert json.loads(dataset.attrs["settings"]) == SETTINGS
    assert json.loads(dataset.attrs["provenance"]) == {"jax": "0"}
    assert dataset.prompt.values.tolist() == [f"é {i}" for i in range(SAMPLES)]
    assert set(dataset.coords) == {"part", "layer", "prompt", "label"}
    assert dataset.done.values.all()
    assert "jacobian_sum" not in dataset
    for unit in range(whole.unit_count):
        part, expected = whole.unit_slice(unit), unit_data(schema, unit)
        for name in ("eigenvalues", "henrici", "status"):
            np.testing.assert_array_equal(dataset[name].values[:, :, part], expected[name])
        np.testing.assert_array_equal(tree["relative"].henrici.values[:, :, part], expected["relative/henrici"])
        np.testing.assert_array_equal(
            tree["cumulative"].effective_rank.values[part], expected["cumulative/effective_rank"]
        )
        np.testing.assert_array_equal(tree["units"].jacobian_sum.values[unit], expected["units/jacobian_sum"][0])
    assert dataset.henrici.sel(part="update", layer=2).shape == (SAMPLES,)
    assert tree["cumulative"].mean_effective_rank.sel(depth=2) == 1.0
    assert tree["cumulative"].attrs["long_name"] == "products of blocks"
    assert tree["mean"].row_sum.attrs["units"] == "1"
    assert tree["mean"].attrs["long_name"] == "means"
    assert tree["relative"].henrici.sel(part="block").dims == ("layer", "sample")


def test_consolidated_metadata_are_those_zarr_would_write(whole):
    file = whole.path / "zarr.json"
    ours = json.loads(file.read_text())
    with pytest.warns(UserWarning, match="Consolidated metadata is currently not part"):
        zarr.consolidate_metadata(whole.path)
    theirs = json.loads(file.read_text())
    assert len(ours["consolidated_metadata"]["metadata"]) == 19
    both = [root["consolidated_metadata"]["metadata"].values() for root in (ours, theirs)]
    for metadata in (*both[0], *both[1]):
        metadata.pop("consolidated_metadata", None)
        if metadata["node_type"] == "array":
            assert metadata.setdefault("storage_transformers", []) == []  # optional; TensorStore leaves it out
    assert ours == theirs


def test_unwritten_elements_say_so_and_done_is_the_mask(tmp_path):
    schema = make_schema()
    results = store.create(tmp_path / "results.zarr", schema, SETTINGS)
    results.write_unit(3, unit_data(schema, 3))
    results.write_unit(1, unit_data(schema, 1))
    dataset = store.open_results(results.path).load()
    assert results.done_units() == [1, 3]
    assert np.flatnonzero(dataset.done).tolist() == [4, 5, 6, 7, 12]
    assert str(store.describe(results.path)) == "5 of 13 samples done, 2 of 4 units, not finished"
    unwritten = dataset.isel(sample=~dataset.done.values)
    assert np.isnan(unwritten.eigenvalues.real).all()
    assert np.isnan(unwritten.eigenvalues.imag).all()
    assert np.isnan(unwritten.henrici).all()
    assert (unwritten.status == -1).all()
    with pytest.raises(StoreError, match=r"2 of 4 units are not done \(first: 0\)"):
        results.finish({})


def test_pieces_of_a_unit_give_the_same_bytes_and_none_may_be_missing(tmp_path):
    schema = make_schema()
    whole = store.create(tmp_path / "whole.zarr", schema, SETTINGS)
    pieces = store.create(tmp_path / "pieces.zarr", schema, SETTINGS)
    for unit in range(whole.unit_count):
        data = unit_data(schema, unit)
        whole.write_unit(unit, data)
        layered = [key for key, (dims, _) in PER_UNIT.items() if "layer" in dims]
        pieces.write(unit, {key: data[key] for key in data if key not in layered})
        for layer in (2, 0, 1):
            with pytest.raises(StoreError, match=f"unit {unit}: not written, or not whole: eigenvalues, henrici, stat"):
                pieces.commit(unit)
            assert unit not in pieces.done_units()
            axis = {key: PER_UNIT[key][0].index("layer") for key in layered}
            pieces.write(unit, {key: data[key].take(layer, axis[key]) for key in layered}, at={"layer": layer})
        pieces.commit(unit)
        np.testing.assert_array_equal(pieces.read(unit, "henrici", at={"layer": 1}), data["henrici"][:, 1])
    assert all_bytes(whole.path) == all_bytes(pieces.path)


def test_minus_zero_and_an_all_nan_chunk_keep_their_bits(tmp_path):
    schema = make_schema()
    results = store.create(tmp_path / "results.zarr", schema, SETTINGS)
    data = unit_data(schema, 0)
    data["henrici"] = np.full_like(data["henrici"], -0.0)
    payload = np.array(0x7FC0_0001, np.uint32).view(np.float32)
    data["relative/henrici"] = np.full_like(data["henrici"], payload)
    results.write_unit(0, data)
    assert results.read(0, "henrici").tobytes() == data["henrici"].tobytes()
    assert results.read(0, "relative/henrici").tobytes() == data["relative/henrici"].tobytes()


@pytest.mark.parametrize(
    ("key", "values", "message"),
    [
        ("henricy", np.zeros((2, 3, 4), np.float32), "henricy: not a per-unit array"),
        ("henrici", np.zeros((2, 3, 5), np.float32), r"henrici: got shape \(2, 3, 5\), this unit needs \(2, 3, 4\)"),
        ("henrici", np.zeros((2, 3, 4), np.float64), "henrici: got dtype float64, the store has float32"),
        ("status", np.zeros((2, 3, 4), np.float32), "status: got dtype float32, the store has int8"),
    ],
)
def test_wrong_data_are_refused(tmp_path, key, values, message):
    results = store.create(tmp_path / "results.zarr", make_schema(), SETTINGS)
    with pytest.raises(StoreError, match=message):
        results.write(0, {key: values})


def test_wrong_units_and_pieces_are_refused(tmp_path):
    schema = make_schema()
    results = store.create(tmp_path / "results.zarr", schema, SETTINGS)
    with pytest.raises(StoreError, match="unit: got 4; the store has 4 units, 0 to 3"):
        results.write_unit(4, unit_data(schema, 0))
    with pytest.raises(StoreError, match="henrici: at=sample=0 is not an index"):
        results.write(0, {"henrici": np.zeros((2, 3), np.float32)}, at={"sample": 0})
    results.write_unit(0, unit_data(schema, 0))
    with pytest.raises(StoreError, match=r"unit 0 of .* is done; a done unit is never written again"):
        results.write_unit(0, unit_data(schema, 0))


def test_settings_that_differ_are_listed_in_one_line_and_nothing_changes(whole):
    before = all_bytes(whole.path)
    other = {"model_hash": "cd" * 32, "layers": (0, 1, 2), "seed": 1, "bits": {"x64": True}, "texts": "x"}
    with pytest.raises(StoreError, match="its settings differ") as caught:
        store.start(whole.path, make_schema(), other, resume=True)
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "bits.x64 (got true, stored false)",
        "seed (got 1, stored 0)",
        'texts (got "x", stored nothing)',
        "model_hash",
        "Repeat the run with the stored settings, or choose another --out",
        "13 of 13 samples done, 4 of 4 units, complete",
    ):
        assert part in message
    assert "layers" not in message
    assert isinstance(caught.value, InputError)
    assert all_bytes(whole.path) == before


def test_an_existing_store_is_not_touched_without_resume(whole):
    before = all_bytes(whole.path)
    with pytest.raises(StoreError, match=r"already holds results .13 of 13 samples done.*--resume"):
        store.start(whole.path, make_schema(), SETTINGS)
    assert all_bytes(whole.path) == before
    assert store.start(whole.path, make_schema(), SETTINGS, resume=True).complete


def test_resume_with_nothing_there_creates(tmp_path):
    assert store.start(tmp_path / "a" / "results.zarr", make_schema(), SETTINGS, resume=True).done_units() == []
    (tmp_path / "empty").mkdir()
    assert store.start(tmp_path / "empty", make_schema(), SETTINGS).done_units() == []


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("kind", ["folder", "file", "zarr", "damaged"])
def test_what_is_not_a_store_is_refused_and_kept(tmp_path, kind, resume):
    path = tmp_path / "results.zarr"
    if kind == "file":
        path.write_text("notes")
    elif kind == "zarr":
        zarr.create_group(path)
    else:
        path.mkdir()
        (path / ("zarr.json" if kind == "damaged" else "thesis.tex")).write_text("{")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(StoreError, match="is not a jaxdyn store; nothing was touched; choose another --out"):
        store.start(path, make_schema(), SETTINGS, resume=resume)
    assert sorted(tmp_path.rglob("*")) == before


def test_reading_what_is_not_there_says_so(tmp_path):
    for reader in (store.open_results, store.open_tree, store.describe):
        with pytest.raises(StoreError, match=r"no results at .*nothing.zarr; run `jaxdyn analyze"):
            reader(tmp_path / "nothing.zarr")


def test_a_store_of_another_format_is_refused(whole):
    files.consolidate(whole.path, {"jaxdyn_store": 99}, {})
    with pytest.raises(StoreError, match="store format 99, this version reads 1"):
        store.open_for_resume(whole.path, SETTINGS)


def test_finish_again_replaces_and_gives_the_same_bytes(whole):
    before = all_bytes(whole.path)
    resumed = store.open_for_resume(whole.path, SETTINGS)
    resumed.finish(final_groups(resumed))
    assert all_bytes(whole.path) == before


@pytest.mark.parametrize(
    ("group", "dataset", "message"),
    [
        ("", xr.Dataset({"henrici": ("layer", np.ones(3))}), "henrici was declared at creation"),
        ("relative", xr.Dataset({"henrici": ("layer", np.ones(3))}), "relative/henrici was declared at creation"),
        ("mean", xr.Dataset({"x": ("layer", np.ones(4))}), "'mean': layer has length 4, in the store 3; name it apart"),
        ("mean", xr.Dataset({"x": ("layer", np.ones(3))}, {"layer": [1, 2, 3]}), "'mean': layer has other labels"),
    ],
)
def test_finish_refuses_what_would_not_open_as_a_tree(whole, group, dataset, message):
    with pytest.raises(StoreError, match=message):
        whole.finish({group: dataset})
    assert store.open_tree(whole.path)["mean"].row_sum.shape == (LAYERS, WIDTH)


def test_schema_refuses_what_cannot_be_split():
    good = make_schema()
    with pytest.raises(InputError, match="same number of units"):
        Schema(good.sizes, {**good.units, "prompt_sample": 5}, good.variables)
    with pytest.raises(InputError, match="must name 'sample'"):
        Schema(good.sizes, {"unit": 1}, good.variables)
    with pytest.raises(InputError, match="exactly one of the unit dimensions"):
        Schema(good.sizes, good.units, (Variable("x", ("layer",), "float32"),))
    with pytest.raises(InputError, match="dimensions without a size: colour"):
        Schema(good.sizes, good.units, (Variable("x", ("sample", "colour"), "float32"),))
    with pytest.raises(InputError, match="declared twice: x"):
        Schema(good.sizes, good.units, (Variable("x", ("sample",), "float32"), Variable("x", ("sample",), "int8")))
    with pytest.raises(InputError, match="declared twice: done"):
        Schema(good.sizes, good.units, (Variable("done", ("sample",), "bool"),))
    with pytest.raises(InputError, match=r"coordinate layer has shape \(2,\), not \(3,\)"):
        Schema(good.sizes, good.units, (), (Coordinate("layer", ("layer",), [0, 1]),))
    with pytest.raises(InputError, match="uint8 has no default fill"):
        schemas.fill_of("uint8")


def test_chunks_keep_units_apart_and_stay_small():
    units = {"sample": 8}
    assert schemas.chunk_shape((2, 32, 1000, 64), ("part", "layer", "sample", "eig"), units, 8) == (2, 32, 8, 64)
    assert schemas.chunk_shape((32, 2, 1000, 4096), ("layer", "part", "sample", "eig"), units, 64) == (1, 2, 8, 4096)
    big = schemas.chunk_shape((125, 32, 4, 4096, 4096), ("unit", "layer", "part", "row", "column"), {"unit": 1}, 4)
    assert big == (1, 1, 1, 4096, 4096)


def test_large_chunks_are_compressed_and_split_dimensions_have_chunks_of_their_own(tmp_path):
    sizes = {"sample": 3, "layer": 2, "row": 200, "column": 200}
    dims = ("sample", "layer", "row", "column")
    variables = (Variable("whole", dims, "float64"), Variable("apart", dims, "float64", split=("layer",)))
    schema = Schema(sizes=sizes, units={"sample": 3}, variables=variables)
    results = store.create(tmp_path / "results.zarr", schema, SETTINGS)
    values = np.tile(np.arange(200.0), (3, 2, 200, 1))
    results.write_unit(0, {"whole": values, "apart": values})
    for name, count in (("whole", 1), ("apart", 2)):
        chunks = list((results.path / name).glob("c.*"))
        assert len(chunks) == count
        assert sum(chunk.stat().st_size for chunk in chunks) < values.nbytes / 4
        np.testing.assert_array_equal(zarr.open_array(results.path / name)[...], values)
    assert set(results.keys) == {"whole", "apart"}
    np.testing.assert_array_equal(results.read_all(["apart"])["apart"], values)


def test_a_variable_of_text_is_refused():
    with pytest.raises(InputError, match="dtype str has no default fill"):
        Schema(sizes={"sample": 2}, units={"sample": 1}, variables=(Variable("word", ("sample",), "str"),))


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


def test_a_kill_while_creating_or_finishing_leaves_traces_that_do_no_harm(whole):
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


def test_provenance_names_versions_device_and_flags():
    record = provenance.provenance(model_hash="ab", dtype="float32")
    assert record["version_zarr"] == zarr.__version__
    assert record["version_numpy"] == np.__version__
    assert record["x64"] is True
    assert record["platform"] == "cpu"
    assert record["model_hash"] == "ab"
    assert provenance.bits().items() <= record.items()
    assert "date" not in provenance.bits()
    json.dumps(record)


def test_commit_is_that_of_the_checkout_with_its_changes(tmp_path):
    assert provenance.commit(tmp_path) is None
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "file").write_text("1")
    for arguments in (["init", "-q"], ["add", "file"], [*identity, "commit", "-qm", "one"]):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    head = provenance.commit(tmp_path)
    assert head is not None
    assert len(head) == 40
    (tmp_path / "file").write_text("2")
    assert provenance.commit(tmp_path) == f"{head}+changes"
