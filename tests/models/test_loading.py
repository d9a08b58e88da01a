"""Loading at scale: what the host holds meanwhile, and parameters split over a mesh, in processes of their own."""

import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from benchmarks import bench_loading
from benchmarks.memory import STATUS
from jaxdyn.errors import InputError
from jaxdyn.models import load, placement, tensor_file
from tests.models.tiny import TINY
from tests.programs import environment


@pytest.mark.skipif(not STATUS.exists(), reason="peak memory is read from /proc, which Linux has; run it there")
@pytest.mark.parametrize(("dtype", "devices"), [("float32", 1), ("bfloat16", 4)])
def test_the_host_holds_one_tensor_beyond_the_parameters(tmp_path_factory, dtype, devices):
    """0.6 GB, the largest tensor 0.15: far more than what is cast and copied at a time."""
    folder = tmp_path_factory.getbasetemp() / "half"
    sizes = {**bench_loading.LARGE, "hidden_size": 1024, "intermediate_size": 4096, "vocab_size": 36000}
    if not folder.exists():
        bench_loading.write(folder, {**sizes, "num_hidden_layers": 8, "tie_word_embeddings": True})
    found = bench_loading.measure(folder, dtype, devices)
    assert found["largest"] > 0.14
    assert found["beyond"] <= found["largest"], found


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("family", TINY)
def test_pieces_give_the_same_bits(tmp_path, monkeypatch, family, dtype):
    """Cut into pieces of a few rows, and whole: the same parameters and hash, and NaN is still seen and counted."""
    TINY[family]()[0].save_pretrained(tmp_path)
    whole = load(tmp_path, dtype=dtype)
    monkeypatch.setattr(placement, "PIECE", 600)
    cut = load(tmp_path, dtype=dtype)
    import jax

    jax.tree.map(np.testing.assert_array_equal, whole.params, cut.params)
    assert cut.weights_hash == whole.weights_hash
    file = tmp_path / "model.safetensors"
    tensors = {key: tensor_file.read_tensor(file, entry) for key, entry in tensor_file.read_header(file).items()}
    key = next(name for name in tensors if "mlp" in name and tensors[name].ndim == 2)
    tensors[key][[0, -1, -1], [0, 0, 1]] = np.nan
    save_file(tensors, file)
    with pytest.raises(InputError, match=rf"{key} has 3 NaN or inf of {tensors[key].size} values"):
        load(tmp_path, dtype=dtype)


SHARDED = """
import sys
import jax, numpy as np
import jaxdyn
from jaxdyn.models import placement
from jaxdyn.pipeline.decode import decoded_directions
jax.config.update("jax_enable_x64", True)
folder, piece = sys.argv[1], int(sys.argv[2])
plain = jaxdyn.load(folder, dtype="float64")
placement.PIECE = piece
assert len(jax.devices()) == 4
ids = np.random.default_rng(0).integers(0, 61, (2, 24))
want = np.asarray(plain.logits(ids))
acts = jaxdyn.capture(plain, jaxdyn.token_prompts(list(ids)))
jacobian = np.asarray(jaxdyn.jacobian(plain, acts, layer=1))
for mesh, rules in (
    (jax.make_mesh((4,), ("model",)), None),
    (jax.make_mesh((2, 2), ("data", "model")), None),
    (jax.make_mesh((4,), ("x",)), {"layers": "x", "width": "x"}),
):
    model = jaxdyn.load(folder, dtype="float64", mesh=mesh, rules=rules)
    jax.tree.map(np.testing.assert_array_equal, plain.params, model.params)
    assert model.weights_hash == plain.weights_hash
    up = model.params["blocks"]["mlp"]["up"]
    print(mesh.axis_names, tuple(up.sharding.spec), up.addressable_shards[0].data.shape)
    got = np.asarray(model.logits(ids))
    error = np.abs(got - want).max() / np.abs(want).max()
    assert 0 <= error < 1e-13, error
    if rules is not None:
        continue
    acts = jaxdyn.capture(model, jaxdyn.token_prompts(list(ids)))
    error = np.abs(np.asarray(jaxdyn.jacobian(model, acts, layer=1)) - jacobian).max() / np.abs(jacobian).max()
    assert error < 1e-12, error
    block = jax.numpy.asarray(jacobian[0])
    tables = [decoded_directions(one, block)["tokens"].values.tolist() for one in (plain, model)]
    assert tables[0] == tables[1]
    assert (plain.mesh, model.mesh) == (None, dict(mesh.shape))
"""


def run(program: str, *arguments: object) -> str:
    """Run a program with four CPU devices; return what it prints."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, env=environment(devices=4), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("family", "piece"), [("llama", 20000), ("gpt2", placement.PIECE)])
def test_split_over_a_mesh_the_model_is_the_same(tmp_path, family, piece):
    sizes = {"intermediate_size": 64} if family == "llama" else {"n_inner": 64}
    TINY[family](**sizes)[0].save_pretrained(tmp_path)
    printed = run(SHARDED, tmp_path, piece)
    assert "('model',) (None, 'model', None) (3, 16, 32)" in printed
    assert "('data', 'model') (None, 'model', None) (3, 32, 32)" in printed
    assert "('x',) (None, None, 'x') (3, 64, 8)" in printed  # three layers do not divide by four


def test_meshes_and_rules_that_cannot_be_used(tmp_path):
    import jax

    TINY["llama"]()[0].save_pretrained(tmp_path)
    mesh = jax.make_mesh((1,), ("x",))
    for options, message in (
        (
            {"mesh": mesh},
            r"mesh: the default rules split over the mesh axis 'model', the mesh has 'x'; name a mesh axis so",
        ),
        ({"mesh": mesh, "rules": {"ff": "y"}}, r"rules name the mesh axis 'y', the mesh has 'x'"),
        ({"mesh": mesh, "rules": {"mlp": "x"}}, r"rules: got the logical axis 'mlp'; allowed 'layers', 'vocab'"),
        ({"rules": {"ff": "x"}}, r"rules: got rules without a mesh"),
    ):
        with pytest.raises(InputError, match=message):
            load(tmp_path, **options)
    assert load(tmp_path, mesh=mesh, rules={"ff": "x"}).logits([[1, 2]]).shape == (1, 2, 61)


def test_only_the_bytes_of_a_tensor_are_read(tmp_path, monkeypatch):
    """By byte range: the rest of the file may be anything, and each tensor is opened at its own place."""
    file = tmp_path / "model.safetensors"
    save_file({"a": np.arange(6.0).reshape(2, 3), "b": np.ones(1000, np.float32), "c": np.zeros((0, 3))}, file)
    entries = tensor_file.read_header(file)
    content = bytearray(file.read_bytes())
    content[entries["b"].start : entries["b"].stop] = b"\xff" * 4000
    file.write_bytes(content)
    np.testing.assert_array_equal(tensor_file.read_tensor(file, entries["a"]), np.arange(6.0).reshape(2, 3))
    assert np.isnan(tensor_file.read_tensor(file, entries["b"])).all()
    assert tensor_file.read_tensor(file, entries["c"]).shape == (0, 3)


ONE = '{"dtype":"F32","shape":[1],"data_offsets":[%d,%d]}'
HEADERS = {
    "twice": '{"a":' + ONE % (0, 4) + ',"a":' + ONE % (4, 8) + "}",
    "size": '{"a":' + ONE % (0, 8) + "}",
    "gap": '{"a":' + ONE % (0, 2) + ',"b":' + ONE % (4, 8) + "}",
    "overlap": '{"a":' + ONE % (0, 4) + ',"b":' + ONE % (0, 4) + "}",
    "short": '{"a":' + ONE % (0, 4) + "}",
    "negative": '{"a":' + ONE % (8, 0) + "}",
    "no offsets": '{"a":{"dtype":"F32","shape":[1]}}',
    "no object": "[1]",
    "no entry": '{"a":3}',
    "no json": "{",
}


@pytest.mark.parametrize("case", HEADERS)
def test_headers_that_lie(case):
    with pytest.raises(tensor_file.DamagedFile):
        tensor_file.parse_header(HEADERS[case].encode(), data=8)
    right = '{"a":' + ONE % (0, 4) + ',"b":' + ONE % (4, 8) + "}"
    assert list(tensor_file.parse_header(right.encode(), data=8)) == ["a", "b"]
