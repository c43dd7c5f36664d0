"""Chromium with its driver, as it is installed; nothing is downloaded."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

READY_S = 60
"""A limit for a machine that is busy: a report takes a second."""


@contextmanager
def chromium() -> Iterator[webdriver.Chrome]:
    """Yield a browser without a window; a test without one is skipped, and fails in CI."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        reason = "no Chromium with its driver was found: install the packages chromium and chromium-driver"
        if os.environ.get("CI"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    options = Options()
    options.binary_location = browser
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--no-proxy-server",
        "--disable-background-networking",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield started
    finally:
        started.quit()


def is_ready(browser: webdriver.Chrome) -> bool:
    """Return whether the script of a report is done."""
    return bool(browser.execute_script("return document.documentElement.dataset.ready === 'yes'"))
