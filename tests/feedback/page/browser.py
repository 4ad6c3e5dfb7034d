"""A real browser on a real server: Debian's Chromium, driven by Playwright; tests skip where either is absent."""

import contextlib
import os
import shutil
import socket
import threading
import time
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


@contextlib.contextmanager
def served(app):
    """The application on a free port of this machine; yields its address."""
    uvicorn = pytest.importorskip("uvicorn")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 20
    while not server.started and time.monotonic() < until:
        time.sleep(0.02)
    assert server.started
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)
