"""Running, skipping and recording."""

import itertools
from typing import Any

import pytest

from assent.doctor.report import Check, Finding, refusal, run, summary
from assent.errors import CheckFailed


def passing() -> Finding:
    return Finding(0.5, 1.0, "half")


def failing() -> Finding:
    raise refusal("D2", got="7 apples", why="they are pears", causes=("somebody mislabelled them", "it is autumn"))


def ticks() -> Any:
    return itertools.count().__next__


def test_results_come_in_order_with_figures_and_seconds():
    seen: list = []
    found = run([Check("D1", passing), Check("D5", passing)], (), seen.append, clock=ticks())
    assert [(r.name, r.outcome, r.figure, r.tolerance, r.seconds) for r in found] == [
        ("D1", "passed", 0.5, 1.0, 1),
        ("D5", "passed", 0.5, 1.0, 1),
    ]
    assert seen == [found]
    assert summary(found) == "first batch: 2 checks passed in 2.0 s"


def test_a_skipped_check_is_not_run_and_is_recorded():
    found = run([Check("D2", failing), Check("D1", passing)], ("D2",), lambda _: None, clock=ticks())
    assert [r.outcome for r in found] == ["skipped", "passed"]
    assert found[0].to_json()["outcome"] == "skipped"
    assert summary(found) == "first batch: 1 check passed in 1.0 s; skipped: D2"


def test_a_refusal_is_recorded_before_it_is_raised_and_teaches():
    seen: list = []
    with pytest.raises(CheckFailed) as caught:
        run([Check("D1", passing), Check("D2", failing), Check("D3", passing)], (), seen.append)
    assert [r.outcome for r in seen[0]] == ["passed", "failed"]
    text = str(caught.value)
    for part in (
        "D2 failed",
        "7 apples",
        "pears",
        "1. somebody mislabelled them",
        "2. it is autumn",
        "skip_checks: [D2]",
    ):
        assert part in text
