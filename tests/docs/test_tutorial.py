"""The tutorial is run as a reader would, and keeps what it promises."""

import json
from pathlib import Path

import pytest

from tests.docs.reader import ROOT, read

PAGE = ROOT / "docs" / "tutorial.md"
pytestmark = pytest.mark.timeout(900)  # fifty seconds of processor time, on whatever else the machine is doing


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> tuple[Path, list[str]]:
    """The folder that the reader ends up with, and what each command printed."""
    work = tmp_path_factory.mktemp("reader")
    return work, read(PAGE, work)


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
