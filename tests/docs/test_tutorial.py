"""The tutorial is run, block by block, as a reader would.

A block whose first line is `# NAME.EXT` is a file of that name; a bash block is typed. Nothing else is a block.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "tutorial.md"
pytestmark = pytest.mark.timeout(900)  # fifty seconds of processor time, on whatever else the machine is doing
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
FILE = re.compile(r"# ([\w.-]+\.\w+)\n")


def shims(folder: Path) -> Path:
    """`python` and `assent` of this very interpreter, whatever is installed."""
    folder.mkdir()
    for name, command in {"python": sys.executable, "assent": f"{sys.executable} -m assent"}.items():
        (folder / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> tuple[Path, list[str]]:
    """The folder that the reader ends up with, and what each command printed."""
    work = tmp_path_factory.mktemp("reader")
    path = f"{shims(work / '.bin')}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    printed = []
    for language, block in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if named := FILE.match(block):
            (work / named[1]).write_text(block)
            continue
        assert language == "bash", f"a block is a named file or bash; got {language}"
        command = ["bash", "-euo", "pipefail", "-c", block]
        done = subprocess.run(
            command, cwd=work, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        printed.append(done.stdout + done.stderr)
    return work, printed


def test_every_stage_was_made(told):
    work, _ = told
    stages = {p.name.rsplit("-", 1)[0] for p in (work / "runs" / "kind").glob("*-*")}
    assert {"base", "sft", "reward", "policy", "verdict", "report"} <= stages


def test_the_policy_became_kinder_and_the_verdict_says_so(told):
    """What the page promises: the judge that nothing was trained on prefers the policy, beyond its interval."""
    work, _ = told
    (folder,) = (work / "runs" / "kind").glob("verdict-*")
    results = json.loads((folder / "results.json").read_text())
    assert results["verdicts"]["sampled"]["improved"] is True, results["verdicts"]


def test_the_second_run_repeats_nothing(told):
    work, printed = told
    changed = [p for p in (work / "runs" / "kind").glob("policy-*")]
    assert len(changed) == 2, "the override made a second policy and left the first alone"
    assert len(list((work / "runs" / "kind").glob("sft-*"))) == 1
    assert "coefficient" in printed[-1], "why names the setting that differs"
