"""Fixtures that more than one room uses."""

import gc
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Nothing that is imported for the tests is garbage, and looking for some takes a fifth of the time.
gc.disable()


def pytest_collection_finish():
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Real data sets: the folder named by ASSENT_DATA, else `shared/data` beside the checkout; absent means skip."""
    named = os.environ.get("ASSENT_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set ASSENT_DATA to the folder that holds it")
    return folder


@pytest.fixture(scope="module")
def chromium():
    """A browser for the tests of one file. Playwright's loop runs in the thread of the tests as long as the browser
    lives, and neither a second one nor `asyncio.run` can start beside it: so it does not outlive the file."""
    from tests.feedback.page.browser import started

    driver, browser = started()
    yield browser
    browser.close()
    driver.stop()
