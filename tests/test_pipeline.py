"""The whole run on a tiny model: what is stored, against the functions it is made of; resume; bad input."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import jaxdyn
from jaxdyn.measures import MEASURES, nulls
from jaxdyn.pipeline import run as pipeline_run  # the module
from jaxdyn.pipeline.settings import Settings, parse_layers
from jaxdyn.pipeline.texts import hash_texts, read_texts
from jaxdyn.store import StoreError
from tests.models.tiny import TINY, tiny_llama
from tests.stores import assert_same_bits
from tests.words import TEXTS, WordTokenizer

LIGHT = {"draws": 0, "kreiss": False}


@pytest.fixture(scope="module")
def model() -> jaxdyn.Model:
    found = tiny_llama(hidden_size=16, num_attention_heads=2, num_key_value_heads=1, intermediate_size=24)[1]
    return dataclasses.replace(found, tokenizer=WordTokenizer())


@pytest.fixture(scope="module")
def full(model: jaxdyn.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run with everything on, shared by the tests."""
    out = tmp_path_factory.mktemp("full")
    jaxdyn.analyze(model, TEXTS, out=out, unit=4, pseudospectra=[1], seed=3)
    return out


@pytest.fixture(scope="module")
def root(full: Path) -> xr.Dataset:
    return jaxdyn.open_results(full / "results.zarr").load()


def test_the_stored_measures_are_those_of_the_jacobians(model: jaxdyn.Model, root: xr.Dataset) -> None:
    activations = jaxdyn.capture(model, TEXTS)
    for layer in range(3):
        J = jaxdyn.jacobian(model, activations, layer=layer)
        spectrum = jaxdyn.decompose(J)
        stored = root.sel(part="block", layer=layer)
        for s in range(len(TEXTS)):
            ours = np.sort_complex(stored["eigenvalues"].values[s])
            np.testing.assert_allclose(ours, np.sort_complex(np.linalg.eigvals(np.asarray(J[s]))), atol=1e-9)
        departure = np.sqrt(np.sum(np.asarray(J) ** 2, (1, 2)) - np.sum(np.abs(spectrum.eigenvalues) ** 2, 1))
        np.testing.assert_allclose(stored["henrici"], departure, rtol=1e-9)
        np.testing.assert_allclose(stored["spectral_norm"], np.linalg.norm(np.asarray(J), 2, (1, 2)), rtol=1e-12)
        update = root.sel(part="update", layer=layer)
        np.testing.assert_allclose(update["henrici"], stored["henrici"], rtol=1e-9)
        shifted = np.linalg.norm(np.asarray(J) - np.eye(16), 2, (1, 2))
        np.testing.assert_allclose(update["spectral_norm"], shifted, rtol=1e-12)
        assert not np.allclose(update["spectral_norm"], stored["spectral_norm"])
        attention = jaxdyn.jacobian(model, activations, layer=layer, part="attention")
        np.testing.assert_allclose(
            root["frobenius_norm"].sel(part="attention", layer=layer),
            np.linalg.norm(np.asarray(attention), axis=(1, 2)),
            rtol=1e-12,
        )


@pytest.mark.parametrize("operator", ["in-context", "isolated"])
@pytest.mark.parametrize("family", ["gpt_neox", "gemma4_text"])
def test_every_kind_of_block_is_stored_as_its_jacobian_is(family: str, operator, tmp_path: Path) -> None:
    """A parallel residual; per-layer embeddings and shared keys and values, carried from block to block."""
    tiny = TINY[family](hidden_size=16, num_attention_heads=2, intermediate_size=24)[1]
    model = dataclasses.replace(tiny, tokenizer=WordTokenizer())
    parts: tuple = ("block", "attention", "mlp")
    jaxdyn.analyze(model, TEXTS, out=tmp_path, unit=4, operator=operator, parts=parts, **LIGHT)
    tree = jaxdyn.open_tree(tmp_path / "results.zarr")
    raw, relative = tree.to_dataset(), tree["relative"].to_dataset()
    activations = jaxdyn.capture(model, TEXTS)
    for layer in range(3):
        for part in parts:
            J = np.asarray(jaxdyn.jacobian(model, activations, layer=layer, operator=operator, part=part))
            norm = np.linalg.norm(J, axis=(1, 2))
            found = {"part": part, "layer": layer}
            np.testing.assert_allclose(raw["frobenius_norm"].sel(found), norm, rtol=1e-10)
            if operator == "in-context" and part == "mlp" and family == "gpt_neox":
                moved = activations.inputs[layer] - activations.middle[layer]
                after = activations.final if layer == 2 else activations.inputs[layer + 1]
                scale = np.linalg.norm(activations.inputs[layer], axis=1) / np.linalg.norm(after + moved, axis=1)
                largest = scale * np.linalg.norm(J, 2, (1, 2))
                np.testing.assert_allclose(relative["spectral_norm"].sel(found), largest, rtol=1e-10)


def test_excess_is_the_measure_less_its_null(root: xr.Dataset) -> None:
    for name in ("henrici_normalized", "effective_rank", "kreiss_scaled", "self_alignment"):
        excess = root[name] - root[f"{name}_null"]
        xr.testing.assert_allclose(excess.transpose(*root[f"{name}_excess"].dims), root[f"{name}_excess"])
    assert np.all(root["henrici_normalized_null_sd"].sel(rung="N1") > 0)
    assert np.all(root["henrici_normalized_null_sd"].sel(rung="N0") == 0)
    assert np.all(np.isnan(root["kreiss_scaled_null"].sel(rung="N0")))


def test_every_measure_says_what_n0_is_or_why_there_is_none(root: xr.Dataset) -> None:
    for measure in MEASURES:
        text = root[measure.name].attrs["null"]
        missing = bool(np.all(np.isnan(root[f"{measure.name}_null"].sel(rung="N0"))))
        assert missing == text.startswith("no closed form"), (measure.name, text)


def test_n0_of_the_update_is_that_of_a_ginibre_matrix(root: xr.Dataset) -> None:
    update = root["henrici_normalized_null"].sel(part="update", rung="N0")
    np.testing.assert_allclose(update, 1 / np.sqrt(2), rtol=1e-12)
    block = root.sel(part="block")
    norm = block["update_norm"] / np.sqrt(2) / np.sqrt(16 + block["update_norm"] ** 2)
    np.testing.assert_allclose(block["henrici_normalized_null"].sel(rung="N0"), norm, rtol=1e-12)


def test_n1_keeps_the_shift_and_the_singular_values(model: jaxdyn.Model, root: xr.Dataset) -> None:
    """The determinant of tI + U S V^T - tI is the product of the singular values of M - tI, up to its sign."""
    J = np.asarray(jaxdyn.jacobian(model, jaxdyn.capture(model, TEXTS), layer=0))
    shift = np.trace(J, axis1=1, axis2=2) / 16
    singular_values = np.linalg.svd(J - shift[:, None, None] * np.eye(16), compute_uv=False)
    drawn = root["eigenvalues_null"].sel(part="block", layer=0).values
    determinant = np.log(np.abs(drawn - shift[:, None])).sum(-1)
    np.testing.assert_allclose(determinant, np.log(singular_values).sum(-1), atol=1e-9)
    own = root["eigenvalues"].sel(part="block", layer=0).values
    assert not np.allclose(np.sort_complex(drawn), np.sort_complex(own), atol=1e-3)


def test_the_relative_metric_scales_by_the_norms(full: Path, root: xr.Dataset) -> None:
    relative = jaxdyn.open_tree(full / "results.zarr")["relative"].to_dataset()
    scale = root["input_norm"] / root["output_norm"]
    expected = (scale * root["spectral_norm"]).sel(part="block")
    np.testing.assert_allclose(relative["spectral_norm"].sel(part="block"), expected, rtol=1e-12)
    same = root["henrici_normalized"].sel(part="block")
    np.testing.assert_allclose(relative["henrici_normalized"].sel(part="block"), same, rtol=1e-12)
    assert not np.allclose(
        relative["henrici_normalized"].sel(part="update"), root["henrici_normalized"].sel(part="update")
    )


def test_a_run_of_blocks_without_draws_stores_no_more_than_it_has(model: jaxdyn.Model, tmp_path: Path) -> None:
    """N0 alone, without a spread; and in the relative metric the gains, which are scaled, nulls included."""
    root = jaxdyn.analyze(model, TEXTS[:1], out=tmp_path, parts=("block",), draws=0, kreiss=False, layers=(0,))
    relative = jaxdyn.open_tree(tmp_path / "results.zarr")["relative"].to_dataset()
    assert root["rung"].values.tolist() == ["N0"]
    assert not [name for name in root if str(name).endswith("_null_sd")]
    gains = {name for name in relative if not str(name).endswith(("_null", "_excess"))}
    assert gains == {"henrici", "spectral_radius", "spectral_norm", "numerical_abscissa"}
    scale = root["input_norm"] / root["output_norm"]
    assert np.all(scale != 1)
    for name in ("henrici", "henrici_null", "henrici_excess", "numerical_abscissa"):
        np.testing.assert_allclose(relative[name], (scale * root[name]).transpose(*relative[name].dims), rtol=1e-12)


def test_the_running_product_is_the_product(model: jaxdyn.Model, full: Path) -> None:
    activations = jaxdyn.capture(model, TEXTS)
    cumulative = jaxdyn.open_tree(full / "results.zarr")["cumulative"].to_dataset()
    product = np.eye(16)[None]
    for layer in range(3):
        product = np.asarray(jaxdyn.jacobian(model, activations, layer=layer)) @ product
        s = np.linalg.svd(product, compute_uv=False)
        p = s**2 / np.sum(s**2, -1, keepdims=True)
        expected = np.exp(-np.sum(p * np.log(p), -1))
        np.testing.assert_allclose(cumulative["effective_rank"].sel(depth=layer + 1), expected, rtol=1e-9)
        p = p[:, 1:] / np.sum(p[:, 1:], -1, keepdims=True)
        without = np.exp(-np.sum(p * np.log(p), -1))
        np.testing.assert_allclose(cumulative["effective_rank_without_1"].sel(depth=layer + 1), without, rtol=1e-9)
    np.testing.assert_allclose(cumulative["stretching_rate"], np.log(s) / 3, rtol=1e-8)
    free = cumulative["free_product_participation_ratio"]
    xr.testing.assert_allclose(cumulative["alignment_ratio"], cumulative["participation_ratio"] / free)
    assert np.all(cumulative["effective_rank_null_sd"] > 0)


def test_averages_match_the_mean_jacobian(model: jaxdyn.Model, full: Path, root: xr.Dataset) -> None:
    tree = jaxdyn.open_tree(full / "results.zarr")
    mean_group = tree["mean"].to_dataset()
    activations = jaxdyn.capture(model, TEXTS)
    product = np.eye(16)
    for layer in range(3):
        J = np.asarray(jaxdyn.jacobian(model, activations, layer=layer))
        mean = J.mean(0)
        product = mean @ product
        stored = mean_group.sel(part="block", layer=layer)
        np.testing.assert_allclose(stored["spectral_norm"], np.linalg.norm(mean, 2), rtol=1e-10)
        own = root["spectral_norm"].sel(part="block", layer=layer)
        np.testing.assert_allclose(stored["spectral_norm_sample_mean"], own.mean(), rtol=1e-12)
        A = J - np.eye(16)
        square = np.mean(np.sum(A**2, (1, 2)))
        np.testing.assert_allclose(stored["surviving_energy"], np.sum(A.mean(0) ** 2) / square, rtol=1e-9)
        split = np.sum(A[0::2].mean(0) * A[1::2].mean(0)) / square
        np.testing.assert_allclose(stored["surviving_energy_split"], split, rtol=1e-9)
    s = np.linalg.svd(product, compute_uv=False)
    p = s**2 / np.sum(s**2)
    rank = tree["cumulative"]["mean_effective_rank"].sel(depth=3)
    np.testing.assert_allclose(rank, np.exp(-np.sum(p * np.log(p))), rtol=1e-9)


def test_decoded_directions_are_those_of_the_mean_update(model: jaxdyn.Model, full: Path) -> None:
    decoded = jaxdyn.open_tree(full / "results.zarr")["decoded"].to_dataset().sel(layer=1)
    J = np.asarray(jaxdyn.jacobian(model, jaxdyn.capture(model, TEXTS), layer=1)).mean(0)
    left, s, _ = np.linalg.svd(J - np.eye(16))
    np.testing.assert_allclose(decoded["size"].sel(kind="output"), s[:4], rtol=1e-9)
    scale = np.asarray(model.params["final_norm"]["scale"])
    scores = np.asarray(model.params["head"]) @ (scale * left[:, 0])
    best = {f"w{np.argmax(scores)}", f"w{np.argmin(scores)}"}
    first = decoded["tokens"].sel(kind="output").isel(direction=0, token_rank=0)
    assert set(first.values.tolist()) == best


def test_pseudospectra_are_stored_for_the_chosen_layer(model: jaxdyn.Model, full: Path) -> None:
    group = jaxdyn.open_tree(full / "results.zarr")["pseudospectra"].to_dataset().sel(pseudo_layer=1)
    J = np.asarray(jaxdyn.jacobian(model, jaxdyn.capture(model, TEXTS), layer=1)).mean(0)
    z = group["real"].values[10] + 1j * group["imaginary"].values[20]
    sigma = np.linalg.svd(z * np.eye(16) - J, compute_uv=False)[-1]
    np.testing.assert_allclose(group["log_resolvent"].values[20, 10], -np.log10(sigma), atol=1e-3)


def test_results_do_not_depend_on_the_unit(model: jaxdyn.Model, full: Path, root: xr.Dataset) -> None:
    one = jaxdyn.analyze(model, TEXTS, unit=6, seed=3)
    for name in ("henrici", "henrici_normalized_null", "effective_rank"):
        np.testing.assert_allclose(one[name], root[name], rtol=1e-8)


def test_the_seed_changes_the_null_and_nothing_else(model: jaxdyn.Model, root: xr.Dataset) -> None:
    other = jaxdyn.analyze(model, TEXTS, unit=4, seed=4, layers=[0], parts=["update"], kreiss=False)
    before = root.sel(layer=[0], part=["update"])
    np.testing.assert_allclose(other["henrici"], before["henrici"], rtol=1e-9)
    null, before_null = (d["henrici_null"].sel(rung="N1").values for d in (other, before))
    assert not np.allclose(null, before_null, rtol=1e-6)


def test_coordinates_say_where_each_sample_is(model: jaxdyn.Model) -> None:
    ds = jaxdyn.analyze(model, TEXTS[:2], tokens="last:3", layers=[1], parts=["mlp"], **LIGHT)
    assert ds["prompt"].values.tolist() == [0, 0, 0, 1, 1, 1]
    assert ds["position"].values.tolist() == [9, 10, 11, 6, 7, 8]
    assert ds["sink"].all()
    assert ds["part"].values.tolist() == ["mlp"]
    assert ds.attrs["bos"] == "yes"
    assert ds.attrs["operator"] == "in-context"


@pytest.mark.parametrize(("name", "value"), [("operator", "isolated"), ("operator", "ov"), ("derivative", "frozen")])
def test_each_option_changes_the_result(model: jaxdyn.Model, root: xr.Dataset, name: str, value: str) -> None:
    options: dict = {name: value}
    ds = jaxdyn.analyze(model, TEXTS, layers=[1], parts=["block"], **LIGHT, **options)
    before = root["henrici"].sel(layer=[1], part=["block"])
    assert not np.allclose(ds["henrici"], before, rtol=1e-4)
    J = jaxdyn.jacobian(model, jaxdyn.capture(model, TEXTS), layer=1, **options)
    np.testing.assert_allclose(ds["frobenius_norm"][0, 0], np.linalg.norm(np.asarray(J), axis=(1, 2)), rtol=1e-10)


def test_truncation_caps_the_rank_of_the_product(model: jaxdyn.Model, tmp_path: Path) -> None:
    jaxdyn.analyze(model, TEXTS[:2], out=tmp_path, parts=["block"], truncate=4, **LIGHT)
    cumulative = jaxdyn.open_tree(tmp_path / "results.zarr")["cumulative"].to_dataset()
    activations = jaxdyn.capture(model, TEXTS[:2])
    product = np.eye(16)[None]
    for layer in range(3):
        product = np.asarray(jaxdyn.jacobian(model, activations, layer=layer)) @ product
        u, s, vh = np.linalg.svd(product)
        product = (u[..., :4] * s[:, None, :4]) @ vh[:, :4]
        p = s[:, :4] ** 2 / np.sum(s[:, :4] ** 2, -1, keepdims=True)
        expected = np.exp(-np.sum(p * np.log(p), -1))
        np.testing.assert_allclose(cumulative["effective_rank"].sel(depth=layer + 1), expected, rtol=1e-8)


def test_layers_with_a_gap_have_no_product(model: jaxdyn.Model, tmp_path: Path) -> None:
    jaxdyn.analyze(model, TEXTS[:1], out=tmp_path, layers=[0, 2], parts=["block"], **LIGHT)
    assert "cumulative" not in jaxdyn.open_tree(tmp_path / "results.zarr").children


def test_nan_activations_are_a_status_not_a_crash(model: jaxdyn.Model, tmp_path: Path) -> None:
    down = np.array(model.params["blocks"]["mlp"]["down"])
    down[1] = np.finfo(np.float64).max
    params = {
        **model.params,
        "blocks": {**model.params["blocks"], "mlp": {**model.params["blocks"]["mlp"], "down": down}},
    }
    broken = dataclasses.replace(model, params=params)
    ds = jaxdyn.analyze(broken, TEXTS[:2], out=tmp_path, parts=["block"], **LIGHT)
    assert np.all(ds["status"].sel(layer=0) == 0)
    assert np.all(ds["status"].sel(layer=2) != 0)
    assert np.all(np.isnan(ds["henrici"].sel(layer=2)))
    assert np.all(np.isfinite(ds["henrici"].sel(layer=0)))


def test_an_interrupted_run_resumes_to_the_same_bits(
    model: jaxdyn.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"unit": 2, "parts": ["block", "update"], **LIGHT}
    jaxdyn.analyze(model, TEXTS, out=tmp_path / "whole", **options)

    original = pipeline_run.run_unit

    def interrupted(model, settings, samples, layers, unit, tick):
        for count, item in enumerate(original(model, settings, samples, layers, unit, tick)):
            if unit == 1 and count == 2:
                raise KeyboardInterrupt
            yield item

    monkeypatch.setattr(pipeline_run, "run_unit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        jaxdyn.analyze(model, TEXTS, out=tmp_path / "cut", **options)
    monkeypatch.undo()
    half = jaxdyn.open_results(tmp_path / "cut" / "results.zarr")
    assert half["done"].values.tolist() == [True, True, False, False, False, False]
    with pytest.raises(StoreError, match="--resume"):
        jaxdyn.analyze(model, TEXTS, out=tmp_path / "cut", **options)
    with pytest.raises(StoreError, match="seed"):
        jaxdyn.analyze(model, TEXTS, out=tmp_path / "cut", resume=True, seed=9, **options)
    jaxdyn.analyze(model, TEXTS, out=tmp_path / "cut", resume=True, **options)
    assert_same_bits(tmp_path / "whole" / "results.zarr", tmp_path / "cut" / "results.zarr")
    other = jaxdyn.analyze(model, TEXTS[::-1], out=tmp_path / "other", **options)
    assert other.sizes["sample"] == len(TEXTS)
    with pytest.raises(AssertionError):
        assert_same_bits(tmp_path / "whole" / "results.zarr", tmp_path / "other" / "results.zarr")


def test_a_finished_store_is_returned_at_once_on_resume(
    model: jaxdyn.Model, full: Path, root: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(full, tmp_path / "copy")
    monkeypatch.setattr(pipeline_run, "run_unit", None)
    again = jaxdyn.analyze(model, TEXTS, out=tmp_path / "copy", unit=4, pseudospectra=[1], seed=3, resume=True)
    xr.testing.assert_equal(again["henrici"], root["henrici"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"operator": "cross"}, "operator: got 'cross'"),
        ({"derivative": "soft"}, "derivative: got 'soft'"),
        ({"tokens": "first"}, "tokens: got 'first'"),
        ({"layers": [7]}, "layers: got 7; allowed 0 to 2"),
        ({"parts": ["head"]}, "parts: got 'head'"),
        ({"parts": []}, "parts: got none"),
        ({"draws": 3}, "draws: got 3; allowed 0"),
        ({"unit": 0}, "unit: got 0"),
        ({"truncate": 0}, "truncate: got 0"),
        ({"pseudospectra": [2], "layers": [0]}, "pseudospectra: got layer 2"),
        ({"max_tokens": 0}, "max_tokens: got 0"),
    ],
)
def test_bad_settings_are_one_clear_error(model: jaxdyn.Model, options: dict, message: str) -> None:
    with pytest.raises(jaxdyn.InputError, match=message.replace("[", r"\[")):
        jaxdyn.analyze(model, TEXTS[:1], **options)


def test_bad_texts_are_one_clear_error(model: jaxdyn.Model) -> None:
    with pytest.raises(jaxdyn.InputError, match="texts: got none"):
        jaxdyn.analyze(model, [])
    with pytest.raises(jaxdyn.InputError, match=r"texts\[1\]"):
        jaxdyn.analyze(model, ["fine", "  "])
    with pytest.raises(jaxdyn.InputError, match="allowed at most 64"):
        jaxdyn.analyze(model, ["word " * 100])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "{", "not valid JSON"),
        ("a.json", "{}", "must hold a list of strings"),
        ("a.json", "[]", "holds no text"),
        ("a.txt", "\n\n", "holds no text"),
        ("a.csv", "x", "allowed .txt"),
    ],
)
def test_bad_text_files_are_one_clear_error(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(jaxdyn.InputError, match=message):
        read_texts(tmp_path / name)
    with pytest.raises(jaxdyn.InputError, match="no file"):
        read_texts(tmp_path / "absent.txt")


def test_text_files_are_read_in_order(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\nthree\n")
    assert read_texts(tmp_path / "a.txt", samples=2) == ["one", "two"]
    with pytest.raises(jaxdyn.InputError, match="samples: got 4; allowed 1 to 3"):
        read_texts(tmp_path / "a.txt", samples=4)
    assert hash_texts(["ab", "c"]) != hash_texts(["a", "bc"])


def test_layer_lists_are_parsed() -> None:
    assert parse_layers("0,3-5,4") == (0, 3, 4, 5)
    for bad in ("x", "3-1", "", "1-"):
        with pytest.raises(jaxdyn.InputError, match="layers: got"):
            parse_layers(bad)


def test_settings_name_the_jacobians_that_the_parts_need() -> None:
    assert Settings(parts=("update",)).matrices == ("block",)
    assert Settings(parts=("mlp", "update")).matrices == ("block", "mlp")
    assert nulls.DRAWS == Settings().draws
