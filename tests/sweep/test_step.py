"""The sweep's step: what crosses between devices in each layout, and that the numbers are those of one device."""

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest
from jaxdyn_kernels import schur

from jaxdyn.activations import capture, pad
from jaxdyn.errors import InputError
from jaxdyn.jacobians import Request, jacobian
from jaxdyn.measures import MEASURES
from jaxdyn.models import Model
from jaxdyn.pipeline.spectral import measure_view, pieces_of
from jaxdyn.sharding import Layout, mesh_for
from jaxdyn.spectra import decompose
from jaxdyn.sweep.portrait import measure_sample, unit_sums
from jaxdyn.sweep.step import StepSettings, make_step, read_by_step
from tests.programs import ROOT, environment
from tests.sweep.mesh_program import LAYER, LAYOUTS, LLAMA, TOKENS, batch, halves, weights

WIDTH, FF, LAYERS, VOCAB = LLAMA.width, LLAMA.ff_dim, LLAMA.layers, LLAMA.vocab
UNITS_OF_ROUNDING = ("residual", "orthogonality")
"""Ratios of rounding errors to n eps: no two programs agree on them."""


def eight_devices(case: str) -> list[dict]:
    command = [sys.executable, "-m", "tests.sweep.mesh_program", case]
    options = {"cwd": ROOT, "env": environment(devices=8), "capture_output": True, "text": True, "timeout": 600}
    done = subprocess.run(command, **options, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def layouts() -> dict[str, dict]:
    found = {one["layout"]: one for one in eight_devices("step")}
    assert list(found) == list(LAYOUTS)
    return found


def exchanges(found: dict) -> set[tuple[str, str, float]]:
    """Kind, the last scopes and the number of elements of each collective."""
    assert all("jit(" in scope for _, scope, _ in found["collectives"])
    stages = ("forward", "jacobian", "schur", "measures", "unit_sums", "whole_matrices")
    named = set()
    for kind, scope, elements in found["collectives"]:
        words = scope.split("/")
        (stage,) = [word for word in words if word in stages] or ["?"]
        named.add((kind, f"{stage}/{words[-2]}", elements))
    return named


def test_nothing_crosses_between_devices_that_hold_all_weights(layouts):
    assert layouts["data"]["collectives"] == []


def test_split_weights_are_gathered_one_layer_at_a_time_and_nothing_else_crosses(layouts):
    leaves = {WIDTH * WIDTH * 2, WIDTH * WIDTH, WIDTH * FF}  # queries and output, keys and values, the MLP
    found = exchanges(layouts["fsdp"])
    wanted = {("all-gather", f"{stage}/gather_layer", n) for stage in ("forward", "jacobian") for n in leaves}
    assert found == wanted | {("all-gather", "forward/gather_embedding", VOCAB * WIDTH)}
    assert len(layouts["fsdp"]["collectives"]) == 2 * 7 + 1
    assert layouts["fsdp"]["weights"] == [LAYERS, FF, WIDTH // 8]


def test_split_heads_exchange_partial_sums_and_columns_and_nothing_while_decomposing(layouts):
    model = LAYOUTS["tensor"]
    group, samples = 8 // model, 16
    prompts = 8 // group
    stream = prompts * TOKENS * WIDTH
    assert exchanges(layouts["tensor"]) == {
        ("all-reduce", "forward/sum_embedding", stream),
        ("all-reduce", "forward/sum_attention", stream),
        ("all-reduce", "forward/sum_mlp", stream),
        ("all-reduce", "jacobian/sum_attention", WIDTH),
        ("all-reduce", "jacobian/sum_mlp_jacobian", WIDTH * WIDTH),
        ("reduce-scatter", "jacobian/columns_attention_jacobian", WIDTH * WIDTH // model),
        ("all-to-all", "whole_matrices/whole_matrices", samples // group * WIDTH * WIDTH // model),
    }
    assert layouts["tensor"]["weights"] == [LAYERS, FF // model, WIDTH]


def test_jacobians_come_out_split_as_the_layout_says(layouts, alone):
    spec, shape = layouts["tensor"]["split"]
    assert (spec, shape) == ("P('data', None, None, 'model')", [8, 1, WIDTH, WIDTH // 4])
    specs = {name: found["result_split"] for name, found in layouts.items()}
    assert specs["data"] == specs["fsdp"] == ["P('data',)", [2, 1, WIDTH, WIDTH]]
    assert specs["tensor"] == ["P(('data', 'model'),)", [2, 1, WIDTH, WIDTH]]
    np.testing.assert_allclose(layouts["tensor"]["jacobians"], alone.matrices, atol=1e-14)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_numbers_are_those_of_one_device(layouts, alone, name):
    leaves = jax.tree_util.tree_leaves_with_path(replace(alone, singular_values=None))
    one = {jax.tree_util.keystr(path, simple=True): np.asarray(leaf) for path, leaf in leaves}
    other = layouts[name]["result"]
    assert {"eigenvalues", "status", "jacobian_sum", "count", "matrices"} < other.keys() < one.keys()
    for key, got in other.items():
        value, got = one[key], np.asarray(got)
        if np.iscomplexobj(value):
            got = got[0] + 1j * got[1]
        assert np.all(np.isfinite(value))
        if key in UNITS_OF_ROUNDING:
            assert np.all(got < 10)
            continue
        # Condition numbers say how far an eigenvalue moves, and move themselves by their square.
        scale = np.abs(value).max() ** 2 if "condition" in key else max(1, np.abs(value).max())
        np.testing.assert_allclose(got, value, rtol=0, atol=1e-12 * scale, err_msg=key)


def test_sums_of_units_are_those_of_their_samples_whatever_the_devices(layouts):
    result = layouts["tensor"]["result"]
    matrices = np.asarray(result["matrices"])[:, 0]
    half = halves().reshape(-1)
    for unit in range(8):
        for h in (0, 1):
            own = [i for i in (2 * unit, 2 * unit + 1) if half[i] == h]
            np.testing.assert_allclose(result["jacobian_sum"][unit][h][0], matrices[own].sum(axis=0), atol=1e-14)
            assert result["count"][unit][h] == len(own)
    assert np.sum(result["count"]) == 14


def test_other_families_and_routes_split_to_the_same_jacobians():
    found = {one["family"]: one["errors"] for one in eight_devices("families")}
    assert found.keys() == {"gpt2", "gpt_neox", "gemma4", "qwen3"}
    assert all("tensor" in errors for errors in found.values())
    assert all(error < 1e-13 for errors in found.values() for error in errors.values()), found


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(LLAMA, weights(), None, "test", None, "")


@pytest.fixture(scope="module")
def alone(model):
    """The whole step on one device, with singular values."""
    settings = StepSettings(parts=("block", "update"), unit=2, keep_matrices=True)
    step = make_step(LLAMA, mesh_for("one"), "one", settings)
    program = step.jitted.lower(*step.arguments(8, TOKENS, 2, dtype="float64")).compile()
    arrays = (np.asarray(one, np.int32) for one in (*batch(VOCAB), halves(), LAYER))
    return program(read_by_step(model.params), *arrays)


def test_the_portrait_is_that_of_the_stages(model, alone):
    """Against capture, jacobian, decompose by LAPACK and the pipeline's measures."""
    ids, lengths, position = batch(VOCAB)
    rows = [row[:length] for row, length in zip(ids, lengths, strict=True)]
    acts = capture(model, pad(rows), tokens="all")
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    chosen = (starts[:, None] + position).reshape(-1)[[0, 7, 15]]
    J = jacobian(model, acts.select(chosen), layer=LAYER)
    np.testing.assert_allclose(alone.matrices[np.array([0, 7, 15]), 0], J, atol=1e-13)
    views = jax.jit(portrait)
    assert set(alone.measures) == {measure.name for measure in MEASURES} - {"kreiss_scaled"}
    for matrix, sample in zip(J, (0, 7, 15), strict=True):
        wanted = views(matrix)
        for name, values in alone.measures.items():
            np.testing.assert_allclose(values[sample], wanted[name], rtol=1e-9, atol=1e-12, err_msg=name)
        np.testing.assert_allclose(alone.singular_values[sample], wanted["singular_values"], atol=1e-12)
        got, true = (np.sort_complex(np.round(x, 8)) for x in (alone.eigenvalues[sample], wanted["eigenvalues"]))
        np.testing.assert_allclose(got, true, atol=1e-7)
    assert np.all(np.asarray(alone.status) == 0)


def test_on_a_tpu_the_portrait_needs_no_singular_value_decomposition(alone):
    """The way of a TPU, forced here: the same numbers by bisection and projectors."""
    matrices, form = jax.tree.map(lambda leaf: leaf[None], (alone.matrices[3, 0], schur(alone.matrices[3, 0])))
    settings = StepSettings(parts=("block", "update"))
    assert "svd[" not in str(jax.make_jaxpr(partial(measure_sample, settings, "tpu"))((matrices, form)))
    forced = partial(measure_sample, replace(settings, singular_implementation="bisection"), "cpu")
    found = jax.jit(forced)((matrices, form))
    np.testing.assert_allclose(found["singular_values"], alone.singular_values[3], rtol=0, atol=1e-13)
    assert found["measures"].keys() == alone.measures.keys()
    for name, values in found["measures"].items():
        np.testing.assert_allclose(values, alone.measures[name][3], rtol=1e-9, atol=1e-12, err_msg=name)


def portrait(matrix):
    """Both parts of one matrix by the pipeline: of the matrix itself, and less the identity."""
    pieces, _ = pieces_of(matrix, decompose(matrix, vectors=True))
    pieces = jax.tree.map(lambda leaf: leaf[None], pieces)
    return jax.lax.map(lambda shift: measure_view(pieces, (0, jax.numpy.ones(()), shift)), jax.numpy.arange(2.0))


def test_a_failed_sample_enters_no_sum():
    matrices = np.ones((4, 1, 2, 2))
    matrices[1, 0, 0, 0] = np.nan
    sums, count = unit_sums(jax.numpy.asarray(matrices), jax.numpy.asarray([0, 0, 0, -1]), 2)
    assert np.asarray(count).tolist() == [[1, 0], [1, 0]]
    np.testing.assert_array_equal(sums[:, 0, 0], np.ones((2, 2, 2)))
    np.testing.assert_array_equal(sums[:, 1, 0], np.zeros((2, 2, 2)))


def test_what_does_not_divide_is_refused(model):
    ids, lengths, position = batch(VOCAB)
    step = make_step(LLAMA, mesh_for("one"), "one", StepSettings(unit=3))
    half = np.zeros((8, 2), int)
    with pytest.raises(InputError, match=r"position: got 16 samples \(8 prompts x 2\); allowed a multiple of 3"):
        step(model.params, ids, lengths, position, half, LAYER)
    with pytest.raises(InputError, match="layer: got 3; allowed 0 to 2"):
        step(model.params, ids, lengths, position, half, 3)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"request": Request("cross")}, "operator: got 'cross'"),
        ({"parts": ()}, "parts: got none"),
        ({"parts": ("head",)}, "parts: got 'head'"),
        ({"method": "guess"}, "method: got 'guess'"),
        ({"unit": 0}, "unit: got 0; allowed 1 or more"),
        ({"chunk": 0}, "chunk: got 0; allowed 1 or more"),
    ],
)
def test_settings_that_a_step_does_not_have_are_refused(options, complaint):
    with pytest.raises(InputError, match=complaint):
        StepSettings(**options)


@pytest.mark.parametrize(
    "layout",
    [
        Layout(heads="data", kv_heads="data"),  # the MLP whole
        Layout(sample="data"),  # matrices on one device
        Layout(sample="data", matrix="data", jacobian_row="model"),
        Layout(sample="data", matrix="data", layers="model"),
    ],
)
def test_a_layout_that_a_step_cannot_run_in_is_refused(layout):
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("data", "model"))
    with pytest.raises(InputError, match="layout: got one"):
        make_step(LLAMA, mesh, layout)
