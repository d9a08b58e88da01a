"""D9 of a model: how much of a held-out state two numbers keep, at every point, beside the best linear map of rank 2.

R^2 = 1 - sum (x - x')^2 / sum (x - m)^2 over held-out samples and units, m the mean of the training samples at that
point: 0 is what a reader knows who knows the depth alone. An R^2 has a null: that of PCA with two components, fitted on
the same training states. Only what the autoencoder has above it is curvature.
"""

import hashlib
import json
import shutil

import numpy as np
import xarray as xr

from jaxdyn.store import open_tree

from .autoencoder import BATCH, reconstruct, train, widths
from .path import principal
from .rows import Rows
from .stages import Inputs, labelled

ROWS = ("trained", "random", "skip")
FOLDER = "dynamics-checkpoints"


def stage(inputs: Inputs) -> xr.Dataset:
    """Train on the states of every control, and compare with PCA on held-out samples."""
    states, settings = inputs.states, inputs.settings
    rows = [row for row in inputs.rows() if row in ROWS]
    stored = json.dumps(open_tree(states.store.path).attrs["settings"])
    place = inputs.folder / FOLDER / hashlib.sha256(stored.encode()).hexdigest()[:12]
    shape = (states.points, settings.networks)
    names = {"r2": shape, "pca_r2": shape[:1], "pooled_r2": shape[1:], "pca_pooled_r2": (), "best_epoch": shape[1:],
             "validation": (settings.epochs, settings.networks)}  # fmt: skip
    found: dict[str, dict[str, np.ndarray]] = {name: {} for name in names}
    counts = np.zeros(3, int)
    for number, row in enumerate(rows):
        data = Rows(states, row, settings.seed, BATCH)
        counts = np.bincount(data.part, minlength=3)
        trained = train(
            data.epoch,
            data.held(1).reshape(-1, states.width),
            inputs=states.width,
            networks=settings.networks,
            epochs=settings.epochs,
            seed=settings.seed,
            folder=place / row,
            tick=lambda epoch, number=number: inputs.tick(
                "autoencoder epochs", number * settings.epochs + epoch, len(rows) * settings.epochs
            ),
        )
        inputs.tick("autoencoder epochs", (number + 1) * settings.epochs, len(rows) * settings.epochs)
        at_point, held = _point_means(data), data.held(2)
        flat = held.reshape(-1, states.width)
        again = reconstruct(trained.parameters, flat, states.width).reshape(settings.networks, *held.shape)
        linear = (flat @ (basis := _pca(data)) @ basis.T).reshape(held.shape)
        found["r2"][row] = np.stack([share(held, one, at_point) for one in again], axis=-1)
        found["pca_r2"][row] = share(held, linear, at_point)
        found["pooled_r2"][row] = np.array([pooled_share(held, one) for one in again])
        found["pca_pooled_r2"][row] = np.array(pooled_share(held, linear))
        found["best_epoch"][row] = trained.epochs.astype(np.float64)
        curve = np.full((settings.epochs, settings.networks), np.nan)
        curve[: len(trained.validation)] = trained.validation
        found["validation"][row] = curve
    shutil.rmtree(place, ignore_errors=True)
    words = {
        "r2": ("held-out R^2 of the autoencoder, about the training mean at the point", ("point", "network")),
        "pca_r2": ("null: held-out R^2 of PCA with two components, about the same mean", ("point",)),
        "pooled_r2": ("held-out R^2 of all points together, about the pooled mean", ("network",)),
        "pca_pooled_r2": ("null: that of PCA with two components", ()),
        "best_epoch": ("epoch of the best validation loss", ("network",)),
        "validation": ("validation loss, mean squared error of standardised units", ("epoch", "network")),
    }
    data_of = {
        name: labelled(text, ("control", *dims), inputs.by_control(found[name]), "D9")
        for name, (text, dims) in words.items()
    }
    about = dict(zip(("training_samples", "validation_samples", "held_out_samples"), counts.tolist(), strict=True))
    return xr.Dataset(data_of, {"epoch": np.arange(1, settings.epochs + 1)}).assign_attrs(
        widths="-".join(map(str, widths(states.width))), **about
    )


def share(x: np.ndarray, again: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """R^2 at every point, (P,): x and its reconstruction (s, P, D), the mean (P, D) that has R^2 = 0; NaN for 0/0."""
    missed = ((x - again).astype(np.float64) ** 2).sum(axis=(0, 2))
    total = ((x - mean).astype(np.float64) ** 2).sum(axis=(0, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0, 1 - missed / total, np.nan)


def pooled_share(x: np.ndarray, again: np.ndarray) -> float:
    """R^2 of all points together, about 0, the pooled mean of standardised units."""
    return float(1 - ((x - again).astype(np.float64) ** 2).sum() / (x.astype(np.float64) ** 2).sum())


def _point_means(data: Rows) -> np.ndarray:
    total, samples = np.zeros((data.states.points, data.states.width)), 0
    for chunk in data.standardised(0):
        total += chunk.sum(axis=0)
        samples += len(chunk)
    return total / samples


def _pca(data: Rows) -> np.ndarray:
    """Two components (D, 2) of the training rows, about 0, which is their mean."""
    total = np.zeros((data.states.width, data.states.width))
    for chunk in data.standardised(0):
        flat = chunk.reshape(-1, data.states.width).astype(np.float64)
        total += flat.T @ flat
    return principal(total, 2)[0].astype(np.float32)
