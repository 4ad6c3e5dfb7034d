"""What runs on the card that is not there, each file in a process of its own.

To see one by itself: `ASSENT_CARD=1 python -m pytest tests/device/on_card`.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((Path(__file__).parent / "on_card").glob("test_*.py"))


def run(*arguments: str) -> None:
    """In this process a card would come with a thread of autograd's, and forking tests after it could not train."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "ASSENT_CARD": "1", "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *arguments]
    done = subprocess.run(command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_on_the_card(file: Path) -> None:
    run(str(file))


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("file", "chosen"), [("test_align.py", "ln_2"), ("test_online_parts.py", "restricted or stop_string")]
)
def test_what_holds_end_to_end_holds_on_the_card(file: str, chosen: str) -> None:
    run("-p", "tests.device.everywhere", f"tests/end_to_end/{file}", "-k", chosen)
