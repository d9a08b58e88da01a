"""What a dry run counts, against programs and plans small enough to count by hand."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
import yaml
from jax import lax

from jaxdyn.activations import tokenise
from jaxdyn.catalogue import size
from jaxdyn.errors import InputError
from jaxdyn.models import parameters
from jaxdyn.pipeline.estimate import PROCESS
from jaxdyn.store import create
from jaxdyn.sweep import device_memory
from jaxdyn.sweep.estimate_page import refusal
from jaxdyn.sweep.flops import count_flops
from jaxdyn.sweep.footprint import footprint
from jaxdyn.sweep.models import outline
from jaxdyn.sweep.plan import ModelEntry, Plan, Texts
from jaxdyn.sweep.units import Work, make_work
from jaxdyn.sweep.worker import schema_of
from tests.sweep import stub
from tests.sweep.conftest import TINY

A = jax.ShapeDtypeStruct((3, 4, 5), jnp.float32)
B = jax.ShapeDtypeStruct((3, 5, 6), jnp.float32)
PRODUCT = 2 * 3 * 4 * 5 * 6


def test_products_are_counted_as_often_as_they_run() -> None:
    def looped(a, b):
        return lax.scan(lambda total, _: (total + jnp.sum(a @ b), None), 0.0, None, length=7)[0]

    def chosen(a, b):
        return lax.cond(jnp.sum(a) > 0, lambda: jnp.sum(a @ b), lambda: jnp.sum(a))

    def nested(a, b):
        return jax.jit(
            jax.vmap(lambda x, y: lax.fori_loop(0, 3, lambda _, z: z + x @ y @ jnp.ones((6, 6), jnp.float32), x @ y))
        )(a, b)

    assert count_flops(jnp.matmul, A, B) == PRODUCT
    assert count_flops(looped, A, B) == 7 * PRODUCT
    assert count_flops(chosen, A, B) == PRODUCT
    assert count_flops(nested, A, B) == 4 * PRODUCT + 3 * 2 * 3 * 4 * 6 * 6
    assert count_flops(lambda a, b: a + 1, A, B) == 0


def test_the_count_is_the_compilers_where_nothing_loops() -> None:
    told: Any = jax.jit(jnp.matmul).lower(A, B).compile().cost_analysis()
    assert told["flops"] == pytest.approx(count_flops(jnp.matmul, A, B), rel=0.01)


@pytest.fixture(scope="module")
def work(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Work:
    """A tiny real model in outline, in units of 3 samples."""
    texts = [" ".join(f"w{3 + (k + j) % 50}" for j in range(20)) for k in range(6)]
    plan = Plan(
        (ModelEntry("tiny", str(folder)),),
        Texts("unread"),
        tmp_path_factory.mktemp("out"),
        parts=("block",),
        tokens="all",
        draws=0,
        unit=3,
    )
    model = outline(plan.models[0], plan)
    return make_work(plan, "in-context", model, texts, tokenise(model, texts))


@pytest.fixture(scope="module")
def programs(work: Work):
    """Memory and operations of its programs by the unit's samples, each compiled once."""
    return device_memory.device_programs(work)


def test_no_weights_are_read_and_the_largest_unit_that_fits_is_found(work: Work, programs) -> None:
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(work.model.params))
    measured = {"at_work": 1000.0, "kept": 5000.0}

    def taken(unit: int) -> float:
        smaller = device_memory.work_in_units(work, unit)
        return device_memory.device_memory(smaller, programs(unit), measured, 1)["total"]

    assert taken(3) > taken(2) > taken(1) > PROCESS
    assert device_memory.largest_unit(work, programs, measured, 1, int(taken(3)) - 1) == 2
    assert device_memory.largest_unit(work, programs, measured, 1, int(taken(2)) - 1) == 1
    assert device_memory.largest_unit(work, programs, measured, 1, int(PROCESS)) == 0


def test_a_device_holds_its_part_of_weights_that_a_preset_splits(folder: Path, tmp_path: Path) -> None:
    whole = Plan((ModelEntry("tiny", str(folder)),), Texts("unread"), tmp_path, mesh="data")
    model = outline(whole.models[0], whole)
    assert device_memory.split_bytes(model, whole, 4) == {}, "all weights on each"
    leaves = {path: leaf.size * 4 for path, leaf in parameters.flatten(model.params).items()}
    norms = sum(size for path, size in leaves.items() if path.endswith("scale"))
    split = (sum(leaves.values()) - norms) / 4
    found = device_memory.split_bytes(model, dataclasses.replace(whole, mesh="fsdp"), 4)
    assert found == {"weights": split + norms, "group": 1.0, "gathered": leaves["embed/tokens"]}
    with pytest.raises(InputError, match=r"got 4 devices on the model's axis; .* kv_heads does not divide"):
        device_memory.split_bytes(model, dataclasses.replace(whole, mesh="tensor"), 4)


def test_operations_of_a_unit_grow_with_its_samples(programs) -> None:
    n, hidden, heads = 16, 24, 16
    least = 2 * n * n * (hidden + heads + n) * 3  # the closed form of the Jacobians: d^2 (f + HK + d) products each
    assert least < programs(3)["jacobians_flops"] < 4 * least
    assert programs(3)["jacobians_flops"] > 1.5 * programs(1)["jacobians_flops"]


def told(**changes: Any) -> dict[str, Any]:
    found = {
        "unit": 16, "samples": 100, "out": "somewhere", "free": 10**9,
        "memory": {"total": 3e9, "limit": 4e9, "weights": 1e9, "largest_unit": None, "run": "m in-context"},
        "bytes": {"on_disk": 10**8, "by_output": {"scalars": 10**7, "jacobians": 9 * 10**7}},
    }  # fmt: skip
    return {**found, **changes}


def test_a_refusal_has_the_number_that_fits() -> None:
    assert refusal(told()) is None
    memory = told()["memory"]
    tight = told(memory={**memory, "limit": 2e9, "largest_unit": 7})
    assert refusal(tight) == (
        "unit: got 16, which takes 3 GB of a device's 2 GB (m in-context); the largest unit that fits is unit: 7"
    )
    never = refusal(told(memory={**memory, "limit": 5e8, "largest_unit": 0}))
    assert never is not None
    assert "not even unit: 1 fits, since the weights alone take 1 GB" in never
    full = refusal(told(free=5 * 10**7))
    assert full is not None
    assert "take 100 MB, somewhere has 50 MB free; about 50 of the 100 samples fit; the largest output is jac" in full


def test_bytes_are_those_of_the_chunks_that_are_written(work: Work, tmp_path: Path) -> None:
    """Every output, compressed or not, against the files of a store whose units are filled with noise."""
    outputs = ("eigenvalues", "singular-values", "averages", "schur", "jacobians")
    settings = dataclasses.replace(work.settings, outputs=outputs)
    full = dataclasses.replace(work, settings=settings, model=stub.model_of(ModelEntry("one", "one")))
    schema = schema_of(full, ["0" * 64] * work.samples.units)
    counted = footprint(schema, averages=False)
    store = create(tmp_path / "results.zarr", schema, {})
    for unit in range(store.unit_count):
        for index, arrays in stub.compute(full.model, settings, work.samples, work.layers, unit, None):
            at = {} if index is None else {"layer": index}
            for key, value in arrays.items():
                store.write(unit, {key: value}, at=at)
        store.commit(unit)
    for output, keys in (
        ("eigenvalues", ["eigenvalues"]), ("singular-values", ["singular_values"]),
        ("jacobians", ["matrices/jacobian"]), ("averages", ["units/jacobian_sum", "units/count"]),
        ("schur", ["matrices/schur_T", "matrices/schur_Q"]),
    ):  # fmt: skip
        written = sum(file.stat().st_size for key in keys for file in (tmp_path / "results.zarr" / key).glob("c.*"))
        assert counted["by_output"][output] == written, output
    files = [file for file in (tmp_path / "results.zarr").rglob("*") if file.is_file()]
    assert counted["files"] == pytest.approx(len(files), rel=0.02)
    assert counted["total"] == pytest.approx(sum(file.stat().st_size for file in files), rel=0.1)


@pytest.mark.parametrize(("mesh", "part"), [("fsdp", 2), ("tensor", 2)])
def test_the_command_tells_what_a_split_model_takes_and_which_unit_fits(
    mesh: str, part: int, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes of a device each; what does not fit is refused with the unit that does."""
    from typer.testing import CliRunner

    from jaxdyn import cli

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    texts = [" ".join(f"w{3 + (k + j) % 50}" for j in range(16)) for k in range(8)]
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    plan = tmp_path / "PLAN.yaml"
    keys = {"models": {"model": str(folder), "name": "tiny"}, "texts": "texts.txt", "mesh": mesh, "parts": ["block"],
            "tokens": "last:2", "draws": 0, "unit": 2, "threads": 1, "out": "out"}  # fmt: skip

    def asked(**more: Any) -> Any:
        plan.write_text(yaml.safe_dump(keys | more))
        return CliRunner().invoke(cli.app, ["sweep", str(plan), "--dry-run", "--json", "--processes", "2"])

    found = asked()
    assert found.exit_code == 0, found.output
    told = json.loads(found.stdout)
    assert (told["units"], told["samples"], told["matrices"], told["processes"]) == (8, 16, 32, 2)
    assert all(value > 0 for value in (*told["flops"].values(), *told["bytes"]["by_output"].values()))
    shapes = parameters.shapes(TINY.architecture(61))
    sizes = {path: 4 * math.prod(shape) for path, shape in shapes.items()}
    odd = {"embed/tokens"} if mesh == "tensor" else set()  # 61 words do not divide
    whole = odd | {path for path in sizes if path.endswith("scale")}
    split = sum(size / (1 if path in whole else part) for path, size in sizes.items())
    layer = sum(size for path, size in sizes.items() if path.startswith("blocks/")) / 2
    weights = split + 2 * layer / (part if mesh == "tensor" else 1)
    assert told["memory"]["weights"] == pytest.approx(weights, rel=0.02)
    total = int(told["memory"]["total"])
    refused = asked(memory=total - 1)
    assert isinstance(refused.exception, InputError)
    assert f"unit: got 2, which takes {size(total)} of a device's" in str(refused.exception)
    assert "the largest unit that fits is unit: 1" in str(refused.exception)
    again = json.loads(refused.stdout)["memory"]
    assert (again["largest_unit"], again["limit"]) == (1, total - 1)
    assert not (tmp_path / "out").exists()
