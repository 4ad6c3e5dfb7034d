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
