"""One process of a sweep, with stub units: what is stored and resumed, refused, recorded, computed again."""

import dataclasses
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from jaxdyn_kernels import Status, cores

import jaxdyn
from jaxdyn.activations import tokenise
from jaxdyn.store import StoreError, done_units
from jaxdyn.sweep import claiming, manifest, presets, run, sweep, worker
from jaxdyn.sweep.claims import Claims
from jaxdyn.sweep.log import read_metrics
from jaxdyn.sweep.manifest import read_manifest
from jaxdyn.sweep.models import texts_of
from jaxdyn.sweep.plan import ModelEntry, Plan
from jaxdyn.sweep.presence import Presence
from jaxdyn.sweep.units import make_work, unit_ids
from tests.stores import assert_same_bits
from tests.sweep import stub

pytestmark = pytest.mark.usefixtures("stubbed")
STORES = ["one/in-context/results.zarr", "two/in-context/results.zarr"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A finished sweep, which nobody may change."""
    plan = stub.make_plan(tmp_path_factory.mktemp("finished"))
    with pytest.MonkeyPatch.context() as patch:
        for module, name, value in stub.PATCHES:
            patch.setattr(module, name, value)
        sweep(plan)
    return plan


@pytest.fixture
def whole(finished: Plan, tmp_path: Path) -> Plan:
    """A copy of the finished sweep."""
    shutil.copytree(finished.out.parent, tmp_path / "whole")
    texts = dataclasses.replace(finished.texts, file=str(tmp_path / "whole" / "texts.txt"))
    return dataclasses.replace(finished, out=tmp_path / "whole" / "out", texts=texts)


@pytest.fixture
def fresh(finished: Plan, tmp_path: Path) -> Plan:
    """The same plan into an empty folder."""
    return dataclasses.replace(finished, out=tmp_path / "fresh")


def assert_same(one: Plan, other: Plan) -> None:
    for store in STORES:
        assert_same_bits(one.out / store, other.out / store)


def interrupt(monkeypatch: pytest.MonkeyPatch, after: int, error: BaseException) -> None:
    """Let the computing of units fail after some."""
    left = [after]

    def compute(*work: Any):
        left[0] -= 1
        if left[0] < 0:
            raise error
        return stub.compute_units(*work)

    monkeypatch.setattr(presets, "run_units", compute)


def test_a_sweep_fills_one_store_a_model_and_operator(tmp_path: Path) -> None:
    whole = stub.make_plan(tmp_path, operators=("in-context", "ov"))
    outcome, stores = sweep(whole), [f"{model}/{op}/results.zarr" for model in ("one", "two") for op in whole.operators]
    assert [str(store.relative_to(whole.out)) for store in outcome.stores] == stores
    assert (outcome.units, outcome.samples, outcome.matrices, outcome.failed) == (24, 44, 88, {})
    assert outcome.own_units == 24
    assert sweep(whole).own_units == 0, "a finished sweep is returned at once"
    made = read_manifest(whole.out)
    assert made is not None
    assert (made.units, made.threads, [run.first for run in made.runs]) == (24, cores(), [0, 6, 12, 18])
    tree = jaxdyn.open_tree(whole.out / stores[1])
    assert tree.attrs["operator"] == "ov"
    assert len(set(tree["units"]["address"].values.tolist())) == 6
    assert not set(tree["units"]["address"].values) & set(
        jaxdyn.open_tree(whole.out / stores[0])["units"]["address"].values
    )
    assert xr.open_datatree(whole.out / stores[0], engine="zarr")["mean"]["mean_jacobian"].shape == (2, 1, 8, 8)
    assert not list((whole.out / "claims").iterdir())
    assert not list((whole.out / "processes").iterdir())


def test_the_mean_is_that_of_the_units_in_order(finished: Plan) -> None:
    tree = jaxdyn.open_tree(finished.out / STORES[0])
    units = tree["units"].to_dataset()
    sums, count = units["jacobian_sum"].values, units["count"].values
    expected = sums.astype(np.float64).sum(axis=(0, 1)) / count[:, :, 0].sum()
    found = np.moveaxis(tree["mean"].to_dataset()["mean_jacobian"].values, 0, 1)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_stopped_sweep_goes_on_to_the_same_bits(finished: Plan, fresh: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = fresh
    for after in (0, 3, 5):
        interrupt(monkeypatch, after, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            sweep(plan)
    assert done_units(plan.out / STORES[0]) == [0, 1, 2, 3, 4, 5]
    monkeypatch.setattr(presets, "run_units", stub.compute_units)
    outcome = sweep(plan)
    assert outcome.own_units == 12 - 8
    assert_same(finished, plan)
    with pytest.raises(AssertionError, match="differs"):
        assert_same_bits(plan.out / STORES[0], plan.out / STORES[1])


def test_metrics_and_log_tell_of_every_unit(finished: Plan) -> None:
    lines = read_metrics(finished.out)
    assert len(lines) == 12
    assert {(line["model"], line["unit"]) for line in lines} == {(m, u) for m in ("one", "two") for u in range(6)}
    assert sum(line["matrices"] for line in lines) == 44
    assert all(0 < line["compute_seconds"] <= line["seconds"] for line in lines)
    assert all(line["resident_bytes"] > 10**7 for line in lines)
    log = (finished.out / "logs" / "process-00000.log").read_text()
    assert "12 of 12 units" in log
    assert log.count(": complete") == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"draws": 8}, r"plan.draws \(now 8, created with 0\)"),
        ({"unit": 3, "seed": 5}, r"plan.seed \(now 5, .*plan.unit \(now 3, created with 2\)"),
        ({"operators": ("ov",)}, r"plan.operators \(now \[.ov.\], created with"),
        ({"models": (ModelEntry("one", "one"),)}, r"plan.models"),
        ({"outputs": ("eigenvalues",)}, r"plan.outputs"),
        ({"threads": 7}, r"threads \(now 7, created with"),
    ],
)
def test_a_changed_plan_is_refused_with_what_changed(finished: Plan, changes: dict[str, Any], message: str) -> None:
    before = (finished.out / "sweep.json").read_bytes()
    with pytest.raises(StoreError, match=message):
        sweep(dataclasses.replace(finished, **changes))
    assert (finished.out / "sweep.json").read_bytes() == before


def test_changed_texts_weights_and_code_are_refused(whole: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(manifest, "code", lambda: "other code")
        with pytest.raises(StoreError, match="code "):
            sweep(whole)
    jaxdyn.store.Store(whole.out / STORES[0]).reopen([0])
    with monkeypatch.context() as patch:
        patch.setattr(presets, "load", lambda entry, **_: stub.model_of(ModelEntry("x", "x")))
        with pytest.raises(StoreError, match="model_hash"):
            sweep(whole)
    texts = Path(whole.texts.file)
    texts.write_text(texts.read_text().replace("cat", "dog"))
    with pytest.raises(StoreError, match=r"texts_hash \(now"):
        sweep(whole)


def test_a_process_with_other_cores_is_refused(finished: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "cores", lambda: cores() + 1)
    with pytest.raises(StoreError, match=r"threads: this process may use \d+ cores"):
        sweep(finished)


def test_one_process_is_what_mesh_one_allows(tmp_path: Path) -> None:
    plan = stub.make_plan(tmp_path, mesh="one", models=(ModelEntry("one", "one"),))
    with pytest.raises(ValueError, match="mesh: got one with 2 processes"):
        sweep(plan, process=0, processes=2)
    assert sweep(plan).own_units == 6


class Refusing:
    """An array whose every write the system refuses."""

    def __init__(self, array: Any, code: int) -> None:
        self.domain, self.shape, self.dtype, self._code = array.domain, array.shape, array.dtype, code

    def __getitem__(self, index: object) -> "Refusing":
        return self

    def write(self, values: object) -> "Refusing":
        return self

    def result(self) -> None:
        msg = f"FAILED: write [os_error_code='{self._code}']"
        raise ValueError(msg)


def test_a_full_disk_stops_with_one_line_and_the_same_command_goes_on(
    finished: Plan, fresh: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ENOSPC in the fourth unit: the three before it can be read, and the run ends as if nothing had been."""
    plan, units = fresh, []

    def compute(*work: Any):
        units.extend(work[4])
        if len(units) == 4:
            store = workers[0]._open[workers[0].manifest.runs[0]][1]
            store._arrays["eigenvalues"] = Refusing(store._arrays["eigenvalues"], 28)
        return stub.compute_units(*work)

    workers: list[Any] = []
    begin = worker.Worker.__init__

    def keep(self: Any, *arguments: Any) -> None:
        begin(self, *arguments)
        workers.append(self)

    monkeypatch.setattr(worker.Worker, "__init__", keep)
    monkeypatch.setattr(presets, "run_units", compute)
    with pytest.raises(StoreError, match=r"cannot write .*No space left on device; .*intact; make room"):
        sweep(plan)
    found = jaxdyn.open_results(plan.out / STORES[0])
    assert found["done"].values.tolist() == [True] * 6 + [False] * 5
    assert np.isfinite(found["henrici"].values[:, :, :6]).all()
    assert "No space left" in (plan.out / "logs" / "process-00000.log").read_text()
    assert not list((plan.out / "claims").iterdir()), "the unit is free for the next"
    sweep(plan)
    assert_same(finished, plan)


def test_a_shard_that_cannot_be_written_stops_with_one_line(finished: Plan, whole: Plan) -> None:
    """A folder in the place of a chunk: the system's own refusal, whoever runs this."""
    plan = whole
    jaxdyn.store.Store(plan.out / STORES[1]).reopen([3])
    chunk = plan.out / STORES[1] / "eigenvalues" / "c.0.0.3.0"
    assert chunk.is_file()
    chunk.unlink()
    (chunk / "in-the-way").mkdir(parents=True)
    with pytest.raises(StoreError, match=r"cannot write .*two/in-context/results.zarr: .*what was written before is"):
        sweep(plan)
    assert done_units(plan.out / STORES[1]) == [0, 1, 2, 4, 5]
    shutil.rmtree(chunk)
    sweep(plan)
    assert_same(finished, plan)


def failing(*work: Any, bad: int = 2):
    """Units in which the second sample of one is NaN, of the second model."""
    for ((index, arrays_),) in stub.compute_units(*work):
        if work[0][0].source == "two" and work[4] == [bad] and index is not None:
            arrays_["status"][:, 1] = Status.NONFINITE_INPUT
            arrays_["henrici"][:, 1] = np.nan
        yield [(index, arrays_)]


def test_failed_matrices_are_recorded_do_not_stop_and_are_computed_again(
    finished: Plan, fresh: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = fresh
    monkeypatch.setattr(presets, "run_units", failing)
    outcome = sweep(plan)
    assert outcome.failed == {"NONFINITE_INPUT": 2}
    assert "--retry-failed" in outcome.summary()
    assert [line["failed"] for line in read_metrics(plan.out) if line["failed"]] == [2]
    assert "did not decompose" in (plan.out / "logs" / "process-00000.log").read_text()
    monkeypatch.setattr(presets, "run_units", stub.compute_units)
    assert sweep(plan).failed == {"NONFINITE_INPUT": 2}, "without the flag nothing is repeated"
    with monkeypatch.context() as patch:
        interrupt(patch, 0, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            sweep(plan, retry_failed=True)
    assert not jaxdyn.store.is_complete(plan.out / STORES[1])
    outcome = sweep(plan, retry_failed=True)
    assert (outcome.failed, outcome.own_units) == ({}, 1)
    assert_same(finished, plan)
    assert sweep(plan, retry_failed=True).own_units == 0


def test_each_output_is_stored_where_it_is_asked_for(tmp_path: Path) -> None:
    def keys(name: str, outputs: tuple[str, ...]) -> set[str]:
        plan = stub.make_plan(tmp_path / name, outputs=outputs, models=(ModelEntry("one", "one"),))
        sweep(plan)
        return set(jaxdyn.store.Store(plan.out / STORES[0]).keys)

    scalars = keys("none", ())
    assert {"henrici", "status", "relative/spectral_norm", "cumulative/effective_rank"} <= scalars
    every = keys("all", ("eigenvalues", "singular-values", "averages", "schur", "jacobians"))
    assert every - scalars == {
        "eigenvalues", "singular_values", "units/jacobian_sum", "units/count", "matrices/jacobian", "matrices/schur_T",
        "matrices/schur_Q",
    }  # fmt: skip
    assert keys("default", ("eigenvalues", "averages")) - scalars == {
        "eigenvalues", "units/jacobian_sum", "units/count",
    }  # fmt: skip


def test_an_address_depends_on_what_the_unit_is_made_of(finished: Plan) -> None:
    texts, entry = texts_of(finished), finished.models[0]

    def addresses(plan: Plan, texts: list[str], entry: ModelEntry = entry, threads: int = 1) -> list[str]:
        model = stub.model_of(entry)
        work = make_work(plan, plan.operators[0], model, texts, tokenise(model, texts))
        return unit_ids(work.samples, work.fixed(threads))

    first = addresses(finished, texts)
    assert len(set(first)) == 6
    stored = jaxdyn.open_tree(finished.out / STORES[0])["units"]["address"].values.tolist()
    assert stored == addresses(finished, texts, threads=cores())
    for changed in (
        addresses(finished, texts, finished.models[1]),
        addresses(finished, texts, threads=2),
        addresses(dataclasses.replace(finished, seed=1), texts),
        addresses(dataclasses.replace(finished, operators=("ov",)), texts),
        addresses(dataclasses.replace(finished, layers=(0,)), texts),
    ):
        assert not set(first) & set(changed)
    other = addresses(finished, [*texts[:4], "the dog sat on a mat", *texts[5:]])
    same = [one == two for one, two in zip(first, other, strict=True)]
    assert same == [True, True, False, True, True, True], "the changed text is in the third unit"


def test_claims_are_taken_once_and_those_of_the_dead_again(tmp_path: Path) -> None:
    with (
        Presence(tmp_path / "p", process=0, processes=2) as one,
        Presence(tmp_path / "p", process=1, processes=2) as two,
    ):
        mine, yours = Claims(tmp_path / "c", one), Claims(tmp_path / "c", two)
        assert mine.take("unit")
        assert mine.take("unit"), "it is ours"
        assert not yours.free("unit")
        assert not yours.take("unit")
        yours.release("unit")
        assert mine.holder("unit") == one.name, "nobody releases what another holds"
        mine.release("unit")
        assert yours.free("unit")
        assert yours.take("unit")
        assert [other["process"] for other in one.others()] == [1]
    with Presence(tmp_path / "p", process=2, processes=3) as three:
        late = Claims(tmp_path / "c", three)
        assert late.holder("unit") == two.name
        assert late.take("unit"), "its holder has ended"
        assert late.holder("unit") == three.name
        assert [file.name for file in (tmp_path / "c").iterdir()] == ["unit"]


def test_a_process_of_another_host_is_dead_when_its_heartbeat_stands_still(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    with Presence(folder, process=0, processes=2, stale=0.3) as here:
        far = {**json.loads(next(folder.glob("*.json")).read_text()), "name": "far", "place": "elsewhere", "pid": 1}
        beat = folder / "far.json"
        beat.write_text(json.dumps(far))
        assert here.lives("far")
        assert here.lives("far")
        time.sleep(0.35)
        assert not here.lives("far")
        beat.write_text(json.dumps({**far, "beat": far["beat"] + 1}))
        assert here.lives("far"), "it beats again: it was a straggler"
        near = {**far, "name": "near", "place": json.loads((folder / f"{here.name}.json").read_text())["place"]}
        (folder / "near.json").write_text(json.dumps({**near, "started": "long ago"}))
        assert not here.lives("near"), "its pid is another process now"


def test_a_store_that_another_has_finished_meanwhile_is_no_error(
    whole: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refusal of the file system that a process meets which was thought dead in its `finish`."""
    plan, refused, other = dataclasses.replace(whole, out=tmp_path / "out"), [], stub.finish

    def finish(store, *work) -> None:
        if not refused:
            refused.append(store.path)
            other(store, *work)
        elif store.path == refused[0]:
            pytest.fail("it is complete")
        else:
            refused.append(store.path)
        if len(refused) <= 2:
            message = "cannot write: No such file or directory"
            raise StoreError(message)

    monkeypatch.setattr(claiming, "finish", finish)
    with pytest.raises(StoreError, match="No such file"):
        sweep(plan)  # the second store, which nobody has finished
    assert len(refused) == 2
    monkeypatch.setattr(claiming, "finish", other)
    assert sweep(plan).as_dict()["units"] == 12
    assert_same_bits(whole.out / STORES[0], plan.out / STORES[0])
