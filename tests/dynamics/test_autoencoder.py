"""The autoencoder recovers a planted surface that a plane does not; a killed training goes on to the same bits."""

import numpy as np
import pytest

from jaxdyn.dynamics import autoencoder, autoencoder_stage
from jaxdyn.dynamics.rows import Rows
from jaxdyn.dynamics.settings import DynamicsSettings
from tests.dynamics import cases


def surface(samples: int, points: int, width: int) -> np.ndarray:
    """States (S, P, D) on one bent surface of two dimensions."""
    rng = np.random.default_rng(3)
    u, v = rng.uniform(-1, 1, (2, samples, points))
    shape = np.stack([u, v, np.sin(2.5 * u), np.cos(2.5 * v), u * v, u**2], axis=-1)
    return shape @ rng.standard_normal((6, width))


def batches(data: np.ndarray):
    return lambda epoch: [np.random.default_rng(epoch).permutation(data)[:, None].reshape(-1, 32, data.shape[1])]


def test_a_planted_surface_is_recovered_and_a_plane_falls_short(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(autoencoder, "SAVE_EVERY", 100)
    settings = DynamicsSettings(controls=(), epochs=150, networks=2, unit=200)
    given = cases.inputs(tmp_path, surface(400, 4, 24)[None], settings)
    found = cases.run_stage("autoencoder", given).sel(control="trained")
    assert float(found["r2"].max("network").min()) > 0.97
    assert float(found["pooled_r2"].max()) > 0.97
    assert 0.3 < float(found["pca_pooled_r2"]) < 0.8
    assert (found["pca_r2"] < 0.8).all()
    rows = Rows(given.states, "trained", settings.seed, 256)  # the null again, by an SVD
    train, held = rows.held(0).astype(float), rows.held(2).astype(float)
    plane = np.linalg.svd(train.reshape(-1, 24), full_matrices=False)[2][:2]
    missed = ((held - held @ plane.T @ plane) ** 2).sum(axis=(0, 2))
    np.testing.assert_allclose(
        found["pca_r2"], 1 - missed / ((held - train.mean(axis=0)) ** 2).sum(axis=(0, 2)), atol=1e-5
    )
    assert found.attrs["widths"] == "24-16-16-16-2"
    assert sum(found.attrs[f"{part}_samples"] for part in ("training", "validation", "held_out")) == 400
    assert not list((tmp_path / autoencoder_stage.FOLDER).iterdir())  # nothing is left of finished trainings
    stages = [np.asarray(found["validation"]), np.asarray(found["best_epoch"])]
    assert np.nanargmin(stages[0][:, 0]) + 1 == stages[1][0]


def test_a_killed_training_goes_on_to_the_same_bits_and_options_matter(tmp_path) -> None:
    data = surface(64, 2, 6).reshape(-1, 6).astype(np.float32)
    options = {"inputs": 6, "networks": 2, "seed": 5}
    whole = autoencoder.train(batches(data), data, epochs=12, **options)

    class Killed(Exception):
        pass

    def kill(epoch: int) -> None:
        if epoch == 11:
            raise Killed

    with pytest.raises(Killed):
        autoencoder.train(batches(data), data, epochs=12, folder=tmp_path, tick=kill, **options)
    ticks: list[int] = []
    again = autoencoder.train(batches(data), data, epochs=12, folder=tmp_path, tick=ticks.append, **options)
    assert ticks == [11, 12]  # from the checkpoint after 10
    np.testing.assert_array_equal(again.validation, whole.validation)
    np.testing.assert_array_equal(again.loss, whole.loss)
    x = data[:5]
    np.testing.assert_array_equal(
        autoencoder.reconstruct(again.parameters, x, 6), autoencoder.reconstruct(whole.parameters, x, 6)
    )
    assert autoencoder.reconstruct(whole.parameters, x, 6).shape == (2, 5, 6)
    assert whole.validation[-1, 0] < whole.validation[0, 0]
    assert (whole.validation[0] != whole.validation[0, ::-1]).all()  # two networks


def test_a_network_stops_when_it_gets_no_better(tmp_path) -> None:
    rng = np.random.default_rng(0)
    data, other = rng.standard_normal((2, 128, 6)).astype(np.float32)
    found = autoencoder.train(batches(data), other * 3 + 4, inputs=6, networks=2, epochs=60, seed=0, patience=3)
    assert len(found.validation) < 60
    for network in range(2):
        curve = found.validation[:, network]
        best = int(found.epochs[network])
        assert curve[best - 1] == np.nanmin(curve)
        assert np.isnan(curve[best + 3 :]).all()


def test_widths_are_the_papers_scaled() -> None:
    assert autoencoder.widths(4096) == (4096, 1024, 256, 64, 2)
    assert autoencoder.widths(128) == (128, 32, 16, 16, 2)


def test_rows_are_split_by_sample_and_standardised_with_the_training_part(tmp_path, monkeypatch) -> None:
    states = np.random.default_rng(1).standard_normal((40, 3, 4)) * 7 + 2
    states[..., 2] = 5.0
    read = cases.stored(tmp_path, states[None], DynamicsSettings(controls=(), unit=8))
    rows = Rows(read, "trained", 0, 16)
    assert np.bincount(rows.part).tolist() == [28, 6, 6]
    train = states[rows.part == 0].reshape(-1, 4)
    np.testing.assert_allclose(rows.mean, train.mean(axis=0))
    np.testing.assert_allclose(rows.scale, np.where(np.arange(4) == 2, 1, train.std(axis=0)))
    scaled = ((states - rows.mean) / rows.scale).astype(np.float32)
    np.testing.assert_array_equal(rows.held(2), scaled[rows.part == 2])
    (piece,) = rows.epoch(0)
    assert piece.shape == (5, 16, 4)  # 84 rows; 4 of them do not fill a batch
    (again,), (other,) = rows.epoch(0), rows.epoch(1)
    np.testing.assert_array_equal(piece, again)
    assert not np.array_equal(piece, other)
    known = {row.tobytes() for row in scaled[rows.part == 0].reshape(-1, 4)}
    assert {row.tobytes() for row in piece.reshape(-1, 4)} <= known
    monkeypatch.setattr("jaxdyn.dynamics.rows.PIECE_BYTES", 1)
    few = Rows(read, "trained", 0, 4)
    pieces = list(few.epoch(0))
    assert len(pieces) == 5
    scaled = ((states - few.mean) / few.scale).astype(np.float32)
    known = {row.tobytes() for row in scaled[few.part == 0].reshape(-1, 4)}
    assert {row.tobytes() for one in pieces for row in one.reshape(-1, 4)} <= known
    assert np.bincount(few.part).tolist() == [38, 1, 1]  # what is held at once is bounded too
    assert few.training_rows == 38 * 3


def test_shares_of_variance() -> None:
    x = np.random.default_rng(2).standard_normal((30, 3, 5))
    mean = np.zeros((3, 5))
    np.testing.assert_allclose(autoencoder_stage.share(x, x, mean), 1)
    np.testing.assert_allclose(autoencoder_stage.share(x, 0 * x, mean), 0)
    np.testing.assert_allclose(autoencoder_stage.share(x, x / 2, mean), 0.75)
    assert autoencoder_stage.pooled_share(x, x / 2) == pytest.approx(0.75)
    assert np.isnan(autoencoder_stage.share(0 * x, x, mean)).all()
