"""The store: what it holds, how it is laid out, what it refuses."""

import json

import numpy as np
import pytest
import xarray as xr
import zarr

from jaxdyn import store
from jaxdyn.errors import InputError
from jaxdyn.store import Coordinate, Schema, StoreError, Variable, files
from jaxdyn.store import schema as schemas
from tests.store_cases import (
    LAYERS,
    PER_UNIT,
    SAMPLES,
    SETTINGS,
    WIDTH,
    all_bytes,
    final_groups,
    finished,
    make_schema,
    unit_data,
)


@pytest.fixture
def whole(tmp_path):
    """A finished store and its path."""
    return finished(tmp_path)


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
