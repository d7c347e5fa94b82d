"""Debian's chromium without a window, for tests and benchmarks of pages."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAMS = ("chromium", "chromedriver")
MISSING = "needs Debian's packages chromium and chromium-driver: `make packages`, as root"
_ARGUMENTS = (
    "--headless=new",
    # The sandbox refuses to run as root.
    "--no-sandbox",
    "--disable-gpu",
    # /dev/shm of a container is small.
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-proxy-server",
)


def is_installed() -> bool:
    """Whether the browser and its driver are on PATH."""
    return all(shutil.which(name) for name in PROGRAMS)


@contextmanager
def browser(width: int = 1500, height: int = 900) -> Iterator[webdriver.Chrome]:
    """A browser with a fresh profile."""
    options = Options()
    browser_path, driver_path = (shutil.which(name) for name in PROGRAMS)
    options.binary_location = browser_path or ""
    for argument in _ARGUMENTS:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(driver_path))
    try:
        resize(driver, width, height)
        yield driver
    finally:
        driver.quit()


def resize(driver: webdriver.Chrome, width: int, height: int) -> None:
    """Give the page another size in pixels."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def prefer(driver: webdriver.Chrome, **features: str) -> None:
    """Set media features, such as prefers_color_scheme='dark'."""
    named = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": named})
