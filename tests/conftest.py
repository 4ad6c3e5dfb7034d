"""Fixtures that more than one room uses."""

import gc
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

APART = {
    "feedback/page/test_fifty_of_each.py",
    "functional/test_mutations.py",
    "mutation/test_algorithms.py",
    "oracle/test_verify.py",
}
"""Long files whose tests share nothing dear: any worker takes the next one. Every other file stays with one worker, so
that what a module's fixture trained or started is made once and not once per worker."""

# Nothing that is imported for the tests is garbage, and looking for some takes a fifth of the time.
gc.disable()


def pytest_collection_finish():
    gc.freeze()
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    if not hasattr(config, "workerinput"):  # set where xdist runs
        return
    for item in items:
        file = item.path.relative_to(ROOT / "tests").as_posix()
        if file not in APART:
            item.add_marker(pytest.mark.xdist_group(file))


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Real data sets: the folder named by ASSENT_DATA, else `shared/data` beside the checkout; absent means skip."""
    named = os.environ.get("ASSENT_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set ASSENT_DATA to the folder that holds it")
    return folder
