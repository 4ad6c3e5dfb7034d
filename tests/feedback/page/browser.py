"""A real browser on a real server: Debian's Chromium, driven by Playwright; tests skip where either is absent."""

import os
import shutil
from pathlib import Path

import pytest

CHROMIUM = os.environ.get("ASSENT_CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
    "--no-proxy-server",
]


def started():
    """Playwright's Chromium, or a skip that says what is missing."""
    api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
    if not Path(CHROMIUM).exists():
        pytest.skip(f"no browser at {CHROMIUM}; apt-get install chromium, or set ASSENT_CHROMIUM")
    driver = api.sync_playwright().start()
    return driver, driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=60_000)
