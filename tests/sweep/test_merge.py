"""Merging stores, with stub units: what is joined, what is equal and taken once, what is refused."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import jaxdyn
from jaxdyn.errors import InputError
from jaxdyn.pipeline.averaged import merged_means
from jaxdyn.store import StoreError
from jaxdyn.sweep import merge as merging  # the module
from jaxdyn.sweep import presets, sweep
from jaxdyn.sweep.merge import merge
from jaxdyn.sweep.plan import ModelEntry, Plan
from tests.sweep import stub

pytestmark = pytest.mark.usefixtures("stubbed")
STORE = "one/in-context/results.zarr"
OUTPUTS = ("eigenvalues", "averages", "jacobians")


def averaged(store, model, settings, layers, tick, *, sums) -> dict[str, xr.Dataset]:
    """The merged mean alone, in place of what is measured of it."""
    del store, tick
    assert settings.operator == "in-context"
    assert model.source == "one"
    means = [merged_means(*sums(index))[0] for index in range(len(layers))]
    return {"mean": xr.Dataset({"mean_jacobian": (("layer", "matrix", "row", "column"), np.stack(means))})}


@pytest.fixture(autouse=True)
def _stub_averages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "averaged_groups", averaged)
    monkeypatch.setattr(merging, "load", stub.model_of)


def finished(folder: Path, lines: list[str] | None = None, **changes: Any) -> Plan:
    """A finished sweep of one model, of these texts."""
    plan = stub.make_plan(folder, models=(ModelEntry("one", "one"),), outputs=OUTPUTS, **changes)
    if lines:
        Path(plan.texts.file).write_text("\n".join(lines))
    sweep(plan)
    return plan


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Plan]:
    """Eleven texts, and five others of the same longest length; nobody may change them."""
    place = tmp_path_factory.mktemp("pair")
    others = [" ".join(["rain", *stub.WORDS[: 1 + k]]) for k in range(4)] + [" ".join(["mat", *stub.WORDS[:11]])]
    with pytest.MonkeyPatch.context() as patch:
        for module, name, value in stub.PATCHES:
            patch.setattr(module, name, value)
        return finished(place / "a"), finished(place / "b", others)


def test_samples_follow_each_other_and_the_mean_is_of_all(pair: tuple[Plan, Plan], tmp_path: Path) -> None:
    told = merge([plan.out for plan in pair], tmp_path)
    assert told["stores"] == [{"store": str(tmp_path / STORE), "samples": 16, "units": 9, "sources": 2}]
    one, two, both = (jaxdyn.open_tree(place / STORE).load() for place in (pair[0].out, pair[1].out, tmp_path))
    for name in ("henrici", "eigenvalues", "status", "token", "position", "prompt_hash", "done"):
        a, b, c = (np.moveaxis(t[name].values, t[name].dims.index("sample"), 0) for t in (one, two, both))
        assert np.array_equal(np.concatenate([a, b]), c), name
    for name in ("matrices/jacobian", "cumulative/effective_rank"):
        a, b, c = (t[name] for t in (one, two, both))
        axis = a.dims.index("sample" if "sample" in a.dims else "prompt_sample")
        assert np.array_equal(np.concatenate([a.values, b.values], axis=axis), c.values), name
    assert both["sample"].values.tolist() == list(range(16))
    assert both["prompt"].values.tolist() == [*range(11), *range(12, 17)], "halves of even and odd articles stay halves"
    sums = sum(t["units"].to_dataset()["jacobian_sum"].values.astype(np.float64).sum(axis=(0, 1)) for t in (one, two))
    count = sum(t["units"].to_dataset()["count"].values[:, :, 0].sum() for t in (one, two))
    np.testing.assert_allclose(
        np.moveaxis(both["mean"]["mean_jacobian"].values, 0, 1), sums / count, rtol=1e-5, atol=1e-6
    )
    assert both["merged"]["source"].values.tolist() == [0] * 6 + [1] * 3
    assert both.attrs["samples"] == 16
    assert (tmp_path / "one" / "in-context" / "config.yaml").is_file()
    assert jaxdyn.store.describe(tmp_path / STORE).complete


def test_two_halves_of_one_sweep_are_the_whole(
    pair: tuple[Plan, Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each half was stopped, at units that overlap; what both have is taken once, whichever is named first."""
    whole, halves = pair[0], []
    for name, chosen in (("first", (0, 1, 2, 3)), ("second", (3, 4, 5))):
        plan = dataclasses.replace(whole, out=tmp_path / name)
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            sweep_some(plan, chosen, patch)
        halves.append(plan.out)
    told = merge(halves[::-1], tmp_path / "merged")
    assert told["stores"][0]["units"] == 6
    one, both = (jaxdyn.open_tree(place / STORE).load() for place in (whole.out, tmp_path / "merged"))
    for name in ("henrici", "eigenvalues", "prompt_hash", "prompt"):
        assert np.array_equal(one[name].values, both[name].values), name
    assert both["mean"]["mean_jacobian"].values.tobytes() == one["mean"]["mean_jacobian"].values.tobytes()


def sweep_some(plan: Plan, chosen: tuple[int, ...], patch: pytest.MonkeyPatch) -> None:
    """Do these units of a sweep, and stop at the first of the others."""

    def compute(*work: Any):
        if work[4][0] not in chosen:
            raise KeyboardInterrupt
        return stub.compute_units(*work)

    patch.setattr(presets, "run_units", compute)
    patch.setattr(presets.Alone, "deal", lambda self, unit: unit in chosen)
    sweep(plan)


def test_what_contradicts_is_refused(pair: tuple[Plan, Plan], tmp_path: Path) -> None:
    first = pair[0]
    seed = finished(tmp_path / "seed", seed=3)
    with pytest.raises(StoreError, match=r"differ in seed \(0, 3\); merge stores of equal settings"):
        merge([first.out, seed.out], tmp_path / "x")
    lines = Path(first.texts.file).read_text().splitlines()
    overlap = finished(tmp_path / "overlap", ["the other text", *lines[4:5], lines[-1]])
    with pytest.raises(StoreError, match=r"position \d+ of the same prompt is in .* in different units"):
        merge([first.out, overlap.out], tmp_path / "x")
    copy = finished(tmp_path / "copy")
    store = jaxdyn.store.Store(copy.out / STORE)
    store.reopen([2])
    keys = {key: store.read(2, key).copy() for key in store.keys}
    keys["henrici"][:] += 1
    store.write_unit(2, keys)
    with pytest.raises(StoreError, match=r"unit \w{12} differs in henrici between"):
        merge([first.out, copy.out], tmp_path / "x")
    assert not (tmp_path / "x").exists()
    with pytest.raises(StoreError, match="already holds results"):
        merge([plan.out for plan in pair], first.out)


def test_what_is_no_sweep_is_refused(pair: tuple[Plan, Plan], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="got 1 folders; give two or more"):
        merge([pair[0].out], tmp_path / "x")
    with pytest.raises(InputError, match=r"holds no results.zarr"):
        merge([pair[0].out, tmp_path], tmp_path / "x")
