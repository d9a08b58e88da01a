"""The page in headless Chromium: it draws, it answers, it asks nothing of the network, it fits phone and desk."""

import csv
import json
import time

import numpy as np
import pytest

from jaxdyn import store
from jaxdyn.report import figures, page, source
from tests.report import browser, synthetic

HOSTILE = ("</script><script>alert(1)</script>", "<img src=x onerror=alert(2)>", ' "quoted", and\nbroken')


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """One browser for all tests."""
    downloads = tmp_path_factory.mktemp("downloads")
    started = browser.start(tmp_path_factory.mktemp("profile"), downloads)
    started.downloads = downloads
    yield started
    started.quit()


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A store whose tokens and model are script tags, and its page."""
    folder = tmp_path_factory.mktemp("hostile")
    path = synthetic.write(folder / "results.zarr", samples=8, unit_size=8, layers=5, tokens=HOSTILE, model=HOSTILE[0])
    write(folder / "report.html", path)
    return folder


def table(file):
    """Rows of a downloaded file."""
    with file.open(newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


def write(file, *stores):
    sources = source.open_sources(stores)
    file.write_text(page.page_html(sources, figures.charts(sources)), encoding="utf-8")
    return file


def visit(driver, file, **how):
    """Open a page and return what the browser complained about and what it asked for besides the page."""
    browser.view(driver, **{"width": 1440, **how})
    for log in ("browser", "performance"):
        driver.get_log(log)  # reading it empties it
    driver.get(file.as_uri())
    deadline = time.monotonic() + 20
    while (
        driver.execute_script("return document.documentElement.dataset.drawn") is None and time.monotonic() < deadline
    ):
        time.sleep(0.05)
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    return driver.get_log("browser"), [url for url in asked if not url.startswith(("file:", "data:"))]


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("dark", [False, True])
def test_it_renders_without_complaint_without_network_and_without_overflow(driver, hostile, width, dark):
    complaints, asked = visit(driver, hostile / "report.html", width=width, dark=dark)
    assert complaints == []
    assert asked == []
    assert driver.execute_script("return document.documentElement.dataset.drawn") == "7"
    sections = driver.execute_script("return [...document.querySelectorAll('section')].map(s => s.id)")
    assert sections[0] == "measures"
    assert sections[1] == "depth_profiles"
    wide = driver.execute_script("return [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert wide[0] == wide[1] == width
    outside = driver.execute_script(
        "return [...document.querySelectorAll('section *')].filter(e => !e.closest('svg')"
        " && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"
    )
    assert outside == []
    paper = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(20, 23, 27)") == dark


def test_the_browser_tests_see_an_error_a_request_and_an_overflow(driver, tmp_path):
    file = tmp_path / "bad.html"
    body = "<body><div style='width:3000px'>x</div><img src='http://127.0.0.1:9/x.png'><script>throw 1</script>"
    file.write_text(f"<!doctype html><html data-drawn=1>{body}</html>")
    complaints, asked = visit(driver, file, width=390)
    time.sleep(0.3)
    assert complaints or driver.get_log("browser")
    assert asked == ["http://127.0.0.1:9/x.png"]
    assert driver.execute_script("return document.documentElement.scrollWidth") > 390


def test_a_layer_that_failed_draws_without_complaint(driver, failed, tmp_path):
    complaints, _ = visit(driver, write(tmp_path / "report.html", failed), width=390)
    assert complaints == []
    drawn = driver.execute_script("return document.getElementById('report').innerHTML")
    assert "NaN" not in drawn
    assert "undefined" not in drawn


def test_hostile_text_is_text(driver, hostile):
    visit(driver, hostile / "report.html")
    assert driver.execute_script("return document.scripts.length") == 2
    assert driver.execute_script("return document.images.length") == 0
    words = driver.execute_script("return [...document.querySelectorAll('.token')].map(t => t.textContent)")
    assert HOSTILE[0] in words
    assert HOSTILE[1] in words
    assert driver.execute_script("return document.querySelector('h1').textContent") == HOSTILE[0]


def test_the_switch_shows_the_excess_and_back(driver, results, tmp_path):
    visit(driver, write(tmp_path / "report.html", results))
    first = "document.querySelector('#depth_profiles .panel.big"
    path = f"return {first} path.s.measured').getAttribute('d')"
    raw = driver.execute_script(path)
    labels = f"return [...{first} svg').querySelectorAll('.label')].map(t => t.textContent)"
    assert "N0, closed form" in driver.execute_script(labels)
    click = "document.querySelector('#depth_profiles input[value={}]').click()"
    driver.execute_script(click.format("excess"))
    assert driver.execute_script(path) != raw
    assert sorted(driver.execute_script(labels)) == ["N1, mean ± 2 sd", "measured less N1"]
    driver.execute_script(click.format("raw"))
    assert driver.execute_script(path) == raw


def test_pointer_and_arrow_keys_read_the_values(driver, results, tmp_path):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    visit(driver, write(tmp_path / "report.html", results))
    plot = driver.find_element(By.CSS_SELECTOR, "#depth_profiles .panel.big svg")
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", plot)
    tip = driver.find_element(By.ID, "tip")
    assert not tip.is_displayed()
    ActionChains(driver).move_to_element(plot).perform()
    assert tip.is_displayed()
    assert "measured" in tip.text
    ActionChains(driver).move_to_element(driver.find_element(By.TAG_NAME, "h1")).perform()
    # by keyboard: the last control before the plot, then Tab
    driver.find_elements(By.CSS_SELECTOR, "#depth_profiles .controls input")[-1].send_keys(Keys.TAB)
    assert driver.switch_to.active_element == plot
    plot.send_keys(Keys.END)
    mean = store.open_tree(results).to_dataset().sel(part="block")["henrici_normalized"].mean("sample").values
    assert f"layer {len(mean) - 1}" in tip.text
    assert f"measured: {mean[-1]:.3f}" in tip.text
    plot.send_keys(Keys.ARROW_LEFT)
    assert f"measured: {mean[-2]:.3f}" in tip.text
    assert f"measured: {mean[-2]:.3f}" in driver.execute_script("return document.getElementById('say').textContent")
    plot.send_keys(Keys.ESCAPE)
    assert not tip.is_displayed()


def test_the_downloaded_numbers_are_those_of_the_store(driver, hostile):
    visit(driver, hostile / "report.html")
    for name in ("depth_profiles", "directions", "measures"):
        driver.execute_script(f"document.querySelector('[data-csv={name}]').click()")
    files = {name: driver.downloads / f"{name}.csv" for name in ("depth_profiles", "directions", "measures")}
    deadline = time.monotonic() + 20
    while not all(file.exists() for file in files.values()) and time.monotonic() < deadline:
        time.sleep(0.05)
    rows = {name: table(file) for name, file in files.items()}
    tree = store.open_tree(hostile / "results.zarr")
    stored = tree.to_dataset().sel(part="block")["symmetry_gap"].mean("sample", dtype=np.float64).values
    wanted = {"group": "block", "panel": "symmetry_gap", "role": "measured", "view": "raw"}
    kept = [row for row in rows["depth_profiles"] if wanted.items() <= row.items()]
    np.testing.assert_allclose([float(row["y"]) for row in kept], stored, rtol=1e-8)
    assert [row["token"] for row in rows["directions"][:3]] == tree["decoded"].to_dataset()["tokens"].values[
        0, 0, 0, 0
    ].tolist()
    (row,) = [row for row in rows["measures"]
              if (row["part"], row["measure"], row["layer"]) == ("update", "symmetry_gap", "2")]  # fmt: skip
    stored = tree.to_dataset().sel(part="update", layer=2)["symmetry_gap"].mean("sample", dtype=np.float64)
    assert float(row["mean"]) == pytest.approx(float(stored), rel=1e-8)


def test_the_table_follows_its_controls(driver, results, tmp_path):
    visit(driver, write(tmp_path / "report.html", results))
    cell = "return document.querySelector('#measures tbody td').textContent"
    name = driver.execute_script("return document.querySelector('#measures tbody th').firstChild.textContent")
    assert name == "Henrici departure, normalised"
    root = store.open_tree(results).to_dataset()["henrici_normalized"]
    assert driver.execute_script(cell) == f"{float(root.sel(part='block').mean()):.3f}"
    driver.execute_script("document.querySelector('#measures input[value=update]').click()")
    driver.execute_script(
        "const s = document.querySelector('#measures select'); s.value = '6'; s.dispatchEvent(new Event('change'))"
    )
    assert driver.execute_script(cell) == f"{float(root.sel(part='update', layer=5).mean()):.3f}"


def test_two_stores_are_told_apart_by_name_and_colour(driver, results, hostile, tmp_path):
    complaints, asked = visit(driver, write(tmp_path / "report.html", results, hostile), width=390)
    assert (complaints, asked) == ([], [])
    assert driver.execute_script("return document.documentElement.scrollWidth") == 390
    colours = driver.execute_script(
        "return [...document.querySelectorAll('#depth_profiles .panel.big path.s.measured')]"
        ".map(p => getComputedStyle(p).stroke)"
    )
    assert len(set(colours)) == 2
    key = driver.execute_script("return document.querySelector('#depth_profiles .key').textContent")
    assert "measured, A" in key
    assert "measured, B" in key


def test_print_is_light_and_says_what_was_chosen(driver, results, tmp_path):
    visit(driver, write(tmp_path / "report.html", results), dark=True, printed=True)
    assert driver.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert driver.execute_script(
        "return [...document.querySelectorAll('#depth_profiles .switch span')].filter(e => e.checkVisibility())"
        ".map(e => e.textContent)"
    ) == ["raw", "block J"]
    assert driver.execute_script("return document.querySelectorAll('svg.plot').length") > 10
