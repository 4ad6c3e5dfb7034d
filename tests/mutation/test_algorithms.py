"""Planted slips in the algorithms: the tests named for each file must catch every one."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import assent.algorithms
from tests.functional.test_mutations import bare
from tests.mutation.slips import SLIPS

FOLDER = Path(assent.algorithms.__file__).parent
ROOT = Path(__file__).resolve().parents[2]
CHECKS = re.compile(r"    def __post_init__.*?\n\n", re.DOTALL)
PLACE = "    # checks of settings\n"
CASES = [(name, old, new) for name, of in SLIPS.items() for old, new in of.slips]


@pytest.fixture(scope="session")
def server():
    """One process that forks; torch is loaded once."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.mutation.fork_server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment,
    )
    yield process
    process.stdin.close()
    process.wait(30)


def judged(server, name: str, source: str) -> str:
    """How the tests of a file end when its source is this one."""
    path = str(FOLDER / f"{name}.py")
    request = {"module": f"assent.algorithms.{name}", "source": source, "path": path, "tests": SLIPS[name].tests}
    server.stdin.write(json.dumps(request) + "\n")
    server.stdin.flush()
    return json.loads(server.stdout.readline())


def slipped(name: str, old: str, new: str) -> str:
    source = (FOLDER / f"{name}.py").read_text()
    # What is refused of settings names them all and stands before the maths: a slip there would be no slip.
    checks = CHECKS.search(source)
    kept = checks.group() if checks else ""
    maths = source.replace(kept, PLACE, 1) if kept else source
    assert old in maths, f"the slip no longer fits {name}.py; write it anew for the code as it is"
    changed = maths.replace(old, new, 1).replace(PLACE, kept)
    assert bare(changed) != bare(source), "the slip fell into a docstring or a comment; name more of the line"
    return changed


@pytest.mark.parametrize("name", SLIPS)
def test_the_tests_accept_the_code(server, name):
    assert judged(server, name, (FOLDER / f"{name}.py").read_text()) == "survived"


@pytest.mark.parametrize(("name", "old", "new"), CASES)
def test_the_tests_catch(server, name, old, new):
    assert judged(server, name, slipped(name, old, new)) == "caught"


def test_no_slip_is_planted_twice_and_survivors_have_their_reason():
    assert len(set(CASES)) == len(CASES) >= 60
    assert all(len(reason) > 20 for of in SLIPS.values() for *_, reason in of.survivors)
