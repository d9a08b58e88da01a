"""Layouts of a mesh: collisions are refused, and parameters lie where the layout says."""

from dataclasses import FrozenInstanceError, fields, replace

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from jaxdyn.errors import InputError
from jaxdyn.models import parameters
from jaxdyn.models.split import piece_of
from jaxdyn.sharding import LAYOUTS, LOGICAL_AXES, Layout, check_mesh, layout_named, mesh_for, shardings
from tests.sweep.mesh_program import LLAMA


@pytest.mark.parametrize(
    ("given", "one", "other"),
    [
        ({"heads": "model", "width": "model"}, "heads", "width"),
        ({"ff": "x", "width": "x"}, "ff", "width"),
        ({"vocab": ("x", "y"), "width": ("y",)}, "vocab", "width"),
        ({"layers": "x", "kv_heads": "x"}, "layers", "kv_heads"),
        ({"sample": "x", "jacobian_column": "x"}, "sample", "jacobian_column"),
        ({"jacobian_row": "x", "jacobian_column": "x"}, "jacobian_row", "jacobian_column"),
        ({"layers": "x", "rows": "x"}, "layers", "rows"),
        ({"matrix": ("x", "x")}, "matrix", "matrix"),
    ],
)
def test_one_mesh_axis_never_splits_two_axes_of_one_array(given, one, other):
    with pytest.raises(InputError, match=f"splits both '{one}' and '{other}' of "):
        Layout(**given)


def test_the_same_mesh_axis_may_split_different_arrays():
    layout = Layout(sample="x", matrix="x", width="x")
    assert layout.spec("sample", None, None) == PartitionSpec("x", None, None)
    assert layout.spec("ff", "width") == PartitionSpec(None, "x")
    with pytest.raises(InputError, match="splits both 'sample' and 'width' of this array"):
        layout.spec("sample", "width")


def test_a_layout_is_frozen_hashable_and_knows_its_names():
    layout = LAYOUTS["tensor"]
    assert hash(layout) == hash(replace(layout))
    with pytest.raises(FrozenInstanceError):
        layout.width = "model"  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(InputError, match="got the logical axis 'depth'; allowed 'ff', 'heads'"):
        layout.spec("depth")
    assert set(LOGICAL_AXES) < {field.name for field in fields(layout)}
    assert layout.mesh_axes == ("data", "model")
    with pytest.raises(InputError, match="layout: got 'many'; allowed 'one', 'data', 'fsdp', 'tensor'"):
        layout_named("many")


def mesh(**sizes: int) -> Mesh:
    """A mesh as large as one likes; one device is there, and only sizes are asked for."""
    return Mesh(np.array(jax.devices()[:1] * int(np.prod(list(sizes.values())))).reshape(*sizes.values()), tuple(sizes))


def specs(name: str, **sizes: int) -> dict[str, PartitionSpec]:
    found = shardings(LLAMA, parameters.shapes(LLAMA), mesh(**sizes), LAYOUTS[name])
    return {path: one.spec for path, one in found.items()}


@pytest.mark.parametrize("name", ["one", "data"])
def test_whole_weights_are_whole(name):
    assert all(axis is None for spec in specs(name, data=8).values() for axis in spec)


def test_gathered_weights_are_split_once_each_along_the_width():
    found = specs("fsdp", data=8)
    shapes = parameters.shapes(LLAMA)
    for path, spec in found.items():
        split = [size for size, axis in zip(shapes[path], spec, strict=True) if axis is not None]
        assert split == ([] if "norm" in path else [LLAMA.width]), path


def test_split_heads_go_with_the_hidden_units_and_the_vocabulary():
    found = specs("tensor", data=2, model=4)
    assert found["blocks/attention/q"] == PartitionSpec(None, "model", None)
    assert found["blocks/attention/o"] == PartitionSpec(None, None, "model")
    assert found["blocks/mlp/up"] == PartitionSpec(None, "model", None)
    assert found["blocks/mlp/down"] == PartitionSpec(None, None, "model")
    assert found["embed/tokens"] == PartitionSpec("model", None)


def test_what_does_not_divide_into_whole_heads_or_equal_parts_stays_whole():
    arch = replace(LLAMA, vocab=63, ff_dim=25)
    found = {path: one.spec for path, one in shardings(
        arch, parameters.shapes(arch), mesh(data=1, model=8), LAYOUTS["tensor"]
    ).items()}  # fmt: skip
    assert found["blocks/attention/q"] == PartitionSpec(None, "model", None), "8 heads of 4"
    for path in ("blocks/attention/k", "blocks/mlp/up", "embed/tokens"):  # 4 heads of 16 rows, 25 units, 63 words
        assert all(axis is None for axis in found[path]), path


def test_biases_are_split_like_the_rows_they_belong_to():
    arch = replace(LLAMA, qkv_bias=True, mlp_bias=True, output_bias=True)
    found = shardings(arch, parameters.shapes(arch), mesh(data=2, model=4), LAYOUTS["tensor"])
    split = {path.rpartition("/")[2]: one.spec for path, one in found.items() if path.endswith("_bias")}
    assert {name for name, spec in split.items() if spec == PartitionSpec(None, "model")} == {
        "q_bias", "k_bias", "v_bias", "gate_bias", "up_bias"
    }  # fmt: skip
    assert {name for name, spec in split.items() if spec == PartitionSpec(None, None)} == {"o_bias", "down_bias"}


def test_a_mesh_without_the_axes_of_the_layout_is_refused():
    with pytest.raises(InputError, match="splits over the mesh axis 'model', the mesh has 'data'"):
        check_mesh(mesh(data=1), LAYOUTS["tensor"])


@pytest.mark.parametrize(
    ("layout", "model", "complaint"),
    [
        ("data", 2, "model: got 2 with the layout 'data'; allowed 1"),
        ("tensor", 3, "model: got 3; allowed a divisor of the number of devices, 1"),
        ("tensor", 0, "model: got 0; allowed a divisor"),
        ("ring", 1, "layout: got 'ring'"),
    ],
)
def test_meshes_that_cannot_be_made_are_refused(layout, model, complaint):
    with pytest.raises(InputError, match=complaint):
        mesh_for(layout, jax.devices()[:1], model=model)


def test_meshes_have_the_axes_of_their_layout():
    devices = jax.devices()[:1] * 8
    assert mesh_for("one", devices).devices.shape == (1,)
    assert dict(mesh_for("data", devices).shape) == {"data": 8}
    assert dict(mesh_for("tensor", devices, model=4).shape) == {"data": 2, "model": 4}


def test_a_piece_has_its_share_of_heads_and_hidden_units_or_is_refused():
    piece = piece_of(LLAMA, 4)
    assert (piece.heads, piece.kv_heads, piece.ff_dim, piece.width) == (2, 1, 6, 16)
    with pytest.raises(InputError, match=r"got 8 devices on the model's axis; .* kv_heads does not divide"):
        piece_of(LLAMA, 8)
    with pytest.raises(InputError, match="normalised over all heads at once; use the layout 'fsdp'"):
        piece_of(replace(LLAMA, family="olmo2", qk_norm="projection"), 2)
    assert piece_of(replace(LLAMA, qk_norm="projection"), 1).heads == 8
