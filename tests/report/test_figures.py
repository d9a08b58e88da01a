"""The figures: what they draw is what the store holds, and what stands under them is complete."""

import re
from xml.etree import ElementTree

import matplotlib
import matplotlib.image
import numpy as np
import pytest
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection, PolyCollection

from jaxdyn import store
from jaxdyn.report import captions, figures, palette, source
from tests.report import synthetic

NEVER = r"\bstable\b(?! rank)|chaotic|attractor|non-normal|learned|functional module|Lyapunov|exact Jacobian"


def band_corners(ax):
    """Corners (x, y) of the null band of a panel."""
    return np.asarray(next(item for item in ax.collections if isinstance(item, PolyCollection)).get_paths()[0].vertices)


def texts(figure):
    """All words of a figure, axes included, with line breaks undone."""
    words = [text.get_text() for text in figure.texts]
    for ax in figure.axes:
        words += [ax.get_title(), ax.get_xlabel(), ax.get_ylabel(), *(text.get_text() for text in ax.texts)]
    for legend in figure.legends:
        words += [text.get_text() for text in legend.get_texts()]
    return " ".join(" ".join(words).split())


@pytest.mark.parametrize("draw", [figures.depth_profiles, figures.eigenvalues, figures.bottleneck])
def test_every_caption_says_what_was_measured_beside_which_null(tree, draw):
    words = texts(draw(tree))
    for part in (
        "In-context Jacobian",
        "derivative: exact",
        "metric: raw",
        "model: invented-$64d",
        "Samples: 16; prompts: 16; articles: 8",
        "tokens: last",
        "BOS: yes",
        "N1 (t I + U S V",
        "N1 has 8 draws a matrix, seed 0",
        "survives averaging, norm(mean A)² / mean norm(A)²: 0.13 to 0.40",
    ):
        assert part in words
    assert "not recorded" not in words
    assert not re.search(NEVER, words, re.IGNORECASE)


@pytest.mark.parametrize("draw", [figures.depth_profiles, figures.eigenvalues, figures.bottleneck])
def test_without_n1_and_unfinished_the_caption_says_so(unfinished, draw):
    words = texts(draw(store.open_tree(unfinished)))
    assert "N1 was not computed, so nothing here speaks of structure" in words
    assert "The run is not finished: 8 of 16 samples." in words
    assert "draws a matrix" not in words
    assert "survives averaging" not in words


@pytest.mark.parametrize("draw", [figures.depth_profiles, figures.eigenvalues, figures.bottleneck])
def test_nothing_is_clipped_and_captions_do_not_touch_axes(tree, draw):
    figure = draw(tree)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    page = figure.bbox
    for text in (*figure.texts, *(label for legend in figure.legends for label in legend.get_texts())):
        box = text.get_window_extent(renderer)
        assert page.x0 <= box.x0
        assert box.x1 <= page.x1
        assert page.y0 <= box.y0
        assert box.y1 <= page.y1
    caption = figure.texts[0].get_window_extent(renderer)
    for ax in figure.axes:
        tight = ax.get_tightbbox(renderer)
        assert tight is not None
        assert tight.y0 > caption.y1
        assert tight.x1 <= page.x1
        assert tight.y1 < min(legend.get_window_extent(renderer).y0 for legend in figure.legends)


def test_profiles_draw_mean_band_and_closed_form(tree):
    figure = figures.depth_profiles(tree)
    assert len(figure.axes) == 16
    ax = figure.axes[0]
    assert ax.get_title() == "Henrici departure, normalised"
    assert ax.get_ylabel() == "block J"
    root = tree.to_dataset()
    block = root.sel(part="block")
    mean = block["henrici_normalized"].mean("sample").values
    drawn = [line.get_ydata() for line in ax.lines]
    assert any(np.shape(y) == mean.shape and np.allclose(y, mean, rtol=1e-6) for y in drawn)
    n0 = block["henrici_normalized_null"].sel(rung="N0").mean("sample").values
    dashed = [np.asarray(line.get_ydata()) for line in ax.lines if line.get_linestyle() == "--"]
    np.testing.assert_allclose(dashed[0], n0, rtol=1e-6)
    n1 = block["henrici_normalized_null"].sel(rung="N1").mean("sample").values
    sd = block["henrici_normalized_null_sd"].sel(rung="N1").mean("sample").values
    band = band_corners(ax)
    assert band[:, 1].min() == pytest.approx((n1 - 2 * sd).min(), rel=1e-5)
    assert band[:, 1].max() == pytest.approx((n1 + 2 * sd).max(), rel=1e-5)
    update = root.sel(part="update")["henrici_normalized"].mean("sample").values
    below = next(ax for ax in figure.axes if ax.get_ylabel() == "update J - I")
    assert any(np.shape(line.get_ydata()) == update.shape and np.allclose(line.get_ydata(), update, rtol=1e-6)
               for line in below.lines)  # fmt: skip


def test_a_measure_the_store_lacks_is_left_out(tree):
    figure = figures.depth_profiles(tree, measures=("self_alignment", "kreiss_scaled"))
    assert [ax.get_title() for ax in figure.axes] == ["self-alignment", ""]


def test_clouds_hold_every_eigenvalue_or_say_how_many(tree):
    figure = figures.eigenvalues(tree)
    assert [ax.get_title() for ax in figure.axes] == ["layer 0", "layer 3", "layer 5"]
    block = tree.to_dataset().sel(part="block", layer=3)
    ax = figure.axes[1]
    clouds = [item.get_offsets() for item in ax.collections if isinstance(item, PathCollection)]
    for cloud, name in zip(clouds, ("eigenvalues_null", "eigenvalues"), strict=True):
        points = block[name].values.ravel()
        np.testing.assert_allclose(np.asarray(cloud), np.stack([points.real, points.imag], axis=1), rtol=1e-6)
    assert ax.get_aspect() == 1.0
    assert any(np.allclose(np.hypot(*line.get_data()), 1.0) for line in ax.lines)
    assert "evenly spaced" not in texts(figure)
    thinned = figures.eigenvalues(tree, layers=[2], max_points=100)
    assert len(np.asarray(thinned.axes[0].collections[0].get_offsets())) == 4 * 24
    assert "Eigenvalues of 4 of the 16 samples, evenly spaced." in texts(thinned)


def test_eigenvalues_outside_the_view_are_counted(tmp_path):
    path = synthetic.write(tmp_path / "results.zarr", samples=16, unit_size=16, layers=1, units_done=0)
    results = store.open_for_resume(path, {"settings": {"truncate": None}})
    data = synthetic.unit(0, 16, layers=1)
    data["eigenvalues"][0, 0, 0, :2] = [50 + 1j, 50 - 1j]
    results.write_unit(0, data)
    figure = figures.eigenvalues(store.open_tree(path))
    assert re.search(r"outside: [2-9] measured", texts(figure))
    assert figure.axes[0].get_xlim()[1] < 10


def test_product_draws_prompts_means_and_laws(tree):
    figure = figures.bottleneck(tree)
    ax = figure.axes[1]
    assert ax.get_title() == "participation ratio"
    assert ax.get_yscale() == "log"
    group = tree["cumulative"].to_dataset()
    drawn = {str(line.get_label()): np.asarray(line.get_ydata()) for line in ax.lines}
    for label, name in {
        "measured, mean over samples": "participation_ratio",
        "product of the mean Jacobians": "mean_participation_ratio",
        "free-product law (N3)": "free_product_participation_ratio",
        "Ginibre (N0)": "ginibre_participation_ratio",
    }.items():
        values = group[name].mean("prompt_sample").values if "prompt_sample" in group[name].dims else group[name].values
        np.testing.assert_allclose(drawn[label], values, rtol=1e-6)
    thin = [line for line in ax.lines if line.get_color() == palette.colour("fan") and np.size(line.get_xdata())]
    assert len(thin) == 16
    assert "N2 (rotated layers) and N5 (random initialisation) are not shown" in texts(figure)
    assert "without truncation" in texts(figure)
    for law in ("free-product law (N3): invented free_product_participation_ratio.", "Ginibre (N0): invented gin"):
        assert law in texts(figure)


def test_save_all_writes_readable_files_and_leaves_no_state(tree, tmp_path):
    before = dict(matplotlib.rcParams)
    written = figures.save_all(tree, tmp_path, formats=("png",))
    assert dict(matplotlib.rcParams) == before
    stems = ["depth_profiles", "depth_excess", "budget", "bottleneck", "eigenvalues", "directions", "energy",
             "pseudospectra"]  # fmt: skip
    assert [path.name for path in written] == [f"{stem}.png" for stem in stems] + ["card.png"]
    for path in written:
        image = matplotlib.image.imread(path)
        assert image.shape[1] >= 900
        assert image[..., :3].std() > 0.03
    assert matplotlib.image.imread(tmp_path / "card.png").shape[:2] == (630, 1200)


def test_one_layer_one_sample_one_part_still_draws(tmp_path):
    path = synthetic.write(tmp_path / "results.zarr", samples=1, unit_size=1, layers=1, parts=("block",))
    figure = figures.depth_profiles(store.open_tree(path))
    assert len(figure.axes) == 8
    assert np.ptp(band_corners(figure.axes[0])[:, 0]) == pytest.approx(0.6)
    attention = synthetic.write(tmp_path / "other.zarr", samples=2, unit_size=1, layers=1, parts=("attention",))
    written = figures.save_all(store.open_tree(attention), tmp_path, formats=("svg",))
    names = [path.name for path in written]
    assert names == ["depth_profiles.svg", "depth_excess.svg", "bottleneck.svg", "directions.svg", "energy.svg",
                     "pseudospectra.svg", "card.png"]  # fmt: skip
    assert all(ElementTree.parse(path).getroot().tag.endswith("svg") for path in written[:-1])


def test_two_stores_are_told_apart_in_every_file_and_nothing_is_clipped(results, tmp_path):
    other = synthetic.write(tmp_path / "results.zarr", samples=4, unit_size=4, layers=3, width=16)
    drawn = figures.charts(source.open_sources([results, other]))
    for name, figure in figures.draw_all(drawn).items():
        FigureCanvasAgg(figure).draw()
        page = figure.bbox
        for text in (*figure.texts, *(label for legend in figure.legends for label in legend.get_texts())):
            box = text.get_window_extent()
            assert page.x0 <= box.x0, name
            assert box.x1 <= page.x1, name
        words = texts(figure)
        assert "A: invented-$64d" in words
        assert "B: invented-$64d" in words
        assert "width (24, 16)" in words or name not in ("depth_profiles", "depth_excess", "bottleneck", "energy")
    labels = [text.get_text() for text in figures.draw_all(drawn[:1])["depth_excess"].legends[0].get_texts()]
    assert labels == ["N1, mean ± 2 sd, A", "N1, mean ± 2 sd, B", "measured less N1, A", "measured less N1, B"]


def test_a_layer_that_failed_leaves_every_figure_drawable(failed):
    for figure in figures.draw_all(figures.charts(source.open_sources([failed]))).values():
        FigureCanvasAgg(figure).draw()


def test_surviving_energy_prefers_the_unbiased_one_where_it_has_a_value(tree):
    mean = tree["mean"].to_dataset()
    biased = captions.energy_caption(tree)
    assert "norm(mean A)² / mean norm(A)²: 0.13 to 0.40 over the layers" in biased
    for values, expected in (
        (mean["surviving_energy"] - 0.1, "0.03 to 0.30"),
        (mean["surviving_energy"] * np.nan, None),
    ):
        changed = xr.DataTree.from_dict({"/mean": mean.assign(surviving_energy_split=values)})
        words = captions.energy_caption(changed)
        assert words == biased if expected is None else ("two halves" in words and expected in words)
    assert captions.energy_caption(xr.DataTree.from_dict({"/": mean})) == ""
