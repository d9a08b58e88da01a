"""A whole model: halves, mean Jacobians, covariates, the store, against the functions it is made of."""

import dataclasses
import json
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

import jaxdyn
from jaxdyn.models.parameters import initialise
from jaxdyn.store import StoreError
from jaxdyn.topology import TopologySettings, correlation, moments, topology
from jaxdyn.topology.run import read_topology, run_half, split
from jaxdyn.topology.weights import weight_norms
from tests.models.tiny import tiny_llama
from tests.words import TEXTS, WordTokenizer

LIGHT = TopologySettings(
    k=3, floor="none", seeds=2, null_seeds=1, z_draws=2, nulls=("rotated", "shuffled"), draws=5, refits=3, alpha=0.3,
    tokens="last:3", batch=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def model() -> jaxdyn.Model:
    found = tiny_llama(hidden_size=16, num_attention_heads=2, num_key_value_heads=1, intermediate_size=24)[1]
    return dataclasses.replace(found, tokenizer=WordTokenizer())


@pytest.fixture(scope="module")
def found(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("topology")
    random = dataclasses.replace(model, params=initialise(model.architecture, 1, dtype="float64"))
    return out, topology(model, TEXTS, LIGHT, initial=[random, random], both_halves=True, out=out)


def test_the_graph_is_of_the_even_articles_and_the_jacobian_of_the_odd_ones(model, found):
    even, odd = TEXTS[::2], TEXTS[1::2]
    acts = jaxdyn.capture(model, even, tokens="last:3")
    ds = found[1]
    variance = ds["covariates"].sel(covariate="activation_variance")
    for layer in range(3):
        x = np.asarray(acts.inputs[layer])
        np.testing.assert_allclose(variance.sel(layer=layer), x.var(axis=0, ddof=1), rtol=1e-9)
        for texts, name in ((odd, "gains"), (even, None)):
            J = np.asarray(jaxdyn.jacobian(model, jaxdyn.capture(model, texts), layer=layer)).mean(axis=0)
            gain = np.linalg.norm(J, axis=0)
            if name:
                np.testing.assert_allclose(ds[name].sel(layer=layer, amplification="gain"), gain, rtol=1e-9)
            else:
                from scipy.stats import spearmanr

                at = ds["boundary_position"].sel(layer=layer, boundary="external_share")
                own = ds["coupling_same_half"].sel(layer=layer, boundary="external_share", amplification="gain")
                assert float(own) == pytest.approx(spearmanr(at, gain).statistic)
    assert (ds.attrs["samples_graph"], ds.attrs["samples_jacobian"]) == (9, 3)
    assert (ds.attrs["articles_graph"], ds.attrs["articles_jacobian"]) == (3, 3)
    assert ds.attrs["operator"] == "in-context"
    assert json.loads(ds.attrs["settings"])["tokens"] == "last:3"


def test_random_models_fill_the_last_null_and_the_bits_repeat(model, found):
    ds = found[1]
    last = ds["coupling_null_mean"].sel(topology_null="initial", boundary="participation")
    assert np.isfinite(last).all()
    again = topology(model, TEXTS, LIGHT, both_halves=True)
    np.testing.assert_array_equal(again["coupling_draws"], ds["coupling_draws"])
    np.testing.assert_array_equal(again["coupling"], ds["coupling"])


def test_a_run_that_was_killed_goes_on_after_its_last_layer(model, found, tmp_path):
    def dies(stage, done, total):
        if stage.startswith("layer 2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        topology(model, TEXTS, LIGHT, both_halves=True, out=tmp_path, progress=dies)
    kept = tmp_path / "topology.layers"
    assert sorted(one.name for one in kept.iterdir()) == ["0.zarr", "1.zarr"]
    with pytest.raises(StoreError, match="seed"):
        topology(model, TEXTS, dataclasses.replace(LIGHT, seed=5), both_halves=True, out=tmp_path)
    unfinished = kept / "1.zarr" / "zarr.json"  # as if killed while the layer was written
    unfinished.write_text(unfinished.read_text().replace('"complete": true', '"complete": false'))
    said = []
    again = topology(model, TEXTS, LIGHT, both_halves=True, out=tmp_path, progress=lambda stage, *_: said.append(stage))
    assert {stage.split(":")[0] for stage in said} == {"layer 1", "layer 2"}
    whole = found[1].sel(topology_null=["rotated", "shuffled"])
    np.testing.assert_array_equal(
        again["coupling_draws"].sel(topology_null=["rotated", "shuffled"]), whole["coupling_draws"]
    )
    np.testing.assert_array_equal(read_topology(tmp_path)["gains"], found[1]["gains"])
    assert not kept.exists()


def test_the_store_holds_it_and_is_not_overwritten(model, found):
    out, ds = found
    stored = read_topology(out)
    np.testing.assert_array_equal(stored["coupling"], ds["coupling"])
    assert stored["explained_by"].values.tolist() == ds["explained_by"].values.tolist()
    assert stored["coupling"].attrs["formula"] == "T7"
    assert set(stored.variables) == set(ds.variables)
    with pytest.raises(StoreError, match="is there already"):
        topology(model, TEXTS, LIGHT, out=out)


def test_layers_operator_and_part_are_those_asked_for(model, found):
    few = dataclasses.replace(LIGHT, nulls=(), layers=(2,), operator="isolated", part="mlp", tokens="last")
    other = topology(model, TEXTS, few)
    assert other["layer"].values.tolist() == [2]
    J = jaxdyn.jacobian(model, jaxdyn.capture(model, TEXTS[1::2]), layer=2, operator="isolated", part="mlp")
    np.testing.assert_allclose(
        other["gains"].sel(layer=2, amplification="gain"), np.linalg.norm(np.mean(np.asarray(J), axis=0), axis=0)
    )


def test_a_sample_that_is_not_finite_is_left_out_of_the_mean(model, monkeypatch):
    from jaxdyn.topology import run

    real = run.jacobian

    def broken(*given, **named):
        return real(*given, **named).at[0].set(jnp.nan)

    few = dataclasses.replace(LIGHT, nulls=(), layers=(0,), tokens="last")
    monkeypatch.setattr(run, "jacobian", broken)
    gains = topology(model, TEXTS, few)["gains"].sel(layer=0, amplification="gain")
    kept = [TEXTS[3], TEXTS[5]]  # the first of the batch is lost
    J = np.asarray(real(model, jaxdyn.capture(model, kept), layer=0)).mean(axis=0)
    np.testing.assert_allclose(gains, np.linalg.norm(J, axis=0), rtol=1e-9)


def test_weight_norms_are_those_of_what_reads_and_writes_a_coordinate(model):
    found = weight_norms(model, 1)
    params = model.params["blocks"]
    reads = [params["attention"][n][1] for n in "qkv"] + [params["mlp"][n][1] for n in ("gate", "up")]
    writes = [params["attention"]["o"][1], params["mlp"]["down"][1]]
    for i in (0, 7):
        assert found["read_weight_norm"][i] == pytest.approx(np.linalg.norm(np.concatenate([w[:, i] for w in reads])))
        assert found["write_weight_norm"][i] == pytest.approx(np.linalg.norm(np.concatenate([w[i] for w in writes])))
    np.testing.assert_allclose(found["attention_norm_weight"], np.abs(params["attention_norm"]["scale"][1]))


def test_texts_of_one_article_stay_in_one_half():
    article, half = split(6, ["b", "a", "b", "c", "a", "d"])
    assert article.tolist() == [0, 1, 0, 2, 1, 3]
    assert half.tolist() == [0, 1, 0, 0, 1, 1]
    with pytest.raises(jaxdyn.InputError, match="articles: got 1; allowed 2 or more"):
        split(3, [1, 1, 1])
    with pytest.raises(jaxdyn.InputError, match="articles: got 2 labels; allowed one for each of the 3"):
        split(3, [1, 2])


def test_every_sample_has_the_article_of_its_text(model):
    labels = np.array([5, 5, 6, 7, 7, 8])
    half = run_half(model, TEXTS, labels, labels < 7, LIGHT)
    assert half.articles.tolist() == [5] * 6 + [6] * 3
    np.testing.assert_allclose(
        half.states(1), np.asarray(jaxdyn.capture(model, TEXTS[:3], tokens="last:3").inputs[1]), rtol=1e-12
    )
    assert correlation(moments(half.states(1))).shape == (16, 16)


def test_too_wide_a_graph_is_refused_before_anything_runs(model):
    with pytest.raises(jaxdyn.InputError, match="k: got 20; allowed 1 to 15"):
        topology(model, TEXTS)


def test_without_igraph_jaxdyn_and_its_topology_import():
    code = (
        "import sys; sys.modules['igraph'] = sys.modules['leidenalg'] = None\n"
        "import jaxdyn.topology as t, numpy as np\n"
        "print(len(t.top_k_graph(np.eye(4), 1)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "0\n"
