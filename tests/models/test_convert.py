"""The orbax copy: the same model on any mesh, and nothing under its name that is not whole."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxdyn.errors import InputError
from jaxdyn.models import convert, load
from jaxdyn.models.orbax_copy import MANIFEST
from tests.models.test_loading import run
from tests.models.tiny import TINY

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def source(tmp_path):
    """Return a function that writes a tiny model in a dtype of torch."""

    def write(dtype="float64", family="llama"):
        import torch

        hf, _ = TINY[family]()
        hf.to(getattr(torch, dtype)).save_pretrained(tmp_path / family)
        return tmp_path / family

    return write


def same(one, two):
    jax.tree.map(np.testing.assert_array_equal, one.params, two.params)
    assert (one.weights_hash, one.architecture, one.stop_ids) == (two.weights_hash, two.architecture, two.stop_ids)


@pytest.mark.parametrize("family", TINY)
@pytest.mark.parametrize(
    ("stored", "kept"),
    [("float64", "float64"), ("float32", "float32"), ("float16", "float32"), ("bfloat16", "bfloat16")],
)
def test_a_copy_loads_as_its_source_does(source, tmp_path, family, stored, kept):
    folder = source(stored, family)
    copy = convert(folder, tmp_path / "copy")
    assert json.loads((copy / MANIFEST).read_text())["dtype"] == kept
    for dtype in ("float32", "bfloat16", "float64"):
        restored = load(copy, dtype=dtype)
        same(restored, load(folder, dtype=dtype))
        assert restored.source == str(folder)
        assert {leaf.dtype.name for leaf in jax.tree.leaves(restored.params)} == {dtype}
    assert not (tmp_path / "copy.partial").exists()


def test_it_needs_its_source_no_more_and_restores_on_another_mesh(source, tmp_path):
    folder = source()
    expected = load(folder, dtype="float64")
    program = """
import sys, jax, numpy as np, jaxdyn
jax.config.update("jax_enable_x64", True)
folder, copy = sys.argv[1:]
{}
"""
    run(program.format("jaxdyn.convert(folder, copy)"), folder, tmp_path / "copy")
    shutil.rmtree(folder)
    same(load(tmp_path / "copy", dtype="float64"), expected)
    check = """
ids = np.arange(1, 20)[None]
want = np.asarray(jaxdyn.load(copy, dtype="float64").logits(ids))
for shape, names in (((4,), ("model",)), ((2, 2), ("data", "model"))):
    model = jaxdyn.load(copy, dtype="float64", mesh=jax.make_mesh(shape, names))
    up = model.params["blocks"]["mlp"]["up"].sharding
    print(up.num_devices, tuple(up.spec))
    assert np.abs(np.asarray(model.logits(ids)) - want).max() < 1e-13 * np.abs(want).max()
"""
    assert run(program.format(check), folder, tmp_path / "copy").count("4 (None, 'model', None)") == 2


def test_what_a_cast_makes_infinite_is_refused(source, tmp_path):
    folder = source()
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"model.norm.weight": np.full(32, 1e300)}, folder / "model.safetensors")
    copy = convert(folder, tmp_path / "copy")
    with pytest.raises(InputError, match=r"final_norm/scale has 32 NaN or inf of 32 values \(as float32\)"):
        load(copy)


def test_wrong_content(source, tmp_path):
    copy = convert(source("float32"), tmp_path / "copy")
    manifest, config = copy / MANIFEST, copy / "config.json"
    largest = max((copy / "params").rglob("*"), key=lambda path: path.stat().st_size)

    def refused(message, path, content):
        kept = path.read_bytes()
        path.write_bytes(content)
        with pytest.raises(InputError, match=message) as error:
            load(copy)
        assert "\n" not in str(error.value)
        path.write_bytes(kept)

    flipped = bytearray(largest.read_bytes())
    flipped[len(flipped) // 2] ^= 1
    described = json.loads(manifest.read_text())
    refused("is damaged: params/", largest, bytes(flipped))
    refused("is damaged: params/", largest, largest.read_bytes()[:100])
    refused("is of format 2, allowed 1", manifest, json.dumps(described | {"format": 2}).encode())
    refused(
        r"does not say what jaxdyn convert writes \(weights_hash\)",
        manifest,
        json.dumps(described | {"weights_hash": 3}).encode(),
    )
    refused(r"convert writes \(more\)", manifest, json.dumps(described | {"more": 3}).encode())
    refused("not valid JSON", manifest, b"{")
    layers = json.loads(config.read_text()) | {"num_hidden_layers": 2}
    refused("does not fit its config.json: blocks/attention/k is", config, json.dumps(layers).encode())
    largest.rename(copy / "elsewhere")
    with pytest.raises(InputError, match="is damaged: params/"):
        load(copy)
    (copy / "elsewhere").rename(largest)
    load(copy)
    with pytest.raises(InputError, match="is a copy that jaxdyn convert made; copy that folder"):
        convert(copy, tmp_path / "another")
    manifest.unlink()
    with pytest.raises(InputError, match="found no weights in"):
        load(copy)


def test_places_that_cannot_be_used(source, tmp_path, monkeypatch):
    folder, taken, file = source("float32"), tmp_path / "taken", tmp_path / "file"
    taken.mkdir()
    (taken / "mine").write_text("kept")
    file.write_text("")
    for place in (taken, file):
        with pytest.raises(InputError, match="exists and is not an empty folder; choose another, or remove it"):
            convert(folder, place)
    assert (taken / "mine").read_text() == "kept"
    with pytest.raises(InputError, match="directory: cannot write"):
        convert(folder, file / "below")
    monkeypatch.setattr(os, "access", lambda *_: False)  # what a folder without write permission answers; root may all
    with pytest.raises(InputError, match=r"directory: cannot write in .*change its permissions"):
        convert(folder, tmp_path / "copy")
    monkeypatch.undo()
    (tmp_path / "copy.partial").mkdir()
    with pytest.raises(InputError, match=r"copy\.partial is there, of a conversion killed or still running; remove it"):
        convert(folder, tmp_path / "copy")
    assert (tmp_path / "copy.partial").exists()
    (tmp_path / "empty").mkdir()
    assert (convert(folder, tmp_path / "empty") / MANIFEST).is_file()


def test_a_write_that_fails_leaves_nothing(source, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jaxdyn.models.orbax_copy.save", full)
    with pytest.raises(InputError, match=r"cannot write .*copy \(No space left on device\); free space"):
        convert(source("float32"), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    assert not (tmp_path / "copy.partial").exists()


@pytest.mark.parametrize("moment", ["copyfile", "orbax", "manifest"])
def test_killed_at_any_moment_nothing_looks_whole(source, tmp_path, moment):
    """The process stops where it is told and is killed there; only the partial folder is left, and it does not load."""
    folder, copy = source("float32"), tmp_path / "copy"
    program = f"""
import sys, time, shutil, jaxdyn
from jaxdyn.models import convert as _, orbax_copy
import importlib
convert = importlib.import_module("jaxdyn.models.convert")
def stop(*_, **__):
    print("here", flush=True)
    time.sleep(600)
if {moment!r} == "copyfile":
    convert.shutil.copyfile = stop
elif {moment!r} == "orbax":
    orbax_copy.json.dumps = stop
else:
    convert._sync = stop
jaxdyn.convert(sys.argv[1], sys.argv[2])
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(folder), str(copy)], stdout=subprocess.PIPE, cwd=ROOT, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not copy.exists()
    partial = tmp_path / "copy.partial"
    assert partial.is_dir()
    if moment != "manifest":  # there it is whole but for its name
        with pytest.raises(InputError, match=r"no config\.json|found no weights"):
            load(partial)
    with pytest.raises(InputError, match="of a conversion killed or still running"):
        convert(folder, copy)
    shutil.rmtree(partial)
    same(load(convert(folder, copy)), load(folder))
