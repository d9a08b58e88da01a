"""Stage 7 of 7: profiles along depth, of a trajectory's density, continuity, speed and more, with controls."""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from .chart import Chart, Panel, Series

if TYPE_CHECKING:
    from .dynamics import Dynamics

MARKS = {
    "trained": ("measured", "trained"),
    "random": ("N5", "random initialisation"),
    "rotated": ("rotated", "random basis"),
    "skip": ("skip", "skip-matched noise"),
    "shuffled": ("shuffled", "units shuffled"),
}
"""Role and name of every row of the dimension `control`."""

CONTROLS = (
    "Controls: random initialisation (one seed, same architecture, same texts); a random orthogonal (Haar) basis; "
    "skip-matched noise, a point and isotropic noise as long as its step; unit identity shuffled at every point."
)
STEPS = "Step l goes from point l to the next; even steps cross an attention, odd ones an MLP."


def by_control(found: xr.Dataset, name: str, x: np.ndarray, **options) -> list[Series]:
    """Return a line for every control that the variable (control, ...) has, the measured one last and on top."""
    series = []
    for control in sorted(found["control"].values.tolist(), key="trained".__eq__):
        role, label = MARKS[control]
        y = found[name].sel(control=control).values
        if np.isfinite(y).any():
            series.append(Series(label, role, x, y, **options))
    return series


def steps_caption(one: "Dynamics") -> str:
    """Say which sublayer a step crosses."""
    return "Step l goes from the entry of block l to the next." if "one a block" in str(
        one.root.attrs.get("points")) else STEPS  # fmt: skip


def continuity_chart(one: "Dynamics") -> Chart | None:
    """Unit correlation between consecutive points and its distribution, beside the controls."""
    found = one.get("continuity")
    if found is None:
        return None
    x = found["step"].values
    mean = Panel("mean_correlation", "mean unit correlation with the next point", "step", "Pearson's r",
                 series=tuple(by_control(found, "mean_correlation", x)))  # fmt: skip
    units = found["unit_correlation"].sel(control="trained").values
    with np.errstate(invalid="ignore"):
        low, middle, high = (np.nanquantile(units, q, axis=-1) for q in (0.1, 0.5, 0.9))
    spread = Panel(
        "unit_correlation", "trained, single units", "step", "Pearson's r",
        series=(Series("units, 10 % to 90 %", "walk", x, middle, low, high), Series("median", "measured", x, middle)),
    )  # fmt: skip
    caption = one.caption(
        "Pearson's r over texts of a unit at a point and at the next (D2), mean over units.",
        CONTROLS,
        steps_caption(one),
        "Skip-matched noise is what the skip connection alone gives; only the distance from it is the model's.",
    )  # fmt: skip
    lead = "A residual stream is continuous by construction: read the distance from the skip-matched line."
    return Chart("dynamics_continuity", "Continuity of units along depth", "lines", caption, (mean, spread), (), lead)


def motion_chart(one: "Dynamics") -> Chart | None:
    """Cosine, speed, relative speed and acceleration along depth."""
    found = one.get("continuity")
    if found is None:
        return None
    x = found["step"].values
    words = {
        "cosine": "cosine of a point with the next (D3)",
        "relative_velocity": "step over state, norms (D4)",
        "velocity": "norm of the step (D4)",
        "turn": "cosine of a step with the next step",
    }
    panels = tuple(
        Panel(name, text, "step", series=tuple(by_control(found, name, x)), log="velocity" in name)
        for name, text in words.items()
    )
    caption = one.caption(
        "Mean over texts. Random basis and shuffled units are not shown: the first leaves all of these as they are.",
        "Skip-matched noise has the measured steps' norms, so speeds agree with it by construction.",
        steps_caption(one),
    )  # fmt: skip
    return Chart("dynamics_motion", "Direction and speed along depth", "lines", caption, panels, (), "")


def density_chart(one: "Dynamics") -> Chart | None:
    """All estimators of density along depth."""
    found = one.get("density")
    if found is None:
        return None
    x = found["point"].values
    gaussian = {"mean_abs_relative": np.sqrt(2 / np.pi), "share_above_rms": 0.31731050786291415, "kurtosis": 3.0,
                "participation": 1 / 3}  # fmt: skip
    words = {
        "mean_abs": "mean abs(a)",
        "share_above": "share above tau",
        "mean_abs_relative": "mean abs(a) / rms",
        "share_above_rms": "share above rms",
        "kurtosis": "kurtosis over units",
        "participation": "participation ratio of a² / D",
    }
    panels = []
    for name, text in words.items():
        series = by_control(found, name, x)
        if name in gaussian:
            series.append(Series("Gaussian units, closed form", "N0", x, np.full(len(x), gaussian[name])))
        panels.append(Panel(name, text, "point", series=tuple(series), log=name in ("mean_abs", "kurtosis")))
    caption = one.caption(
        f"Density of the state (D1), mean over texts. tau = {found.attrs['tau']:.3g} "
        f"({found.attrs['tau_rule']}). Dashed: independent Gaussian units. A random basis makes any state nearly "
        "Gaussian:",
        "the distance between the two is what belongs to the units. Even points enter attention, odd ones the MLP.",
    )
    lead = "Mean abs(a) and the share above tau grow with the norm of the stream; the other four do not know of it."
    return Chart("dynamics_density", "Density of the state along depth", "lines", caption, tuple(panels), (), lead)


def information_chart(one: "Dynamics") -> Chart | None:
    """Mutual information along depth by both estimators, with floors and controls."""
    found = one.get("information")
    if found is None:
        return None
    x, panels = found["step"].values, []
    for name, text in (("ksg", f"KSG, k = {found.attrs['k']}"), ("binned", f"{found.attrs['bins']} equal-count bins")):
        series = by_control(found, f"mean_{name}", x)
        trained = found.sel(control="trained")
        series.append(Series("floor: Gaussian of the same r", "N0", x, trained["mean_gaussian"].values))
        series.append(Series("floor: samples shuffled", "floor", x, trained[f"mean_{name}_shuffled"].values))
        panels.append(Panel(name, text, "step", "nats, mean over units", series=tuple(series), zero=True))
    samples, bins = int(one.root.attrs["samples"]), int(found.attrs["bins"])
    few = f" {bins}² cells and {samples} samples: the binned estimate is mostly bias." if bins * bins > samples else ""
    caption = one.caption(
        f"I of a unit at a point and at the next (D5), mean over {found.attrs['units']} units. The Gaussian floor is "
        "what "
        "a linear dependence of the measured correlation has, the shuffle floor what the estimator gives where there "
        "is "
        f"nothing (its bias).{few} Texts that end in one token share the first state, and ties in a unit are "
        "information "
        "about the token.", CONTROLS, steps_caption(one),
    )  # fmt: skip
    lead = "What lies above the Gaussian floor is not linear; what skip-matched noise reaches is the skip connection's."
    return Chart("dynamics_information", "Mutual information of a unit with itself one step on", "lines", caption,
                 tuple(panels), (), lead)  # fmt: skip


def autoencoder_chart(one: "Dynamics") -> Chart | None:
    """Held-out R^2 of the autoencoders along depth, beside PCA with two components."""
    found = one.get("autoencoder")
    if found is None:
        return None
    x, panels, hidden = found["point"].values, [], 0
    for control in found["control"].values.tolist():
        at = found.sel(control=control)
        r2, linear = at["r2"].values, at["pca_r2"].values
        if not np.isfinite(r2).any():
            continue
        series = [Series(f"network {i}", "fan", x, _shown(r2[:, i])) for i in range(r2.shape[1])]
        series.append(Series("autoencoder, mean of networks", "measured", x, _shown(r2.mean(axis=1))))
        series.append(Series("null: PCA with two components", "linear", x, _shown(linear)))
        hidden += int((np.concatenate([r2.ravel(), linear]) < FLOOR).sum())
        title = "walk of noise steps" if control == "skip" else MARKS[control][1]
        panels.append(Panel(control, title, "point", "held-out R²", series=tuple(series)))
    trained = found.sel(control="trained")
    why = f" {hidden} values below {FLOOR:g} are not drawn: points where states scatter little on the pooled scale."
    below = why if hidden else ""
    caption = one.caption(
        f"Autoencoder {found.attrs['widths']} and back (D9), {found.sizes['network']} seeds; "
        f"{found.attrs['training_samples']} texts to train, {found.attrs['validation_samples']} to stop by, "
        f"{found.attrs['held_out_samples']} held out. R² at a point, about the training mean there; units standardised "
        f"over all points.{below} All points together: autoencoder {trained['pooled_r2'].values.mean():.3f}, PCA "
        f"{float(trained['pca_pooled_r2']):.3f}.",
        "Null: the best linear map of rank 2, PCA. Only the distance from it speaks of a curved surface.",
    )
    lead = "An R² says nothing alone: two principal components keep much of any cloud."
    return Chart("dynamics_autoencoder", "What two numbers keep of a state", "lines", caption, tuple(panels), (), lead)


def dimension_chart(one: "Dynamics") -> Chart | None:
    """Intrinsic dimension along depth, beside a Gaussian of the same covariance."""
    found = one.get("dimension")
    if found is None:
        return None
    x, panels = found["point"].values, []
    for control in found["control"].values.tolist():
        at = found.sel(control=control)
        y, error = at["dimension"].values, at["dimension_error"].values
        if np.isfinite(y).any():
            series = (
                Series("two-NN, ± 2 se", "measured", x, y, y - 2 * error, y + 2 * error),
                Series("null: Gaussian of the same covariance", "N0", x, at["gaussian_dimension"].values),
            )
            panels.append(Panel(control, MARKS[control][1], "point", "dimension", series=series, zero=True))
    if not panels:
        return None
    distinct = found["distinct"].sel(control="trained").values
    caption = one.caption(
        f"Two-NN intrinsic dimension (Facco et al. 2017) of {found.attrs['samples']} states at a point, equal once "
        "(distinct states: "
        f"{int(distinct.min())} to {int(distinct.max())}). Dashed: the same number of Gaussian states of the same "
        "covariance; few samples in many dimensions bring both down, so only their distance counts.",
    )
    lead = "Below the dashed line the cloud is curved or clustered; the number itself depends on N."
    return Chart("dynamics_dimension", "Intrinsic dimension along depth", "lines", caption, tuple(panels), (), lead)


def path_shape_chart(one: "Dynamics") -> Chart | None:
    """Curvature of the mean path and shares of variance, beside a random walk's."""
    found = one.get("path")
    if found is None:
        return None
    panels = []
    for control in ("trained", "random"):
        if control not in found["control"].values.tolist():
            continue
        at, words = found.sel(control=control), MARKS[control][1]
        point, component = found["point"].values, found["component"].values
        bend = (
            Series("measured", "measured", point, at["curvature"].values),
            Series("null: orthogonal steps of the same lengths", "N0", point, at["walk_curvature"].values),
        )  # fmt: skip
        panels.append(
            Panel(f"curvature_{control}", f"curvature of the mean path, {words}", "point", series=bend, log=True)
        )
        kept = (
            Series("measured", "measured", component, at["variance_share"].values),
            Series("null: mean path replaced by a walk", "linear", component, at["walk_variance_share"].values),
        )  # fmt: skip
        panels.append(
            Panel(f"share_{control}", f"share of the pooled variance, {words}", "component", series=kept, zero=True)
        )
    trained = found.sel(control="trained")
    caption = one.caption(
        "Menger curvature of the path of the mean state in all dimensions, and principal components of the pooled "
        "states "
        "(D8). Null: steps as long, of independent directions, which in many dimensions are orthogonal. End-to-end "
        f"distance over arc length: {float(trained['straightness']):.3f}, null "
        f"{float(trained['walk_straightness']):.3f}; "
        f"arc length {float(trained['arc_length'][-1]):.3g}.",
    )
    lead = "A path is curved where its steps are not parallel; orthogonal steps are what chance gives."
    return Chart("dynamics_path_shape", "Curvature and principal components", "lines", caption, tuple(panels), (), lead)


FLOOR = -1.0
"""R^2 below which nothing is drawn, or all else would be a line."""


def _shown(values: np.ndarray) -> np.ndarray:
    return np.where(values < FLOOR, np.nan, values)
