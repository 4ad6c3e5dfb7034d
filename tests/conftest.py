"""Fixtures that more than one room uses."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Real data sets: the folder named by ASSENT_DATA, else `shared/data` beside the checkout; absent means skip."""
    named = os.environ.get("ASSENT_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set ASSENT_DATA to the folder that holds it")
    return folder
