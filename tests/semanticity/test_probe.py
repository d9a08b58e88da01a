"""Stimuli, kernels from representations, the layer probe on representations whose kernel is known, the stored run."""

import numpy as np
import pytest

from jaxdyn import store
from jaxdyn.errors import InputError
from jaxdyn.models import Architecture, Rope, random_model
from jaxdyn.semanticity import finite, probe, run, similarity, stimuli, theory

BLOCKS = 2


class Letters:
    """A tokenizer of single characters, without BOS."""

    bos_token_id = None

    def encode(self, text: str, **_: object) -> list[int]:
        """Give one id a character."""
        return [ord(letter) % 64 for letter in text]


def small_model():
    """Build a random model of two blocks that reads characters."""
    import dataclasses

    arch = Architecture(
        family="llama", width=16, layers=BLOCKS, heads=2, kv_heads=1, head_dim=8, ff_dim=24, vocab=64, context=40,
        norm="rms", norm_eps=1e-5, activation="silu", gated=True, qkv_bias=False, output_bias=False, mlp_bias=False,
        position="rope", rope=Rope(10000.0), tied_head=True, initializer_range=0.3, initializer="normal",
    )  # fmt: skip
    return dataclasses.replace(random_model(arch, seed=7), tokenizer=Letters())


def ring(count: int, highest: int) -> tuple[stimuli.Stimuli, np.ndarray]:
    """Stimuli on a circle, and representations whose cosine is a function of the distance alone, even standardised.

    Coordinates cos and sin of k times the angle, highest - k copies of each: a Fejer kernel, the narrower the higher.
    """
    place = np.arange(count)
    gap = np.abs(place[:, None] - place)
    distance = np.minimum(gap, count - gap) * 2 / count
    angle = 2 * np.pi * np.repeat(np.arange(1, highest), np.arange(highest - 1, 0, -1)) * place[:, None] / count
    texts = [f"place {i}" for i in place]
    return stimuli.Stimuli("ring", texts, distance, "arc"), np.concatenate([np.cos(angle), np.sin(angle)], axis=1)


@pytest.mark.parametrize("name", ["numbers", "years", "words"])
def test_stimuli_are_metric_spaces_of_different_texts(name: str) -> None:
    made = stimuli.make(name, 30)
    d = made.distance
    assert len(set(made.texts)) == 30
    assert d.max() == 1
    assert (d[:, :, None] <= d[:, None, :] + d.T[None, :, :] + 1e-12).all()
    assert stimuli.make(name, 30).texts == made.texts


def test_words_step_by_one_letter_and_their_two_distances_differ() -> None:
    edit, chain = stimuli.words(40), stimuli.words(40, distance="list")
    assert edit.texts == chain.texts
    longest = max(stimuli.levenshtein(a[-6:], b[-6:]) for a in edit.texts for b in edit.texts)
    np.testing.assert_allclose(np.diag(edit.distance, 1), 1 / longest)
    np.testing.assert_allclose(np.diag(chain.distance, 1), 1 / 39)
    assert edit.texts != stimuli.words(40, seed=1).texts
    pairs = {("kitten", "sitting"): 3, ("", "abc"): 3, ("abc", "abc"): 0, ("abcd", "bcd"): 1}
    assert all(stimuli.levenshtein(*words) == distance for words, distance in pairs.items())


def test_numbers_and_years_are_in_their_templates() -> None:
    assert stimuli.numbers(8, first=5).texts[:2] == ["The number is 5", "The number is 6"]
    assert stimuli.years(8, template="Anno {}").texts[-1] == "Anno 1907"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stimuli.make("colours", 10), "stimuli: got 'colours'"),
        (lambda: stimuli.make("numbers", 4), "samples: got 4"),
        (lambda: stimuli.make("years", 10, distance="edit"), "distance: got 'edit' with years"),
        (lambda: stimuli.words(10, distance="sound"), "distance: got 'sound'"),
        (lambda: stimuli.words(1000), "samples: got 1000; allowed 8 to 300"),
        (lambda: stimuli.Stimuli("x", ["a"] * 8, np.zeros((8, 8)), ""), "the texts must differ"),
        (lambda: stimuli.Stimuli("x", list("abcdefgh"), np.zeros((8, 8)), ""), "two different texts are at distance 0"),
        (lambda: probe.design(stimuli.numbers(10), items=(3,)), "items: got"),
        (lambda: run.ProbeSettings(controls=("shuffled",)), "controls: got 'shuffled'"),
        (lambda: run.ProbeSettings(layers=(3,)).sites(BLOCKS), "layers: got 3; allowed 0 to 2"),
    ],
)
def test_what_cannot_be_probed_is_refused(call, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


def test_standardising_uses_the_fitted_half_alone(rng: np.random.Generator) -> None:
    fit, test = 3 + 2 * rng.standard_normal((50, 4)), rng.standard_normal((20, 4))
    fit[:, 3] = 1.0
    one, other = similarity.standardise(fit, test)
    np.testing.assert_allclose(one[:, :3].mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(one[:, :3].std(axis=0), 1)
    np.testing.assert_allclose(other[:, 0], (test[:, 0] - fit[:, 0].mean()) / fit[:, 0].std())
    assert (one[:, 3] == 0).all()
    assert (other[:, 3] == 0).all()


def test_relu_cosine_is_what_it_says(rng: np.random.Generator) -> None:
    x = rng.standard_normal((6, 3))
    x[2] = 0
    g = similarity.relu_cosine(x)
    assert g[0, 1] == pytest.approx(max(0, x[0] @ x[1] / np.linalg.norm(x[0]) / np.linalg.norm(x[1])))
    assert (g[2] == 0).all()
    np.testing.assert_array_equal(np.diag(g), [1, 1, 0, 1, 1, 1])
    assert (g >= 0).all()


@pytest.mark.parametrize("kernel", similarity.KERNELS)
def test_a_kernel_is_fitted_back(kernel: str, rng: np.random.Generator) -> None:
    distance = stimuli.numbers(41).distance
    for eps, noise in ((0.25, 0.0), (0.5, 0.2)):
        g = similarity.shape(kernel, distance, eps, noise) + 0.02 * rng.standard_normal(distance.shape)
        found = similarity.fit_kernel(g, distance, kernel)
        assert found.eps == pytest.approx(eps, abs=0.026)  # one step of the distances
        assert found.noise == pytest.approx(noise, abs=0.03)
        assert found.residual == pytest.approx(0.02, rel=0.15)
    other = next(name for name in similarity.KERNELS if name != kernel)
    assert similarity.fit_kernel(g, distance, other).residual > 3 * found.residual


def test_profile_and_measures_count_every_pair_once() -> None:
    distance = stimuli.numbers(20).distance
    edges = similarity.shell_edges(distance)
    measures = similarity.shell_measures(distance, edges)
    np.testing.assert_allclose(measures.sum(axis=1), 1)
    assert measures[0, -1] > measures[10, -1] == 0  # only the ends see the farthest
    means = similarity.profile(1 - distance, distance, edges)
    assert (np.diff(means) < 0).all()
    assert (means >= 1 - edges - 1e-12).all()


def test_similarity_that_is_a_function_of_distance_is_predicted() -> None:
    found = {}
    for highest in (3, 6):
        made, x = ring(160, highest)
        plan = probe.design(made, items=(2, 5, 10), seed=1)
        found[highest] = one = probe.measure(x, plan)
        # the law draws with replacement, the test without: 2 of 10 items drawn from 80 coincide in every other tuple
        assert np.abs(one["p_s_items"] - one["p_s_law"][2]).max() < 0.02
        assert np.abs(one["p_i_items"] - one["p_i_law"][2]).max() < 0.02
        assert np.abs(one["p_i_items"] - one["p_i_law"][2])[0] < 1e-9  # two items of which one is the probe: exact
        assert one["p_s_low"] <= one["p_s"] <= one["p_s_high"]
        assert np.max(one["var_b"]) < 1e-20  # all places are alike
        (eps, _), (low, noise), (_, b) = one["eps"], one["noise"], one["mean_b"]
        assert low > 0
        linear = theory.front(b, np.array(plan.items), "linear", noise)
        np.testing.assert_allclose([one["p_s_law"][1], one["p_i_law"][1]], linear, rtol=1e-9)
        constant = finite.front_of_set(plan.test_distance, eps, 5, low)
        np.testing.assert_allclose([one["p_s_law"][0][1], one["p_i_law"][0][1]], constant, rtol=1e-9)
    assert (found[3]["eps"] > found[6]["eps"]).all()
    assert (found[3]["p_i_items"] < found[6]["p_i_items"]).all()


def test_representations_without_a_metric_are_at_chance(rng: np.random.Generator) -> None:
    plan = probe.design(stimuli.numbers(80), items=(2, 5))
    found = probe.measure(rng.standard_normal((80, 500)), plan)
    assert found["p_s"] == pytest.approx(0.5, abs=0.04)
    assert found["p_s_items"][1] == pytest.approx(0.2, abs=0.04)
    assert found["p_i"] > 0.9
    assert found["mean_g"] < 0.05


def test_n_item_scores_by_hand() -> None:
    g = np.array([[1.0, 0.5, 0.0], [0.5, 1.0, 0.2], [0.0, 0.2, 1.0]])
    distance = np.array([[0.0, 1, 2], [1, 0, 2], [2, 2, 0]])
    scores = probe.n_item_scores(g, distance, np.array([[0, 1, 2], [1, 2, 0]]))
    # probe 2: items 0 and 1 tie at distance 2, so 1/2 whatever they answer; probe 0: item 1 is nearer
    np.testing.assert_allclose(scores[0], [0.5, 1.0])
    np.testing.assert_allclose(scores[1], [1 / 1.5, 1 / 1.2])


def test_sampled_tuples_agree_with_enumeration_and_are_even() -> None:
    plan = probe.design(stimuli.numbers(24), items=(2, 3), trials=40_000)
    g = similarity.relu_cosine(ring(24, 4)[1][plan.test])
    exact = probe._tests(g, plan)
    scores = probe.n_item_scores(g, plan.test_distance, plan.draws[0])
    error = scores.std(axis=1) / np.sqrt(scores.shape[1])
    assert abs(scores[0].mean() - exact["p_s"]) < 4 * error[0]
    assert abs(scores[1].mean() - exact["p_i"]) < 4 * error[1]
    for column in plan.draws[1].T:
        assert np.abs(np.bincount(column, minlength=12) - 40_000 / 12).max() < 5 * np.sqrt(40_000 / 12)


def test_a_run_is_stored_resumed_and_the_same(tmp_path, monkeypatch) -> None:
    model, made = small_model(), stimuli.numbers(20)
    settings = run.ProbeSettings(unit=8, items=(2, 4), trials=500)
    whole = run.probe(model, made, settings, out=tmp_path / "whole")
    assert whole["p_s"].dims == ("control", "layer")
    assert whole["control"].values.tolist() == ["trained", "random", "rotated"]
    assert whole["layer"].values.tolist() == [0, 1, 2]
    assert float(abs(whole["p_s"].sel(control="trained") - whole["p_s"].sel(control="random")).max()) > 1e-3
    assert float(abs(whole["p_s"].sel(control="trained") - whole["p_s"].sel(control="rotated")).max()) > 1e-4
    direct = probe.measure(
        np.asarray(store.open_results(tmp_path / "whole" / run.STORE)["residual"][0, 2]),
        probe.design(made, items=(2, 4), trials=500),
    )
    np.testing.assert_allclose(whole["p_i_law"].sel(control="trained", layer=2), direct["p_i_law"], rtol=1e-12)

    write, calls = store.Store.write_unit, []

    def killed(self, unit, data):
        if unit == 1 and not calls:
            calls.append(unit)
            raise KeyboardInterrupt
        write(self, unit, data)

    monkeypatch.setattr(store.Store, "write_unit", killed)
    with pytest.raises(KeyboardInterrupt):
        run.probe(model, made, settings, out=tmp_path / "killed")
    done = store.describe(tmp_path / "killed" / run.STORE)
    assert (done.units_done, done.units, done.complete) == (1, 3, False)
    again = run.probe(model, made, settings, out=tmp_path / "killed", resume=True)
    assert again.equals(whole)
    with pytest.raises(store.StoreError, match="trials"):
        run.probe(model, made, run.ProbeSettings(unit=8, items=(2, 4), trials=9), out=tmp_path / "killed", resume=True)


def test_layers_and_controls_choose(tmp_path) -> None:
    settings = run.ProbeSettings(layers=(2, 0), controls=(), items=(2,), trials=10)
    found = run.probe(small_model(), stimuli.years(16), settings, out=tmp_path)
    assert found["control"].values.tolist() == ["trained"]
    assert found["layer"].values.tolist() == [0, 2]
