"""Headless Chromium for the page's tests: Debian's browser, a driver from PyPI, nothing of the user's."""

import shutil
from pathlib import Path

import pytest

ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
MISSING = "needs {}: install Debian's chromium and chromium-driver (apt-get install chromium chromium-driver) to run it"


def start(profile: Path, downloads: Path):
    """Start Chromium with a new profile; skips the test where browser or driver is missing."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install -e '.[test]'")
    places = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    for name, place in places.items():
        if place is None:
            pytest.skip(MISSING.format(name))
    options = webdriver.ChromeOptions()
    for argument in (*ARGUMENTS, f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.binary_location = places["chromium"]
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(places["chromedriver"]))
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)})
    return driver


def view(driver, *, width: int, dark: bool = False, printed: bool = False) -> None:
    """Set the size of the page's view, its colour scheme and its medium."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print" if printed else "", "features": scheme})
